//! `verify`: an image is built again and compared with the one that is there.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::context::Context;
use crate::engine::{Engine, Format};
use crate::engines::ENGINES;
use crate::options::AUTO;
use crate::session::Session;
use crate::steps::{self, build};
use crate::ui;

// What `verify` takes.
#[derive(clap::Args)]
struct Arguments {
    /// OCI archive or SIF [default: the images of the workspace that are there]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take pixi.lock as it is, as a build with --frozen did
    #[arg(long)]
    frozen: bool,
}

/// Adds the arguments.
pub fn arguments(command: Command) -> Command {
    Arguments::augment_args(command)
}

/// Prints a line for each image that is the same again. Where one is not, the program that built it again says what differs.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let Arguments { file, frozen } = Arguments::from_arg_matches(arguments)?;
    let session = Session::new(cx, steps::source_of_images(cx)?)?;
    let engine = engine(cx)?;
    build::require_inputs(&session)?;
    let files = match file {
        Some(file) => vec![cx.resolve(file)],
        None => images(&session)?,
    };
    let request = build::request(&session, engine, frozen)?;
    let _server = build::serve(&session, engine)?;
    let mut failed = None;
    for file in files {
        match engine.verify(&session.desk(), &request, &cx.typed(&file)) {
            Ok(Some(same)) => {
                let digest = same.id.unwrap_or_default();
                cx.ui.result(format_args!("{}: the same again, {digest} ({})", same.path, ui::size(same.size)));
            }
            Ok(None) => {}
            // The other one may be right all the same.
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    failed.map_or(Ok(()), Err).context("verify")
}

/// The one that gives the same bytes each time, unless another was asked for, which then says that it does not.
fn engine(cx: &Context) -> Result<&'static dyn Engine> {
    let asked = cx.options.engine.as_str();
    let is_wanted = |engine: &&&dyn Engine| match asked {
        AUTO => !engine.follows_recipe(),
        name => engine.name() == name,
    };
    ENGINES.iter().find(is_wanted).copied().with_context(|| format!("there is no engine {asked}"))
}

/// The images of the workspace that are there: at least one must be.
fn images(session: &Session<'_>) -> Result<Vec<PathBuf>> {
    let all = Format::ALL.map(|format| session.image(format));
    if session.cx.options.dry_run {
        return Ok(all.into());
    }
    let there: Vec<PathBuf> = all.into_iter().filter(|image| image.is_file()).collect();
    if there.is_empty() {
        session.require(&session.image(Format::Docker), "build docker --engine native")?;
    }
    Ok(there)
}
