//! `pixi-image lock`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use pixi_image::config::Config;
use pixi_image::progress::Progress;
use pixi_image::solve::{self, Checked};
use pixi_image::{manifest, publish};

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
    /// Check this environment alone, as `build` does: what cannot be told is said, and no failure.
    #[arg(long, value_name = "NAME", requires = "check")]
    environment: Option<String>,
    #[command(flatten)]
    cache: cache::CacheArgs,
    /// Use what is in the cache, however old.
    #[arg(long)]
    offline: bool,
    /// Ask no channel: this lock is taken where it satisfies the manifest, else chosen from its packages.
    #[arg(long, value_name = "LOCK", conflicts_with = "check")]
    among: Option<PathBuf>,
}

impl Lock {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let lock = self.out.unwrap_or_else(|| solve::lock_path(&self.manifest));
        if let Some(environment) = &self.environment {
            if let Some(unchecked) = solve::require_satisfied(&self.manifest, &lock, environment, Timestamp::now())? {
                Lines.warn(&unchecked);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let manifest = manifest::read(&self.manifest)?;
        if self.check {
            check(&manifest, &lock)?;
            return Ok(ExitCode::SUCCESS);
        }
        let progress = report::progress();
        interrupt::watch(progress.clone())?;
        let store = self.cache.store()?;
        let config = Config::load(self.manifest.parent())?;
        let now = Timestamp::now();
        let among = self.among.as_deref();
        let options = solve::Options { cache: store.root(), offline: self.offline, config: &config, now, among };
        let text = match among.map(|among| taken(&manifest, among, now)).transpose()?.flatten() {
            Some(text) => text,
            None => report::ended(&*progress, solve::solve(&manifest, &options, &*progress))?,
        };
        publish::write(&lock, text.as_bytes(), 0o644)?;
        report::result(&format!("lock\t{}", lock.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The text of a lock that satisfies a manifest, as far as it can be told: whoever made it, nothing is to be solved.
fn taken(manifest: &manifest::Manifest, lock: &Path, now: Timestamp) -> anyhow::Result<Option<String>> {
    let Checked { unmet, unchecked } = solve::check(manifest, lock, now)?;
    if !unmet.is_empty() {
        return Ok(None);
    }
    unchecked.iter().for_each(|remark| Lines.warn(&format!("{}, {remark}", lock.display())));
    Lines.phase(&format!("{} satisfies {}: it is taken as it is", lock.display(), manifest.path.display()));
    Ok(Some(std::fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?))
}

/// What is asked is whether all is well; where that cannot be told, it is not.
fn check(manifest: &manifest::Manifest, lock: &Path) -> anyhow::Result<()> {
    let Checked { unmet, unchecked } = solve::check(manifest, lock, Timestamp::now())?;
    if unmet.is_empty() && unchecked.is_empty() {
        return Ok(());
    }
    let (lock, path) = (lock.display(), manifest.path.display());
    if unmet.is_empty() {
        anyhow::bail!(
            "{lock} could not be compared with all of {path}; what could be, fits:\n{}\n  hint: `pixi lock --check` of \
             pixi itself can tell",
            Checked::lines(&unchecked)
        );
    }
    let all: Vec<_> = unmet.into_iter().chain(unchecked).collect();
    anyhow::bail!(
        "{lock} does not satisfy {path}:\n{}\n  hint: lock anew with `cargo xtask lock`, or `pixi lock`",
        Checked::lines(&all)
    );
}
