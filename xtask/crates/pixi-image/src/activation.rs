//! The activation of an environment, computed once for both formats; nothing is executed while an image is built.
//!
//! It says what `pixi shell-hook` would say inside the image: the variables, `PATH`, and the scripts of
//! `etc/conda/activate.d`, which run when a container starts. Variables that serve only a prompt are left out, and
//! nothing of the building machine gets in (its `PATH` least of all).

mod render;
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod rootfs;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::BTreeMap;

pub(crate) use render::quote;

use crate::entry::ImagePath;
use crate::model::{Environment, Prefix};

/// Where the lesson's recipe puts the workspace.
const WORKSPACE_ROOT: &str = "/app";
/// The manifest that `pixi` inside the container must use, whatever the current directory holds.
const WORKSPACE_MANIFEST: &str = "/app/pixi.toml";
/// Where the entrypoint stands.
pub const ENTRYPOINT_PATH: &str = "/app/entrypoint.sh";
/// Where the part of the activation stands that only bash can read, in a SIF.
pub const HAND_BACK_PATH: &str = "/.singularity.d/activate.bash";
/// `PATH` where the base image names none: what runtimes use then.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Set to the prefix once its scripts have run: they run once, however often entrypoints are nested.
const ACTIVATED: &str = "PIXI_IMAGE_ACTIVATED";

/// A shell of the image, by its absolute path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash 4 or newer.
    Bash(String),
    /// Any other POSIX shell.
    Posix(String),
}

impl Shell {
    /// The absolute path.
    pub fn path(&self) -> &str {
        match self {
            Self::Bash(path) | Self::Posix(path) => path,
        }
    }
}

/// What the activation is computed from.
#[derive(Clone, Debug)]
pub struct ActivationInput<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// Where it stands in the image.
    pub prefix: &'a Prefix,
    /// The workspace's name in the manifest.
    pub workspace_name: &'a str,
    /// The environment's `etc/conda/activate.d/*.sh`, as paths in the image.
    pub scripts: Vec<ImagePath>,
    /// The environment's `etc/conda/env_vars.d/*.json`: paths in the image and contents.
    pub env_vars: Vec<(ImagePath, Vec<u8>)>,
    /// `Env` of the base image, each `KEY=VALUE`.
    pub base_env: Vec<String>,
    /// The shell that the image has, bash before any other; none for an image without one.
    pub shell: Option<Shell>,
}

/// Why an activation cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// A file of `env_vars.d` that does not say what to set.
    #[error("cannot use {file}: {reason}\n  hint: lock another build of the package that ships this file")]
    EnvVars {
        /// The file's place in the image.
        file: ImagePath,
        /// What is wrong with it.
        reason: String,
    },
    /// A script whose path cannot be written into a shell text.
    #[error("cannot activate with {0}: its path is not UTF-8\n  hint: lock another build of the package that ships it")]
    ScriptPath(ImagePath),
    /// A shell that no `#!` line can name.
    #[error("`{0}` cannot be the shell of the image: expected an absolute path without blanks")]
    ShellPath(String),
    /// A workspace whose name no process can get as a variable.
    #[error("the workspace name {0:?} holds a NUL byte\n  hint: change `name` in the manifest")]
    WorkspaceName(String),
    /// A variable of the base image that no process can get.
    #[error("the base image sets a variable that holds a NUL byte: {0:?}\n  hint: choose another base image")]
    BaseVariable(String),
}

/// One variable of the activation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    value: String,
    /// Whether a value that the container was started with (`docker run -e`) wins over ours.
    overridable: bool,
}

/// The activation of one environment in one image.
#[derive(Clone, Debug)]
pub struct Activation {
    environment: String,
    prefix: String,
    variables: Vec<Variable>,
    scripts: Vec<String>,
    base: Vec<(String, String)>,
    shell: Option<Shell>,
}

/// The entrypoint of the OCI image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrypoint {
    /// Its absolute path in the image: [`ENTRYPOINT_PATH`].
    pub path: &'static str,
    /// The script; its mode is 0755.
    pub content: Vec<u8>,
    /// `Entrypoint` of the OCI image configuration.
    pub oci: Vec<String>,
}

impl Activation {
    /// Computes the activation; only data is read.
    pub fn new(input: ActivationInput<'_>) -> Result<Self, ActivationError> {
        let prefix = input.prefix.as_str().to_owned();
        if input.workspace_name.contains('\0') {
            return Err(ActivationError::WorkspaceName(input.workspace_name.to_owned()));
        }
        if let Some(shell) = &input.shell {
            let path = shell.path();
            if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(ActivationError::ShellPath(path.to_owned()));
            }
        }
        let mut scripts = Vec::with_capacity(input.scripts.len());
        for script in &input.scripts {
            let path = std::str::from_utf8(script.as_bytes());
            let path = path.map_err(|_| ActivationError::ScriptPath(script.clone()))?;
            scripts.push(format!("/{path}"));
        }
        scripts.sort();
        Ok(Self {
            environment: input.environment.name.clone(),
            variables: variables(&input)?,
            base: base_variables(&input.base_env)?,
            prefix,
            scripts,
            shell: input.shell,
        })
    }

    /// `Env` of the OCI image: the base image's, `PATH` with the environment in front, and the variables.
    pub fn oci_env(&self) -> Vec<String> {
        let bin = self.bin();
        let rest: Vec<_> = self.base_path().split(':').filter(|part| *part != bin).collect();
        let path = std::iter::once(bin.as_str()).chain(rest).collect::<Vec<_>>().join(":");
        let ours = self.variables.iter().map(|variable| (&variable.name, &variable.value));
        let base = self.base.iter().filter(|(name, _)| name != "PATH" && !self.sets(name));
        std::iter::once(format!("PATH={path}"))
            .chain(base.map(|(name, value)| format!("{name}={value}")))
            .chain(ours.map(|(name, value)| format!("{name}={value}")))
            .collect()
    }

    /// The entrypoint; none where the image has no shell, so that commands are started directly with [`Self::oci_env`].
    pub fn entrypoint(&self) -> Option<Entrypoint> {
        let shell = self.shell.as_ref()?;
        Some(Entrypoint {
            path: ENTRYPOINT_PATH,
            content: render::entrypoint(self, shell).into_bytes(),
            oci: vec![ENTRYPOINT_PATH.to_owned()],
        })
    }

    /// `/.singularity.d/env/90-environment.sh`, which Apptainer reads in a shell of its own before every action.
    pub fn singularity_environment(&self) -> String {
        render::singularity_environment(self)
    }

    /// The file [`HAND_BACK_PATH`], by which real bash runs the scripts for [`Self::singularity_environment`]; none
    /// where there are no scripts or no bash.
    pub fn hand_back(&self) -> Option<String> {
        matches!(self.shell, Some(Shell::Bash(_)) if !self.scripts.is_empty()).then(|| render::hand_back(self))
    }

    /// The shell that the image has.
    pub fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    /// The environment's absolute prefix in the image.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The scripts that can never run because the image has no shell: worth a warning.
    pub fn scripts_without_shell(&self) -> &[String] {
        if self.shell.is_none() { &self.scripts } else { &[] }
    }

    fn bin(&self) -> String {
        format!("{}/bin", self.prefix)
    }

    fn base_path(&self) -> &str {
        let path = self.base.iter().find(|(name, value)| name == "PATH" && !value.is_empty());
        path.map_or(DEFAULT_PATH, |(_, value)| value)
    }

    fn sets(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable.name == name)
    }
}

/// The variables in the order of `pixi shell-hook`: first what says where the environment is, then settings.
fn variables(input: &ActivationInput<'_>) -> Result<Vec<Variable>, ActivationError> {
    let environment = input.environment;
    let conda_name = match environment.name.as_str() {
        "default" => input.workspace_name.to_owned(),
        name => format!("{}:{name}", input.workspace_name),
    };
    // The image holds one platform, and the row names of a lock (`p1`) mean nothing outside it.
    let platform = environment.subdir.to_string();
    let identity = [
        ("CONDA_PREFIX", input.prefix.as_str()),
        ("CONDA_SHLVL", "1"),
        ("CONDA_DEFAULT_ENV", conda_name.as_str()),
        ("PIXI_PROJECT_NAME", input.workspace_name),
        ("PIXI_PROJECT_ROOT", WORKSPACE_ROOT),
        ("PIXI_PROJECT_MANIFEST", WORKSPACE_MANIFEST),
        ("PIXI_ENVIRONMENT_NAME", environment.name.as_str()),
        ("PIXI_ENVIRONMENT_PLATFORMS", platform.as_str()),
        ("PIXI_IN_SHELL", "1"),
    ];
    // ~/.local of whoever runs the container is no part of the environment.
    let mut settings = BTreeMap::from([("PYTHONNOUSERSITE".to_owned(), "1".to_owned())]);
    // Without it `pixi list` and `pixi run` refuse the environment on a host without a GPU.
    settings.extend(environment.cuda.clone().map(|cuda| ("CONDA_OVERRIDE_CUDA".to_owned(), cuda)));
    let mut files: Vec<_> = input.env_vars.iter().collect();
    files.sort();
    for (file, content) in files {
        settings.extend(env_vars_file(file, content)?);
    }
    let mut all: Vec<Variable> = Vec::with_capacity(identity.len() + settings.len());
    all.extend(identity.map(|(name, value)| Variable {
        name: name.to_owned(),
        value: value.to_owned(),
        overridable: false,
    }));
    settings.retain(|name, _| !identity.iter().any(|(taken, _)| taken == name));
    all.extend(settings.into_iter().map(|(name, value)| Variable { name, value, overridable: true }));
    Ok(all)
}

/// Reads one file of `env_vars.d`: a JSON object of names and string values (conda, "Environment variables").
fn env_vars_file(file: &ImagePath, content: &[u8]) -> Result<BTreeMap<String, String>, ActivationError> {
    let bad = |reason: String| ActivationError::EnvVars { file: file.clone(), reason };
    let value: serde_json::Value = serde_json::from_slice(content).map_err(|e| bad(format!("it is not JSON: {e}")))?;
    let serde_json::Value::Object(object) = value else { return Err(bad("it is not a JSON object".to_owned())) };
    let mut variables = BTreeMap::new();
    for (name, value) in object {
        if !is_name(&name) {
            return Err(bad(format!("{name:?} is not the name of an environment variable")));
        }
        if name == "PATH" || name == ACTIVATED {
            return Err(bad(format!("it sets {name}, which belongs to the activation itself")));
        }
        match value {
            serde_json::Value::String(text) if !text.contains('\0') => variables.insert(name, text),
            serde_json::Value::String(_) => return Err(bad(format!("the value of {name} holds a NUL byte"))),
            other => return Err(bad(format!("the value of {name} is {other}, not a string"))),
        };
    }
    Ok(variables)
}

/// The base image's variables in their order; of a name set twice the last value counts, as runtimes have it.
fn base_variables(env: &[String]) -> Result<Vec<(String, String)>, ActivationError> {
    let mut variables: Vec<(String, String)> = Vec::with_capacity(env.len());
    for entry in env {
        if entry.contains('\0') {
            return Err(ActivationError::BaseVariable(entry.clone()));
        }
        let Some((name, value)) = entry.split_once('=') else { continue }; // no value: sets nothing
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => variables.push((name.to_owned(), value.to_owned())),
        }
    }
    Ok(variables)
}

/// Whether a shell can set a variable of this name.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
