//! pixi-image: both formats in one pass, with nothing installed and as an ordinary user.

use anyhow::{Context as _, Result};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::{Artifact, BuildRequest, Engine, Format, TestRequest};
use crate::external::{Program, Programs};
use crate::pins;

/// The engine of this workspace.
pub struct Native;

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn probe(&self, _cx: &Context) -> Result<&'static str, String> {
        Ok("pixi-image; it needs no docker, no apptainer and no root")
    }

    fn build(&self, programs: &Programs<'_>, request: &BuildRequest) -> Result<CommandLine> {
        let mut line = programs
            .command(Program::PixiImage)?
            .arg("build")
            .option("--lock", &request.lock)
            .option("--manifest", &request.manifest)
            .option("--environment", &request.environment)
            .option("--platform", pins::IMAGE_PLATFORM)
            .option("--base", &request.base)
            .option("--app", &request.app)
            .option("--reference", &request.reference);
        for label in &request.labels {
            line = line.option("--label", label);
        }
        if request.offline {
            line = line.arg("--offline");
        }
        for (format, path) in &request.outputs {
            line = line.option(output_option(*format), path);
        }
        Ok(line)
    }

    fn artifacts(&self, report: &str) -> Result<Vec<Artifact>> {
        report.lines().filter(|line| !line.is_empty()).map(artifact).collect()
    }

    fn test(&self, programs: &Programs<'_>, request: &TestRequest) -> Result<CommandLine> {
        let line = programs.command(Program::PixiImage)?.arg("test").arg(&request.image);
        let line = line.option("--lock", &request.lock).option("--environment", &request.environment);
        Ok(line.arg("--").args(&request.command))
    }

    fn run(&self, programs: &Programs<'_>, image: &str, command: &[String]) -> Result<CommandLine> {
        Ok(programs.command(Program::PixiImage)?.arg("run").arg(image).arg("--").args(command))
    }
}

fn output_option(format: Format) -> &'static str {
    match format {
        Format::Docker => "--oci",
        Format::Apptainer => "--sif",
    }
}

/// One line `kind<TAB>digest<TAB>path<TAB>bytes`.
fn artifact(line: &str) -> Result<Artifact> {
    let parse = || {
        let mut fields = line.split('\t').skip(1);
        let (digest, path) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(Artifact { digest, path, size: fields.next()?.parse().ok()? })
    };
    parse().with_context(|| format!("pixi-image reported something else than an image: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_a_build_is_read() {
        let artifacts = Native.artifacts("oci\tsha256:ab\ta/b.oci.tar\t12\nsif\tsha256:cd\ta/b.sif\t7\n").unwrap();
        assert_eq!(
            artifacts.iter().map(|a| (a.path.as_str(), a.size)).collect::<Vec<_>>(),
            [("a/b.oci.tar", 12), ("a/b.sif", 7)]
        );
        assert!(Native.artifacts("hello\n").is_err());
    }
}
