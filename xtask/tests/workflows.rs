//! The workflows, trap by trap: what GitHub would do with the lesson's and with ours.
#![cfg(target_os = "linux")]

mod github;

use std::process::Command;

use github::{Event, Outcome, PUSH, Workflow};

const OURS: [&str; 2] = ["xtask/lesson/workflows/docker.yaml", "xtask/lesson/workflows/apptainer.yaml"];
const EXACT: [&str; 2] = ["xtask/lesson/exact/docker.yaml", "xtask/lesson/exact/apptainer.yaml"];

const PULL_REQUEST: Event = Event { name: "pull_request", git_ref: "refs/pull/7/merge", ..PUSH };

fn run(path: &str, event: &Event) -> Outcome {
    Workflow::read(path).run(event)
}

#[test]
fn t06_an_image_that_cannot_start_is_not_published() {
    let publishes_a_broken_image = |path: &&str| !run(path, &Event { broken: true, ..PUSH }).pushed().is_empty();
    assert_eq!(EXACT.iter().filter(|path| publishes_a_broken_image(path)).count(), 2);
    for path in OURS {
        assert!(!publishes_a_broken_image(&path), "{path}");
        assert!(!run(path, &PUSH).pushed().is_empty(), "{path}: a good one is published");
    }
}

#[test]
fn t10_the_name_of_the_image_is_lower_case_whatever_the_owner_is_called() {
    let event = Event { repository: "Some-Owner/Course_2", ..PUSH };
    let is_refused = |path: &str| {
        let outcome = run(path, &event);
        let pushed = outcome.pushed();
        assert!(!pushed.is_empty(), "{path}");
        // The tag may hold capital letters, the name may not.
        pushed.iter().any(|to| to.rsplit_once(':').unwrap().0 != "ghcr.io/some-owner/course_2")
    };
    assert!(is_refused(EXACT[1]), "the lesson's action for docker does it by itself, the shell for apptainer does not");
    for path in OURS {
        assert!(!is_refused(path), "{path}");
    }
}

#[test]
fn t12_tags_say_what_is_locked() {
    let says = |path: &str, version: &str| run(path, &PUSH).tags().iter().any(|tag| tag.contains(version));
    for path in EXACT {
        assert!(says(path, "cuda-12.9") && !says(path, "cuda-12.8"), "{path}");
    }
    assert_eq!(
        run(OURS[0], &PUSH).tags(),
        ["sha-1234567", "gpu-noble-cuda-12.8", "gpu-noble-cuda-12.8-sha-1234567", "latest"]
    );
    assert_eq!(
        run(OURS[1], &PUSH).tags(),
        ["apptainer-gpu-noble-cuda-12.8", "apptainer-gpu-noble-cuda-12.8-sha-1234567"]
    );
    let two = run(OURS[0], &Event { tags: "a-1\na-1.2", ..PUSH });
    assert_eq!(two.tags(), ["sha-1234567", "a-1", "a-1-sha-1234567", "a-1.2", "a-1.2-sha-1234567", "latest"]);
}

#[test]
fn t12_latest_is_moved_by_the_default_branch_alone() {
    let moves_latest = |path: &str, name, git_ref| {
        let outcome = run(path, &Event { name, git_ref, ..PUSH });
        assert!(!outcome.tags().is_empty(), "{path} {git_ref}");
        outcome.tags().contains(&"latest")
    };
    for (name, git_ref, is_default) in [
        ("push", "refs/heads/main", true),
        ("workflow_dispatch", "refs/heads/main", true),
        ("workflow_dispatch", "refs/heads/feature", false),
        ("workflow_dispatch", "refs/heads/x/main", false),
        ("push", "refs/tags/v0.1", false),
        ("push", "refs/tags/main", false),
        ("release", "refs/tags/v0.1", false),
    ] {
        assert!(moves_latest(EXACT[0], name, git_ref));
        assert_eq!(moves_latest(OURS[0], name, git_ref), is_default, "{name} {git_ref}");
    }
}

#[test]
fn t16_no_emulator_is_set_up() {
    let emulates = |path: &str| run(path, &PUSH).started("uses docker/setup-qemu-action");
    assert!(emulates(EXACT[0]));
    assert!(OURS.iter().all(|path| !emulates(path)));
}

#[test]
fn a_pull_request_builds_tests_and_runs_with_a_token_that_only_reads() {
    let may_write = |outcome: &Outcome| outcome.permissions.iter().any(|(_, access)| access == "write");
    for path in EXACT {
        assert!(may_write(&run(path, &PULL_REQUEST)), "{path}");
    }
    for (path, kind) in OURS.into_iter().zip(["docker", "apptainer"]) {
        let outcome = run(path, &PULL_REQUEST);
        assert_eq!(outcome.permissions, [("contents".to_owned(), "read".to_owned())], "{path}");
        assert!(outcome.pushed().is_empty() && !outcome.started("uses docker/login-action"), "{path}");
        let commands: Vec<_> = outcome.calls.iter().filter(|call| call.starts_with("cargo ")).collect();
        let expected = ["build", "test", "run"]
            .map(|step| format!("cargo xtask {step} {kind} --engine {kind} --source conda-forge"));
        assert_eq!(commands, expected.iter().collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn what_is_published_was_made_as_in_a_pull_request() {
    for path in OURS {
        let workflow = Workflow::read(path);
        assert_eq!(workflow.jobs(), ["check", "publish"]);
        let (check, publish) = (workflow.steps("check"), workflow.steps("publish"));
        assert_eq!(check, &publish[..check.len()], "{path}");
        assert_eq!(workflow.at(&["permissions"]).unwrap().as_mapping().unwrap().len(), 0, "{path}");
    }
}

#[test]
fn a_workflow_starts_for_all_that_its_image_is_made_of() {
    for path in OURS {
        let workflow = Workflow::read(path);
        let paths = |event| {
            let paths = workflow.at(&["on", event, "paths"]).unwrap().as_sequence().unwrap();
            paths.iter().map(|path| path.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(paths("push"), paths("pull_request"), "{path}");
        let recipe: &[&str] = if path == OURS[0] { &["Dockerfile", ".dockerignore"] } else { &["apptainer.def"] };
        let files =
            ["pixi.toml", "pixi.lock", "app/**"].iter().chain(recipe).map(|file| format!("cuda-exercise/{file}"));
        let own = ["Cargo.lock", "Cargo.toml", "xtask/**", ".cargo/**"].map(str::to_owned);
        for file in files.chain(own) {
            assert!(paths("push").contains(&file), "{path} does not start for {file}");
        }
    }
}

#[test]
fn a_workflow_never_rehearses_and_fills_nothing_into_its_shell() {
    for path in OURS {
        let workflow = Workflow::read(path);
        let steps = workflow.jobs().into_iter().flat_map(|job| workflow.steps(job));
        let scripts: Vec<_> = steps.filter_map(|step| step.as_mapping_get("run")?.as_str()).collect();
        for line in scripts.iter().flat_map(|script| script.lines()) {
            assert!(!line.contains("cargo xtask ") || line.contains(" --source conda-forge"), "{path}: {line}");
            assert!(!line.contains("${{"), "{path}: {line}");
        }
    }
}

#[test]
fn every_command_in_a_workflow_is_one_that_xtask_has() {
    for path in OURS {
        for call in run(path, &PUSH).calls.iter().filter_map(|call| call.strip_prefix("cargo xtask ")) {
            let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
            let output = xtask.args(call.split(' ')).arg("--dry-run").output().unwrap();
            // What is missing on this machine is another matter than wrong usage.
            assert_ne!(output.status.code(), Some(2), "{call}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
