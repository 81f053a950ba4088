//! `bench` as it is typed: what it runs and in which order; stand-ins for the heavy programs tell what they were asked.
#![cfg(unix)]

mod support;

use std::collections::BTreeMap;

use support::{Repository, golden};

fn measured(repository: &Repository, arguments: &[&str]) -> String {
    let run = repository.xtask(&[&["bench", "--runs", "2"], arguments].concat());
    run.stdout()
}

#[test]
fn a_dry_run_shows_every_way_once_and_runs_none() {
    let all = ["docker", "podman", "docker-registry"];
    let repository = all.into_iter().fold(Repository::new("bench-dry-run"), Repository::with_tool);
    let shape = ["bench", "--dry-run", "--shape", "a/pixi.lock", "--scale", "0.1", "--runs", "3"];
    golden("bench-dry-run", &repository.xtask(&shape).stdout());
    let asked = repository.calls();
    // Whether an engine works is looked at, even in a dry run.
    assert!(asked.iter().all(|call| call.contains("version") || call.contains("info")), "{asked:?}");
    assert!(!repository.path("target").exists());
}

#[test]
fn rounds_go_all_ways_in_turn_and_the_warm_up_does_not_count() {
    let repository = Repository::new("bench-rounds");
    let stdout = measured(&repository, &[]);
    assert!(stdout.starts_with("the rehearsal's packages: 2 runs after a warm-up, on "), "{stdout}");
    assert!(stdout.contains("\ndocker: not measured: it is not installed\n"), "{stdout}");
    for row in [
        "native OCI",
        "native SIF",
        "native both, base new",
        "native both  ",
        "native both, nothing changed",
        "floor of both",
    ] {
        assert!(stdout.contains(&format!("\n{row}")), "{row} in {stdout}");
    }
    let mut asked = BTreeMap::new();
    let calls = repository.calls();
    for call in &calls {
        let workspace = ["changed", "bare"].into_iter().find(|name| call.contains(&format!("/{name}/"))).unwrap_or("");
        let outputs = ["--oci", "--sif"].map(|option| if call.contains(option) { option } else { "" }).concat();
        let words: Vec<&str> = call.split(' ').take(3).collect();
        let key = if words[1] == "build" { format!("build {workspace} {outputs}") } else { words.join(" ") };
        *asked.entry(key).or_insert(0) += 1;
    }
    // Three rounds, and the environment `cpu` that is compared with `gpu`.
    assert_eq!(asked["build  --oci"], 4, "{calls:?}");
    assert_eq!(asked["build  --sif"], 3, "{calls:?}");
    assert_eq!(asked["build  --oci--sif"], 12, "twice cold, with the packages at hand, and again: {calls:?}");
    assert_eq!(asked["build changed --oci--sif"], 3, "{calls:?}");
    assert_eq!(asked["build bare --oci--sif"], 12, "before what knows the base alone: {calls:?}");
    assert_eq!(asked["pixi-image bench floor"], 3, "{calls:?}");
    let place = |wanted: &str| calls.iter().position(|call| call.starts_with(wanted)).unwrap();
    assert!(
        place("rehearsal make") < place("rehearsal add-pixi")
            && place("rehearsal add-pixi") < place("rehearsal variant")
    );
}

#[test]
fn results_are_written_whole_and_say_what_was_not_measured() {
    let repository = Repository::new("bench-results");
    measured(&repository, &["--out", "results"]);
    let json = repository.read("results/bench.json");
    assert!(json.starts_with("{\"environment\": \"the rehearsal's packages\", \"runs\": 2, "), "{json}");
    assert!(json.contains("{\"tool\": \"apptainer\", \"reason\": \"it is not installed\"}"), "{json}");
    for id in 1..=10 {
        assert!(json.contains(&format!("{{\"id\": \"B{id}\", ")), "B{id} in {json}");
    }
    assert!(repository.read("results/bench.svg").starts_with("<svg "));
    assert!(repository.read("results/bench.md").contains("\n| B5 | both, nothing changed | "));
}

#[test]
fn a_build_that_fails_ends_it_with_what_it_said() {
    let repository = Repository::new("bench-fails");
    repository.write("programs/fail-build", "");
    let run = repository.xtask(&["bench"]);
    run.ends(1);
    let said = run.stderr();
    assert!(
        said.contains("error: measure builds: native OCI: `programs/pixi-image build` ended with exit code 1; it said last\n  error: build cannot"),
        "{said}"
    );
    assert!(!repository.path("target/bench/bench.json").exists());
}

#[test]
fn what_was_measured_is_kept_when_what_follows_fails() {
    let repository = Repository::new("bench-kept").with_tool("podman");
    // Podman builds and loads what it is told, but starts nothing.
    let podman = "#!/bin/sh\n[ \"$1\" != run ] || { echo no such image >&2; exit 125; }\n";
    repository.write("tools/podman", podman);
    let run = repository.xtask(&["bench", "--runs", "1"]);
    run.ends(1);
    assert!(run.stderr().contains("measure starts: `podman run` ended with exit code 125"), "{}", run.stderr());
    assert!(repository.read("target/bench/bench.md").contains("\n| podman build | "));
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let repository = Repository::new("bench-usage");
    for arguments in [["--engines", "docker,rocket"], ["--runs", "0"], ["--scale", "0.1"]] {
        repository.xtask(&[&["bench"][..], &arguments].concat()).ends(2);
    }
    assert!(repository.calls().is_empty());
}
