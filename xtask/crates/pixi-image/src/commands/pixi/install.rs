//! `pixi install`.

use std::process::ExitCode;
use std::sync::Arc;

use super::machine::Machine;
use super::workspace::{self, Workspace};
use super::{LockArgs, WorkspaceArgs};
use crate::commands::{interrupt, report};

/// Install environments from the lock
#[derive(clap::Args)]
pub struct Install {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    lock: LockArgs,
    /// The environment; may be given several times [default: default]
    #[arg(long, short, value_name = "NAME")]
    environment: Vec<String>,
    /// Install all environments
    #[arg(long, short, conflicts_with = "environment")]
    all: bool,
}

impl Install {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::locate(&self.workspace)?;
        let names: Vec<&str> = match (self.all, self.environment.as_slice()) {
            (true, _) => workspace.manifest.environments.iter().map(|environment| environment.name.as_str()).collect(),
            (false, []) => vec!["default"],
            (false, named) => named.iter().map(String::as_str).collect(),
        };
        let environments = names.iter().map(|name| workspace.environment(Some(name))).collect::<Result<Vec<_>, _>>()?;
        interrupt::watch(Arc::new(report::Lines))?;
        let store = workspace::store()?;
        workspace.update_lock(self.lock.usage(), &store)?;
        let machine = Machine::detect()?;
        for environment in environments {
            let locked = workspace.runnable(environment, &machine)?;
            workspace.install(&locked, &store)?;
        }
        report::line(&match names.as_slice() {
            [name] => format!("\u{2714} The {name} environment has been installed."),
            names => format!("\u{2714} The following environments have been installed: {}.", names.join(", ")),
        });
        Ok(ExitCode::SUCCESS)
    }
}
