//! `pixi-image verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::verify::{Same, verify};

use super::report::{self, Lines};
use super::{build, interrupt};

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
        interrupt::watch()?;
        let Same { format, digest, size } = verify(&self.file, &request, &store, &Lines)?;
        report::result(&format!("{}\t{digest}\t{}\t{size}", build::name(format), self.file.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
