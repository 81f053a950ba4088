//! The rehearsal's places and its channel's server.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::context::{Context, Server};
use crate::external::{Program, Programs};
use crate::pins;

/// What `--source rehearsal` uses, all of it below the target directory.
pub struct Rehearsal {
    directory: PathBuf,
    source: PathBuf,
    port: u16,
}

impl Rehearsal {
    /// The places of this run.
    pub fn new(cx: &Context) -> Self {
        let directory = cx.target().join("rehearsal");
        Self { source: directory.join("source"), directory, port: cx.options.rehearsal_port }
    }

    /// The same with channel and base image of a bundle.
    pub fn with_source(self, source: PathBuf) -> Self {
        Self { source, ..self }
    }

    /// The directory that holds the source and the copies of workspaces.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `rehearsal make` writes.
    pub fn source(&self) -> PathBuf {
        self.source.clone()
    }

    /// The conda channel.
    pub fn channel(&self) -> PathBuf {
        self.source().join("channel")
    }

    /// The base image, an OCI archive.
    pub fn base(&self) -> PathBuf {
        self.source().join("base.oci.tar")
    }

    /// The address of the served channel. It stands in the lock, hence in the images, and so is the same everywhere.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The base image with a pixi inside, as the lesson's recipes need it.
    pub fn base_with_pixi(&self) -> PathBuf {
        self.source().join("pixi.oci.tar")
    }

    /// What that image is called where it is served.
    pub fn image(&self) -> String {
        format!("127.0.0.1:{}/{}", self.port, pins::REHEARSAL_IMAGE)
    }

    /// Puts pixi into the base image and serves it beside the channel.
    pub fn serve_with_image(&self, cx: &Context, programs: &Programs<'_>) -> Result<Option<Server>> {
        let image = cx.typed(&self.base_with_pixi());
        let pixi = programs.path(Program::PixiImage);
        let line = programs.command(Program::Rehearsal)?.arg("add-pixi").option("--base", cx.typed(&self.base()));
        cx.read(&line.option("--pixi", cx.typed(&pixi)).option("--out", &image))?;
        self.serve_also(cx, programs, &["--image", &image])
    }

    /// Serves the channel until the returned value goes; nothing in a dry run.
    pub fn serve(&self, cx: &Context, programs: &Programs<'_>) -> Result<Option<Server>> {
        self.serve_also(cx, programs, &[])
    }

    fn serve_also(&self, cx: &Context, programs: &Programs<'_>, more: &[&str]) -> Result<Option<Server>> {
        let channel = self.channel();
        if !cx.options.dry_run && !channel.is_dir() {
            bail!("there is no channel in {}\n  hint: `cargo xtask rehearse` makes it", cx.typed(&channel));
        }
        cx.ui.aside("in the background, until the command after it has ended:");
        let line = programs.command(Program::Rehearsal)?.arg("serve").option("--channel", cx.typed(&channel));
        let line = line.option("--port", self.port.to_string()).args(more.iter().copied());
        let server = cx.serve(&line)?;
        match &server {
            Some(server) if server.address.trim_end_matches('/') != self.url() => {
                bail!("the channel is served at {}, but the copy's pixi.toml says {}", server.address, self.url())
            }
            _ => Ok(server),
        }
    }
}
