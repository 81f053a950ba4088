//! `cargo xtask verify`: which images are made again, out of what, and what is said of them.
#![cfg(unix)]

mod support;

use std::fs;

use support::{Repository, golden};

const OCI: &str = "target/containers/cuda-exercise-gpu.oci.tar";
const SIF: &str = "target/containers/cuda-exercise-gpu.sif";

/// A repository in which every step is done.
fn built(name: &str) -> Repository {
    let repository = Repository::new(name).online();
    repository.xtask(&["all"]).ends(0);
    repository
}

/// The calls of a subcommand, without it and without what says where results go.
fn inputs(calls: &[String], command: &str) -> Vec<String> {
    let of_command = calls.iter().filter_map(|call| call.strip_prefix(&format!("pixi-image {command} ")));
    let without_places = of_command.map(|call| {
        let words: Vec<&str> = call.split(' ').collect();
        let inputs = words.iter().skip_while(|word| **word != "--lock").take_while(|word| !is_place(word));
        inputs.copied().collect::<Vec<_>>().join(" ")
    });
    without_places.collect()
}

fn is_place(word: &str) -> bool {
    ["--oci", "--sif"].contains(&word)
}

#[test]
fn both_images_are_made_again_from_what_build_took() {
    let repository = Repository::new("verify").online();
    repository.xtask(&["all"]).ends(0);
    let built = inputs(&repository.calls(), "build");
    let said = repository.xtask(&["verify"]).stdout();
    assert_eq!(
        said,
        format!("{OCI}: the same again, sha256:00 (12.0 MB)\n{SIF}: the same again, sha256:00 (12.0 MB)\n")
    );
    let calls = repository.calls();
    assert!(calls[0].starts_with(&format!("pixi-image verify {OCI} --lock ")), "{calls:?}");
    assert!(calls[1].starts_with(&format!("pixi-image verify {SIF} --lock ")), "{calls:?}");
    let verified = inputs(&calls, "verify");
    assert_eq!((built.len(), verified.len()), (1, 2), "{calls:?}");
    assert!(built[0].contains("--base ghcr.io/prefix-dev/pixi@sha256:00"), "{built:?}");
    assert!(verified.iter().all(|inputs| *inputs == built[0]), "{verified:#?} and {built:#?}");
}

#[test]
fn a_named_file_is_compared_alone_and_what_is_not_there_is_left_out() {
    let repository = built("verify-one");
    repository.calls();
    repository.xtask(&["verify", "some/where.sif", "--frozen"]).ends(0);
    let calls = repository.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].starts_with("pixi-image verify some/where.sif ") && calls[0].contains(" --frozen"), "{calls:?}");
    repository.remove(SIF);
    assert_eq!(repository.xtask(&["verify"]).stdout().lines().count(), 1);
    repository.remove(OCI);
    let none = repository.xtask(&["verify"]);
    none.ends(1);
    assert!(none.stderr().contains("hint: `cargo xtask build docker --engine native` makes it"), "{}", none.stderr());
}

#[test]
fn a_difference_ends_with_1_and_the_other_image_is_compared_all_the_same() {
    let repository = built("verify-different");
    repository.calls();
    repository.write("programs/fail-verify", "");
    let run = repository.xtask(&["verify"]);
    run.ends(1);
    assert_eq!(run.stderr().matches("error: verify cannot\n").count(), 2, "{}", run.stderr());
    assert_eq!(repository.calls().len(), 2);
}

#[test]
fn an_engine_that_makes_other_bytes_each_time_says_so() {
    let repository = built("verify-docker");
    let run = repository.xtask(&["verify", "--engine", "docker"]);
    run.ends(1);
    assert!(run.stderr().contains("docker gives other bytes each time it builds"), "{}", run.stderr());
}

#[test]
fn a_dry_run_shows_the_commands() {
    let repository = Repository::new("verify-dry-run");
    golden("dry-run-verify", &repository.xtask(&["verify", "--dry-run"]).stdout());
    golden(
        "dry-run-verify-rehearsal",
        &repository.xtask(&["verify", SIF, "--dry-run", "--source", "rehearsal", "--frozen"]).stdout(),
    );
    assert!(repository.calls().is_empty());
    assert!(fs::read_dir(repository.path("target")).is_err());
}
