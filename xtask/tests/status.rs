//! `status`: what it says of a path that is walked, left, and walked again.
#![cfg(unix)]

mod support;

use std::process::Command;

use support::{Repository, golden};

/// The state and the reason of a step.
fn state(status: &str, step: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(&format!("{step}  "))).unwrap_or_else(|| panic!("{status}"));
    line[step.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_path_is_shown_from_its_start_to_its_end() {
    let repository = Repository::new("status").online();
    golden("status-start", &repository.xtask(&["status"]).stdout());
    assert!(repository.calls().is_empty(), "nothing is asked of the network, and nothing is compiled");
    assert!(!repository.path("target").exists(), "and nothing is written");
    repository.xtask(&["all"]).ends(0);
    golden("status-all", &repository.xtask(&["status"]).stdout());
    golden("status-json", &repository.xtask(&["status", "--json"]).stdout());
}

#[test]
fn what_is_next_is_what_a_learner_has_to_type() {
    let repository = Repository::new("status-next").online();
    let mut typed = Vec::new();
    for _ in 0..20 {
        let status = repository.xtask(&["status"]).stdout();
        let next = status.lines().last().unwrap().strip_prefix("Next: cargo xtask ").unwrap().to_owned();
        if next == "commit" {
            break;
        }
        let words: Vec<&str> = next.split(' ').chain(["--source", "conda-forge"]).collect();
        repository.xtask(&words).ends(0);
        typed.push(next);
    }
    let steps =
        ["fetch", "edit", "lock", "recipe docker", "build docker", "test docker", "run docker", "workflows docker"];
    let more = ["recipe apptainer", "build apptainer", "test apptainer", "run apptainer", "workflows apptainer"];
    assert_eq!(typed, [&steps[..], &more].concat());
}

#[test]
fn an_image_is_stale_when_an_input_is_newer_and_says_which() {
    let repository = Repository::new("status-stale").online();
    repository.xtask(&["all"]).ends(0);
    repository.write("cuda-exercise/app/mine.py", "print(1)\n");
    let status = repository.xtask(&["status"]).stdout();
    assert_eq!(state(&status, "build docker"), "stale cuda-exercise/app/mine.py is newer");
    assert_eq!(state(&status, "run docker"), "done", "of the image that is there");
    let other = repository.xtask(&["status", "--base", "scratch"]).stdout();
    repository.remove("cuda-exercise/app/mine.py");
    assert_eq!(state(&repository.xtask(&["status"]).stdout(), "build docker"), "done", "it is what it was made from");
    let options = "stale it was made with other options, or by another version of the programs";
    let without = repository.xtask(&["status", "--base", "scratch"]).stdout();
    assert_eq!(state(&without, "build apptainer"), options, "{other}");
}

#[test]
fn a_lock_is_done_when_it_fits_whoever_solved_it() {
    let repository = Repository::new("status-lock");
    repository.xtask(&["edit"]).ends(0);
    repository.write("cuda-exercise/pixi.lock", "version: 6\n");
    assert_eq!(state(&repository.xtask(&["status"]).stdout(), "lock"), "done");
    repository.write("programs/fail-check", "");
    assert_eq!(state(&repository.xtask(&["status"]).stdout(), "lock"), "stale the lock does not fit");
}

#[test]
fn what_somebody_made_of_a_file_is_changed_and_kept() {
    let repository = Repository::new("status-changed").online();
    repository.xtask(&["all"]).ends(0);
    let recipe = repository.read("cuda-exercise/Dockerfile");
    repository.write("cuda-exercise/Dockerfile", &format!("{recipe}# mine\n"));
    let manifest = repository.read("cuda-exercise/pixi.toml");
    repository.write("cuda-exercise/pixi.toml", &manifest.replace("[tasks]", "[tasks]\nhello = \"echo\""));
    let status = repository.xtask(&["status"]).stdout();
    let changed = |file: &str| format!("changed {file}: not as the lesson has it");
    assert_eq!(state(&status, "recipe docker"), changed("cuda-exercise/Dockerfile"));
    assert_eq!(state(&status, "edit"), changed("cuda-exercise/pixi.toml"));
    repository.xtask(&["all"]).ends(0);
    assert!(repository.read("cuda-exercise/Dockerfile").ends_with("# mine\n"));
    repository.write("cuda-exercise/pixi.toml", &manifest.replace("gpu = [\"gpu\"]\n", ""));
    let status = repository.xtask(&["status"]).stdout();
    assert_eq!(state(&status, "edit"), "to do cuda-exercise/pixi.toml lacks environment gpu");
    repository.write("cuda-exercise/pixi.toml", "[workspace\n");
    let status = repository.xtask(&["status"]).stdout();
    assert!(state(&status, "edit").starts_with("to do cuda-exercise/pixi.toml: line 1, column "), "{status}");
}

#[test]
fn after_a_rehearsal_it_speaks_of_the_rehearsal() {
    let repository = Repository::new("status-rehearsal");
    repository.xtask(&["all"]).ends(0);
    let status = repository.xtask(&["status"]);
    assert!(status.stderr().contains("Source: rehearsal."), "{}", status.stderr());
    let status = status.stdout();
    assert!(status.contains("\nrehearse ") && !status.contains("stale"), "{status}");
    assert_eq!(state(&status, "run apptainer"), "done");
    let own = repository.xtask(&["status", "--source", "conda-forge"]).stdout();
    assert!(state(&own, "build docker").starts_with("to do "), "{own}");
}

#[test]
fn git_tells_what_is_committed_and_pushed() {
    let repository = Repository::new("status-git").online().with_git();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        let identity = ["-c", "user.name=learner", "-c", "user.email=learner@example.org"];
        let output = command.args(identity).args(words).current_dir(repository.path("")).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let states = || {
        let status = repository.xtask(&["status"]).stdout();
        [state(&status, "commit"), state(&status, "push")]
    };
    // The test's own directory lies in a repository of this project's: it needs one that is its own.
    git(&["init", "--quiet", "--initial-branch", "main"]);
    assert_eq!(states()[0], "to do cuda-exercise/pixi.toml is not committed");
    git(&["add", "cuda-exercise"]);
    git(&["commit", "--quiet", "--message", "start"]);
    assert_eq!(states(), ["done", "to do there is no remote repository yet: `git remote add origin ADDRESS` names it"]);
    git(&["init", "--quiet", "--bare", "remote"]);
    git(&["remote", "add", "origin", "remote"]);
    git(&["push", "--quiet", "--set-upstream", "origin", "HEAD"]);
    assert_eq!(states(), ["done", "done"]);
    repository.xtask(&["workflows", "docker"]).ends(0);
    git(&["add", ".github"]);
    assert_eq!(states()[0], "to do .github/workflows/docker.yaml is not committed");
    git(&["commit", "--quiet", "--message", "workflow"]);
    assert_eq!(states(), ["done", "to do commits that are not pushed: 1"]);
    repository.write("cuda-exercise/a file", "");
    assert_eq!(states()[0], "done", "what is no file of the path is the learner's own to commit, or not");
    repository.xtask(&["recipe", "docker"]).ends(0);
    assert_eq!(states()[0], "to do cuda-exercise/.dockerignore is not committed, nor is 1 more");
}

#[test]
fn an_image_counts_whichever_engine_made_it_unless_one_is_asked_for() {
    let repository = Repository::new("status-engine").online();
    repository.xtask(&["all"]).ends(0);
    let repository = repository.with_tool("docker");
    let status = repository.xtask(&["status"]).stdout();
    assert_eq!([state(&status, "build docker"), state(&status, "run docker")], ["done", "done"], "{status}");
    let status = repository.xtask(&["status", "--engine", "docker"]).stdout();
    assert!(state(&status, "build docker").starts_with("stale "), "{status}");
    assert_eq!(repository.xtask(&["all"]).stdout(), "There is nothing to do: every step is done.\n");
}

#[test]
fn without_a_network_the_steps_lead_through_a_rehearsal() {
    let repository = Repository::new("status-rehearse-step-by-step");
    repository.xtask(&["rehearse"]).ends(0);
    let first = repository.xtask(&["fetch"]).ends(0).stderr();
    assert!(first.contains("REHEARSAL"), "{first}");
    for step in ["edit", "lock", "recipe docker", "build docker", "test docker", "run docker"] {
        let status = repository.xtask(&["status"]).stdout();
        let next = status.lines().last().unwrap();
        assert_eq!(next, format!("Next: cargo xtask {step} --source rehearsal"), "{status}");
        repository.xtask(&next["Next: cargo xtask ".len()..].split(' ').collect::<Vec<_>>()).ends(0);
    }
    let cpu = repository.xtask(&["status", "--env", "cpu", "--engine", "native"]).stdout();
    assert!(cpu.ends_with("Next: cargo xtask build docker --env cpu --engine native --source rehearsal\n"), "{cpu}");
}
