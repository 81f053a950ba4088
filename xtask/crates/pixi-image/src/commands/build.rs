//! `pixi-image build`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::build::{Artifact, Format, Request, build};
use pixi_image::config::Config;
use pixi_image::source::base::BaseReference;
use pixi_image::store::Store;

use super::{cache, interrupt, report};

/// Build the OCI archive and the SIF of one locked environment.
///
/// Prints a line for each result: format, digest of the OCI manifest or uuid of the SIF, path and bytes, separated by tabs.
#[derive(clap::Args)]
#[group(required = true, multiple = true, args = ["oci", "sif"])]
pub struct Build {
    #[command(flatten)]
    inputs: Inputs,
    /// Where to write the OCI archive
    #[arg(long, value_name = "FILE")]
    oci: Option<PathBuf>,
    /// Where to write the SIF
    #[arg(long, value_name = "FILE")]
    sif: Option<PathBuf>,
}

impl Build {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.oci.is_some() && self.oci == self.sif {
            report::wrong_usage("--oci and --sif name the same file");
        }
        let (request, store) = self.inputs.request()?;
        let request = Request { oci: self.oci, sif: self.sif, ..request };
        let progress = report::progress();
        interrupt::watch(progress.clone())?;
        let built = report::ended(&*progress, build(&request, &store, &*progress))?;
        for Artifact { format, path, id, size } in built {
            report::result(&format!("{}\t{id}\t{}\t{size}", name(format), path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a format is called in reports.
pub fn name(format: Format) -> &'static str {
    match format {
        Format::Oci => "oci",
        Format::Sif => "sif",
    }
}

// What an image is made from; `verify` takes the same.
#[derive(clap::Args)]
pub struct Inputs {
    /// The lock file
    #[arg(long, value_name = "FILE", default_value = "pixi.lock")]
    lock: PathBuf,
    /// The manifest that goes into the image
    #[arg(long, value_name = "FILE", default_value = "pixi.toml")]
    manifest: PathBuf,
    /// The environment to install
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// A platform of the lock: a conda subdir or the name of a row
    #[arg(long, value_name = "NAME", default_value = "linux-64")]
    platform: String,
    /// The base image: a registry reference, an OCI archive or layout, or `scratch`
    #[arg(long, value_name = "REF", default_value = "ghcr.io/prefix-dev/pixi:noble")]
    base: BaseReference,
    /// A directory of application files for /app/src
    #[arg(long, value_name = "DIR")]
    app: Option<PathBuf>,
    /// Name and tag of the image
    #[arg(long, value_name = "NAME:TAG")]
    reference: String,
    /// A label to add; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// Compressing threads; all cores if not given
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Take the lock as it is, without comparing it with the manifest
    #[arg(long)]
    frozen: bool,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    cache: cache::CacheArgs,
}

impl Inputs {
    /// A request with no place for a result yet, and the cache.
    pub fn request(self) -> anyhow::Result<(Request, Store)> {
        let store = self.cache.store()?;
        let config = Config::load(self.manifest.parent())?;
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let request = Request {
            lock: self.lock,
            manifest: self.manifest,
            environment: self.environment,
            platform: self.platform,
            base: self.base,
            app: self.app,
            reference: self.reference,
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            oci: None,
            sif: None,
            created: source_date_epoch()?,
            jobs: self.jobs.unwrap_or_else(cores),
            frozen: self.frozen,
            offline: self.offline,
            config,
        };
        Ok((request, store))
    }
}

/// The time that reproducible builds agree on (reproducible-builds.org, SOURCE_DATE_EPOCH).
fn source_date_epoch() -> anyhow::Result<Option<i64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    match text.to_str().and_then(|text| text.parse::<u32>().ok()) {
        Some(seconds) => Ok(Some(seconds.into())),
        None => anyhow::bail!(
            "SOURCE_DATE_EPOCH is `{}`: expected whole seconds since 1970, up to 4294967295\n  hint: unset it, or set a number",
            text.display()
        ),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}
