//! `pixi-image bundle`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use pixi_image::bundle::{self, Contents, Opened};
use pixi_image::config::Config;

use super::report;
use super::{cache, interrupt};

/// Put all that builds need into one file, or take it out again where there is no network.
#[derive(clap::Args)]
pub struct Bundle {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pack(Pack),
    Open(Open),
}

/// Make a bundle: the packages of a lock, a base image, and other files.
///
/// Prints `bundle`, the digest of its list, its path, its bytes and the number of its files, separated by tabs.
#[derive(clap::Args)]
struct Pack {
    /// Where it is written; appears only whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A word for where packages and base come from
    #[arg(long, value_name = "WORD")]
    source: String,
    /// A lock whose packages are put in
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// An environment to put in; may be given several times, all of the lock if not given
    #[arg(long = "environment", value_name = "NAME")]
    environments: Vec<String>,
    /// The platform of the images: a conda subdir or the name of a row of the lock
    #[arg(long, value_name = "NAME", default_value = "linux-64")]
    platform: String,
    /// A base image of a registry to put in
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// What that base is called by those who build on it
    #[arg(long, value_name = "REF", requires = "base")]
    base_name: Option<String>,
    /// A file or directory to put in, below app, programs or rehearsal; may be given several times
    #[arg(long = "add", value_name = "PLACE=PATH", value_parser = place)]
    files: Vec<(String, PathBuf)>,
    /// A workspace whose .pixi/config.toml counts, too
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    cache: cache::CacheArgs,
}

/// Take a bundle apart, once; a part that was cut off or changed is refused by name.
///
/// Prints one fact a line, its name first, separated by tabs: the bundle with its digest and directory, the source, the
/// base image, and each environment.
#[derive(clap::Args)]
struct Open {
    /// The bundle
    bundle: PathBuf,
    /// Where its directory is made, which is named after its digest
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Print the facts and take nothing apart
    #[arg(long)]
    look: bool,
}

fn place(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((place, path)) if !place.is_empty() && !path.is_empty() => Ok((place.to_owned(), path.into())),
        _ => Err("expected PLACE=PATH".into()),
    }
}

impl Bundle {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Pack(command) => command.run(),
            Command::Open(command) => command.run(),
        }
    }
}

impl Pack {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.cache.store()?;
        let config = Config::load(self.workspace.as_deref())?;
        let name = self.base_name.as_deref().or(self.base.as_deref());
        let contents = Contents {
            source: &self.source,
            lock: self.lock.as_deref(),
            environments: &self.environments,
            platform: &self.platform,
            base: self.base.as_deref().zip(name),
            files: &self.files,
            cache: store.root(),
            config: &config,
            offline: self.offline,
        };
        let progress = report::progress();
        interrupt::watch(progress.clone())?;
        let packed = report::ended(&*progress, bundle::pack(&contents, &self.out, &*progress))?;
        let (digest, path) = (packed.digest, self.out.display());
        report::result(&format!("bundle\t{digest}\t{path}\t{}\t{}", packed.size, packed.members))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Open {
    fn run(self) -> anyhow::Result<ExitCode> {
        let opened = if self.look {
            bundle::look(&self.bundle, &self.into)?
        } else {
            let progress = report::progress();
            interrupt::watch(progress.clone())?;
            report::ended(&*progress, bundle::open(&self.bundle, &self.into, &*progress))?
        };
        let Opened { digest, directory, manifest, .. } = opened;
        report::result(&format!("bundle\t{digest}\t{}", directory.display()))?;
        report::result(&format!("source\t{}", manifest.source))?;
        if let Some(base) = &manifest.base {
            report::result(&format!("base\t{}\t{}", base.reference, base.digest))?;
        }
        for environment in &manifest.environments {
            report::result(&format!("environment\t{environment}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
