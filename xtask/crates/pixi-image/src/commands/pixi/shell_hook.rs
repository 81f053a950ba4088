//! `pixi shell-hook`.

use std::process::ExitCode;

use anyhow::Context;
use rattler_shell::activation::PathModificationBehavior;
use rattler_shell::shell::{Bash, Shell, ShellEnum};

use super::activation::{self, Ready};
use super::workspace::Workspace;
use super::{LockAndInstallArgs, WorkspaceArgs};
use crate::commands::report;

/// The function by which a shell that has the hook follows what `pixi install` changes.
const FUNCTION: &str = r#"pixi() {
	"${PIXI_EXE-}" "$@" || return
	case "${1-}" in
	install | i)
		eval "$("${PIXI_EXE-}" shell-hook --change-ps1 false)"
		hash -r
		;;
	esac
}
"#;

/// Print the shell text that activates an environment
#[derive(clap::Args)]
pub struct ShellHook {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    lock: LockAndInstallArgs,
    /// The environment [default: the one of this shell, else default]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<String>,
    /// The shell that reads the text
    #[arg(long, short, value_name = "SHELL", default_value = "bash", value_parser = ["bash"])]
    shell: String,
    /// Leave the completions of the environment's programs out
    #[arg(long)]
    no_completions: bool,
    /// Whether the prompt shows the environment
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    change_ps1: bool,
}

impl ShellHook {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::locate(&self.workspace)?;
        let ready = Ready::prepare(&workspace, self.environment.as_deref(), &self.lock)?;
        // The default replaces PATH: what stands in the text is the PATH of now, wherever it is read later.
        let variables = activation::variables(PathModificationBehavior::default());
        let cannot = || format!("cannot write down how {} is activated", ready.prefix.display());
        let mut script = ready.activator()?.activation(variables).with_context(cannot)?.script;
        let shell = ShellEnum::Bash(Bash::default());
        if let Some(place) = shell.completion_script_location().filter(|_| !self.no_completions) {
            script.source_completions(&ready.prefix.join(place)).with_context(cannot)?;
        }
        let mut text = script.contents().with_context(cannot)?;
        text += "\n";
        text += FUNCTION;
        if self.change_ps1 {
            text += &format!("export PS1=\"({}) ${{PS1:-}}\"\n", ready.title());
        }
        report::result(text.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
