//! What a lock says of one environment, asked of pixi-image without showing it: it is no step of the work.

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::external::{Program, Programs};
use crate::pins;

/// One package of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// `-` of a package from PyPI.
    pub build: String,
    /// Whether it comes from PyPI, not from a conda channel.
    pub from_pypi: bool,
    /// How many bytes its archive has, where the lock knows it.
    pub bytes: Option<u64>,
    /// The layer that it goes into, counted from 1 among those of packages.
    pub layer: String,
}

/// The packages of one environment on the images' platform.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Each of them.
    pub packages: Vec<Package>,
    /// How many bytes their archives have.
    pub download_bytes: u64,
    /// How many of these pixi-image's cache holds.
    pub cached_bytes: u64,
}

impl Plan {
    /// Reads the lock; none in a dry run without one.
    pub fn read(cx: &Context, programs: &Programs<'_>, lock: &str, environment: &str) -> Result<Option<Self>> {
        if cx.options.dry_run && !cx.resolve(lock).exists() {
            return Ok(None);
        }
        let line = programs.command(Program::PixiImage)?.arg("plan").option("--lock", lock);
        let line = line.option("--environment", environment).option("--platform", pins::IMAGE_PLATFORM);
        let output = cx.look(&line)?;
        if output.code != 0 {
            bail!("{}", output.stderr.trim_start_matches("error: ").trim_end());
        }
        Self::parse(&output.stdout).map(Some)
    }

    fn parse(text: &str) -> Result<Self> {
        let (head, rows) = text.split_once('\n').unwrap_or((text, ""));
        let number = |behind: &str| {
            let (before, _) = head.split_once(behind)?;
            before.rsplit([' ', '(']).next()?.parse().ok()
        };
        let package = |row: &str| {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [name, version, build, bytes, kind, ..] = columns.as_slice() else { return None };
            let [name, version, build] = [name, version, build].map(|column| (*column).to_owned());
            let layer = columns.last().map_or(String::new(), |layer| (*layer).to_owned());
            Some(Package { name, version, build, from_pypi: *kind == "pypi", bytes: bytes.parse().ok(), layer })
        };
        Ok(Self {
            download_bytes: number(" bytes to download").with_context(|| format!("`pixi-image plan` said {head:?}"))?,
            cached_bytes: number(" in the cache").unwrap_or(0),
            packages: rows.lines().filter_map(package).collect(),
        })
    }

    /// The CUDA version that the packages were built for: that of `cuda-version`, which conda-forge's CUDA packages all
    /// depend on. Not the one that the manifest asks of the machine, which may be older.
    pub fn cuda_version(&self) -> Option<&str> {
        let mut conda = self.packages.iter().filter(|package| !package.from_pypi);
        conda.find(|package| package.name == "cuda-version").map(|package| package.version.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read() {
        let text = "environment gpu for linux-64, needs CUDA 12: 3 packages, 151000 bytes to download (21578 in the cache) \
                    and 1 of unknown size, 3 layers\ncuda-version  12.9    h4f385c5_3   21578  conda  layer 2\n\
                    python        3.13.5  hec9711d_0  129000  conda  layer 1\n\
                    rich          14.0.0  -                ?  pypi   layer 3\n";
        let plan = Plan::parse(text).unwrap();
        assert_eq!((plan.download_bytes, plan.cached_bytes), (151_000, 21_578));
        assert_eq!((plan.download_bytes, plan.packages.len(), plan.cuda_version()), (151_000, 3, Some("12.9")));
        let sizes: Vec<_> = plan.packages.iter().map(|package| (package.bytes, package.layer.as_str())).collect();
        assert_eq!(sizes, [(Some(21_578), "2"), (Some(129_000), "1"), (None, "3")]);
        let kinds: Vec<_> = plan.packages.iter().map(|package| (package.name.as_str(), package.from_pypi)).collect();
        assert_eq!(kinds, [("cuda-version", false), ("python", false), ("rich", true)]);
        assert!(Plan::parse("hello").is_err());
    }
}
