//! `doctor`: what this machine has, what each step will use, and the traps that lie in wait, each with its mend.

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::context::Context;
use crate::json::Json;
use crate::traps::Finding;
use crate::ui::Mark;

mod files;
mod lock;
mod machine;
mod outlook;
mod questions;

/// A part of what is printed.
struct Section {
    key: &'static str,
    title: &'static str,
    lines: Vec<Line>,
}

/// One line of a section.
pub struct Line {
    /// How it stands.
    pub mark: Mark,
    /// What it is about.
    pub name: String,
    /// What there is to say.
    pub text: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Line {
    fn new(mark: Mark, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { mark, name: name.into(), text: text.into(), mend: None }
    }

    /// A reason as it comes from engines and errors, with what to do about it behind `hint:`.
    fn because(mark: Mark, name: impl Into<String>, reason: &str) -> Self {
        let (text, hint) = reason.split_once("\n  hint: ").map_or((reason, None), |(text, hint)| (text, Some(hint)));
        Self { mend: hint.map(str::to_owned), ..Self::new(mark, name, text) }
    }
}

/// A step, and what does it.
pub struct StepLine {
    /// `build docker`.
    pub step: String,
    /// `native`.
    pub engine: String,
    /// Why this one, or why it cannot work.
    pub line: Line,
}

/// Adds `--json`.
pub fn arguments(command: Command) -> Command {
    command.arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON"))
}

/// Looks at everything, and fails if a step cannot work. Nothing is compiled, and nothing is changed.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let files = files::read(cx);
    let answers = questions::ask(cx);
    let facts = machine::Facts::new(cx, &files, &answers);
    let steps = outlook::steps(cx, &files, &facts, &answers);
    let findings = facts.traps(cx, &files, &steps);
    let sections = [
        Section { key: "machine", title: "Machine", lines: facts.machine(cx) },
        Section { key: "programs", title: "Programs", lines: facts.programs(&answers) },
        Section { key: "network", title: "Network", lines: facts.network(cx, &answers) },
    ];
    if arguments.get_flag("json") {
        cx.ui.result(json(&sections, &steps, &findings));
    } else {
        print(cx, &sections, &steps, &findings);
    }
    let failing: Vec<&StepLine> = steps.iter().filter(|step| step.line.mark == Mark::Fails).collect();
    if failing.is_empty() {
        return Ok(());
    }
    let mut reasons: Vec<(Vec<&str>, String)> = Vec::new();
    for StepLine { step, line, .. } in failing {
        let hint = line.mend.as_ref().map_or(String::new(), |mend| format!("\n  hint: {mend}"));
        let reason = format!("{}{hint}", line.text);
        match reasons.iter_mut().find(|(_, other)| *other == reason) {
            Some((steps, _)) => steps.push(step),
            None => reasons.push((vec![step], reason)),
        }
    }
    let said: Vec<_> =
        reasons.iter().map(|(steps, reason)| format!("{} cannot work here: {reason}", steps.join(", "))).collect();
    bail!("{}", said.join("\n"))
}

fn print(cx: &Context, sections: &[Section], steps: &[StepLine], findings: &[Finding]) {
    let names = sections.iter().flat_map(|section| &section.lines).map(|line| line.name.as_str());
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let ui = &cx.ui;
    for Section { title, lines, .. } in sections {
        ui.result(ui.title(title));
        for Line { mark, name, text, mend } in lines {
            ui.result(format_args!("  {}  {name:width$}  {text}", ui.mark(*mark)));
            if let Some(mend) = mend {
                ui.result(format_args!("  {:9}{:width$}  hint: {mend}", "", ""));
            }
        }
        ui.result("");
    }
    ui.result(ui.title("Steps"));
    let groups = grouped(steps);
    let cells = |cell: &dyn Fn(&(String, &StepLine)) -> usize| groups.iter().map(cell).max().unwrap_or(0);
    let (width, engine) = (cells(&|group| group.0.chars().count()), cells(&|group| group.1.engine.len()));
    for (names, step) in &groups {
        let line = &step.line;
        let mut texts = sentences(&line.text).into_iter().chain(line.mend.iter().map(|mend| format!("hint: {mend}")));
        let text = format!("{names:width$}  {:engine$}  {}", step.engine, texts.next().unwrap_or_default());
        ui.result(format_args!("  {}  {}", ui.mark(line.mark), text.trim_end()));
        texts.for_each(|text| ui.result(format_args!("  {:9}{:width$}  {:engine$}  {text}", "", "", "")));
    }
    ui.result("");
    let Some(first) = findings.first() else {
        ui.result(format_args!("{}: none", ui.title("Traps")));
        return;
    };
    ui.result(ui.title("Traps"));
    for (finding, more) in merged(findings) {
        let more = if more.is_empty() { String::new() } else { format!(", and in line {}", more.join(", ")) };
        ui.result(format_args!("  {}  {}  {}", ui.mark(Mark::Trap), finding.trap.id, place(finding)));
        ui.result(format_args!("               {}{more}", finding.what));
        ui.result(format_args!("               hint: {}", finding.mend));
    }
    ui.result(format_args!("\n`cargo xtask explain {}` says more about it, `explain traps` about all.", first.trap.id));
}

fn place(finding: &Finding) -> String {
    if finding.line == 0 { finding.place.clone() } else { format!("{}:{}", finding.place, finding.line) }
}

/// Why an engine was chosen, and why each of those before it was not.
fn sentences(text: &str) -> Vec<String> {
    let (chosen, others) = text.split_once(". ").unwrap_or((text, ""));
    let others = others.split("; ").filter(|other| !other.is_empty());
    [chosen].into_iter().chain(others).map(str::to_owned).collect()
}

/// What is the same in several lines of a file is said once.
fn merged(findings: &[Finding]) -> Vec<(&Finding, Vec<String>)> {
    let mut merged: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in findings {
        let is_same = |other: &Finding| {
            other.trap.id == finding.trap.id && other.place == finding.place && other.what == finding.what
        };
        match merged.iter_mut().find(|(other, _)| is_same(other)) {
            Some((_, lines)) => lines.push(finding.line.to_string()),
            None => merged.push((finding, Vec::new())),
        }
    }
    merged
}

/// Steps that follow each other and are done by the same for the same reason are one line: `build, test, run docker`.
fn grouped(steps: &[StepLine]) -> Vec<(String, &StepLine)> {
    let mut groups: Vec<(Vec<&str>, &str, &StepLine)> = Vec::new();
    for step in steps {
        let (verb, format) = step.step.split_once(' ').unwrap_or((&step.step, ""));
        let is_same = |other: &StepLine| {
            other.engine == step.engine && other.line.text == step.line.text && other.line.mark == step.line.mark
        };
        match groups.last_mut() {
            Some((verbs, other, first)) if *other == format && is_same(first) => verbs.push(verb),
            _ => groups.push((vec![verb], format, step)),
        }
    }
    groups.into_iter().map(|(verbs, format, step)| (format!("{} {format}", verbs.join(", ")), step)).collect()
}

fn json(sections: &[Section], steps: &[StepLine], findings: &[Finding]) -> Json {
    let optional = |text: Option<&String>| text.map_or(Json::Null, Json::text);
    let line = |line: &Line| {
        Json::Object(vec![
            ("name", Json::text(&line.name)),
            ("state", Json::text(line.mark.name())),
            ("text", Json::text(&line.text)),
            ("hint", optional(line.mend.as_ref())),
        ])
    };
    let step = |StepLine { step, engine, line }: &StepLine| {
        Json::Object(vec![
            ("step", Json::text(step)),
            ("engine", Json::text(engine)),
            ("works", Json::Bool(line.mark != Mark::Fails)),
            ("reason", Json::text(&line.text)),
            ("hint", optional(line.mend.as_ref())),
        ])
    };
    let finding = |finding: &Finding| {
        Json::Object(vec![
            ("trap", Json::text(finding.trap.id)),
            ("title", Json::text(finding.trap.title)),
            ("place", Json::text(&finding.place)),
            ("line", if finding.line == 0 { Json::Null } else { Json::Number(finding.line as u64) }),
            ("what", Json::text(&finding.what)),
            ("hint", Json::text(&finding.mend)),
        ])
    };
    let sections = sections.iter().map(|section| (section.key, Json::List(section.lines.iter().map(line).collect())));
    let own = [
        ("steps", Json::List(steps.iter().map(step).collect())),
        ("traps", Json::List(findings.iter().map(finding).collect())),
        ("works", Json::Bool(steps.iter().all(|step| step.line.mark != Mark::Fails))),
    ];
    Json::Object(sections.chain(own).collect())
}
