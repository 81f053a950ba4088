//! The activation of an environment, computed once for both formats; nothing is executed while an image is built.
//!
//! It says what `pixi shell-hook` would say inside the image: the variables, `PATH`, and what the scripts of
//! `etc/conda/activate.d` set. Their outcome is worked out here where it follows from the image alone ([`evaluate`]);
//! else all of them run when a container starts. Variables that serve only a prompt are left out, and nothing of the
//! building machine gets in (its `PATH` least of all).

mod evaluate;
mod render;
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod rootfs;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::BTreeMap;

pub use evaluate::{FileKind, Files, NotStatic};
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

/// A script of `etc/conda/activate.d`.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its path in the image.
    pub path: ImagePath,
    /// Its content; none where the path is no plain file.
    pub content: Option<Vec<u8>>,
}

/// What the activation is computed from.
pub struct ActivationInput<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// Where the image shows it.
    pub prefix: &'a Prefix,
    /// The workspace's name in the manifest.
    pub workspace_name: &'a str,
    /// The environment's `etc/conda/activate.d/*.sh`.
    pub scripts: Vec<Script>,
    /// What the image holds, base and environment, for the file tests of scripts.
    pub files: &'a dyn Files,
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
    shell: Option<Shell>,
    /// What the OCI image declares, and its entrypoint does.
    oci: State,
    /// What a SIF does; another thing only where scripts rebuild `PATH`, which is the caller's there.
    sif: State,
    not_static: Option<NotStatic>,
}

/// What is set, and what is left to do when a container starts.
#[derive(Clone, Debug)]
struct State {
    /// The base image's variables; those that are set anew are not among them.
    base: Vec<(String, String)>,
    /// Directories that go in front of any `PATH`: the scripts', then the environment's.
    first: Vec<String>,
    /// Directories of the base image's `PATH` that are not usual.
    own: Vec<String>,
    /// The whole `PATH` of the OCI image.
    path: String,
    variables: Vec<Variable>,
    /// The scripts that run when a container starts, as absolute paths.
    scripts: Vec<String>,
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
    pub fn new(mut input: ActivationInput<'_>) -> Result<Self, ActivationError> {
        if input.workspace_name.contains('\0') {
            return Err(ActivationError::WorkspaceName(input.workspace_name.to_owned()));
        }
        if let Some(shell) = &input.shell {
            let path = shell.path();
            if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(ActivationError::ShellPath(path.to_owned()));
            }
        }
        input.scripts.sort_by(|a, b| a.path.cmp(&b.path));
        let mut scripts = Vec::with_capacity(input.scripts.len());
        for Script { path, .. } in &input.scripts {
            let text = std::str::from_utf8(path.as_bytes());
            let text = text.map_err(|_| ActivationError::ScriptPath(path.clone()))?;
            scripts.push(format!("/{text}"));
        }
        let running = State::new(&input, scripts)?;
        let outcome = running.evaluate(&input);
        let (oci, sif) = match &outcome {
            Ok(outcome) => running.with(outcome, input.prefix.as_str()),
            Err(_) => (running.clone(), running),
        };
        Ok(Self {
            environment: input.environment.name.clone(),
            prefix: input.prefix.as_str().to_owned(),
            shell: input.shell,
            oci,
            sif,
            not_static: outcome.err(),
        })
    }

    /// `Env` of the OCI image: `PATH`, the base image's variables, and ours. Each process of a container gets it, those
    /// of `docker exec` too.
    pub fn oci_env(&self) -> Vec<String> {
        self.oci.env().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
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
    /// where none have to run, or where there is no bash.
    pub fn hand_back(&self) -> Option<String> {
        let runs = matches!(self.shell, Some(Shell::Bash(_))) && !self.sif.scripts.is_empty();
        runs.then(|| render::hand_back(&self.sif))
    }

    /// The shell that the image has.
    pub fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    /// The environment's absolute prefix in the image.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Why all scripts run when a container starts, so that `docker exec` misses what they set; none where
    /// [`Self::oci_env`] says it all.
    pub fn not_static(&self) -> Option<&NotStatic> {
        self.not_static.as_ref()
    }

    /// The scripts that can never run because the image has no shell: worth a warning.
    pub fn scripts_without_shell(&self) -> &[String] {
        if self.shell.is_none() { &self.oci.scripts } else { &[] }
    }
}

impl State {
    /// Without what the scripts set.
    fn new(input: &ActivationInput<'_>, scripts: Vec<String>) -> Result<Self, ActivationError> {
        let variables = variables(input)?;
        let mut base = base_variables(&input.base_env)?;
        let path = base.iter().find(|(name, value)| name == "PATH" && !value.is_empty());
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value);
        let bin = format!("{}/bin", input.prefix.as_str());
        let rest: Vec<_> = path.split(':').filter(|part| *part != bin).collect();
        // PATH is a SIF caller's to choose, so the base image's own directories are added to it, not put in its place.
        let usual: Vec<_> = DEFAULT_PATH.split(':').collect();
        let own = rest.iter().filter(|part| !part.is_empty() && !usual.contains(part));
        let own = own.map(|part| (*part).to_owned()).collect();
        let path = std::iter::once(bin.as_str()).chain(rest).collect::<Vec<_>>().join(":");
        base.retain(|(name, _)| name != "PATH" && !variables.iter().any(|variable| variable.name == *name));
        Ok(Self { base, first: vec![bin], own, path, variables, scripts })
    }

    fn env(&self) -> Vec<(String, String)> {
        let ours = self.variables.iter().map(|variable| (variable.name.clone(), variable.value.clone()));
        let path = [("PATH".to_owned(), self.path.clone())];
        path.into_iter().chain(self.base.iter().cloned()).chain(ours).collect()
    }

    fn evaluate(&self, input: &ActivationInput<'_>) -> Result<evaluate::Outcome, NotStatic> {
        if self.scripts.is_empty() {
            return Ok(evaluate::Outcome::default());
        }
        let contents = input.scripts.iter().map(|script| script.content.as_deref());
        let sources: Vec<_> =
            self.scripts.iter().zip(contents).map(|(path, content)| evaluate::Source { path, content }).collect();
        let prefixes = [input.prefix, &Prefix::of_packages()].map(|prefix| prefix.as_str().to_owned());
        let mut outcome = evaluate::evaluate(&sources, &self.env(), &prefixes, input.files)?;
        outcome.set.values_mut().for_each(|value| *value = as_shown(value, input.prefix));
        Ok(outcome)
    }

    /// With what the scripts set: for an OCI image, and for a SIF.
    fn with(self, outcome: &evaluate::Outcome, prefix: &str) -> (Self, Self) {
        if self.scripts.is_empty() {
            return (self.clone(), self);
        }
        let mut state = Self { scripts: Vec::new(), ..self.clone() };
        let same = |name: &String| outcome.set.contains_key(name) || outcome.unset.contains(name);
        state.base.retain(|(name, _)| !same(name));
        state.variables.retain(|variable| !outcome.unset.contains(&variable.name));
        for (name, value) in outcome.set.iter().filter(|(name, _)| *name != "PATH") {
            match state.variables.iter_mut().find(|variable| variable.name == *name) {
                Some(variable) => variable.value.clone_from(value),
                None => {
                    state.variables.push(Variable { name: name.clone(), value: value.clone(), overridable: true });
                }
            }
        }
        let activated = Variable { name: ACTIVATED.to_owned(), value: prefix.to_owned(), overridable: false };
        state.variables.push(activated);
        let Some(path) = outcome.set.get("PATH") else { return (state.clone(), state) };
        let before = path.strip_suffix(&self.path).and_then(|before| before.strip_suffix(':'));
        let before: Option<Vec<_>> = before.map(|before| before.split(':').map(str::to_owned).collect());
        state.path.clone_from(path);
        match before.filter(|before| before.iter().all(|part| part.starts_with('/'))) {
            Some(before) => {
                state.first.splice(0..0, before);
                (state.clone(), state)
            }
            None => (state, self),
        }
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
        let found = env_vars_file(file, content)?.into_iter();
        settings.extend(found.map(|(name, value)| (name, as_shown(&value, input.prefix))));
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

/// A value with the place where the image shows its environment: what packages' files name is where they are installed.
fn as_shown(value: &str, prefix: &Prefix) -> String {
    let installed = Prefix::of_packages();
    let mut parts = value.split(installed.as_str());
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_longer_name = part.starts_with(|c: char| c.is_alphanumeric() || "._-+".contains(c));
        shown += if is_longer_name { installed.as_str() } else { prefix.as_str() };
        shown += part;
    }
    shown
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
        if name == ACTIVATED {
            continue; // said by a base image that was built by us too, of its own scripts
        }
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
