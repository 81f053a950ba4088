//! The environments that are measured: made-up packages in the shape of a lock, or the rehearsal's real ones.

use anyhow::{Context as _, Result, ensure};

use crate::commands::bench::paths::Tool;
use crate::context::{Context, Server};
use crate::engine::Format;
use crate::external::{Program, Programs};
use crate::pins;
use crate::recipe;
use crate::rehearsal::Rehearsal;

/// The manifest of the rehearsal's packages: the exercise's environments, for the images' platform alone.
const MANIFEST: &str = "[workspace]\nname = \"bench\"\nchannels = [\"{url}\"]\nplatforms = [\"linux-64\"]\n\n\
    [feature.cpu.dependencies]\npytorch-cpu = \"*\"\n\n\
    [feature.gpu.system-requirements]\ncuda = \"12\"\n\n[feature.gpu.dependencies]\npytorch-gpu = \"*\"\n\n\
    [environments]\ncpu = [\"cpu\"]\ngpu = [\"gpu\"]\n";

/// Manifest and lock of no package at all: an image of these is the base's and nothing more.
const BARE: [(&str, &str); 2] = [
    ("pixi.toml", "[workspace]\nname = \"bare\"\nchannels = []\nplatforms = [\"linux-64\"]\n"),
    (
        "pixi.lock",
        "version: 6\nenvironments:\n  default:\n    channels: []\n    packages:\n      linux-64: []\npackages: []\n",
    ),
];

/// The package that changes unless another is named. The rehearsal has it, and so have most locks.
pub const VARIANT: &str = "numpy";

/// What is imitated.
pub struct Shape {
    /// The lock.
    pub lock: String,
    /// The share of the real sizes.
    pub scale: String,
}

/// One environment, with all that is made for it below one directory. Paths are as typed.
#[derive(Clone, Debug)]
pub struct Environment {
    /// How tables call it.
    pub title: String,
    /// The environment's name in the lock.
    pub name: &'static str,
    /// What it lies in.
    pub directory: String,
    /// The base image of all images.
    pub base: String,
    /// The package of which there is another build.
    pub variant: String,
}

impl Environment {
    /// The workspace.
    pub fn workspace(&self) -> String {
        format!("{}/workspace", self.directory)
    }

    /// The workspace whose lock has another build of one package.
    pub fn changed(&self) -> String {
        format!("{}/changed", self.directory)
    }

    /// The workspace without packages.
    pub fn bare(&self) -> String {
        format!("{}/bare", self.directory)
    }

    /// The channel, with both builds.
    pub fn channel(&self) -> String {
        format!("{}/channel", self.directory)
    }

    /// The cache of pixi-image, which is emptied again and again.
    pub fn cache(&self) -> String {
        format!("{}/cache", self.directory)
    }

    /// An image file.
    pub fn image(&self, name: &str) -> String {
        format!("{}/images/{name}", self.directory)
    }

    /// What the images of a program are called.
    pub fn reference(&self, tool: Tool) -> String {
        format!("pixi-bench-{}:{}", tool.name(), self.name)
    }
}

/// Makes channel, workspaces and recipes.
pub fn prepare(
    cx: &Context,
    programs: &Programs<'_>,
    out: &str,
    shape: Option<&Shape>,
    variant: &str,
) -> Result<Environment> {
    let rehearsal = Rehearsal::new(cx);
    let base = cx.typed(&rehearsal.base_with_pixi());
    let variant = variant.to_owned();
    let environment = match shape {
        None => {
            let title = "the rehearsal's packages".to_owned();
            Environment { title, name: "gpu", directory: format!("{out}/rehearsal"), base, variant }
        }
        Some(shape) => {
            let file = shape.lock.rsplit('/').next().unwrap_or(&shape.lock);
            let title = format!("the shape of {file}, scale {}", shape.scale);
            Environment { title, name: "default", directory: format!("{out}/shape"), base, variant }
        }
    };
    let line = programs.command(Program::Rehearsal)?;
    match shape {
        None => {
            let manifest = format!("{}/pixi.toml", environment.directory);
            cx.publish(&cx.resolve(&manifest), MANIFEST.replace("{url}", &rehearsal.url()).as_bytes())?;
            let line = line.arg("variant").option("--channel", cx.typed(&rehearsal.channel()));
            let line = line.option("--package", &environment.variant).option("--manifest", manifest);
            cx.read(&line.option("--out", &environment.directory).option("--url", rehearsal.url()))?;
        }
        Some(shape) => {
            let line = line.arg("shape").option("--lock", &shape.lock).option("--environment", environment.name);
            let line = line.option("--platform", pins::IMAGE_PLATFORM).option("--scale", &shape.scale);
            let line = line.option("--variant", format!("package={}", environment.variant));
            let line = line.option("--like", cx.typed(&rehearsal.channel()));
            cx.read(&line.option("--out", &environment.directory).option("--url", rehearsal.url()))?;
        }
    }
    write_recipes(cx, &environment, &rehearsal.image())?;
    Ok(environment)
}

fn write_recipes(cx: &Context, environment: &Environment, base: &str) -> Result<()> {
    for (name, text) in BARE {
        cx.publish(&cx.resolve(format!("{}/{name}", environment.bare())), text.as_bytes())?;
    }
    for workspace in [environment.workspace(), environment.changed(), environment.bare()] {
        cx.publish(&cx.resolve(format!("{workspace}/app/start.py")), b"pass\n")?;
    }
    for format in Format::ALL {
        for file in recipe::files(format)? {
            let path = cx.resolve(format!("{}/{}", environment.workspace(), file.name));
            cx.publish(&path, recipe::with_base(file.text, base).as_bytes())?;
        }
    }
    Ok(())
}

/// Serves the packages, and the base image as a registry would.
pub fn serve(cx: &Context, programs: &Programs<'_>, environment: &Environment) -> Result<Option<Server>> {
    let rehearsal = Rehearsal::new(cx);
    cx.ui.aside("in the background, while images are built:");
    let line = programs.command(Program::Rehearsal)?.arg("serve").option("--channel", environment.channel());
    let line = line.option("--port", cx.options.rehearsal_port.to_string()).option("--image", &environment.base);
    let server = cx.serve(&line).context("serve the packages")?;
    if let Some(server) = &server {
        let (at, wanted) = (server.address.trim_end_matches('/'), rehearsal.url());
        ensure!(at == wanted, "the channel is served at {at}, but the locks say {wanted}");
    }
    Ok(server)
}
