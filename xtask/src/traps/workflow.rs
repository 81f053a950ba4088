//! Reads a workflow of GitHub's: its steps, and what they run.

use crate::traps::shell::{Command, Line, commands};
use crate::traps::yaml::{self, Node};

/// A workflow.
pub struct Workflow {
    /// Its file, as it is typed.
    pub path: String,
    root: Node,
}

/// A step of a job.
pub struct Step<'a> {
    /// The action, without its version, and where it is named.
    pub uses: Option<(usize, String)>,
    /// The action's inputs.
    with: Option<&'a Node>,
    /// The script.
    pub script: Vec<Line>,
    /// What must hold, of the step and of its job.
    pub condition: String,
    /// Variables, of the step, its job and the workflow.
    pub variables: Vec<(usize, String, String)>,
}

/// Reads it.
pub fn parse(path: &str, text: &str) -> Workflow {
    Workflow { path: path.to_owned(), root: yaml::parse(text) }
}

impl Workflow {
    /// The steps of all jobs.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let jobs = self.root.get("jobs").map_or(&[] as &[_], Node::entries);
        let steps = jobs.iter().flat_map(|(_, _, job)| {
            let steps = job.get("steps").map_or(&[] as &[_], Node::items);
            steps.iter().map(move |step| self.step(job, step))
        });
        steps.collect()
    }

    fn step<'a>(&'a self, job: &'a Node, step: &'a Node) -> Step<'a> {
        let text = |node: &Node, key: &str| node.get(key).map(Node::text).unwrap_or_default();
        let uses = step.get("uses").and_then(|uses| {
            let line = *uses.lines().first()?;
            let action = line.text.split('@').next().unwrap_or_default();
            Some((line.number, action.to_ascii_lowercase()))
        });
        let script = step.get("run").map_or(Vec::new(), |run| run.lines().into_iter().cloned().collect());
        let environments = [&self.root, job, step].into_iter().filter_map(|node| node.get("env"));
        let variables =
            environments.flat_map(Node::entries).map(|(line, name, value)| (*line, name.clone(), value.text()));
        Step {
            uses,
            with: step.get("with"),
            script,
            condition: format!("{}\n{}", text(job, "if"), text(step, "if")),
            variables: variables.collect(),
        }
    }

    /// The patterns of files at whose change it runs.
    pub fn paths(&self) -> Vec<&Line> {
        let events = self.root.get("on").map_or(&[] as &[_], Node::entries);
        events.iter().filter_map(|(_, _, event)| event.get("paths")).flat_map(Node::lines).collect()
    }
}

impl Step<'_> {
    /// Whether it is this action.
    pub fn is(&self, action: &str) -> bool {
        self.uses.as_ref().is_some_and(|(_, own)| own == action)
    }

    /// The lines of an input.
    pub fn input(&self, name: &str) -> Vec<&Line> {
        self.with.and_then(|with| with.get(name)).map(Node::lines).unwrap_or_default()
    }

    /// The commands of its script.
    pub fn commands(&self) -> Vec<Command> {
        commands(&self.script)
    }

    /// Whether something depends on the branch.
    pub fn looks_at_branch(&self) -> bool {
        let names = ["refs/heads", "default_branch", "DEFAULT_BRANCH", "github.ref_name", "GITHUB_REF_NAME"];
        let in_script = |name: &&str| self.script.iter().any(|line| line.text.contains(*name));
        names.iter().any(|name| self.condition.contains(name) || in_script(name))
    }
}
