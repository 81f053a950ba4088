//! `pixi-image verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::verify::{Same, verify};

use super::{build, interrupt, report};

/// Make an image again and compare: the same inputs give the same bytes.
///
/// Takes what `build` took. Prints one line when the file is what its inputs give: format, digest, path and bytes, separated
/// by tabs. Otherwise it names the first difference and ends with 1.
#[derive(clap::Args)]
pub struct Verify {
    /// An OCI archive or a SIF that `build` made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    inputs: build::Inputs,
}

impl Verify {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, store) = self.inputs.request()?;
        let progress = report::progress();
        interrupt::watch(progress.clone())?;
        let compared = verify(&self.file, &request, &store, &*progress);
        let Same { format, digest, size } = report::ended(&*progress, compared)?;
        report::result(&format!("{}\t{digest}\t{}\t{size}", build::name(format), self.file.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
