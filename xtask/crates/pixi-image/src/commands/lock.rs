//! `pixi-image lock`.

use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::config::Config;
use pixi_image::{manifest, publish, solve};

use super::report::{self, Lines};
use super::{cache, interrupt};

/// Solve pixi.toml into pixi.lock, or check that the lock fits.
#[derive(clap::Args)]
pub struct Lock {
    /// The manifest to solve.
    #[arg(long, value_name = "FILE", default_value = "pixi.toml")]
    manifest: PathBuf,
    /// The lock; by default `pixi.lock` beside the manifest.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Solve nothing: exit 1 if the lock does not satisfy the manifest.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    cache: cache::CacheArgs,
    /// Use what is in the cache, however old.
    #[arg(long)]
    offline: bool,
}

impl Lock {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let manifest = manifest::read(&self.manifest)?;
        let lock = self.out.unwrap_or_else(|| solve::lock_path(&self.manifest));
        if self.check {
            let unmet = solve::check(&manifest, &lock)?;
            if unmet.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            let list: Vec<_> = unmet.iter().map(|unmet| format!("    {unmet}")).collect();
            anyhow::bail!(
                "{} does not satisfy {}:\n{}\n  hint: lock anew with `cargo xtask lock`, or `pixi lock`",
                lock.display(),
                self.manifest.display(),
                list.join("\n")
            );
        }
        interrupt::watch()?;
        let store = self.cache.store()?;
        let config = Config::load(self.manifest.parent())?;
        let options = solve::Options { cache: store.root(), offline: self.offline, config: &config };
        let text = solve::solve(&manifest, &options, &Lines)?;
        publish::write(&lock, text.as_bytes(), 0o644)?;
        report::result(&format!("lock\t{}", lock.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
