//! What git says of the learner's files and of the repository that holds them.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;

/// What may be underway, by the file that git keeps of it.
const UNDERWAY: &[(&str, &str)] = &[
    ("MERGE_HEAD", "merge"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_LOG", "bisect"),
];

/// The repository of git that the project lies in.
pub struct Git<'a> {
    cx: &'a Context,
    /// The project's place in it, with a slash at the end; empty where the two are one.
    prefix: String,
}

/// Why there is no git to ask.
#[derive(Debug)]
pub struct Missing {
    /// What is the matter.
    pub why: String,
    /// What to do; empty where git says it.
    pub hint: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, ": {}", self.hint) }
    }
}

/// How a file differs from the last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is new, or another than in the commit.
    Changed,
    /// It is in the commit and no longer there.
    Removed,
    /// git does not look at it.
    Ignored,
    /// A merge left it undecided.
    Unmerged,
}

/// A file that is not as in the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it differs.
    pub kind: Kind,
    /// The file, as it is typed; of a directory that git ignores, the directory.
    pub path: String,
}

impl<'a> Git<'a> {
    /// The repository around the project.
    pub fn find(cx: &'a Context) -> Result<Result<Self, Missing>> {
        if !cx.on_path("git") {
            return Ok(Err(Missing { why: "git is not installed".to_owned(), hint: "install it first" }));
        }
        let answer = cx.look(&line(&["rev-parse", "--is-inside-work-tree", "--show-prefix"]))?;
        let mut lines = answer.stdout.lines();
        if answer.code == 0 && lines.next() == Some("true") {
            return Ok(Ok(Self { cx, prefix: lines.next().unwrap_or_default().to_owned() }));
        }
        // A repository of somebody else's is refused, with the way out: the setting's name is in no language.
        Ok(Err(if answer.stderr.contains("safe.directory") {
            Missing { why: answer.stderr.trim_end().to_owned(), hint: "" }
        } else {
            Missing { why: "this is no repository of git yet".to_owned(), hint: "`git init` makes it one" }
        }))
    }

    /// The files among these that are not as in the last commit.
    pub fn changes(&self, files: &[PathBuf]) -> Result<Vec<Change>> {
        let words = [
            "--no-optional-locks",
            "status",
            "--porcelain",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--ignored",
        ];
        let line = self.about(&words, files.iter().map(|file| self.cx.typed(file)).collect());
        let answer = self.cx.look(&line)?;
        if answer.code != 0 {
            bail!("{}", answer.stderr.trim_end());
        }
        // With `-z` names stand as they are, each ended by a zero; the state of a file is two letters before its name.
        let entries = answer.stdout.split_terminator('\0');
        Ok(entries.filter_map(|entry| Some(self.change(entry.get(..2)?, entry.get(3..)?))).collect())
    }

    fn change(&self, state: &str, path: &str) -> Change {
        let path = path.strip_prefix(&self.prefix).unwrap_or(path).to_owned();
        let kind = match state {
            "!!" => Kind::Ignored,
            "AA" | "DD" => Kind::Unmerged,
            _ if state.contains('U') => Kind::Unmerged,
            _ if state.contains('D') => Kind::Removed,
            _ => Kind::Changed,
        };
        Change { kind, path }
    }

    /// A command of git about files, as they are typed: none of their names is a pattern.
    pub fn about(&self, words: &[&str], files: Vec<String>) -> CommandLine {
        let is_pattern = |file: &String| file.starts_with(':') || file.contains(['*', '?', '[', '\\']);
        let literally = files.iter().any(is_pattern).then_some("--literal-pathspecs");
        CommandLine::new("git").args(literally).args(words.iter().copied()).arg("--").args(files)
    }

    /// Which rule ignores a file: `.gitignore:3: pixi.lock`.
    pub fn rule(&self, file: &str) -> Option<String> {
        let said = self.ask(&["check-ignore", "--verbose", "--", file])?;
        let (rule, _) = said.split_once('\t')?;
        let (place, pattern) = rule.rsplit_once(':')?;
        Some(format!("{place}: {pattern}"))
    }

    /// A merge or the like that has to be ended first.
    pub fn underway(&self) -> Option<&'static str> {
        let is_there = |name: &str| {
            let place = self.ask(&["rev-parse", "--git-path", name]);
            place.is_some_and(|place| self.cx.resolve(place).exists())
        };
        UNDERWAY.iter().find(|(name, _)| is_there(name)).map(|(_, what)| *what)
    }

    /// The branch; none where a commit is checked out without one.
    pub fn branch(&self) -> Option<String> {
        self.ask(&["symbolic-ref", "--quiet", "--short", "HEAD"])
    }

    /// Whether there is a commit yet.
    pub fn has_commits(&self) -> bool {
        self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"]).is_some()
    }

    /// Whether there is a branch of this name.
    pub fn has_branch(&self, name: &str) -> bool {
        self.ask(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{name}")]).is_some()
    }

    /// Whether a branch may be called so.
    pub fn is_branch_name(&self, name: &str) -> bool {
        self.ask(&["check-ref-format", "--branch", name]).is_some()
    }

    /// Whether it is a branch that others take as the repository's state.
    pub fn is_default(&self, branch: &str) -> bool {
        let remote = self.ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"]);
        let of_remote = remote.as_deref().and_then(|name| name.strip_prefix("origin/"));
        let configured = self.ask(&["config", "init.defaultBranch"]);
        [of_remote, configured.as_deref(), Some("main"), Some("master")].contains(&Some(branch))
    }

    /// The address of the remote repository: `origin`, or the first that there is.
    pub fn remote(&self) -> Option<String> {
        let names = self.ask(&["remote"])?;
        let name = names.lines().find(|name| *name == "origin").or(names.lines().next())?;
        self.ask(&["remote", "get-url", name])
    }

    /// How many commits no remote repository has; none where there is no commit.
    pub fn commits_to_push(&self) -> Option<u64> {
        self.ask(&["rev-list", "--count", "HEAD", "--not", "--remotes"])?.parse().ok()
    }

    /// Why git would make no commit by this user, in its own words.
    pub fn lacks_identity(&self) -> Result<Option<String>> {
        for name in ["GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"] {
            let answer = self.cx.look(&line(&["var", name]))?;
            if answer.code != 0 {
                return Ok(Some(answer.stderr.trim().to_owned()));
            }
        }
        Ok(None)
    }

    /// The project's place in the repository; empty where the two are one.
    pub fn prefix(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }

    /// The way to the machine.
    pub fn cx(&self) -> &'a Context {
        self.cx
    }

    /// What git says to a question, where it has an answer.
    fn ask(&self, words: &[&str]) -> Option<String> {
        let answer = self.cx.look(&line(words)).ok()?;
        (answer.code == 0).then(|| answer.stdout.trim_end().to_owned())
    }
}

fn line(words: &[&str]) -> CommandLine {
    CommandLine::new("git").args(words.iter().copied())
}
