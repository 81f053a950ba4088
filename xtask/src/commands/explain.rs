//! `explain`: the lesson's path as a map, and a text for each station and topic, one file of `lesson/explain/` each.

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::context::Context;
use crate::lesson;
use crate::options::wrong_usage;
use crate::stations::{self, STATIONS, Station};

#[cfg(test)]
mod tests;

const FOLDER: &str = "explain";
const TRAPS: &str = "traps";
/// What stands before an answer that is folded where the text is shown as Markdown, and what stands behind it.
const FOLD: [&str; 2] = ["<details><summary>The answer</summary>", "</details>"];
/// What the question's heading is.
const QUESTION: &str = "## A question";

/// Adds the words and what is shown of the text.
pub fn arguments(command: Command) -> Command {
    let answer = Arg::new("answer").long("answer").action(ArgAction::SetTrue).requires("step");
    command
        .arg(stations::argument(&topics()).help("Step, topic, file or trap; none prints the map of all"))
        .arg(answer.help("Print the step's question and the answer to it"))
}

/// Prints a text; the map where nothing is asked for.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let Some(words) = stations::words(arguments) else {
        cx.ui.page(&map());
        return Ok(());
    };
    let Some(page) = Page::find(&words) else { return Err(unknown(&words)) };
    if !arguments.get_flag("answer") {
        cx.ui.page(&page.folded());
        return Ok(());
    }
    let Some(answered) = page.answered() else {
        bail!("`{words}` asks no question\n  hint: each step of the path does; `cargo xtask explain` names them");
    };
    cx.ui.page(&answered);
    Ok(())
}

/// Prints the text of a station.
pub fn show(cx: &Context, station: &Station) {
    if let Some(page) = Page::of(station) {
        cx.ui.page(&page.folded());
    }
}

/// A text of `lesson/explain/`, or one trap of it.
struct Page {
    /// What is typed to see it.
    name: String,
    text: &'static str,
}

impl Page {
    /// The text that a learner asks for by these words.
    fn find(words: &str) -> Option<Self> {
        if let Some(station) = stations::find(words) {
            return Self::of(station);
        }
        let name = words.to_ascii_lowercase();
        match topics().into_iter().find(|topic| *topic == name) {
            Some(topic) => Self::read(topic),
            None => trap(words).map(|text| Self { name, text }),
        }
    }

    fn of(station: &Station) -> Option<Self> {
        Self::read(&station.word())
    }

    fn read(name: &str) -> Option<Self> {
        let text = lesson::text(&format!("{FOLDER}/{name}.md"))?;
        Some(Self { name: name.replace('-', " "), text: text.trim_end() })
    }

    /// What it is about: the title without the name that a station's begins with.
    fn title(&self) -> &'static str {
        let title = self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        title.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(title)
    }

    /// The text before the answer, and the answer.
    fn parts(&self) -> (&'static str, Option<&'static str>) {
        match self.text.split_once(FOLD[0]) {
            Some((before, answer)) => (before.trim_end(), Some(answer.trim_end().trim_end_matches(FOLD[1]).trim())),
            None => (self.text, None),
        }
    }

    /// The whole text but the answer, which it says how to get.
    fn folded(&self) -> String {
        let (text, answer) = self.parts();
        match answer {
            Some(_) => format!("{text}\n\nThe answer: `cargo xtask explain {} --answer`", self.name),
            None => text.to_owned(),
        }
    }

    /// The question and its answer.
    fn answered(&self) -> Option<String> {
        let (text, answer) = self.parts();
        let question = text.split_once(QUESTION)?.1;
        Some(format!("{QUESTION}{question}\n\n## The answer\n\n{}", answer?))
    }
}

/// The texts that belong to no station.
fn topics() -> Vec<&'static str> {
    let is_station = |name: &&str| STATIONS.iter().any(|station| station.word() == **name);
    lesson::names(FOLDER).into_iter().filter(|name| !is_station(name)).collect()
}

/// What is said of the trap of that id.
fn trap(id: &str) -> Option<&'static str> {
    let text = lesson::text(&format!("{FOLDER}/{TRAPS}.md"))?;
    let starts = text.match_indices("\n## ").map(|(at, _)| at + 1);
    starts.map(|at| &text[at..]).find_map(|text| {
        let (found, _) = text.strip_prefix("## ")?.split_once(": ")?;
        let end = text.find("\n\n## ").unwrap_or(text.len());
        found.eq_ignore_ascii_case(id).then(|| text[..end].trim_end())
    })
}

/// All there is to explain: the path by the sections of the lesson, then the rest.
fn map() -> String {
    let (path, apart): (Vec<_>, Vec<_>) = STATIONS.iter().partition(|station| !station.section.is_empty());
    let title = |station: &Station| Page::of(station).map_or("", |page| page.title());
    let names = STATIONS.iter().map(|station| station.name.len()).max().unwrap_or(0);
    let titles = STATIONS.iter().map(|station| title(station).chars().count()).max().unwrap_or(0);
    let line = |station: &Station| {
        let [name, title, command] = [station.name.to_owned(), title(station).to_owned(), station.command()];
        format!("  {name:names$}  {title:titles$}  {command}\n")
    };
    let mut text = "# The path, section by section of the lesson\n".to_owned();
    let mut section = "";
    for station in path {
        if station.section != section {
            section = station.section;
            text += &format!("\n## {section}\n");
        }
        text += &line(station);
    }
    text += "\n## Where conda-forge cannot be reached\n";
    text.extend(apart.into_iter().map(line));
    text += "\n## More to read\n";
    for topic in topics() {
        let title = Page::read(topic).map_or("", |page| page.title());
        text += &format!("  {topic:names$}  {title:titles$}  cargo xtask explain {topic}\n");
    }
    text + "\n`cargo xtask explain build docker` explains a step, `cargo xtask explain T05` a trap.\n\
            `cargo xtask status` shows how far you are."
}

/// Wrong usage: words that mean nothing here, or too little.
fn unknown(words: &str) -> anyhow::Error {
    let begins =
        |station: &&Station| station.name.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(words));
    let of_both: Vec<_> = STATIONS.iter().filter(begins).map(|station| format!("`{}`", station.name)).collect();
    let message = if of_both.is_empty() {
        let steps: Vec<_> = STATIONS.iter().map(|station| station.name).collect();
        let steps: Vec<_> = steps.chunks(5).map(|names| names.join(", ")).collect();
        let (steps, topics) = (steps.join(",\n          "), topics().join(", "));
        format!(
            "there is no step or topic `{words}`\n\n  steps:  {steps}\n  topics: {topics}\n  \
             traps:  by their ids, such as T05"
        )
    } else {
        format!("`{words}` is done for each format: say {}", of_both.join(" or "))
    };
    wrong_usage(message).into()
}
