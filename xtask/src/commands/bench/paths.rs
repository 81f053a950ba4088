//! The ways from a lock to an image that are measured, and the starts of images: one line of a table each.

use crate::command_line::CommandLine;
use crate::commands::bench::environment::Environment;

/// A program whose ways are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// pixi-image.
    Native,
    /// Docker with BuildKit.
    Docker,
    /// Podman.
    Podman,
    /// Apptainer.
    Apptainer,
}

impl Tool {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Native, Self::Docker, Self::Podman, Self::Apptainer];

    /// The name that is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Apptainer => "apptainer",
        }
    }

    /// Whether it works in a daemon whose CPU and memory are not its own.
    pub fn has_daemon(self) -> bool {
        self == Self::Docker
    }
}

/// The names of all, as they are typed.
pub const ALL: &str = "native,docker,podman,apptainer";

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `docker build`.
    Docker,
    /// `docker push` of what was built, to a registry on this machine.
    Push,
    /// `podman build`.
    Podman,
    /// `apptainer build`.
    Apptainer,
    /// The OCI archive alone, with nothing of the packages in the cache.
    Oci,
    /// The SIF alone, with nothing of the packages in the cache.
    Sif,
    /// Both, with an empty cache: the first build of all.
    First,
    /// Both, with nothing of the packages in the cache.
    Both,
    /// Both, with the packages' archives in the cache and nothing else of them.
    AtHand,
    /// Both again, with nothing changed.
    Again,
    /// Both, with another build of one package.
    Changed,
    /// What no build of both can leave out.
    Floor,
}

impl Way {
    /// In the order of a round: what follows `Both` finds the cache as it left it.
    pub const ROUND: [Self; 12] = [
        Self::Docker,
        Self::Push,
        Self::Podman,
        Self::Apptainer,
        Self::Oci,
        Self::Sif,
        Self::First,
        Self::Both,
        Self::AtHand,
        Self::Again,
        Self::Changed,
        Self::Floor,
    ];

    /// How tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker build",
            Self::Push => "docker push",
            Self::Podman => "podman build",
            Self::Apptainer => "apptainer build",
            Self::Oci => "native OCI",
            Self::Sif => "native SIF",
            Self::First => "native both, base new",
            Self::Both => "native both",
            Self::AtHand => "native both, packages at hand",
            Self::Again => "native both, nothing changed",
            Self::Changed => "native both, one package changed",
            Self::Floor => "floor of both",
        }
    }

    /// How JSON calls it.
    pub fn key(self) -> String {
        self.name().to_lowercase().replace(',', "").replace(' ', "-")
    }

    /// The program that goes it.
    pub fn tool(self) -> Tool {
        match self {
            Self::Docker | Self::Push => Tool::Docker,
            Self::Podman => Tool::Podman,
            Self::Apptainer => Tool::Apptainer,
            _ => Tool::Native,
        }
    }

    /// Whether it begins with nothing of the packages in our cache.
    pub fn is_cold(self) -> bool {
        matches!(self, Self::Oci | Self::Sif | Self::First | Self::Both)
    }

    /// Whether our cache begins anew but has what an earlier build made of the base image. Docker and Podman keep the base,
    /// unpacked, from the warm-up on.
    pub fn knows_base_alone(self) -> bool {
        matches!(self, Self::Oci | Self::Sif | Self::Both | Self::AtHand)
    }

    /// The image files that it makes, by their names.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            Self::Oci => &["oci.oci.tar"],
            Self::Sif => &["sif.sif"],
            Self::First | Self::Both | Self::AtHand | Self::Again => &["both.oci.tar", "both.sif"],
            Self::Changed => &["changed.oci.tar", "changed.sif"],
            Self::Apptainer => &["apptainer.sif"],
            _ => &[],
        }
    }
}

/// What a container is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// An interpreter that ends at once: little more than the start.
    Nothing,
    /// PyTorch: thousands of files are looked for, and hundreds of megabytes of libraries mapped, so that it tells how fast
    /// the image's file system is read.
    Torch,
}

impl Start {
    /// In the order of the tables.
    pub const ALL: [Self; 2] = [Self::Nothing, Self::Torch];

    /// What Python runs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Nothing => "pass",
            Self::Torch => "import torch",
        }
    }

    /// How many starts there are for each run of a build: the short ones vary more.
    pub fn times(self) -> usize {
        match self {
            Self::Nothing => 12,
            Self::Torch => 2,
        }
    }
}

/// What pixi-image is told.
pub fn native(line: CommandLine, environment: &Environment, workspace: &str, outputs: &[String]) -> CommandLine {
    let file = |name: &str| format!("{workspace}/{name}");
    let line = line.arg("build").option("--lock", file("pixi.lock")).option("--manifest", file("pixi.toml"));
    let line = line.option("--environment", environment.name).option("--platform", crate::pins::IMAGE_PLATFORM);
    let line = line.option("--base", &environment.base).option("--app", file("app"));
    let line = line.option("--reference", environment.reference(Tool::Native)).option("--cache", environment.cache());
    outputs
        .iter()
        .fold(line, |line, output| line.option(if output.ends_with(".sif") { "--sif" } else { "--oci" }, output))
}

/// What Docker or Podman is told: nothing of an earlier build counts, and the base is asked for anew.
pub fn recipe(tool: Tool, environment: &Environment) -> CommandLine {
    let line = CommandLine::new(tool.name());
    let line = match tool {
        Tool::Podman => line.args(["build", "--no-cache", "--network", "host", "--pull-always", "--tls-verify=false"]),
        _ => line.args(["buildx", "build", "--load", "--no-cache", "--network", "host", "--pull"]),
    };
    let workspace = environment.workspace();
    let line = line.option("--build-arg", format!("ENVIRONMENT={}", environment.name));
    let line = line.option("--file", format!("{workspace}/Dockerfile"));
    line.option("--tag", environment.reference(tool)).arg(workspace)
}

/// What Apptainer is told. Its own check of the image is left out: Docker makes none.
pub fn definition(environment: &Environment) -> CommandLine {
    let line = CommandLine::new("apptainer").args(["build", "--force", "--notest", "--no-https"]);
    let line = line.option("--build-arg", format!("ENVIRONMENT={}", environment.name));
    // Image and workspace lie side by side.
    line.args(["../images/apptainer.sif", "apptainer.def"]).in_directory(environment.workspace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_in_the_round_once_and_has_its_own_name() {
        let mut names: Vec<_> = Way::ROUND.iter().map(|way| way.key()).collect();
        assert_eq!(names[9], "native-both-nothing-changed");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Way::ROUND.len());
    }

    #[test]
    fn all_names_are_those_of_all_tools() {
        assert_eq!(ALL, Tool::ALL.map(Tool::name).join(","));
    }

    #[test]
    fn what_finds_the_cache_full_follows_what_fills_it() {
        let place = |wanted: Way| Way::ROUND.iter().position(|way| *way == wanted).unwrap();
        assert!(place(Way::Both) < place(Way::AtHand) && place(Way::Again) < place(Way::Changed));
        assert!(Way::ROUND[place(Way::AtHand)..].iter().all(|way| !way.is_cold()));
    }
}
