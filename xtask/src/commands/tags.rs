//! `tags`: what an image is called where it is published.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::context::Context;
use crate::engine::Format;
use crate::options::SourceChoice;
use crate::session::Session;

/// Adds the format.
pub fn arguments(command: Command) -> Command {
    let format = Arg::new("format").value_name("FORMAT").required(true).help("Image format");
    command.arg(format.value_parser(value_parser!(Format)))
}

/// Prints one tag a line, as the lock says them: it must be there. Nothing is asked of the network.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let is_open = cx.options.source == SourceChoice::Auto && cx.options.bundle.is_none();
    let choice = if is_open { SourceChoice::CondaForge } else { cx.options.source };
    let session = Session::new(cx, choice)?;
    session.require(&session.workspace.lock(), "lock")?;
    if let Some(format) = arguments.get_one::<Format>("format") {
        session.tags(*format)?.iter().for_each(|tag| cx.ui.result(tag));
    }
    Ok(())
}
