//! The lesson's path: what is done in which order, who does it, and where the lesson speaks of it.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgMatches, Command};

use crate::engine::Format;
use crate::git::{Git, Kind};
use crate::lesson;
use crate::options;
use crate::pins;
use crate::session::Session;
use crate::stamp::State;
use crate::step::{Reference, Step, Task};
use crate::steps::{Build, Edit, Fetch, Lock, Rehearse, Run, Test, Workflows, WriteRecipe};

/// One station of the path.
pub struct Station {
    /// What is typed after `cargo xtask` to do it.
    pub name: &'static str,
    /// What else it may be called.
    pub aliases: &'static [&'static str],
    /// The lesson's section that speaks of it.
    pub section: &'static str,
    /// What does it.
    pub by: By,
}

/// Who does a station's work.
pub enum By {
    /// Steps, each of one format where it takes one. A rehearsal's own has no work when nothing is rehearsed.
    Steps(&'static [(&'static dyn Step, Option<Format>)]),
    /// The learner, with the commands that `explain` names; how far it is, this tells.
    Hand(fn(&Session<'_>) -> Result<State>),
}

const DOCKER: Option<Format> = Some(Format::Docker);
const APPTAINER: Option<Format> = Some(Format::Apptainer);
const BY_DOCKER: &str = "Building Docker containers with Pixi environments";
const BY_APPTAINER: &str = "Building Apptainer containers with Pixi environments";
const AUTOMATION: &str = "Automation with GitHub Actions workflows";
const VERSION_CONTROL: &str = "Version Control";
const DEPLOYING: &str = "Deploying Pixi environments";

/// The files that `pixi init` writes.
const START: [&str; 3] = ["pixi.toml", ".gitignore", ".gitattributes"];

/// The path, in the lesson's order.
pub const STATIONS: &[Station] = &[
    Station { name: "rehearse", aliases: &["rehearsal"], section: "", by: By::Steps(&[(&Rehearse, None)]) },
    Station { name: "start", aliases: &["init"], section: DEPLOYING, by: By::Hand(started) },
    Station {
        name: "fetch",
        aliases: &["script", "torch_detect_GPU.py"],
        section: "Moving files",
        by: By::Steps(&[(&Fetch, None)]),
    },
    Station { name: "edit", aliases: &["pixi.toml"], section: DEPLOYING, by: By::Steps(&[(&Edit, None)]) },
    Station { name: "lock", aliases: &["pixi.lock"], section: DEPLOYING, by: By::Steps(&[(&Lock, None)]) },
    Station {
        name: "recipe docker",
        aliases: &["Dockerfile", ".dockerignore"],
        section: "Dockerfile walkthrough",
        by: By::Steps(&[(&WriteRecipe, DOCKER)]),
    },
    Station { name: "build docker", aliases: &[], section: BY_DOCKER, by: By::Steps(&[(&Build, DOCKER)]) },
    Station {
        name: "run docker",
        aliases: &["test docker"],
        section: BY_DOCKER,
        by: By::Steps(&[(&Test, DOCKER), (&Run, DOCKER)]),
    },
    Station {
        name: "workflows docker",
        aliases: &["workflow docker", "docker.yaml"],
        section: AUTOMATION,
        by: By::Steps(&[(&Workflows, DOCKER)]),
    },
    Station {
        name: "recipe apptainer",
        aliases: &["apptainer.def", "definition file"],
        section: "Apptainer walkthrough",
        by: By::Steps(&[(&WriteRecipe, APPTAINER)]),
    },
    Station { name: "build apptainer", aliases: &[], section: BY_APPTAINER, by: By::Steps(&[(&Build, APPTAINER)]) },
    Station {
        name: "run apptainer",
        aliases: &["test apptainer"],
        section: BY_APPTAINER,
        by: By::Steps(&[(&Test, APPTAINER), (&Run, APPTAINER)]),
    },
    Station {
        name: "workflows apptainer",
        aliases: &["workflow apptainer", "apptainer.yaml"],
        section: AUTOMATION,
        by: By::Steps(&[(&Workflows, APPTAINER)]),
    },
    Station { name: "commit", aliases: &["version control", "git"], section: VERSION_CONTROL, by: By::Hand(committed) },
    Station { name: "push", aliases: &["publish"], section: VERSION_CONTROL, by: By::Hand(pushed) },
    Station { name: "submit", aliases: &["cluster", "slurm", "htcondor"], section: DEPLOYING, by: By::Hand(submitted) },
];

/// A piece of work on the path.
pub struct Work {
    /// What does it.
    pub step: &'static dyn Step,
    /// What it is.
    pub task: Task,
}

impl Station {
    /// Its pieces of work; none where it is done by hand, or has none in this session.
    pub fn work(&self, session: &Session<'_>) -> Result<Vec<Work>> {
        let mut work = Vec::new();
        if let By::Steps(steps) = self.by {
            for (step, format) in steps {
                let tasks = step.tasks(session)?.into_iter().filter(|task| task.format == *format);
                work.extend(tasks.map(|task| Work { step: *step, task }));
            }
        }
        Ok(work)
    }

    /// How far it is, and what is typed next to get on with it; none where it has no work in this session.
    pub fn state(&self, session: &Session<'_>) -> Result<Option<(State, String)>> {
        let typed = |name: &str| session.cx.options.typed(name, session.is_rehearsal());
        if let By::Hand(state) = self.by {
            let command = match self.command() {
                told if self.is_told() => told,
                command => typed(command.trim_start_matches("cargo xtask ")),
            };
            return state(session).map(|state| Some((state, command)));
        }
        let work = self.work(session)?;
        let mut last = None;
        for Work { step, task } in &work {
            let state = step.state(session, task)?;
            let is_settled = !state.is_outstanding();
            last = Some((state, typed(&task.title)));
            if !is_settled {
                break;
            }
        }
        Ok(last)
    }

    /// What is typed to do it.
    pub fn command(&self) -> String {
        match self.name {
            "start" => "cargo xtask reset start".to_owned(),
            name if self.is_told() => format!("cargo xtask explain {name}"),
            name => format!("cargo xtask {name}"),
        }
    }

    /// Whether it is told how to do it by hand, and not done.
    fn is_told(&self) -> bool {
        ["push", "submit"].contains(&self.name)
    }

    /// The learner's files that belong to it, as the lesson has them.
    pub fn references(&self, session: &Session<'_>) -> Result<Vec<Reference>> {
        if self.is_start() {
            return start(session);
        }
        let mut references = Vec::new();
        if let By::Steps(steps) = self.by {
            for (step, format) in steps {
                references.extend(step.references(session, *format)?);
            }
        }
        Ok(references)
    }

    /// The learner's files that belong to it and git is to hold, there or not.
    pub fn files(&self, session: &Session<'_>) -> Result<Vec<PathBuf>> {
        if self.is_start() {
            return Ok(START.iter().map(|name| session.learner.directory().join(name)).collect());
        }
        let mut files = Vec::new();
        if let By::Steps(steps) = self.by {
            for (step, format) in steps {
                files.extend(step.files(session, *format)?);
            }
        }
        Ok(files)
    }

    /// The format that it is about, where it is about one.
    pub fn format(&self) -> Option<Format> {
        let By::Steps(steps) = self.by else { return None };
        steps.first().and_then(|(_, format)| *format)
    }

    /// Whether it is where the path begins.
    pub fn is_start(&self) -> bool {
        self.name == "start"
    }

    /// Its name as one word, which is what it is called where several words are not expected.
    pub fn word(&self) -> String {
        self.name.replace(' ', "-")
    }

    /// Whether the learner does it, not a step.
    pub fn is_by_hand(&self) -> bool {
        matches!(self.by, By::Hand(_))
    }

    fn is_called(&self, name: &str) -> bool {
        [self.name].iter().chain(self.aliases).any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The station that a learner calls by these words, with blanks or dashes between them and either name of a format.
pub fn find(words: &str) -> Option<&'static Station> {
    let words = words.split([' ', '-']).filter(|word| !word.is_empty()).map(|word| match word {
        "oci" => "docker",
        "sif" => "apptainer",
        word => word,
    });
    let name = words.collect::<Vec<_>>().join(" ");
    STATIONS.iter().find(|station| station.is_called(&name))
}

/// Reads a station of one word, or of several in quotes or with dashes.
pub fn parser() -> impl TypedValueParser<Value = &'static Station> {
    StationParser
}

#[derive(Clone)]
struct StationParser;

impl TypedValueParser for StationParser {
    type Value = &'static Station;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<&'static Station, clap::Error> {
        let words = value.to_string_lossy();
        find(&words).ok_or_else(|| unknown(&words))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(STATIONS.iter().map(|station| PossibleValue::new(station.word()))))
    }
}

/// An argument STEP of several words, which shells complete as one.
pub fn argument(also: &[&'static str]) -> Arg {
    let step = Arg::new("step").value_name("STEP").num_args(1..=3).hide_possible_values(true);
    step.value_parser(words_like(also.iter().copied()))
}

/// Takes any words; what shells complete are the names of stations and these.
pub fn words_like(also: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = String> {
    let mut names: Vec<String> = STATIONS.iter().map(Station::word).collect();
    let others = also.into_iter().map(str::to_owned).filter(|name| !names.contains(name));
    let others: Vec<String> = others.collect();
    names.extend(others);
    Words { words: StringValueParser::new(), names }
}

/// The words of the argument STEP, in one; none where nothing was typed.
pub fn words(arguments: &ArgMatches) -> Option<String> {
    let words = arguments.get_many::<String>("step")?;
    Some(words.map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// The station that the argument STEP names.
pub fn typed(arguments: &ArgMatches) -> Result<Option<&'static Station>> {
    let Some(words) = words(arguments) else { return Ok(None) };
    find(&words).map(Some).ok_or_else(|| unknown(&words).into())
}

/// Wrong usage: there is no such step.
pub fn unknown(words: &str) -> clap::Error {
    wrong_usage(&format!("there is no step '{words}'"))
}

/// Wrong usage, with the steps that there are.
pub fn wrong_usage(what: &str) -> clap::Error {
    let names = STATIONS.iter().map(|station| station.name).collect::<Vec<_>>().join(", ");
    options::wrong_usage(format_args!("{what}\n  hint: the steps are {names}"))
}

#[derive(Clone)]
struct Words {
    words: StringValueParser,
    names: Vec<String>,
}

impl TypedValueParser for Words {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        self.words.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names.iter().map(PossibleValue::new)))
    }
}

/// What `pixi init` leaves. Of the exercise alone: what another workspace began with, nobody knows.
fn start(session: &Session<'_>) -> Result<Vec<Reference>> {
    if session.learner.name() != pins::WORKSPACE {
        return Ok(Vec::new());
    }
    let reference = |name: &&str| {
        let text = lesson::text(&format!("exercise/{name}"));
        let text = text.with_context(|| format!("xtask was built without its lesson/exercise/{name}"))?;
        Ok(Reference { path: session.learner.directory().join(name), text: text.to_owned() })
    };
    START.iter().map(reference).collect()
}

/// The exercise begins with a manifest.
fn started(session: &Session<'_>) -> Result<State> {
    let manifest = session.learner.manifest();
    let missing = || State::ToDo(format!("{} is not there yet", session.cx.typed(&manifest)));
    Ok(if manifest.is_file() { State::Done } else { missing() })
}

/// Every file of the path that is there is in git, as it is now.
fn committed(session: &Session<'_>) -> Result<State> {
    let git = match Git::find(session.cx)? {
        Ok(git) => git,
        Err(missing) => return Ok(State::ToDo(missing.to_string())),
    };
    let mut files = Vec::new();
    for station in STATIONS {
        files.extend(station.files(session)?);
    }
    let mut changes = match git.changes(&files) {
        Ok(changes) => changes,
        // A workspace outside of the repository, for one.
        Err(error) => return Ok(State::ToDo(error.to_string().lines().next().unwrap_or_default().to_owned())),
    };
    // What is not there is to be made, which an earlier station says.
    changes.retain(|change| change.kind != Kind::Removed);
    let Some(first) = changes.first() else { return Ok(State::Done) };
    let what = if first.kind == Kind::Ignored { "is ignored by git" } else { "is not committed" };
    Ok(State::ToDo(match changes.len() - 1 {
        0 => format!("{} {what}", first.path),
        1 => format!("{} {what}, nor is 1 more", first.path),
        more => format!("{} {what}, nor are {more} more", first.path),
    }))
}

/// Everything that is committed is at a remote repository.
fn pushed(session: &Session<'_>) -> Result<State> {
    Ok(match Git::find(session.cx)? {
        Err(missing) => State::ToDo(missing.to_string()),
        Ok(git) if git.remote().is_none() => {
            State::ToDo("there is no remote repository yet: `git remote add origin ADDRESS` names it".to_owned())
        }
        Ok(git) => match git.commits_to_push() {
            Some(0) => State::Done,
            Some(count) => State::ToDo(format!("commits that are not pushed: {count}")),
            None => State::ToDo("nothing is committed yet".to_owned()),
        },
    })
}

/// A job leaves nothing here.
fn submitted(_session: &Session<'_>) -> Result<State> {
    Ok(State::ToDo("on the cluster, where the image is brought".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_found_by_what_learners_call_it() {
        let name = |words| find(words).map(|station| station.name);
        assert_eq!(name("build docker"), Some("build docker"));
        assert_eq!([name("build-docker"), name("build oci")], [Some("build docker"); 2]);
        assert_eq!(name("test-apptainer"), Some("run apptainer"));
        assert_eq!([name("dockerfile"), name("Dockerfile")], [Some("recipe docker"); 2]);
        assert_eq!(name("apptainer.def"), Some("recipe apptainer"));
        assert_eq!(name("build"), None);
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<_> =
            STATIONS.iter().flat_map(|one| [one.name].into_iter().chain(one.aliases.iter().copied())).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
