//! `pixi-image plan`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::fetch;
use pixi_image::layers::{self, PACKAGE_LAYERS};
use pixi_image::lock;
use pixi_image::model::{Digest, Environment, LockedPackage};
use pixi_image::store::Store;
use serde::Serialize;

use super::cache;

/// Show what an image of an environment would hold; downloads nothing.
#[derive(clap::Args)]
pub struct Plan {
    /// The lock to read.
    #[arg(long, value_name = "FILE", default_value = "pixi.lock")]
    lock: PathBuf,
    /// The environment of the lock.
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// A conda platform, or the name of a platform of the lock.
    #[arg(long, value_name = "PLATFORM", default_value = "linux-64")]
    platform: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: cache::CacheArgs,
}

/// Stands for the build of a wheel.
const NO_BUILD: &str = "-";

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    environment: &'a str,
    platform: &'a str,
    subdir: &'a str,
    cuda: Option<&'a str>,
    download_bytes: u64,
    /// As many of these are in the cache already.
    cached_bytes: u64,
    /// Packages whose size the lock does not know; they are not in the sum.
    unknown_sizes: usize,
    packages: Vec<Package<'a>>,
    /// Those of packages, in the order in which they are stacked between the base's and the one of the application.
    layers: Vec<Layer<'a>>,
}

#[derive(Serialize)]
struct Layer<'a> {
    packages: Vec<&'a str>,
    /// Of its packages' archives; those of unknown size are not in the sum.
    download_bytes: u64,
}

#[derive(Serialize)]
struct Package<'a> {
    name: &'a str,
    version: String,
    /// None of a wheel.
    build: Option<&'a str>,
    /// `conda` or `pypi`.
    kind: &'static str,
    bytes: Option<u64>,
    /// Its layer, counted from 1.
    layer: usize,
    sha256: Digest,
    url: String,
}

impl Plan {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let environment = lock::read(&self.lock, &self.environment, &self.platform)?;
        let store = self.cache.store().ok(); // without a place for it nothing is cached
        let report = Report::of(&environment, store.as_ref());
        let mut out = std::io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from).and_then(|()| writeln!(out))
        } else {
            report.print(&mut out)
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

impl<'a> Report<'a> {
    fn of(environment: &'a Environment, cache: Option<&Store>) -> Self {
        let is_cached = |package: &&LockedPackage| cache.is_some_and(|cache| fetch::is_cached(cache.root(), package));
        let cached = environment.packages.iter().filter(is_cached);
        let packages = environment.packages.iter().map(|package| Package {
            name: package.name(),
            version: package.version(),
            build: package.conda().map(|package| package.record.package_record.build.as_str()),
            kind: package.kind(),
            bytes: package.size(),
            layer: 0,
            sha256: package.sha256(),
            url: pixi_image::http::shown(package.url()),
        });
        let mut packages: Vec<_> = packages.collect();
        packages.sort_by_key(|package| package.name);
        let sizes: Vec<_> = packages.iter().map(|package| (package.name, package.bytes.unwrap_or(0))).collect();
        let mut layers = Vec::new();
        for group in layers::group(&sizes, PACKAGE_LAYERS) {
            group.iter().for_each(|at| packages[*at].layer = layers.len() + 1);
            layers.push(Layer {
                packages: group.iter().map(|at| sizes[*at].0).collect(),
                download_bytes: group.iter().map(|at| sizes[*at].1).sum(),
            });
        }
        Self {
            environment: &environment.name,
            platform: &environment.platform,
            subdir: environment.subdir.as_str(),
            cuda: environment.cuda.as_deref(),
            download_bytes: packages.iter().filter_map(|package| package.bytes).sum(),
            cached_bytes: cached.filter_map(LockedPackage::size).sum(),
            unknown_sizes: packages.iter().filter(|package| package.bytes.is_none()).count(),
            packages,
            layers,
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let cuda = self.cuda.map(|version| format!(", needs CUDA {version}")).unwrap_or_default();
        let unknown = match self.unknown_sizes {
            0 => String::new(),
            count => format!(" and {count} of unknown size"),
        };
        let cached = match self.cached_bytes {
            0 => String::new(),
            bytes => format!(" ({bytes} in the cache)"),
        };
        writeln!(
            out,
            "environment {} for {}{cuda}: {} packages, {} bytes to download{cached}{unknown}, {} layers",
            self.environment,
            self.platform,
            self.packages.len(),
            self.download_bytes,
            self.layers.len()
        )?;
        let width = |text: fn(&Package<'a>) -> usize| self.packages.iter().map(text).max().unwrap_or(0);
        let (name, version) = (width(|package| package.name.len()), width(|package| package.version.len()));
        let build = width(|package| package.build.unwrap_or(NO_BUILD).len());
        for package in &self.packages {
            let bytes = package.bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
            writeln!(
                out,
                "{:name$}  {:version$}  {:build$}  {bytes:>12}  {}  layer {}",
                package.name,
                package.version,
                package.build.unwrap_or(NO_BUILD),
                package.kind,
                package.layer
            )?;
        }
        Ok(())
    }
}
