//! `doctor`: what it finds in broken workspaces and on made-up machines, and that it finds nothing in good ones.
#![cfg(unix)]

mod support;

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use support::{Repository, golden};

/// One trap as it is printed: the id and the place.
fn traps(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("  trap     "));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The text with one blank in place of several.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The exercise as it is in git, and the workflows as `cargo xtask workflows` writes them.
fn exercise(test: &str) -> Repository {
    let repository = Repository::new(test);
    for file in [".dockerignore", ".gitignore", "Dockerfile", "apptainer.def", "pixi.toml"] {
        copy(&repository, &own("../cuda-exercise").join(file), &format!("cuda-exercise/{file}"));
    }
    for file in ["apptainer.yaml", "docker.yaml"] {
        copy(&repository, &own("lesson/workflows").join(file), &format!(".github/workflows/{file}"));
    }
    repository
}

fn copy(repository: &Repository, from: &Path, to: &str) {
    let text = fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    repository.write(to, &text);
}

/// The files below a directory of test data, with their paths in it.
fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), String::new()));
        }
    }
    for (path, below) in &mut found {
        *below = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
        if let Some(up) = path.parent().filter(|up| *up != directory && !below.contains('/')) {
            *below = format!("{}/{below}", up.file_name().unwrap().to_str().unwrap());
        }
    }
    found.sort();
    found
}

#[test]
fn each_broken_workspace_is_in_the_trap_that_it_is_named_after_and_in_no_other() {
    let mut names: Vec<_> = fs::read_dir(own("tests/broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut seen = BTreeSet::new();
    let mut report = String::new();
    for directory in names {
        let name = directory.file_name().unwrap().to_str().unwrap();
        let repository = exercise(&format!("broken/{name}"));
        for (path, below) in files(&directory) {
            let to = match below.strip_prefix("workflows/") {
                Some(workflow) => format!(".github/workflows/{workflow}"),
                None => format!("cuda-exercise/{below}"),
            };
            copy(&repository, &path, &to);
        }
        let output = repository.xtask(&["doctor", "--offline"]).stdout();
        let found = traps(&output);
        let ids: BTreeSet<&str> = found.iter().map(|trap| &trap[..3]).collect();
        let expected: BTreeSet<&str> = name.starts_with('T').then(|| &name[..3]).into_iter().collect();
        assert_eq!(ids, expected, "{name}:\n{output}");
        seen.extend(expected.into_iter().map(str::to_owned));
        let traps = output.split_once("\nTraps").unwrap().1;
        report += &format!("== {name}\nTraps{}\n", traps.split("\n\n`cargo").next().unwrap().trim_end());
    }
    assert_eq!(seen.len(), 21, "{seen:?}");
    golden("doctor-broken", &report);
}

#[test]
fn the_exercise_as_it_is_in_git_and_the_learners_start_are_in_no_trap() {
    for repository in [exercise("doctor-good"), Repository::new("doctor-start")] {
        let output = repository.xtask(&["doctor", "--offline"]).stdout();
        assert!(output.ends_with("\nTraps: none\n"), "{output}");
    }
}

#[test]
fn a_workspace_in_the_new_style_and_one_that_edit_and_workflows_wrote_are_in_no_trap() {
    let repository = exercise("doctor-rich");
    repository.xtask(&["edit", "--platform-style", "rich"]).ends(0);
    repository.xtask(&["workflows"]).ends(0);
    let output = repository.xtask(&["doctor", "--offline"]).stdout();
    assert!(output.ends_with("\nTraps: none\n"), "{output}");
}

#[test]
fn the_lessons_own_files_are_in_all_traps_that_show_there() {
    let repository = Repository::new("doctor-exact");
    for file in ["Dockerfile", "apptainer.def"] {
        copy(&repository, &own("lesson/exact").join(file), &format!("cuda-exercise/{file}"));
    }
    for file in ["docker.yaml", "apptainer.yaml"] {
        copy(&repository, &own("lesson/exact").join(file), &format!(".github/workflows/{file}"));
    }
    let output = repository.xtask(&["doctor", "--offline"]).stdout();
    let ids: BTreeSet<String> = traps(&output).iter().map(|trap| trap[..3].to_owned()).collect();
    let expected = "T02 T03 T04 T05 T06 T07 T08 T10 T12 T13 T14 T16 T17 T19 T20";
    assert_eq!(ids.into_iter().collect::<Vec<_>>().join(" "), expected, "{output}");
    assert!(output.contains("\n  trap     T08  this machine\n"), "it has no GPU: {output}");
}

#[test]
fn a_missing_dockerignore_is_named_and_written_by_the_mend() {
    let repository = exercise("doctor-ignore");
    repository.remove("cuda-exercise/.dockerignore");
    let output = repository.xtask(&["doctor", "--offline"]).stdout();
    assert_eq!(traps(&output), ["T02 cuda-exercise/Dockerfile:1"]);
    assert!(output.contains("\n               hint: cargo xtask recipe docker\n"), "{output}");
    repository.xtask(&["recipe", "docker"]).ends(0);
    assert_eq!(traps(&repository.xtask(&["doctor", "--offline"]).stdout()), Vec::<String>::new());
}

/// A laptop with everything: made-up files in place of `/`, and stand-ins on PATH.
fn laptop(test: &str) -> Repository {
    let repository = exercise(test)
        .with_script("docker", "case $1 in version) echo 28.1.0 ;; buildx) echo v0.23 ;; esac")
        .with_script("podman", "echo 5.4.1")
        .with_script("apptainer", "echo apptainer version 1.4.5")
        .with_script("pixi", "echo pixi 0.77.0")
        .with_script("cargo", "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'")
        .with_script("rustc", "echo 'rustc 1.95.0 (59807616e 2026-04-14)'")
        .with_script("id", "echo 1000")
        .with_script("unshare", "exit 0")
        .with_script("df", "echo Filesystem; echo \"/dev/x 1 1 $(cat free 2>/dev/null || echo 60000000) 1% /\"");
    let tree = [
        ("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
        ("proc/cpuinfo", "processor\t: 0\nprocessor\t: 1\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n"),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\nGCC version: 12\n",
        ),
        ("dev/nvidia0", ""),
        ("usr/bin/nvidia-container-toolkit", ""),
    ];
    for (path, text) in tree {
        repository.write(&format!("tree/{path}"), text);
    }
    repository
}

/// What stands in a transcript in place of what differs from machine to machine.
fn doctor(repository: &Repository, arguments: &[&str], variables: &[(&str, &str)]) -> support::Run {
    let tree = repository.path("tree");
    let variables: Vec<_> = [("XTASK_DEVICE_TREE", tree.to_str().unwrap())].iter().chain(variables).copied().collect();
    repository.xtask_in(&[&["doctor"], arguments].concat(), &variables, "")
}

fn normal(repository: &Repository, text: &str) -> String {
    text.replace(&repository.path("").display().to_string(), "/repository/").replace(ARCH, "x86_64")
}

#[test]
fn a_machine_is_shown_with_what_each_step_will_use() {
    let repository = laptop("doctor-laptop").online();
    golden("doctor-laptop", &normal(&repository, &doctor(&repository, &[], &[]).stdout()));
    let json = doctor(&repository, &["--json"], &[]).stdout();
    golden("doctor-laptop-json", &normal(&repository, &json).replace("}, {", "},\n  {"));
    assert!(repository.calls().iter().all(|call| call.starts_with("pixi-image probe")), "it only looks");
    assert!(!repository.path("target").exists(), "and writes nothing");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_machine_with_nothing_is_enough() {
    let repository = Repository::new("doctor-nothing");
    fs::create_dir_all(repository.path("tree")).unwrap();
    golden("doctor-offline", &normal(&repository, &doctor(&repository, &["--offline"], &[]).stdout()));
    assert_eq!(repository.calls(), Vec::<String>::new(), "nothing is asked of the network");
}

#[test]
fn off_a_terminal_there_are_no_control_codes() {
    let repository = laptop("doctor-plain");
    repository.remove("cuda-exercise/.dockerignore");
    for arguments in [&["--offline"][..], &["--offline", "--json"]] {
        let run = doctor(&repository, arguments, &[("TERM", "xterm-256color")]);
        assert!(!run.stdout().contains('\x1b') && !run.stderr().contains('\x1b'), "{}", run.stdout());
    }
}

#[test]
fn an_engine_that_cannot_work_ends_it_with_1_and_says_what_to_do() {
    let repository = laptop("doctor-dead").with_script("docker", "echo 'Cannot connect to the daemon' >&2; exit 1");
    let run = doctor(&repository, &["--engine", "docker"], &[]);
    run.ends(1);
    let stderr = run.stderr();
    assert!(
        stderr.contains("error: build docker, test docker, run docker cannot work here: docker cannot work here: its daemon does not answer (Cannot connect to the daemon)\n  hint: start Docker"),
        "{stderr}"
    );
    let run = doctor(&repository, &[], &[]);
    assert!(run.stdout().contains("build, test, run docker     podman"), "the next one takes over: {}", run.stdout());
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for() {
    let repository = laptop("doctor-hangs").with_script("docker", "read line <programs/never");
    // Nobody ever writes into this pipe.
    let made = std::process::Command::new("mkfifo").arg(repository.path("programs/never")).status().unwrap();
    assert!(made.success());
    let output = doctor(&repository, &["--offline"], &[]).stdout();
    assert!(output.contains("`docker version` does not answer within 5 s"), "{output}");
}

#[test]
fn a_switch_that_forbids_namespaces_is_named_where_images_cannot_be_run() {
    let repository =
        laptop("doctor-namespaces").with_script("unshare", "echo 'unshare: Operation not permitted' >&2; exit 1");
    repository.write("tree/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
    let run = doctor(&repository, &["--engine", "native"], &[]);
    run.ends(1);
    let stderr = run.stderr();
    let expected = "error: test docker, run docker, test apptainer, run apptainer cannot work here: ";
    if ARCH == "x86_64" {
        assert!(stderr.contains(&format!("{expected}user namespaces are forbidden here: kernel.apparmor_restrict_unprivileged_userns is 1\n  hint: ask for `sysctl kernel.apparmor_restrict_unprivileged_userns=0`")), "{stderr}");
    }
    assert!(words(&doctor(&repository, &[], &[]).output()).contains(" ok build, test, run docker docker 28.1.0 "));
}

#[test]
fn too_little_room_is_a_trap_where_apptainer_unpacks_and_an_end_where_the_lock_says_so() {
    let repository = laptop("doctor-room");
    repository.write("free", "1000000");
    let output = doctor(&repository, &["--source", "conda-forge"], &[("TMPDIR", "/tmp")]).output();
    assert_eq!(traps(&output), ["T13 /tmp"], "{output}");
    assert!(
        output.contains("\n               hint: export APPTAINER_TMPDIR=DIR, a directory with more room\n"),
        "{output}"
    );
    let lock = "version: 6\nenvironments:\n  gpu:\n    packages:\n      linux-64:\n      - conda: h/a\npackages:\n- conda: h/a\n  size: 900000000\n";
    repository.write("cuda-exercise/pixi.lock", lock);
    let run = doctor(&repository, &["--source", "conda-forge", "--offline"], &[]);
    run.ends(1);
    assert!(
        run.stderr().contains(
            "build docker, build apptainer cannot work here: target has 1.0 GB free, and the images take about 1.9 GB"
        ),
        "{}",
        run.stderr()
    );
    repository.write("free", "4000000");
    let run = doctor(&repository, &["--source", "conda-forge"], &[]);
    assert!(
        run.stderr()
            .contains("build apptainer cannot work here: /tmp: 4.1 GB free, but Apptainer unpacks about 4.6 GB there"),
        "{}",
        run.stderr()
    );
    assert_eq!(traps(&run.output()), ["T13 /tmp"]);
    assert_eq!(traps(&doctor(&repository, &["--engine", "native", "--offline"], &[]).output()), Vec::<String>::new());
}

#[test]
fn traps_of_the_machine_are_found() {
    let repository = laptop("doctor-machine");
    let off = doctor(&repository, &["--offline"], &[("DOCKER_BUILDKIT", "0")]).stdout();
    assert_eq!(traps(&off), ["T18 docker"], "{off}");
    let repository = repository.with_script("docker", "case $1 in version) echo 20.10.24 ;; *) exit 1 ;; esac");
    let classic = doctor(&repository, &["--offline"], &[]).stdout();
    assert_eq!(traps(&classic), ["T18 docker"], "{classic}");
    assert!(classic.contains("hint: install docker-buildx"), "{classic}");

    let repository = laptop("doctor-standing");
    repository.write("cuda-exercise/.pixi/envs/gpu/conda-meta/history", "");
    assert_eq!(traps(&doctor(&repository, &["--offline"], &[]).stdout()), Vec::<String>::new());
    let inside = repository.xtask_in(&["doctor", "--offline"], &[], "cuda-exercise").stdout();
    assert_eq!(traps(&inside), ["T20 cuda-exercise/.pixi/envs"], "{inside}");

    let home = repository.path("home");
    repository.write("home/.local/lib/python3.13/site-packages/numpy/__init__.py", "");
    let home = [("HOME", home.to_str().unwrap())];
    assert_eq!(traps(&doctor(&repository, &["--offline"], &home).stdout()), Vec::<String>::new(), "images shut it out");
    let recipe =
        repository.read("cuda-exercise/apptainer.def").replace("        echo 'export PYTHONNOUSERSITE=1'\n", "");
    repository.write("cuda-exercise/apptainer.def", &recipe);
    let found = traps(&doctor(&repository, &["--offline"], &home).stdout());
    assert!(found.len() == 2 && found.iter().all(|trap| trap.starts_with("T14 ")), "{found:?}");
    assert!(found[1].ends_with("home/.local/lib/python3.13/site-packages"), "{found:?}");
}

#[test]
fn a_workspace_that_no_step_can_work_on_is_said() {
    let repository = laptop("doctor-broken-manifest");
    repository.write("cuda-exercise/pixi.toml", "[workspace\n");
    let run = doctor(&repository, &["--offline"], &[]);
    run.ends(1);
    assert!(
        run.stderr().starts_with("error: edit cannot work here: cuda-exercise/pixi.toml: line 1, column "),
        "{}",
        run.stderr()
    );
    repository.remove("cuda-exercise/pixi.toml");
    let run = doctor(&repository, &["--offline"], &[]);
    run.ends(1);
    assert!(
        run.stderr().contains("cuda-exercise/pixi.toml is not there\n  hint: `cargo xtask reset start`"),
        "{}",
        run.stderr()
    );
    doctor(&repository, &["--offline", "--workspace", "nowhere"], &[]).ends(1);
}

#[test]
fn who_insists_on_conda_forge_is_told_that_it_does_not_answer() {
    let repository = laptop("doctor-unreachable");
    let run = doctor(&repository, &["--source", "conda-forge"], &[]);
    run.ends(1);
    assert!(run.stderr().contains("error: fetch, lock cannot work here: conda.anaconda.org: no such host\n  hint: `--source rehearsal` does without it"), "{}", run.stderr());
    let output = doctor(&repository, &[], &[]).stdout();
    assert!(
        output.contains(
            "rehearse                    rehearsal   conda-forge or the registry of the base is out of reach"
        ),
        "{output}"
    );
}

#[test]
fn nothing_is_compiled_to_look() {
    let repository = laptop("doctor-uncompiled").with_script("cc", "exit 0");
    let output = repository.xtask_that_compiles(&["doctor", "--offline"]).stdout();
    assert!(output.contains("not compiled yet: the first step that needs it does, in about 5 minutes"), "{output}");
    let calls = repository.calls();
    assert!(!calls.iter().any(|call| call.starts_with("cargo build")), "{calls:?}");
    assert!(
        !repository.path("target/debug").exists()
            || calls.is_empty()
            || !calls.iter().any(|call| call.contains("build"))
    );

    let without = Repository::new("doctor-no-compiler");
    let run = without.xtask_that_compiles(&["doctor", "--offline"]);
    run.ends(1);
    assert!(
        run.stderr().contains("it is not compiled yet, and there is no C compiler\n  hint: install one"),
        "{}",
        run.stderr()
    );
}
