//! `explain`: texts about the lesson, one file of `lesson/explain/` each.

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::lesson;
use crate::ui;

const FOLDER: &str = "explain";

/// Adds the topic.
pub fn arguments(command: Command) -> Command {
    let topics = PossibleValuesParser::new(lesson::names(FOLDER));
    command.arg(Arg::new("topic").value_name("TOPIC").help("What to explain").value_parser(topics))
}

/// Prints a topic's text; without a topic it lists them, with the title of each.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let text = |topic: &str| lesson::text(&format!("{FOLDER}/{topic}.md")).unwrap_or_default();
    if let Some(topic) = arguments.get_one::<String>("topic") {
        cx.ui.result(text(topic).trim_end());
        return Ok(());
    }
    let title = |topic: &str| text(topic).lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
    let rows: Vec<_> = lesson::names(FOLDER).iter().map(|topic| vec![(*topic).to_owned(), title(topic)]).collect();
    cx.ui.result(ui::table(&["topic", "title"], &rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trap_says_once_what_exact_does_and_what_ours_does() {
        let text = lesson::text("explain/traps.md").unwrap();
        let traps: Vec<_> = text.split("\n## ").skip(1).collect();
        assert_eq!(traps.len(), 21);
        for (index, trap) in traps.iter().enumerate() {
            assert!(trap.starts_with(&format!("T{:02}: ", index + 1)), "{trap}");
            for side in ["\n- exact: ", "\n- ours: "] {
                assert_eq!(trap.matches(side).count(), 1, "{trap}");
            }
        }
    }

    #[test]
    fn every_topic_has_a_title_and_fits_a_terminal() {
        for topic in lesson::names(FOLDER) {
            let text = lesson::text(&format!("{FOLDER}/{topic}.md")).unwrap();
            assert!(text.starts_with("# "), "{topic}");
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{topic}");
        }
    }
}
