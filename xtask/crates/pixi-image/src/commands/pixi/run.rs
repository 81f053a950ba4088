//! `pixi run`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use rattler_shell::activation::{ActivationVariables, PathModificationBehavior};

use super::activation::{self, Ready};
use super::workspace::Workspace;
use super::{LockAndInstallArgs, WorkspaceArgs};
use crate::commands::report;

/// Run a command in an environment
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    lock: LockAndInstallArgs,
    /// The environment [default: the one of this shell, else default]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::locate(&self.workspace)?;
        let [program, arguments @ ..] = self.command.as_slice() else { bail!("there is no command to run") };
        if let Some(tasks) = workspace.table_called("tasks")
            && workspace.has_task(program)
        {
            bail!(
                "`{}` is a task ({tasks} in {}), which this stand-in for pixi does not run\n  hint: name a program, or use \
                 real pixi",
                program.display(),
                workspace.manifest_path.display()
            );
        }
        let ready = Ready::prepare(&workspace, self.environment.as_deref(), &self.lock)?;
        // Pixi activates for a command as if no other environment were active.
        let variables = ActivationVariables {
            conda_prefix: None,
            path: None,
            ..activation::variables(PathModificationBehavior::Prepend)
        };
        let changed = ready.activator()?.run_activation(variables, None);
        let changed = changed.with_context(|| format!("cannot activate {}", ready.prefix.display()))?;
        let error = Command::new(program).args(arguments).envs(changed).exec();
        report::line(&format!("error: cannot run {}: {error}", program.display()));
        Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
    }
}
