//! `commit`: the lesson's git commands for the files of a step, shown or run.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::Format;
use crate::git::{Change, Git, Kind};
use crate::session::Session;
use crate::stations::{self, STATIONS, Station};

/// What the lesson commits together, beside single steps.
const FORMATS: [&str; 2] = ["docker", "apptainer"];

/// Adds the step and how it is committed.
pub fn arguments(command: Command) -> Command {
    let step = stations::argument(&FORMATS);
    let step = step.help("Step, or `docker` or `apptainer` for all of that format [default: the whole path]");
    let branch = Arg::new("branch").long("branch").value_name("NAME").help("Branch to commit on");
    let message = Arg::new("message").long("message").short('m').value_name("TEXT").help("Message of the commit");
    let message = message.value_parser(clap::builder::NonEmptyStringValueParser::new());
    let yes = Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help("Run the commands");
    command.arg(step).arg(branch.value_parser(value_parser!(String))).arg(message).arg(yes)
}

/// What is committed in one go.
struct Part {
    /// As it is typed after `commit`; empty for all.
    typed: String,
    /// Its files, there or not, each with the command that makes it.
    files: Vec<(PathBuf, String)>,
    message: String,
    /// What its branch is called.
    branch: String,
}

/// Shows the commands of git, and runs them with `--yes`. Nothing is ever pushed.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let session = Session::of_files(cx)?;
    let part = part(&session, stations::words(arguments).as_deref())?;
    let flag = |name: &str| arguments.get_one::<String>(name).cloned();
    commit(&session, &part, flag("branch"), flag("message"), arguments.get_flag("yes"))
        .map_err(|error| error.context(format!("commit {}", part.typed).trim_end().to_owned()))
}

fn part(session: &Session<'_>, words: Option<&str>) -> Result<Part> {
    let name = session.learner.name();
    let format = words.and_then(|words| match words.to_ascii_lowercase().as_str() {
        "docker" | "oci" => Some(Format::Docker),
        "apptainer" | "sif" => Some(Format::Apptainer),
        _ => None,
    });
    let of_stations = |belongs: &dyn Fn(&Station) -> bool| -> Result<Vec<(PathBuf, String)>> {
        let mut files: Vec<(PathBuf, String)> = Vec::new();
        for station in STATIONS.iter().filter(|station| belongs(station)) {
            for file in station.files(session)? {
                if !files.iter().any(|(earlier, _)| *earlier == file) {
                    files.push((file, station.command()));
                }
            }
        }
        Ok(files)
    };
    if let Some(format) = format {
        let title = if format == Format::Docker { "Docker" } else { "Apptainer" };
        return Ok(Part {
            typed: format.name().to_owned(),
            files: of_stations(&|station| station.format().is_none_or(|own| own == format))?,
            message: format!("Add the {title} image of {name}"),
            branch: format!("{name}-{}", format.name()),
        });
    }
    let station = match words {
        None => None,
        Some(words) => Some(stations::find(words).ok_or_else(|| stations::unknown(words))?),
    };
    // `commit commit` is what the step of that name is.
    let Some(station) = station.filter(|station| station.name != "commit") else {
        return Ok(Part {
            typed: String::new(),
            files: of_stations(&|_| true)?,
            message: format!("Add {name} and its container images"),
            branch: name.to_owned(),
        });
    };
    Ok(Part {
        typed: station.name.to_owned(),
        files: of_stations(&|other| other.name == station.name)?,
        message: message(station.name, name),
        branch: format!("{name}-{}", station.word()),
    })
}

fn message(step: &str, workspace: &str) -> String {
    match step {
        "start" => format!("Begin the Pixi workspace {workspace}"),
        "fetch" => "Add a script that says which GPU PyTorch sees".to_owned(),
        "edit" => format!("Add the cpu and gpu environments to {workspace}"),
        "lock" => format!("Lock the environments of {workspace}"),
        "recipe docker" => format!("Add the Dockerfile of {workspace}"),
        "recipe apptainer" => format!("Add the Apptainer definition file of {workspace}"),
        "workflows docker" => format!("Build and publish the Docker image of {workspace} on GitHub"),
        "workflows apptainer" => format!("Build and publish the Apptainer image of {workspace} on GitHub"),
        _ => format!("Pin the base image of {workspace}"),
    }
}

fn commit(
    session: &Session<'_>,
    part: &Part,
    branch: Option<String>,
    message: Option<String>,
    yes: bool,
) -> Result<()> {
    let cx = session.cx;
    if part.files.is_empty() {
        bail!("it writes no file that belongs into git\n  hint: `cargo xtask commit` without a step takes all that do");
    }
    let git = Git::find(cx)?.map_err(|missing| match missing.hint {
        "" => anyhow!("{}", missing.why),
        hint => anyhow!("{}\n  hint: {hint}", missing.why),
    })?;
    if let Some(what) = git.underway() {
        bail!("a {what} is underway\n  hint: end it first; `git status` says how");
    }
    if session.learner.directory().join(".git").exists() && git.prefix() != cx.typed(session.learner.directory()) {
        bail!(
            "{0} is a repository of its own, inside of the project's\n  hint: remove {0}/.git, and the project's git holds it",
            cx.typed(session.learner.directory())
        );
    }
    let files = changed(&git, part)?;
    note_own(session, &git, part)?;
    if files.is_empty() {
        cx.ui.result("Nothing to commit: what is there is in git as it is.");
        return Ok(());
    }
    if let Some(said) = git.lacks_identity()? {
        bail!(
            "git does not know who you are; it says:\n{said}\n  \
             hint: `git config user.name NAME` and `git config user.email ADDRESS` tell it"
        );
    }
    let switch = switch(cx, &git, &part.branch, branch)?;
    let message = message.unwrap_or_else(|| part.message.clone());
    let add = git.about(&["add"], files.clone());
    // What somebody has staged besides is not part of it and stays staged.
    let commit = git.about(&["commit", "--only", "--message", &message], files.clone());
    let commands: Vec<CommandLine> = switch.into_iter().chain([add, commit]).collect();
    if files.iter().any(|file| file.starts_with(".github/")) && !git.prefix().is_empty() {
        cx.ui.announce(format_args!(
            "GitHub reads workflows at the top of a repository only, and this project lies in its directory {}.",
            git.prefix()
        ));
    }
    if !yes || cx.options.dry_run {
        commands.iter().for_each(|command| cx.ui.result(command));
        let typed = format!("cargo xtask commit {}", part.typed);
        cx.ui.note(format_args!("`{} --yes` runs them.", typed.trim_end()));
        return Ok(());
    }
    for command in &commands {
        cx.execute(command).map_err(|error| {
            anyhow!("{error:#}\n  hint: mend what git says and type the same again: nothing is lost, nothing is pushed")
        })?;
    }
    next(cx, &git);
    Ok(())
}

/// The part's files that are there and not as in the last commit; what hinders a commit is an error.
fn changed(git: &Git<'_>, part: &Part) -> Result<Vec<String>> {
    let cx = git.cx();
    let mut changed = Vec::new();
    for (file, made_by) in &part.files {
        let place = cx.typed(file);
        let changes = git.changes(std::slice::from_ref(file))?;
        if cx.entry(file)?.is_none() {
            let is_removed = changes.iter().any(|change| change.kind == Kind::Removed);
            let was = if is_removed { "any more" } else { "yet" };
            // Not every build pins a base image.
            if !file.ends_with("base.lock") {
                cx.ui.note(format_args!("{place} is not there {was}: `{made_by}` makes it."));
            }
            continue;
        }
        for Change { kind, path } in changes {
            match kind {
                Kind::Changed if !changed.contains(&place) => changed.push(place.clone()),
                Kind::Changed | Kind::Removed => {}
                Kind::Unmerged => bail!("{path} is not merged\n  hint: end the merge first; `git status` says how"),
                Kind::Ignored => {
                    let rule = git.rule(&place).map_or(String::new(), |rule| format!(" by {rule}"));
                    bail!(
                        "git ignores {place}{rule}\n  hint: take that rule out: what git does not hold, nobody else can build"
                    )
                }
            }
        }
    }
    Ok(changed)
}

/// Names what the learner has beside the script, which images get, too.
fn note_own(session: &Session<'_>, git: &Git<'_>, part: &Part) -> Result<()> {
    let (cx, script) = (session.cx, session.learner.script());
    if !part.files.iter().any(|(file, _)| *file == script) {
        return Ok(());
    }
    let changes = git.changes(&[session.learner.app()])?;
    let others = changes.into_iter().filter(|change| change.kind != Kind::Ignored && change.path != cx.typed(&script));
    for Change { path, .. } in others {
        cx.ui.note(format_args!("{path} is your own, and no part of this commit: `git add` and `git commit` take it."));
    }
    Ok(())
}

/// The command that goes to the branch, if it is not this one already. A branch of the learner's own is good; the branch
/// that others take as the repository's state is not.
fn switch(cx: &Context, git: &Git<'_>, proposed: &str, typed: Option<String>) -> Result<Option<CommandLine>> {
    let now = git.branch();
    let line = |words: &[&str]| Some(CommandLine::new("git").arg("switch").args(words.iter().copied()));
    if let Some(typed) = typed {
        if !git.is_branch_name(&typed) {
            bail!("no branch can be called {typed:?}\n  hint: take letters, digits and dashes");
        }
        return Ok(match (now.as_deref() == Some(&typed), git.has_branch(&typed)) {
            (true, _) => None,
            (false, true) => line(&[&typed]),
            (false, false) => line(&["-c", &typed]),
        });
    }
    let Some(now) = now.filter(|now| git.has_commits() && git.is_default(now)) else {
        return Ok(if git.branch().is_none() { line(&["-c", &free(git, proposed)]) } else { None });
    };
    cx.ui.note(format_args!(
        "{now} is for what is agreed upon: this goes on a new branch, to be merged by a pull request."
    ));
    Ok(line(&["-c", &free(git, proposed)]))
}

/// A name that no branch has.
fn free(git: &Git<'_>, proposed: &str) -> String {
    let names = (2..).map(|number| format!("{proposed}-{number}"));
    let mut names = std::iter::once(proposed.to_owned()).chain(names);
    names.find(|name| !git.has_branch(name)).unwrap_or_default()
}

/// What comes after a commit, which is the learner's to do.
fn next(cx: &Context, git: &Git<'_>) {
    let branch = git.branch().unwrap_or_default();
    let Some(remote) = git.remote() else {
        cx.ui.result(
            "\nNext, with the address of your repository on GitHub:\n    git remote add origin ADDRESS\n    git push -u origin HEAD",
        );
        return;
    };
    cx.ui.result("\nNext, to bring it to the remote repository:\n    git push -u origin HEAD");
    if git.is_default(&branch) {
        return;
    }
    match page(&remote) {
        Some(page) => cx.ui.result(format_args!("and make a pull request:\n    {page}/compare/{branch}?expand=1")),
        None => cx.ui.result("and make a pull request on its page."),
    }
}

/// The page of a repository on GitHub, whichever way it is reached.
fn page(remote: &str) -> Option<String> {
    let (_, path) =
        remote.split_once("github.com").filter(|(before, _)| before.is_empty() || before.ends_with(['@', '/']))?;
    let path = path.trim_start_matches([':', '/']).trim_end_matches('/').trim_end_matches(".git");
    let path = path.strip_prefix("443/").or(path.strip_prefix("22/")).unwrap_or(path);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let is_name =
        path.split('/').count() == 2 && path.split('/').all(|part| !part.is_empty()) && path.chars().all(fits);
    is_name.then(|| format!("https://github.com/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_github_is_found_and_no_password_gets_into_it() {
        let remotes = [
            "https://github.com/a/b.git",
            "git@github.com:a/b.git",
            "ssh://git@github.com/a/b",
            "https://me:secret@github.com/a/b/",
        ];
        for remote in remotes {
            assert_eq!(page(remote).as_deref(), Some("https://github.com/a/b"), "{remote}");
        }
        for other in ["https://gitlab.com/a/b", "../github.com", "/srv/github.com/a/b/c", "https://notgithub.com/a/b"] {
            assert_eq!(page(other), None, "{other}");
        }
    }
}
