//! The commands that README.md and INSTRUCTORS.md tell people to type are there.
#![cfg(unix)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::Repository;

/// What is being written beside this: TO DELETE when it is there.
const NOT_THERE_YET: &[&str] = &["all --pause", "all --from", "all --to"];

/// The words after `cargo xtask` of each command in a text: of code spans, and of lines in code blocks.
fn commands(text: &str) -> BTreeSet<Vec<String>> {
    let spans = text.split('`').enumerate().filter(|(index, _)| index % 2 == 1).map(|(_, span)| span.to_owned());
    let blocks = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    let starts = ["cargo xtask", "target/debug/xtask"];
    let found = spans.chain(blocks).filter_map(|command| {
        let rest = starts.iter().find_map(|start| command.trim().strip_prefix(start))?;
        Some(words(rest)).filter(|words| !words.is_empty() && !rest.contains('`'))
    });
    found.collect()
}

/// As a shell splits them; a word in capitals stands for something.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in text.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ' | '\n', None) => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    let meant = |word: String| match word.as_str() {
        "STEP" => "build-docker".to_owned(),
        _ => word,
    };
    words.into_iter().filter(|word| !word.is_empty()).map(meant).collect()
}

#[test]
fn every_command_in_the_texts_can_be_typed() {
    let repository = Repository::new("texts");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["../README.md", "lesson/INSTRUCTORS.md"] {
        let commands = commands(&fs::read_to_string(root.join(file)).unwrap());
        assert!(commands.len() > 10, "{file}: {commands:?}");
        for mut command in commands {
            let typed = command.join(" ");
            let is_to_come = |begin: &&str| {
                let mut words = begin.split(' ');
                words.next() == command.first().map(String::as_str)
                    && words.all(|word| command.iter().any(|one| one == word))
            };
            if NOT_THERE_YET.iter().any(is_to_come) {
                continue;
            }
            // What is asked for help is parsed up to there, and does nothing.
            let end = command.iter().position(|word| word == "--").unwrap_or(command.len());
            if command[0] != "help" {
                command.insert(end, "--help".to_owned());
            }
            let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            let said = repository.xtask(&arguments);
            assert!(said.succeeded(), "{file}: `cargo xtask {typed}`\n{}", said.stderr());
        }
    }
}

#[test]
fn commands_are_found_in_sentences_and_in_blocks() {
    let text = "Type `cargo xtask edit --add-dep 'a b' --feature gpu`, or\n\n```bash\ncargo xtask all   # everything\n```\n\
                and `target/debug/xtask status`; `cargo test` is none, `cargo xtask` is everything.\n";
    let commands: Vec<String> = commands(text).into_iter().map(|words| words.join("|")).collect();
    assert_eq!(commands, ["all", "edit|--add-dep|a b|--feature|gpu", "status"]);
}

#[test]
fn wrong_commands_would_be_noticed() {
    let repository = Repository::new("texts-wrong");
    for wrong in [&["frobnicate", "--help"][..], &["all", "--no-such", "--help"], &["build", "floppy", "--help"]] {
        assert!(!repository.xtask(wrong).succeeded(), "{wrong:?}");
    }
}
