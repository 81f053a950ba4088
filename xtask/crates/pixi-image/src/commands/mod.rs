//! The subcommands: one file each, with its arguments and one function that runs it.

use std::process::ExitCode;

use clap::Subcommand;

mod bench;
mod build;
mod bundle;
mod cache;
mod fetch;
mod inspect;
mod interrupt;
mod lock;
#[cfg(target_os = "linux")]
pub mod pixi;
mod plan;
mod probe;
pub mod report;
mod resolve;
mod run;
mod test;
mod verify;

#[derive(Subcommand)]
pub enum Command {
    Build(build::Build),
    Verify(verify::Verify),
    Bundle(bundle::Bundle),
    Plan(plan::Plan),
    Lock(lock::Lock),
    Run(run::Run),
    Test(test::Test),
    Inspect(inspect::Inspect),
    Fetch(fetch::Fetch),
    Probe(probe::Probe),
    Resolve(resolve::Resolve),
    Bench(bench::Bench),
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Build(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Bundle(command) => command.run(),
            Self::Plan(command) => command.run(),
            Self::Lock(command) => command.run(),
            Self::Run(command) => command.run(),
            Self::Test(command) => command.run(),
            Self::Inspect(command) => command.run(),
            Self::Fetch(command) => command.run(),
            Self::Probe(command) => command.run(),
            Self::Resolve(command) => command.run(),
            Self::Bench(command) => command.run(),
        }
    }
}
