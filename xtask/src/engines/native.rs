//! pixi-image: both formats in one pass, with nothing installed and as an ordinary user.

use anyhow::{Context as _, Result, bail, ensure};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::{Artifact, BuildRequest, Desk, Engine, Format, Image, TestRequest};
use crate::external::Program;
use crate::pins;

/// The engine of this workspace.
pub struct Native;

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn formats(&self) -> &'static [Format] {
        &Format::ALL
    }

    fn follows_recipe(&self) -> bool {
        false
    }

    fn probe(&self, _cx: &Context) -> Result<String, String> {
        Ok("pixi-image; it needs no docker, no apptainer and no root".to_owned())
    }

    fn build(&self, desk: &Desk<'_>, request: &BuildRequest) -> Result<Option<Vec<Artifact>>> {
        let mut line = inputs(desk.programs.command(Program::PixiImage)?.arg("build"), request)?;
        for target in &request.outputs {
            line = line.option(output_option(target.format), &target.path);
        }
        let Some(report) = desk.cx.read(&line)? else { return Ok(None) };
        let artifacts = artifacts(&report)?;
        let (made, wanted) = (artifacts.len(), request.outputs.len());
        ensure!(made == wanted, "{} reported {made} images, not {wanted}", line.short());
        Ok(Some(artifacts))
    }

    fn verify(&self, desk: &Desk<'_>, request: &BuildRequest, file: &str) -> Result<Option<Artifact>> {
        let line = inputs(desk.programs.command(Program::PixiImage)?.arg("verify").arg(file), request)?;
        desk.cx.read(&line)?.map(|report| artifact(report.trim_end())).transpose()
    }

    fn test(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()> {
        let line = desk.programs.command(Program::PixiImage)?.arg("test").arg(&request.image.path);
        let line = line.option("--lock", &request.lock).option("--environment", &request.environment);
        desk.cx.execute(&line.arg("--").args(&request.command))
    }

    fn run(&self, desk: &Desk<'_>, image: &Image, command: &[String], _interactive: bool) -> Result<CommandLine> {
        Ok(desk.programs.command(Program::PixiImage)?.arg("run").arg(&image.path).arg("--").args(command))
    }
}

/// What an image is made from, which is the same whether it is made or compared.
fn inputs(line: CommandLine, request: &BuildRequest) -> Result<CommandLine> {
    if request.cuda_version.is_some() {
        bail!(
            "native takes the CUDA version from the lock\n  hint: change what pixi.toml requires, or leave out --cuda-version"
        );
    }
    let mut line = line
        .option("--lock", &request.lock)
        .option("--manifest", &request.manifest)
        .option("--environment", &request.environment)
        .option("--platform", pins::IMAGE_PLATFORM)
        .option("--base", request.base.as_deref().unwrap_or(pins::BASE))
        .option("--app", &request.app)
        .option("--reference", &request.reference);
    for (name, value) in &request.labels {
        line = line.option("--label", format!("{name}={value}"));
    }
    if request.frozen {
        line = line.arg("--frozen");
    }
    if request.offline {
        line = line.arg("--offline");
    }
    Ok(match &request.cache {
        Some(cache) => line.option("--cache", cache),
        None => line,
    })
}

fn output_option(format: Format) -> &'static str {
    match format {
        Format::Docker => "--oci",
        Format::Apptainer => "--sif",
    }
}

/// What the build command reported on its standard output.
fn artifacts(report: &str) -> Result<Vec<Artifact>> {
    report.lines().filter(|line| !line.is_empty()).map(artifact).collect()
}

/// One line `kind<TAB>id<TAB>path<TAB>bytes`.
fn artifact(line: &str) -> Result<Artifact> {
    let parse = || {
        let mut fields = line.split('\t').skip(1);
        let (id, path) = (Some(fields.next()?.to_owned()), fields.next()?.to_owned());
        Some(Artifact { id, path, size: fields.next()?.parse().ok()? })
    };
    parse().with_context(|| format!("pixi-image reported something else than an image: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_a_build_is_read() {
        let artifacts = artifacts("oci\tsha256:ab\ta/b.oci.tar\t12\nsif\tsha256:cd\ta/b.sif\t7\n").unwrap();
        assert_eq!(
            artifacts.iter().map(|a| (a.path.as_str(), a.size)).collect::<Vec<_>>(),
            [("a/b.oci.tar", 12), ("a/b.sif", 7)]
        );
        assert!(super::artifacts("hello\n").is_err());
    }
}
