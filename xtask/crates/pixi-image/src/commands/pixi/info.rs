//! `pixi info`.

use std::process::ExitCode;

use super::machine::Machine;
use super::workspace::{self, Workspace};
use super::{VERSION, WorkspaceArgs};
use crate::commands::report;

/// Tell about this machine and the workspace
#[derive(clap::Args)]
pub struct Info {
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

impl Info {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut text = Text::default();
        let machine = Machine::detect()?;
        text.title("System");
        text.row("Pixi version", VERSION);
        text.row("Platform", machine.subdir.as_str());
        for (index, package) in machine.virtual_packages.iter().enumerate() {
            text.row(if index == 0 { "Virtual packages" } else { "" }, &package.to_string());
        }
        let cache = workspace::store().map_or("None".to_owned(), |store| store.root().display().to_string());
        text.row("Cache dir", &cache);
        if let Some(workspace) = Workspace::find(&self.workspace)? {
            text.title("Workspace");
            text.row("Name", &workspace.name);
            if let Some(version) = &workspace.version {
                text.row("Version", version);
            }
            text.row("Manifest file", &workspace.manifest_path.display().to_string());
            text.title("Environments");
            for environment in &workspace.manifest.environments {
                let names: Vec<_> = environment.targets.iter().map(|target| target.platform.name.as_str()).collect();
                text.row("Environment", &environment.name);
                text.row("Target platforms", &names.join(", "));
            }
        }
        report::result(text.0.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn title(&mut self, title: &str) {
        let space = if self.0.is_empty() { "" } else { "\n" };
        self.0 += &format!("{space}{title}\n------------\n");
    }

    fn row(&mut self, name: &str, value: &str) {
        self.0 += &format!("{name:>20}: {value}\n");
    }
}
