//! `pixi-image resolve`.

use std::process::ExitCode;

use pixi_image::config::Config;
use pixi_image::registry;

use super::report;

/// Print what a reference to a registry means now, by digest; downloads nothing else.
#[derive(clap::Args)]
pub struct Resolve {
    /// HOST/NAME:TAG
    #[arg(value_name = "REFERENCE")]
    reference: String,
}

impl Resolve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        report::result(&registry::resolve(&self.reference, &Config::load(None)?)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
