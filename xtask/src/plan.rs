//! What a lock says of one environment, asked of pixi-image without showing it: it is no step of the work.

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::external::{Program, Programs};
use crate::pins;

/// The packages of one environment on the images' platform.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name, version and build of each.
    pub packages: Vec<[String; 3]>,
    /// How many bytes their archives have.
    pub download_bytes: u64,
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
        let bytes = head.split(" bytes to download").next().and_then(|before| before.rsplit(' ').next());
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        let package = |row: &str| {
            let mut columns = row.split_whitespace().map(str::to_owned);
            Some([columns.next()?, columns.next()?, columns.next()?])
        };
        Ok(Self {
            download_bytes: bytes.with_context(|| format!("`pixi-image plan` said {head:?}"))?,
            packages: rows.lines().filter_map(package).collect(),
        })
    }

    /// The CUDA version that the packages were built for: that of `cuda-version`, which conda-forge's CUDA packages all
    /// depend on. Not the one that the manifest asks of the machine, which may be older.
    pub fn cuda_version(&self) -> Option<&str> {
        self.packages.iter().find(|[name, ..]| name == "cuda-version").map(|[_, version, _]| version.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read() {
        let text = "environment gpu for linux-64, needs CUDA 12: 2 packages, 151000 bytes to download\n\
                    cuda-version  12.9    h4f385c5_3   21578\npython        3.13.5  hec9711d_0  129000\n";
        let plan = Plan::parse(text).unwrap();
        assert_eq!((plan.download_bytes, plan.packages.len(), plan.cuda_version()), (151_000, 2, Some("12.9")));
        assert!(Plan::parse("hello").is_err());
    }
}
