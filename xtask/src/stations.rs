//! The lesson's path: what is done in which order, who does it, and where the lesson speaks of it.

use anyhow::Result;
use clap::builder::TypedValueParser;

use crate::command_line::CommandLine;
use crate::engine::Format;
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
        if let By::Hand(state) = self.by {
            return state(session).map(|state| Some((state, self.command())));
        }
        let work = self.work(session)?;
        let mut last = None;
        for Work { step, task } in &work {
            let state = step.state(session, task)?;
            let is_settled = !state.is_outstanding();
            last = Some((state, format!("cargo xtask {}", task.title)));
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
            // What is done by hand is told, not done.
            "push" | "submit" => format!("cargo xtask explain {}", self.name),
            name => format!("cargo xtask {name}"),
        }
    }

    /// The learner's files that belong to it, as the lesson has them.
    pub fn references(&self, session: &Session<'_>) -> Result<Vec<Reference>> {
        let mut references = Vec::new();
        if let By::Steps(steps) = self.by {
            for (step, format) in steps {
                references.extend(step.references(session, *format)?);
            }
        }
        Ok(references)
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
    clap::builder::NonEmptyStringValueParser::new().try_map(|name| {
        let names = || STATIONS.iter().map(|station| station.name.replace(' ', "-")).collect::<Vec<_>>().join(", ");
        find(&name).ok_or_else(|| format!("the steps are {}", names()))
    })
}

/// The exercise begins with a manifest.
fn started(session: &Session<'_>) -> Result<State> {
    let manifest = session.learner.manifest();
    let missing = || State::ToDo(format!("{} is not there yet", session.cx.typed(&manifest)));
    Ok(if manifest.is_file() { State::Done } else { missing() })
}

/// What git says to a question, where it has an answer.
fn git(session: &Session<'_>, words: &[&str]) -> Option<String> {
    let answer = session.cx.look(&CommandLine::new("git").args(words.iter().copied())).ok()?;
    (answer.code == 0).then(|| answer.stdout.trim_end().to_owned())
}

/// Everything of the workspace and the workflows is in git.
fn committed(session: &Session<'_>) -> Result<State> {
    let workspace = session.cx.typed(session.learner.directory());
    // With `-z` names stand as they are, each ended by a zero; the state of a file is two letters before its name.
    let words =
        ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", &workspace, ".github/workflows"];
    Ok(match git(session, &words) {
        None => State::ToDo("this is no repository of git yet: `git init` makes it one".to_owned()),
        Some(changes) if changes.is_empty() => State::Done,
        Some(changes) => {
            let mut names = changes.split_terminator('\0').filter_map(|entry| entry.get(3..));
            let first = names.next().unwrap_or_default();
            let more = names.count();
            State::ToDo(if more == 0 {
                format!("{first} is not committed")
            } else {
                format!("{first} and {more} more are not committed")
            })
        }
    })
}

/// Everything that is committed is at the remote repository.
fn pushed(session: &Session<'_>) -> Result<State> {
    Ok(match git(session, &["rev-list", "--count", "@{upstream}..HEAD"]).as_deref() {
        Some("0") => State::Done,
        Some(count) => State::ToDo(format!("commits that are not pushed: {count}")),
        None => State::ToDo("the branch is not at a remote repository yet".to_owned()),
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
