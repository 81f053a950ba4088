//! `all` as an instructor shows it: what is seen, where it begins and ends, `--pause`, and Ctrl-C.
#![cfg(unix)]

mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Repository, golden};
use terminal::Terminal;

/// What a run shows where both streams go to one place, and its exit code.
fn transcript(repository: &Repository, arguments: &[&str]) -> (String, i32) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = repository.xtask_command(arguments);
    let mut process = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    drop(command); // it holds the pipe open
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (without_times(&text), process.wait().unwrap().code().unwrap())
}

/// The text with every duration as `0.0 s`.
fn without_times(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" s").filter(|at| *at > 0) {
        let (before, after) = rest.split_at(at);
        let number = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let is_duration = number > 2 && !after[2..].starts_with(|c: char| c.is_ascii_alphanumeric());
        let (kept, end) = if is_duration { (before.len() - number, "0.0") } else { (before.len(), "") };
        result += &before[..kept];
        result += end;
        result += " s";
        rest = &after[2..];
    }
    result + rest
}

#[test]
fn all_shows_each_step_with_its_reason_commands_and_result() {
    let repository = Repository::new("demo-all").online();
    let (text, code) = transcript(&repository, &["all"]);
    assert_eq!(code, 0, "{text}");
    golden("all", &text);
    golden("all-again", &transcript(&repository, &["all"]).0);
}

#[test]
fn a_part_of_the_path_begins_and_ends_where_it_was_asked_to() {
    let repository = Repository::new("demo-range").online();
    let (text, code) = transcript(&repository, &["all", "--from", "build docker", "--to", "run-docker"]);
    assert_eq!(code, 1, "{text}");
    golden("all-from-too-early", &text);

    let (text, code) = transcript(&repository, &["all", "--to", "lock"]);
    assert_eq!(code, 0, "{text}");
    golden("all-to", &text);
    assert!(!repository.path("target/containers").exists());

    // What is not needed there need not be done: the native engine follows no recipe.
    repository.calls();
    let (text, code) = transcript(&repository, &["all", "--from", "build-docker", "--to", "run-docker"]);
    assert_eq!(code, 0, "{text}");
    golden("all-from-to", &text);
    assert!(!repository.path("cuda-exercise/Dockerfile").exists());
    assert!(!repository.path("target/containers/cuda-exercise-gpu.sif").exists(), "it lies behind the end");
    let (text, _) = transcript(&repository, &["all", "--from", "commit"]);
    assert!(
        text.ends_with("There is nothing to do here: these steps are done by hand, as `cargo xtask explain` says.\n")
    );
}

#[test]
fn a_range_that_makes_no_sense_is_wrong_usage() {
    let repository = Repository::new("demo-wrong-range");
    let run = repository.xtask(&["all", "--from", "build-docker", "--to", "lock"]);
    let expected = "error: --from build-docker comes after --to lock\n  \
                    hint: `cargo xtask status` shows the steps in their order\n";
    assert_eq!(run.ends(2).stderr(), expected);
    let run = repository.xtask(&["all", "--from", "dinner"]);
    assert!(run.ends(2).stderr().contains("the steps are rehearse, start, fetch, "), "{}", run.stderr());
    assert!(repository.calls().is_empty(), "nothing was asked");
}

#[test]
fn pause_waits_for_somebody_and_refuses_where_there_is_nobody() {
    let repository = Repository::new("demo-nobody");
    let expected = "error: --pause waits for keys, and this is not a terminal\n  \
                    hint: `cargo xtask all` without it stops nowhere\n";
    assert_eq!(repository.xtask(&["all", "--pause"]).ends(2).stderr(), expected);
    repository.xtask(&["all", "--pause", "--dry-run"]).ends(2);
    repository.xtask(&["all", "--pause", "--quiet"]).ends(2);
    assert!(repository.calls().is_empty());
}

/// The end of every question.
const ASKS: &str = "?: help > ";

#[test]
fn an_instructor_goes_on_skips_repeats_asks_and_quits() {
    let repository = Repository::new("demo-pause").online();
    let command = repository.xtask_command(&["all", "--pause", "--plain"]);
    let Some(mut terminal) = Terminal::start(&command, 100) else { return };
    // start, which is there; fetch; edit; lock with a key that is none; recipe docker is skipped; build and run docker.
    for keys in ["\n", "n\n", "\n", "x\n", "?\n", "c\n", "\n", "s\n", "\n", "q\n"] {
        terminal.wait_for(ASKS);
        terminal.type_in(keys);
    }
    let (text, code) = terminal.end();
    assert_eq!(code, 0, "{text}");
    golden("all-pause", &without_times(&text));
    assert!(repository.path("target/containers/cuda-exercise-gpu.oci.tar").is_file());
    assert!(!repository.path("target/containers/cuda-exercise-gpu.sif").exists(), "it has a step of its own");
    assert!(!repository.path("cuda-exercise/Dockerfile").exists());

    // Where it stopped; what is done is shown again, and done again when asked for.
    repository.calls();
    let command = repository.xtask_command(&["all", "--pause", "--plain", "--from", "build-docker", "--to=run docker"]);
    let mut terminal = Terminal::start(&command, 100).unwrap();
    for keys in ["r\n", "\n"] {
        terminal.wait_for(ASKS);
        terminal.type_in(keys);
    }
    let (text, code) = terminal.end();
    assert_eq!(code, 0, "{text}");
    golden("all-pause-again", &without_times(&text));
}

#[test]
fn a_step_that_fails_before_the_audience_can_be_tried_again() {
    let repository = Repository::new("demo-pause-fails").online();
    repository.xtask(&["all", "--to", "edit"]).ends(0);
    repository.write("programs/fail-lock", "");
    let command = repository.xtask_command(&["all", "--pause", "--plain", "--from", "lock", "--to", "lock"]);
    let Some(mut terminal) = Terminal::start(&command, 100) else { return };
    terminal.wait_for(ASKS);
    terminal.type_in("\n");
    terminal.wait_for("error: lock cannot");
    terminal.wait_for("Enter: try again");
    terminal.wait_for(ASKS);
    repository.remove("programs/fail-lock");
    terminal.type_in("\n");
    let (text, code) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("That was the last step."), "{text}");
}

#[test]
fn a_step_is_explained_and_the_end_of_input_is_an_answer_too() {
    let repository = Repository::new("demo-pause-eof").online();
    let command = repository.xtask_command(&["all", "--pause", "--plain"]);
    let Some(mut terminal) = Terminal::start(&command, 100) else { return };
    terminal.wait_for(ASKS);
    terminal.type_in("e\n");
    terminal.wait_for("# start: Begin with the empty exercise");
    terminal.wait_for(ASKS);
    terminal.type_in("\x04");
    let (text, code) = terminal.end();
    assert_eq!(code, 0, "{text}");
    let last = text.lines().last().unwrap();
    assert_eq!(last, "Stopped before start. `cargo xtask all --pause --plain --from start` goes on from there.");
}

#[test]
fn control_codes_are_for_terminals_whose_user_allows_them() {
    let repository = Repository::new("demo-plain").online();
    let (text, _) = transcript(&repository, &["all"]);
    assert!(!text.contains(['\x1b', '\r']), "{text}");
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("CI", "true"), ("XTASK", "")] {
        repository.remove("cuda-exercise/pixi.lock");
        let mut command = repository.xtask_command(&["all"]);
        command.env(name, value);
        let Some(terminal) = Terminal::start(&command, 100) else { return };
        let (text, code) = terminal.end();
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.contains('\x1b'), name == "XTASK", "{name}: {text:?}");
    }
}

#[test]
fn on_a_narrow_terminal_lines_are_folded_and_the_summary_fits() {
    let repository = Repository::new("demo-narrow").online();
    let command = repository.xtask_command(&["all", "--plain"]);
    let Some(terminal) = Terminal::start(&command, 60) else { return };
    let (text, _) = terminal.end();
    let ours = text.lines().skip_while(|line| !line.starts_with("[1/")).filter(|line| !line.starts_with(['$', ' ']));
    let labelled = text.lines().filter(|line| line.starts_with("  Why") || line.starts_with("  Done"));
    let too_wide = ours.chain(labelled).find(|line| line.len() > 60);
    assert_eq!(too_wide, None, "{text}");
    assert!(
        text.contains("\n  Why     The lock names each package with its digest, for\n          every environment"),
        "{text}"
    );
    let row =
        "\nbuild docker         native      0.0 s           12.0 MB\n    target/containers/cuda-exercise-gpu.oci.tar\n";
    assert!(without_times(&text).contains(row), "{text}");
}

/// A run that is the first of its process group, as a shell starts it, once it says this.
fn started(mut command: Command, text: &str) -> (Child, BufReader<std::process::ChildStderr>, String) {
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains(text) {
        assert_ne!(stderr.read_line(&mut seen).unwrap(), 0, "{seen}");
    }
    (child, stderr, seen)
}

/// What a terminal does with Ctrl-C.
fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", "--", &format!("-{}", child.id())]).status().unwrap().success());
}

/// Waits until nothing of the group of `leader` runs any more.
fn assert_group_ends(leader: u32) {
    let until = Instant::now() + Duration::from_secs(30);
    let lives = |stat: &str| {
        // State, parent and group stand behind the name (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields.get(2) == Some(&leader.to_string().as_str()) && fields[0] != "Z"
    };
    let processes =
        || fs::read_dir("/proc").unwrap().filter_map(|one| fs::read_to_string(one.ok()?.path().join("stat")).ok());
    while processes().any(|stat| lives(&stat)) {
        assert!(Instant::now() < until, "something of it is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ctrl_c_ends_the_work_and_all_goes_on_from_there() {
    for (step, source) in
        [("fetch", "conda-forge"), ("lock", "rehearsal"), ("build", "rehearsal"), ("run", "conda-forge")]
    {
        let repository = Repository::new(&format!("demo-interrupted-{step}")).online();
        repository.write(&format!("programs/hang-{step}"), "");
        let command = repository.xtask_command(&["all", "--source", source]);
        let (mut child, mut stderr, mut seen) = started(command, &format!("{step} takes long"));
        let leader = child.id();
        interrupt(&child);
        stderr.read_to_string(&mut seen).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{seen}");
        let farewell = format!(
            "\nInterrupted: what is done stays done; `cargo xtask all --source {source}` goes on from there.\n"
        );
        assert!(seen.ends_with(&farewell), "{seen}");
        assert_group_ends(leader);
        let partial: Vec<String> = partial_files(&repository.path(""));
        assert!(partial.is_empty(), "{partial:?}");

        repository.remove(&format!("programs/hang-{step}"));
        let before = repository.asked();
        repository.xtask(&["all", "--source", source]).ends(0);
        let after = repository.asked();
        assert_eq!(
            after.iter().find(|call| !call.ends_with("serve") && !call.ends_with("served")),
            before.iter().rfind(|call| call.starts_with("pixi-image")),
            "{before:?}, then {after:?}"
        );
    }
}

fn partial_files(directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if entry.is_dir() {
            found.extend(partial_files(&entry));
        }
        if name.contains("partial") {
            found.push(name);
        }
    }
    found
}

#[test]
fn what_an_engine_left_half_made_is_removed_at_ctrl_c() {
    let repository = Repository::new("demo-interrupted-engine").online().with_tool("apptainer");
    repository.xtask(&["all", "--to", "lock", "--engine", "native"]).ends(0);
    repository.xtask(&["recipe", "apptainer"]).ends(0);
    let script = "#!/bin/sh\ncase $1 in\n--version) echo apptainer version 1.4.5 ;;\nbuild) shift; while [ \"$1\" != --force ]; do shift; done\n\
                  for word; do case $word in *.partial.sif) echo half >\"$word\" ;; esac; done\necho 'half made' >&2; exec sleep 600 ;;\nesac\n";
    repository.write("tools/apptainer", script);
    let mut command =
        repository.xtask_command(&["build", "apptainer", "--engine", "apptainer", "--source", "conda-forge"]);
    command.env("USER", "learner");
    let (mut child, mut stderr, mut seen) = started(command, "half made");
    let sif = "target/containers/cuda-exercise-gpu.partial.sif";
    assert!(repository.path(sif).is_file(), "{seen}");
    interrupt(&child);
    stderr.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{seen}");
    assert!(!repository.path(sif).exists(), "{seen}");
    let farewell = "\nInterrupted: what is done stays done; the same command goes on from there.\n";
    assert!(seen.ends_with(farewell), "{seen}");
}

#[test]
fn ctrl_c_at_the_question_ends_it_too() {
    let repository = Repository::new("demo-pause-interrupted").online();
    let command = repository.xtask_command(&["all", "--pause", "--plain"]);
    let Some(mut terminal) = Terminal::start(&command, 100) else { return };
    for keys in ["\n", "\n", "\x03"] {
        terminal.wait_for(ASKS);
        terminal.type_in(keys);
    }
    let (text, code) = terminal.end();
    assert_eq!(code, 130, "{text}");
    let farewell = "\nInterrupted: what is done stays done; `cargo xtask all --pause --plain` goes on from there.\n";
    assert!(text.ends_with(farewell), "{text}");
    assert!(repository.path("cuda-exercise/app/torch_detect_GPU.py").is_file());
    repository.calls();
    repository.xtask(&["all"]).ends(0);
    assert!(!repository.asked().contains(&"pixi-image fetch".to_owned()), "it was done");
}

#[test]
fn ctrl_c_on_the_terminal_while_a_step_works_ends_it_and_what_it_started() {
    let repository = Repository::new("demo-terminal-interrupted").online();
    repository.write("programs/hang-lock", "");
    let command = repository.xtask_command(&["all", "--plain"]);
    let Some(mut terminal) = Terminal::start(&command, 100) else { return };
    terminal.wait_for("lock takes long");
    terminal.type_in("\x03");
    let (text, code) = terminal.end();
    assert_eq!(code, 130, "{text}");
    assert!(
        text.ends_with("Interrupted: what is done stays done; `cargo xtask all --plain` goes on from there.\n"),
        "{text}"
    );
}

/// What pixi-image says of an environment.
fn plan(environment: &str, bytes: u64, cached: &str) -> String {
    format!("environment {environment} for linux-64: 300 packages, {bytes} bytes to download{cached}, 60 layers\n")
}

#[test]
fn a_large_download_is_announced_beside_what_the_smaller_environment_would_be() {
    let repository = Repository::new("demo-large").online();
    repository.write("programs/plan-gpu", &plan("gpu", 3_400_000_000, " (1000000000 in the cache)"));
    repository.write("programs/plan-cpu", &plan("cpu", 412_000_000, ""));
    let seen = repository.xtask(&["all"]).ends(0).stderr();
    let note = "The packages of gpu are 2.4 GB to download. With `--env cpu` it would be 412.0 MB.\n";
    let (before, after) = seen.split_once(note).unwrap_or_else(|| panic!("{seen}"));
    assert!(before.contains("build docker, build apptainer") && after.contains("pixi-image build"), "{seen}");
    // The rest is here already, or there is nothing to compare with.
    repository.write("programs/plan-gpu", &plan("gpu", 3_400_000_000, " (2400000001 in the cache)"));
    let quiet = repository.xtask(&["build", "docker", "--source", "conda-forge"]).ends(0).stderr();
    assert!(!quiet.contains("to download"), "{quiet}");
    repository.write("programs/plan-cpu", &plan("cpu", 1_500_000_000, ""));
    let cpu = repository.xtask(&["build", "docker", "--source", "conda-forge", "--env", "cpu"]).ends(0).stderr();
    assert!(cpu.contains("The packages of cpu are 1.5 GB to download.\n"), "{cpu}");
    // pixi in a container does not see this machine's cache.
    let repository = repository.with_tool("docker");
    let docker = repository.xtask(&["build", "docker", "--source", "conda-forge", "--engine", "docker"]).stderr();
    let note = "The packages of gpu are at most 3.4 GB to download. With `--env cpu` it would be at most 1.5 GB.\n";
    assert!(docker.contains(note), "{docker}");
}
