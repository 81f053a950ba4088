//! `completions`: what lets a shell complete `cargo xtask`, and a command `xtask` where there is an alias of that name.
//!
//! A shell asks one function for what can follow `cargo`, and that is cargo's. So the commands of xtask are completed for a
//! command `xtask`, as clap_complete writes it, and below it stands what hands `cargo xtask` over to that and leaves the
//! rest to cargo's own. PowerShell has none of cargo's that could be lost.

use anyhow::{Result, anyhow};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use crate::commands;
use crate::context::Context;

/// Under which name the shells know it.
const NAME: &str = "xtask";

/// How each shell is told.
const HOW: &str = "\
Print what lets your shell complete `cargo xtask`

Type once:
  cargo xtask completions bash >~/.cargo-xtask.bash
  cargo xtask completions zsh >~/.cargo-xtask.zsh
  cargo xtask completions fish >~/.config/fish/conf.d/cargo-xtask.fish
  cargo xtask completions powershell >>$PROFILE
For bash, add to ~/.bashrc:
  source ~/.cargo-xtask.bash
For zsh, add to ~/.zshrc, below compinit:
  source ~/.cargo-xtask.zsh
A function or alias `xtask` of `cargo xtask` is completed, too.";

/// Adds the shell.
pub fn arguments(command: Command) -> Command {
    let shells = PossibleValuesParser::new(["bash", "zsh", "fish", "powershell"]);
    let shell = Arg::new("shell").value_name("SHELL").required(true).help("Shell that completes").value_parser(shells);
    command.arg(shell).long_about(HOW)
}

/// Prints it.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let Some(name) = arguments.get_one::<String>("shell") else { return Ok(()) };
    let shell: Shell = name.parse().map_err(|error| anyhow!("completions: {error}"))?;
    let xtask = commands::command().name(NAME);
    let (mut command, more) = match shell {
        Shell::Bash => (xtask, include_str!("completions/cargo.bash").to_owned()),
        Shell::Zsh => (xtask, include_str!("completions/cargo.zsh").to_owned()),
        Shell::Fish => {
            let values = values_for_fish(&xtask);
            (xtask, format!("{values}{}", include_str!("completions/cargo.fish")))
        }
        _ => (Command::new("cargo").subcommand(xtask), String::new()),
    };
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    cx.ui.result(format_args!("{}{more}", String::from_utf8_lossy(&text)).to_string().trim_end());
    Ok(())
}

/// What clap_complete leaves out for fish: the words that follow a command.
fn values_for_fish(xtask: &Command) -> String {
    let mut lines = String::new();
    for command in xtask.get_subcommands() {
        let values = command.get_positionals().flat_map(Arg::get_possible_values);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        if !names.is_empty() {
            let (name, names) = (command.get_name(), names.join(" "));
            lines += &format!("complete -c {NAME} -n \"__fish_{NAME}_using_subcommand {name}\" -f -a \"{names}\"\n");
        }
    }
    lines
}
