//! `pixi-image fetch`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use pixi_image::config::Config;
use pixi_image::http::{self, Client, Download, Expected, Source};
use pixi_image::model::Digest;
use pixi_image::progress::{Progress, Silent};
use pixi_image::publish::Pending;

use super::interrupt;
use super::report::Lines;

/// Download one file and check it.
#[derive(clap::Args)]
pub struct Fetch {
    /// An http, https or file URL, or a path.
    url: String,
    /// The 64 hex digits that its content must have.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Digest,
    /// The bytes that it must have.
    #[arg(long, value_name = "BYTES")]
    size: u64,
    /// Where it is put; appears only whole and right. A file that is there with other content is refused.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace a file that is there with other content.
    #[arg(long)]
    force: bool,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = super::probe::seconds)]
    timeout: Duration,
    /// A workspace whose .pixi/config.toml counts, too.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

fn sha256(text: &str) -> Result<Digest, String> {
    Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text)).map_err(|error| error.to_string())
}

/// What the file at `path` holds; none if there is no file.
fn digest_of(path: &Path) -> anyhow::Result<Option<Digest>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Digest::of(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Fetch {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(found) = digest_of(&self.out)? {
            if found == self.sha256 {
                Lines.phase(&format!("{} is there already, with the right content", self.out.display()));
                return Ok(ExitCode::SUCCESS);
            }
            anyhow::ensure!(
                self.force,
                "{} was changed: its content is {found}, expected {}\n  hint: keep it as it is, or replace it with --force",
                self.out.display(),
                self.sha256
            );
        }
        let source = Source::parse(&self.url)?;
        let expected = Expected { sha256: self.sha256, size: Some(self.size) };
        let client = Client::new(&Config::load(self.workspace.as_deref())?, http::CONNECT_TIMEOUT.min(self.timeout))?;
        let runtime = http::runtime()?;
        let mut pending = Pending::create(&self.out)?;
        let stop = AtomicBool::new(false);
        let download = Download { client: &client, source: &source, expected, progress: &Silent, stop: &stop };
        interrupt::watch(Arc::new(Lines))?;
        let done = runtime.block_on(async { tokio::time::timeout(self.timeout, download.run(&mut pending)).await });
        runtime.shutdown_background();
        done.with_context(|| format!("{} took longer than {} s", source.shown(), self.timeout.as_secs_f64()))??;
        pending.publish(0o644)?;
        Ok(ExitCode::SUCCESS)
    }
}
