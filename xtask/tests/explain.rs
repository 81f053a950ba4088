//! What learners are told by `explain`: the map, the steps, the topics, and what there is when a word means nothing.
#![cfg(unix)]

mod support;

use support::{Repository, golden};

#[test]
fn the_map_and_the_texts_are_printed_as_they_are_read() {
    let repository = Repository::new("explain");
    for (name, words) in [
        ("map", &[] as &[&str]),
        ("fetch", &["fetch"]),
        ("fetch-answer", &["fetch", "--answer"]),
        ("build-docker", &["build", "docker"]),
        ("submit", &["submit"]),
        ("trap", &["T05"]),
    ] {
        let text = repository.xtask(&[&["explain"], words].concat()).stdout();
        assert!(!text.contains('\x1b'), "off a terminal there are no control codes: {text}");
        golden(&format!("explain-{name}"), &text);
    }
    assert!(repository.calls().is_empty(), "no program is needed for that");
    assert!(!repository.path("target").exists());
}

#[test]
fn a_step_is_called_by_words_dashes_files_and_other_names() {
    let repository = Repository::new("explain-names");
    let text = |words: &[&str]| repository.xtask(&[&["explain"], words].concat()).stdout();
    assert_eq!(text(&["build-docker"]), text(&["build", "docker"]));
    assert_eq!(text(&["build docker"]), text(&["build", "oci"]));
    assert_eq!(text(&["Dockerfile"]), text(&["recipe", "docker"]));
    assert_eq!(text(&["apptainer.def"]), text(&["recipe", "sif"]));
    assert_eq!(text(&["version", "control"]), text(&["commit"]));
    assert!(text(&["traps"]).contains("\n## T21: "));
}

#[test]
fn an_answer_is_hidden_until_it_is_asked_for() {
    let repository = Repository::new("explain-answer");
    let answer = "byte for byte. Hence both files";
    let folded = repository.xtask(&["explain", "lock"]).stdout();
    assert!(folded.ends_with("\nThe answer: `cargo xtask explain lock --answer`\n") && !folded.contains(answer));
    let answered = repository.xtask(&["explain", "lock", "--answer"]).stdout();
    assert!(answered.starts_with("## A question\n\n") && answered.contains("\n\n## The answer\n\n"), "{answered}");
    let none = repository.xtask(&["explain", "traps", "--answer"]);
    assert_eq!(
        none.ends(1).stderr(),
        "error: `traps` asks no question\n  hint: each step of the path does; `cargo xtask explain` names them\n"
    );
}

#[test]
fn words_that_mean_nothing_are_answered_with_those_that_do() {
    let repository = Repository::new("explain-unknown");
    let stderr = |words: &[&str]| repository.xtask(&[&["explain"], words].concat()).ends(2).stderr();
    let unknown = stderr(&["make", "coffee"]);
    assert!(unknown.starts_with("error: there is no step or topic `make coffee`\n"), "{unknown}");
    for name in
        ["start, fetch, edit, ", " recipe docker, ", "submit\n", "  topics: locking, manifest, traps\n", " T05\n"]
    {
        assert!(unknown.contains(name), "{name} in {unknown}");
    }
    assert!(unknown.lines().all(|line| line.chars().count() <= 100), "{unknown}");
    let of_both = stderr(&["build"]);
    let expected = "error: `build` is done for each format: say `build docker` or `build apptainer`\n";
    assert_eq!(of_both, expected);
    stderr(&["--answer"]);
}
