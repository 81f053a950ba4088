//! `build`: the locked environment becomes an OCI archive and an Apptainer image.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::built;
use crate::context::Server;
use crate::engine::{BuildRequest, Engine, Format, Image, Target};
use crate::engines;
use crate::external::Program;
use crate::options::AUTO;
use crate::plan::Plan;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{Formats, Row, Step, Task};
use crate::steps::{lock, run};
use crate::ui;

/// A download that is announced, in bytes.
const LARGE_DOWNLOAD: u64 = 1_000_000_000;
/// The environment that does without CUDA.
const CPU: &str = "cpu";

/// The step.
pub struct Build;

// What `build` takes.
#[derive(clap::Args)]
struct Arguments {
    /// Take pixi.lock as it is; the lesson's recipes say --locked
    #[arg(long)]
    frozen: bool,
}

impl Step for Build {
    fn name(&self) -> &'static str {
        "build"
    }

    fn about(&self) -> &'static str {
        "Build the image: docker (alias oci) or apptainer (alias sif)"
    }

    fn why(&self) -> &'static str {
        "A container image carries the whole environment to machines that have neither pixi nor the internet."
    }

    fn lesson(&self) -> &'static str {
        "docker build --file Dockerfile --tag <name:tag> .   and   apptainer build <name>.sif apptainer.def"
    }

    fn lesson_for(&self, format: Option<Format>) -> &'static str {
        match format {
            Some(Format::Apptainer) => "apptainer build <name>.sif apptainer.def",
            _ => "docker build --file Dockerfile --tag <name:tag> .",
        }
    }

    fn example(&self) -> &'static str {
        "cargo xtask build docker --env cpu"
    }

    fn formats(&self) -> Formats {
        Formats::Required
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let task = |format| task(session, self, format, session.engine(format)?);
        session.formats().into_iter().map(task).collect()
    }

    fn state(&self, session: &Session<'_>, of: &Task) -> Result<State> {
        state_by_any_engine(session, of, |format, engine| task(session, self, format, engine))
    }

    /// The base image's digest: images are never in git.
    fn files(&self, session: &Session<'_>, _format: Option<Format>) -> Result<Vec<PathBuf>> {
        Ok(vec![session.learner.base_lock()])
    }

    /// What one engine makes, it makes in one go.
    fn companions(&self, session: &Session<'_>, format: Format) -> Result<Vec<Format>> {
        let engine = session.engine(format)?.name();
        let mut formats = vec![format];
        for other in session.formats().into_iter().filter(|other| *other != format) {
            if session.engine(other)?.name() == engine {
                formats.push(other);
            }
        }
        Ok(formats)
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let frozen = Arguments::from_arg_matches(arguments)?.frozen;
        require_inputs(session)?;
        // What one engine makes, it makes in one go.
        let mut jobs: Vec<(&dyn Engine, Vec<&Task>)> = Vec::new();
        for task in tasks {
            let Some(format) = task.format else { continue };
            let engine = session.engine(format)?;
            match jobs.iter_mut().find(|(other, _)| other.name() == engine.name()) {
                Some((_, tasks)) => tasks.push(task),
                None => jobs.push((engine, vec![task])),
            }
        }
        let mut rows = Vec::new();
        for (engine, tasks) in jobs {
            rows.extend(build(session, engine, &tasks, frozen)?);
        }
        Ok(rows)
    }
}

fn task(session: &Session<'_>, step: &dyn Step, format: Format, engine: &dyn Engine) -> Result<Task> {
    let cx = session.cx;
    let base = match &cx.options.base {
        None if session.is_rehearsal() => Input::File(session.rehearsal.base()),
        Some(base) if cx.resolve(base).is_file() => Input::File(cx.resolve(base)),
        _ => Input::Value(session.base(engine).unwrap_or_default()),
    };
    let mut inputs = vec![
        Input::Content(session.workspace.manifest()),
        Input::Content(session.workspace.lock()),
        Input::Tree(session.workspace.app()),
        Input::Value(engine.name().to_owned()),
        Input::Value(format!("{:?}", session.labels())),
        Input::Value(cx.options.cuda_version.clone().unwrap_or_default()),
        base,
    ];
    // The rehearsal's base carries pixi-image as its pixi.
    if session.is_rehearsal() || !engine.follows_recipe() {
        inputs.push(Input::File(session.programs.path(Program::PixiImage)));
    }
    if engine.follows_recipe() {
        inputs.push(Input::Content(session.recipe(format)));
    }
    let mut outputs = vec![session.image(format)];
    if let Some(base_lock) = session.base_lock(engine) {
        inputs.push(Input::Optional(base_lock.clone()));
        outputs.push(base_lock);
    }
    Ok(Task::new(session, step, Some(format), inputs, outputs))
}

/// How far a task is that is noted with its engine. Where the engine is ours to choose, what another one did counts, too:
/// it was asked for then, or it was the one that worked here.
pub fn state_by_any_engine(
    session: &Session<'_>,
    task: &Task,
    by: impl Fn(Format, &dyn Engine) -> Result<Task>,
) -> Result<State> {
    let state = task.record.state(session.cx)?;
    if let (Some(format), true) = (task.format, state.is_outstanding() && session.cx.options.engine == AUTO) {
        for engine in engines::makers(format) {
            if by(format, engine)?.record.state(session.cx)? == State::Done {
                return Ok(State::Done);
            }
        }
    }
    Ok(state)
}

/// An image that must have been built, and whether its engine built it from what is there now.
pub fn image(session: &Session<'_>, format: Format) -> Result<Image> {
    let path = session.image(format);
    session.require(&path, &format!("build {}", format.name()))?;
    let task = task(session, &Build, format, session.engine(format)?)?;
    let built_here = session.cx.options.dry_run || task.record.state(session.cx)? == State::Done;
    Ok(Image { path: session.cx.typed(&path), reference: session.reference(), built_here })
}

/// What goes into an image must be there.
pub fn require_inputs(session: &Session<'_>) -> Result<()> {
    session.require(&session.workspace.manifest(), "edit")?;
    session.require(&session.workspace.lock(), "lock")?;
    session.require(&session.workspace.app(), "fetch")?;
    if session.cx.options.base.is_none() && session.is_rehearsal() {
        session.require(&session.rehearsal.base(), "rehearse")?;
    }
    if let Some(bundle) = &session.bundle {
        bundle.require(&session.cx.options.environment)?;
    }
    Ok(())
}

/// What an image is made from, without a place for it and without its further names.
pub fn request(session: &Session<'_>, engine: &dyn Engine, frozen: bool) -> Result<BuildRequest> {
    let (cx, workspace) = (session.cx, &session.workspace);
    Ok(BuildRequest {
        workspace: cx.typed(workspace.directory()),
        lock: cx.typed(&workspace.lock()),
        manifest: cx.typed(&workspace.manifest()),
        environment: cx.options.environment.clone(),
        base: session.pinned_base(engine)?,
        base_typed: cx.options.base.is_some(),
        cuda_version: cx.options.cuda_version.clone(),
        app: cx.typed(&workspace.app()),
        reference: session.reference(),
        aliases: Vec::new(),
        labels: session.labels(),
        frozen,
        offline: session.is_offline(),
        cache: session.cache(),
        loopback: session.is_rehearsal(),
        exact: cx.options.exact,
        command: run::default_command(),
        outputs: Vec::new(),
    })
}

/// Serves the channel of a rehearsal, and for a recipe its base image, until the returned value goes.
pub fn serve(session: &Session<'_>, engine: &dyn Engine) -> Result<Option<Server>> {
    match (session.is_rehearsal(), engine.follows_recipe()) {
        (false, _) => Ok(None),
        (true, false) => session.rehearsal.serve(session.cx, &session.programs),
        (true, true) => session.rehearsal.serve_with_image(session.cx, &session.programs),
    }
}

/// Says how much a build will download, and what the smaller environment would, where that takes a while. What cannot be
/// told is no reason to stop: the build says it better.
fn announce_download(session: &Session<'_>, engine: &dyn Engine) {
    let (cx, environment) = (session.cx, &session.cx.options.environment);
    if cx.options.dry_run || cx.options.offline || session.is_rehearsal() {
        return;
    }
    let lock = cx.typed(&session.workspace.lock());
    let missing = |environment: &str| {
        let plan = Plan::read(cx, &session.programs, &lock, environment).ok().flatten()?;
        // Another engine's pixi has a cache of its own.
        let cached = if engine.follows_recipe() { 0 } else { plan.cached_bytes };
        Some(plan.download_bytes.saturating_sub(cached))
    };
    let Some(bytes) = missing(environment).filter(|bytes| *bytes > LARGE_DOWNLOAD) else { return };
    let at_most = if engine.follows_recipe() { "at most " } else { "" };
    let smaller = if environment == CPU { None } else { missing(CPU).filter(|smaller| *smaller < bytes) };
    let smaller = smaller.map(|bytes| format!(" With `--env {CPU}` it would be {at_most}{}.", ui::size(bytes)));
    cx.ui.note(format_args!(
        "The packages of {environment} are {at_most}{} to download.{}",
        ui::size(bytes),
        smaller.unwrap_or_default()
    ));
}

fn build(session: &Session<'_>, engine: &dyn Engine, tasks: &[&Task], frozen: bool) -> Result<Vec<Row>> {
    let (cx, workspace) = (session.cx, &session.workspace);
    // The native engine looks by itself.
    if engine.follows_recipe() && !frozen {
        lock::require_satisfied(session)?;
    }
    let (mut outputs, mut aliases) = (Vec::new(), Vec::new());
    for format in tasks.iter().filter_map(|task| task.format) {
        if engine.follows_recipe() {
            session.require(&session.recipe(format), &format!("recipe {}", format.name()))?;
            let tags = session.tags(format)?.into_iter();
            aliases.extend(tags.map(|tag| format!("{}:{tag}", workspace.name())));
        }
        let (path, recipe) = (cx.typed(&session.image(format)), cx.typed(&session.recipe(format)));
        outputs.push(Target { format, path, recipe });
    }
    announce_download(session, engine);
    let request = BuildRequest { aliases, outputs, ..request(session, engine, frozen)? };
    let server = serve(session, engine)?;
    let clock = cx.now();
    let built = engine.build(&session.desk(), &request).map_err(|error| match &session.bundle {
        Some(bundle) => anyhow!("{error:#}\n  hint: {}", bundle.hint()),
        None => error,
    })?;
    let Some(artifacts) = built else { return Ok(Vec::new()) };
    let elapsed = clock.elapsed();
    drop(server);
    for task in tasks {
        built::keep(cx, &task.record.stamp, &workspace.lock(), &workspace.app())?;
    }
    let rows = tasks.iter().zip(artifacts).enumerate().map(|(index, (task, artifact))| {
        if let Some(id) = &artifact.id {
            cx.ui.detail(format_args!("{} is {id}", artifact.path));
        }
        // One command made both: its time stands once.
        let elapsed = Some(elapsed).filter(|_| index == 0);
        Row { size: Some(artifact.size), ..Row::new(task, engine.name(), artifact.path, elapsed) }
    });
    Ok(rows.collect())
}
