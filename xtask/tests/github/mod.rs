//! A stand-in for GitHub, which cannot be had here: it picks the jobs and the steps of an event, fills in expressions,
//! and runs the shell of each step with bash. What the steps start is noted and not done.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode, YamlOwned};
use tempfile::TempDir;

/// Stands in for every program: notes the call, and answers as the files beside it say.
const PROGRAM: &str = r#"#!/bin/sh
here=${0%/*}
call="${0##*/} $*"
printf '%s\n' "$call" >>"$here/calls"
case $call in
"cargo xtask tags apptainer "*) sed 's/^/apptainer-/' "$here/tags" ;;
"cargo xtask tags "*) cat "$here/tags" ;;
"git rev-parse --short HEAD") echo 1234567 ;;
"cargo xtask run "* | "docker run "* | "apptainer run "* | "apptainer exec "*) [ ! -e "$here/broken" ] ;;
esac
"#;

/// What happened on GitHub.
#[derive(Clone)]
pub struct Event {
    pub name: &'static str,
    pub git_ref: &'static str,
    pub repository: &'static str,
    /// The tags that the lock leads to.
    pub tags: &'static str,
    /// The image that is built cannot start anything.
    pub broken: bool,
}

/// A push to the default branch, which is `main`.
pub const PUSH: Event = Event {
    name: "push",
    git_ref: "refs/heads/main",
    repository: "some-owner/course",
    tags: "gpu-noble-cuda-12.8",
    broken: false,
};

/// What came of it.
pub struct Outcome {
    /// The programs that were started, with their arguments, and the actions as `uses NAME`.
    pub calls: Vec<String>,
    /// What the tokens of the jobs that ran could do.
    pub permissions: Vec<(String, String)>,
}

impl Outcome {
    /// What was pushed to, without `oras://`.
    pub fn pushed(&self) -> Vec<&str> {
        let pushes = self.calls.iter().filter(|call| {
            let mut words = call.split(' ');
            words.next().is_some_and(|program| program != "git") && words.next() == Some("push")
        });
        pushes.filter_map(|call| call.rsplit(' ').next()).map(|to| to.trim_start_matches("oras://")).collect()
    }

    /// The tags that were pushed.
    pub fn tags(&self) -> Vec<&str> {
        self.pushed().into_iter().filter_map(|reference| reference.rsplit(':').next()).collect()
    }

    /// Whether a program was started with these words first.
    pub fn started(&self, words: &str) -> bool {
        self.calls.iter().any(|call| call.starts_with(words))
    }
}

/// A workflow file.
pub struct Workflow {
    document: YamlOwned,
}

impl Workflow {
    /// Reads a file of the project.
    pub fn read(path: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let document = YamlOwned::load_from_str(&text).unwrap().into_iter().next().unwrap();
        Self { document }
    }

    /// The value at the end of these keys.
    pub fn at(&self, keys: &[&str]) -> Option<&YamlOwned> {
        keys.iter().try_fold(&self.document, |node, key| node.as_mapping_get(key))
    }

    /// The names of the jobs.
    pub fn jobs(&self) -> Vec<&str> {
        self.at(&["jobs"]).unwrap().as_mapping().unwrap().keys().map(|name| name.as_str().unwrap()).collect()
    }

    /// The steps of a job.
    pub fn steps(&self, job: &str) -> &[YamlOwned] {
        self.at(&["jobs", job, "steps"]).and_then(YamlOwned::as_sequence).unwrap()
    }

    /// Runs what the event starts, until a step fails.
    pub fn run(&self, event: &Event) -> Outcome {
        let runner = Runner::new(event);
        let mut outcome = Outcome { calls: Vec::new(), permissions: Vec::new() };
        for job in self.jobs() {
            let mut context = context(event);
            let condition = self.at(&["jobs", job, "if"]);
            if condition.is_some_and(|condition| !holds(condition.as_str().unwrap(), &context)) {
                continue;
            }
            let permissions = self.at(&["jobs", job, "permissions"]).and_then(YamlOwned::as_mapping).unwrap();
            let text = |node: &YamlOwned| node.as_str().unwrap().to_owned();
            outcome.permissions.extend(permissions.iter().map(|(name, value)| (text(name), text(value))));
            let shell = self.at(&["defaults", "run", "shell"]).and_then(YamlOwned::as_str);
            for step in self.steps(job) {
                let condition = step.as_mapping_get("if").and_then(YamlOwned::as_str);
                if condition.is_none_or(|condition| holds(condition, &context))
                    && !runner.step(step, shell, &mut context)
                {
                    break;
                }
            }
        }
        outcome.calls = fs::read_to_string(runner.directory.path().join("calls"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        outcome
    }
}

type Values = BTreeMap<String, String>;

fn context(event: &Event) -> Values {
    let owner = event.repository.split('/').next().unwrap();
    let values = [
        ("github.event_name", event.name),
        ("github.ref", event.git_ref),
        ("github.repository", event.repository),
        ("github.repository_owner", owner),
        ("github.event.repository.default_branch", "main"),
        ("secrets.GITHUB_TOKEN", "token"),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `NAME`, `NAME == 'text'` or `NAME != 'text'`: all that our workflows and the lesson's use.
fn evaluate(expression: &str, context: &Values) -> String {
    let value = |name: &str| context.get(name.trim()).unwrap_or_else(|| panic!("`{name}` is not known")).clone();
    let compare = |(name, text): (&str, &str)| value(name) == text.trim().trim_matches('\'');
    match (expression.split_once("=="), expression.split_once("!=")) {
        (Some(equal), _) => compare(equal).to_string(),
        (_, Some(unequal)) => (!compare(unequal)).to_string(),
        _ => value(expression),
    }
}

fn holds(condition: &str, context: &Values) -> bool {
    evaluate(condition, context) == "true"
}

/// Fills in `${{ EXPRESSION }}` wherever it stands, as text: also in the middle of a shell's quotes.
fn expand(text: &str, context: &Values) -> String {
    let mut parts = text.split("${{");
    let mut expanded = parts.next().unwrap().to_owned();
    for part in parts {
        let (expression, rest) = part.split_once("}}").unwrap();
        expanded += &evaluate(expression, context);
        expanded += rest;
    }
    expanded
}

struct Runner {
    directory: TempDir,
    event: Event,
}

impl Runner {
    fn new(event: &Event) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["apptainer", "cargo", "docker", "git", "sudo"] {
            fs::write(path.join(name), PROGRAM).unwrap();
            let mut permissions = fs::metadata(path.join(name)).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
            fs::set_permissions(path.join(name), permissions).unwrap();
        }
        fs::write(path.join("tags"), format!("{}\n", event.tags)).unwrap();
        if event.broken {
            fs::write(path.join("broken"), "").unwrap();
        }
        fs::create_dir_all(path.join("work/cuda-exercise")).unwrap();
        Self { directory, event: event.clone() }
    }

    /// Whether the step ended well.
    fn step(&self, step: &YamlOwned, shell: Option<&str>, context: &mut Values) -> bool {
        let text = |node: &YamlOwned| expand(node.as_str().unwrap(), context);
        let Some(script) = step.as_mapping_get("run").map(text) else {
            self.action(step, context);
            return true;
        };
        let output = self.directory.path().join("output");
        fs::write(&output, "").unwrap();
        let mut bash = Command::new("bash");
        // As GitHub does it: the shell by its name stops at a failure inside of a pipe too.
        let options: &[&str] =
            if shell == Some("bash") { &["--noprofile", "--norc", "-eo", "pipefail"] } else { &["-e"] };
        let work = self.directory.path().join("work");
        let below = step.as_mapping_get("working-directory").map(text);
        bash.args(options).args(["-c", &script]).current_dir(below.map_or(work.clone(), |below| work.join(below)));
        bash.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.directory.path().display()));
        bash.env("GITHUB_REPOSITORY", self.event.repository).env("GITHUB_REF", self.event.git_ref);
        bash.env("GITHUB_SHA", "1234567890abcdef1234567890abcdef12345678").env("GITHUB_OUTPUT", &output);
        for (name, value) in step.as_mapping_get("env").and_then(YamlOwned::as_mapping).into_iter().flatten() {
            bash.env(name.as_str().unwrap(), text(value));
        }
        let ended = bash.output().unwrap();
        assert!(ended.stderr.is_empty(), "{script}\n{}", String::from_utf8_lossy(&ended.stderr));
        if let Some(id) = step.as_mapping_get("id").and_then(YamlOwned::as_str) {
            for (name, value) in fs::read_to_string(&output).unwrap().lines().filter_map(|line| line.split_once('=')) {
                context.insert(format!("steps.{id}.outputs.{name}"), value.to_owned());
            }
        }
        ended.status.success()
    }

    /// The actions of the lesson that make tags and push, as their documentation says; others are only noted.
    fn action(&self, step: &YamlOwned, context: &mut Values) {
        let uses = step.as_mapping_get("uses").and_then(YamlOwned::as_str).unwrap();
        let name = uses.split('@').next().unwrap();
        let with = |name: &str| {
            let value = step.as_mapping_get("with").and_then(|with| with.as_mapping_get(name))?;
            value.as_str().map(|value| expand(value, context))
        };
        match name {
            "docker/metadata-action" => {
                let image = with("images").unwrap().trim().to_lowercase();
                let tags: Vec<_> =
                    with("tags").unwrap().lines().filter_map(tag).map(|tag| format!("{image}:{tag}")).collect();
                context.insert("steps.meta.outputs.tags".to_owned(), tags.join("\n"));
                context.insert("steps.meta.outputs.labels".to_owned(), String::new());
            }
            "docker/build-push-action" => {
                self.note("docker build");
                if with("push").is_some_and(|push| push == "true") {
                    with("tags").unwrap().lines().for_each(|tag| self.note(&format!("docker push {tag}")));
                }
            }
            _ => self.note(&format!("uses {name}")),
        }
    }

    fn note(&self, call: &str) {
        let path = self.directory.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{calls}{call}\n")).unwrap();
    }
}

/// A line of metadata-action's `tags`.
fn tag(line: &str) -> Option<String> {
    let fields: BTreeMap<_, _> = line.trim().split(',').filter_map(|field| field.split_once('=')).collect();
    match fields.get("type").copied() {
        Some("raw") => fields.get("value").map(|value| (*value).to_owned()),
        Some("sha") => Some(format!("{}1234567", fields.get("prefix").unwrap_or(&"sha-"))),
        _ => None,
    }
}
