//! The activation of an installed environment, by the crate that pixi itself uses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use pixi_image::install;
use pixi_image::manifest::ManifestEnvironment;
use rattler_shell::activation::{ActivationVariables, Activator, PathModificationBehavior};
use rattler_shell::shell::{Bash, ShellEnum};

use super::LockAndInstallArgs;
use super::machine::Machine;
use super::workspace::{self, Workspace, variable};
use crate::commands::interrupt;
use crate::commands::report::Lines;

/// An environment that can be activated.
pub struct Ready<'a> {
    workspace: &'a Workspace,
    environment: &'a ManifestEnvironment,
    /// Where it stands.
    pub prefix: PathBuf,
}

impl<'a> Ready<'a> {
    /// Brings lock and environment up to date, as far as the arguments allow.
    pub fn prepare(
        workspace: &'a Workspace,
        name: Option<&str>,
        arguments: &LockAndInstallArgs,
    ) -> anyhow::Result<Self> {
        let environment = workspace.environment(name)?;
        if let Some(table) = workspace.table_called("activation") {
            bail!(
                "{}: `{table}` is not supported by this stand-in for pixi\n  hint: set variables in a package's env_vars.d, \
                 or use real pixi",
                workspace.manifest_path.display()
            );
        }
        let prefix = install::prefix(&workspace.manifest_path, &environment.name);
        if arguments.installs() {
            interrupt::watch(Arc::new(Lines))?;
            let store = workspace::store()?;
            workspace.update_lock(arguments.usage(), &store)?;
            let locked = workspace.runnable(environment, &Machine::detect()?)?;
            workspace.install(&locked, &store)?;
        }
        Ok(Self { workspace, environment, prefix })
    }

    /// What the workspace is called in prompts.
    pub fn title(&self) -> String {
        match self.environment.name.as_str() {
            "default" => self.workspace.name.clone(),
            name => format!("{}:{name}", self.workspace.name),
        }
    }

    /// The activator, with pixi's own variables behind those of packages.
    pub fn activator(&self) -> anyhow::Result<Activator<ShellEnum>> {
        let subdir = Machine::detect()?.subdir;
        let mut activator = Activator::from_path(&self.prefix, ShellEnum::Bash(Bash::default()), subdir)
            .with_context(|| format!("cannot activate {}", self.prefix.display()))?;
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let platforms: Vec<_> = self.environment.targets.iter().map(|target| target.platform.name.as_str()).collect();
        let executable = executable().context("cannot tell where this program stands")?;
        let version = self.workspace.version.clone().unwrap_or_else(|| "NO_VERSION_SPECIFIED".to_owned());
        activator.env_vars.extend(
            [
                ("PIXI_PROJECT_NAME", self.workspace.name.clone()),
                ("PIXI_PROJECT_ROOT", text(&self.workspace.root)),
                ("PIXI_PROJECT_MANIFEST", text(&self.workspace.manifest_path)),
                ("PIXI_PROJECT_VERSION", version),
                ("PIXI_IN_SHELL", "1".to_owned()),
                ("PIXI_EXE", text(&executable)),
                ("CONDA_DEFAULT_ENV", self.title()),
                ("PIXI_ENVIRONMENT_NAME", self.environment.name.clone()),
                ("PIXI_ENVIRONMENT_PLATFORMS", platforms.join(",")),
                ("PIXI_PROMPT", format!("({}) ", self.title())),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(activator)
    }
}

/// Where this program stands under the name by which it was started: behind a link it has another one.
fn executable() -> Option<PathBuf> {
    let started_as = PathBuf::from(std::env::args_os().next()?);
    if started_as.components().count() > 1 {
        return std::path::absolute(started_as).ok();
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|directory| directory.join(&started_as)).find(|path| path.is_file())
}

/// The environment of this process, as far as it is text.
pub fn variables(path_modification_behavior: PathModificationBehavior) -> ActivationVariables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    ActivationVariables {
        conda_prefix: variable("CONDA_PREFIX").map(PathBuf::from),
        path: std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()),
        path_modification_behavior,
        current_env: std::env::vars_os().filter_map(text).collect::<HashMap<_, _>>(),
    }
}
