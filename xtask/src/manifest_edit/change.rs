//! What an edit changed, in words, and the pixi commands that change the same.

use std::fmt;

use super::PlatformStyle;
use super::request::{Dependency, Request};
use crate::command_line::CommandLine;

/// One thing that is other than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A channel behind those of the workspace.
    Channel(String),
    /// A conda platform of the workspace, or one that a feature is limited to, and what the workspace calls it.
    Platform { name: String, subdir: String, feature: Option<String> },
    /// A platform with CUDA, for the gpu feature.
    CudaPlatform { name: String, subdir: String, cuda: String },
    /// The CUDA version of a platform.
    CudaOfPlatform { name: String, old: String, new: String },
    /// The CUDA version among the gpu feature's system requirements.
    CudaRequirement { old: Option<String>, new: String },
    /// A dependency of the workspace or of a feature, for one platform or all.
    Dependency { feature: Option<String>, platform: Option<String>, dependency: Dependency, old: Option<String> },
    /// A feature in an environment; `whole` says all that the environment holds then, if pixi can be told that.
    Environment { name: String, feature: String, whole: Option<Whole> },
    /// The way in which CUDA is asked for.
    Style(PlatformStyle),
}

/// An environment as `pixi workspace environment add` makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its features.
    pub features: Vec<String>,
    /// Its solve group.
    pub solve_group: Option<String>,
    /// Whether it leaves the workspace's own dependencies out.
    pub no_default_feature: bool,
    /// Whether there was one of that name before.
    pub existed: bool,
}

impl Change {
    /// Whether the workspace or a feature has a conda platform by it.
    pub fn adds_platform(&self, wanted: &str) -> bool {
        matches!(self, Self::Platform { subdir, .. } if subdir == wanted)
    }

    /// Whether it was asked for beyond the exercise.
    pub fn is_asked_by(&self, request: &Request) -> bool {
        match self {
            Self::Channel(_) | Self::Style(_) => true,
            Self::Platform { subdir, .. } => request.platforms.contains(subdir),
            Self::Dependency { dependency, .. } => request.dependencies.contains(dependency),
            Self::CudaPlatform { .. } | Self::CudaOfPlatform { .. } | Self::CudaRequirement { .. } => {
                request.cuda.is_some()
            }
            Self::Environment { .. } => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = |old: &Option<String>| old.as_ref().map(|old| format!(" instead of {old}")).unwrap_or_default();
        match self {
            Self::Channel(channel) => write!(f, "channel {channel}"),
            Self::Platform { name, feature: None, .. } => write!(f, "platform {name}"),
            Self::Platform { name, feature: Some(feature), .. } => write!(f, "platform {name} for feature {feature}"),
            Self::CudaPlatform { name, cuda, .. } => write!(f, "platform {name} with CUDA {cuda}"),
            Self::CudaOfPlatform { name, old, new } => write!(f, "CUDA {new} instead of {old} on {name}"),
            Self::CudaRequirement { old, new } => write!(f, "CUDA {new}{}", instead(old)),
            Self::Dependency { feature, platform, dependency: Dependency { name, version }, old } => {
                write!(f, "{name} {version}{}", instead(old))?;
                feature.iter().try_for_each(|feature| write!(f, " for feature {feature}"))?;
                platform.iter().try_for_each(|platform| write!(f, " on {platform}"))
            }
            Self::Environment { name, .. } => write!(f, "environment {name}"),
            Self::Style(PlatformStyle::Legacy) => write!(f, "CUDA among the system requirements"),
            Self::Style(PlatformStyle::Rich) => write!(f, "CUDA among the platforms"),
        }
    }
}

/// The pixi commands that make these changes, as they are typed in the workspace's directory, one a line. What pixi has
/// no command for is a comment.
pub fn pixi_commands(changes: &[Change]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = changes;
    while let Some(first) = rest.first() {
        // Neighbours that differ in the platform only are one command.
        let together = rest.iter().take_while(|change| share_command(first, change)).count().max(1);
        let (now, later) = rest.split_at(together);
        lines.push(command(first, now));
        rest = later;
    }
    lines
}

fn share_command(one: &Change, other: &Change) -> bool {
    match (one, other) {
        (Change::Platform { feature: one, .. }, Change::Platform { feature: other, .. }) => one == other,
        (
            Change::Dependency { feature: one, platform: Some(_), dependency: this, .. },
            Change::Dependency { feature: other, platform: Some(_), dependency: that, .. },
        ) => one == other && this == that,
        _ => false,
    }
}

fn command(first: &Change, all: &[Change]) -> String {
    let workspace = |words: &[&str]| CommandLine::new("pixi").arg("workspace").args(words.iter().copied());
    let with = |line: CommandLine, name: &str, value: &Option<String>| match value {
        Some(value) => line.option(name, value),
        None => line,
    };
    let line = match first {
        Change::Channel(channel) => workspace(&["channel", "add", channel]),
        Change::Platform { feature, .. } => {
            let platforms = all.iter().filter_map(|change| match change {
                Change::Platform { name, subdir, .. } if name == subdir => Some(subdir.clone()),
                Change::Platform { name, subdir, .. } => Some(format!("{name}={subdir}")),
                _ => None,
            });
            with(workspace(&["platform", "add"]), "--feature", feature).args(platforms)
        }
        Change::CudaPlatform { name, subdir, cuda } => {
            let line = workspace(&["platform", "add", "--feature", "gpu"]).arg(format!("{name}={subdir}"));
            line.option("--cuda", cuda)
        }
        Change::CudaOfPlatform { name, new, .. } => workspace(&["platform", "edit", name, "--cuda", new]),
        Change::CudaRequirement { new, .. } => {
            let line = workspace(&["system-requirements", "add", "--feature", "gpu", "cuda", new]);
            return format!("# by hand: [feature.gpu.system-requirements] cuda = \"{new}\" (before pixi 0.71: {line})");
        }
        Change::Dependency { feature, dependency, .. } => {
            let line = with(CommandLine::new("pixi").arg("add"), "--feature", feature);
            let platforms = all.iter().filter_map(|change| match change {
                Change::Dependency { platform, .. } => platform.as_ref(),
                _ => None,
            });
            platforms.fold(line, |line, platform| line.option("--platform", platform)).arg(dependency.to_string())
        }
        Change::Environment { name, feature, whole: None } => {
            return format!("# pixi has no command that adds the feature {feature} to the environment {name} as it is");
        }
        Change::Environment { name, whole: Some(whole), .. } => {
            let line = workspace(&["environment", "add"]);
            let line = if whole.existed { line.arg("--force") } else { line };
            let line = whole.features.iter().fold(line, |line, feature| line.option("--feature", feature));
            let line = with(line, "--solve-group", &whole.solve_group);
            if whole.no_default_feature { line.arg("--no-default-feature") } else { line }.arg(name)
        }
        Change::Style(_) => return "# pixi has no command that changes how the need for CUDA is written".to_owned(),
    };
    line.to_string()
}
