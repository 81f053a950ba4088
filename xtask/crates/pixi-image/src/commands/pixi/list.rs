//! `pixi list`.

use std::process::ExitCode;

use anyhow::bail;
use pixi_image::http;
use pixi_image::model::LockedPackage;

use super::machine::Machine;
use super::workspace::{self, Workspace};
use super::{LockArgs, WorkspaceArgs};
use crate::commands::report;

const HEADER: [&str; 6] = ["Name", "Version", "Build", "Size", "Kind", "Source"];

/// List the packages of an environment
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    lock: LockArgs,
    /// The environment [default: the one of this shell, else default]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<String>,
    /// Leave the environment as it is, which it is in any case
    #[arg(long)]
    no_install: bool,
}

impl List {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::locate(&self.workspace)?;
        let environment = workspace.environment(self.environment.as_deref())?;
        workspace.update_lock(self.lock.usage(), &workspace::store()?)?;
        // Unlike installing, listing wants a platform that the machine was declared to be.
        let locked = workspace.declared(environment, &Machine::detect()?)?;
        let mut packages: Vec<&LockedPackage> = locked.environment.packages.iter().collect();
        if packages.is_empty() {
            bail!(
                "No packages found in '{}' environment for '{}' platform.",
                environment.name,
                locked.target.platform.name
            );
        }
        packages.sort_by_key(|package| package.name());
        if environment.name != "default" {
            report::line(&format!("Environment: {}", environment.name));
        }
        report::result(&table(packages.into_iter().map(row).collect()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(package: &LockedPackage) -> [String; 6] {
    let conda = package.conda().map(|package| &package.record);
    let index = package.wheel().and_then(|wheel| wheel.index.as_ref()).map(http::shown);
    let source = conda.and_then(|record| record.channel.clone()).or(index);
    // Pixi writes the names of wheels as their metadata's directories have them.
    let name = if conda.is_some() { package.name().to_owned() } else { package.name().replace('-', "_") };
    [
        name,
        package.version(),
        conda.map(|record| record.package_record.build.as_str().to_owned()).unwrap_or_default(),
        package.size().map(human).unwrap_or_default(),
        package.kind().to_owned(),
        source.unwrap_or_else(|| http::shown(package.url())),
    ]
}

fn table(rows: Vec<[String; 6]>) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEADER.len()).map(width).collect();
    let cell = |column: usize, text: &String| match HEADER[column] {
        "Size" => format!("{text:>width$}", width = widths[column]),
        _ => format!("{text:<width$}", width = widths[column]),
    };
    let line = |line: &[String; 6]| {
        let cells: Vec<_> = line.iter().enumerate().map(|(column, text)| cell(column, text)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `11.62 MiB`.
fn human(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.2} {unit}") }
}
