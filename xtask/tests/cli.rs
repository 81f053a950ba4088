//! The command line as learners meet it: what it prints, what it runs, and what it leaves.
#![cfg(unix)]

mod support;

use std::fs;

use support::{Repository, golden};

const SCRIPT: &str = "cuda-exercise/app/torch_detect_GPU.py";

#[test]
fn the_help_says_what_there_is() {
    let repository = Repository::new("help");
    golden("help", &repository.xtask(&["-h"]).stdout());
    for step in ["fetch", "edit", "lock", "build", "test", "run", "workflows", "rehearse", "explain"] {
        let help = repository.xtask(&[step, "--help"]).stdout();
        golden(&format!("help-{step}"), help.split("\nCommon options:").next().unwrap());
    }
}

#[test]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let repository = Repository::new("dry-run");
    let lines: [(&str, &[&str]); 9] = [
        ("all", &["all"]),
        ("all-rehearsal", &["all", "--source", "rehearsal", "--debian-mirror", "http://mirror.example/debian"]),
        ("all-rehearsal-offline", &["all", "--source", "rehearsal", "--offline"]),
        ("fetch", &["fetch", "--source", "conda-forge", "--url", "http://mirror.example/x.py", "--force"]),
        ("edit", &["edit", "--platform-style", "rich", "--add-dep", "numpy>=2", "--channel", "bioconda"]),
        ("lock", &["lock", "--source", "conda-forge", "--check"]),
        ("build-oci", &["build", "oci", "--source", "conda-forge", "--env", "cpu", "--base", "scratch"]),
        ("test-sif", &["test", "sif"]),
        ("run", &["run", "docker", "--", "python", "-c", "print('it works')"]),
    ];
    for (name, arguments) in lines {
        let run = repository.xtask(
            &[arguments.first().copied().unwrap(), "--dry-run"]
                .iter()
                .chain(&arguments[1..])
                .copied()
                .collect::<Vec<_>>(),
        );
        golden(&format!("dry-run-{name}"), &run.stdout());
    }
    assert!(repository.calls().is_empty());
    assert!(!repository.path("target").exists());
    assert!(!repository.path("cuda-exercise/app").exists());
}

#[test]
fn all_does_every_step_once_and_a_second_run_finds_nothing_to_do() {
    let repository = Repository::new("all").online();
    let first = repository.xtask(&["all"]);
    let stdout = first.stdout();
    assert_eq!(
        repository.asked(),
        ["probe", "fetch", "lock", "resolve", "build", "test", "run", "test", "run"]
            .map(|name| format!("pixi-image {name}"))
    );
    for row in
        ["fetch  ", "edit  ", "lock  ", "build docker  ", "build apptainer  ", "test docker  ", "run apptainer  "]
    {
        assert!(stdout.contains(&format!("\n{row}")), "{row} in {stdout}");
    }
    let pins = repository.read("cuda-exercise/base.lock");
    assert!(pins.contains("\nghcr.io/prefix-dev/pixi:0.77.0-noble ghcr.io/prefix-dev/pixi@sha256:00"), "{pins}");
    assert!(stdout.contains("12.0 MB") && stdout.contains("with the above"), "{stdout}");
    assert_eq!(stdout.matches("    PyTorch has no active GPU").count(), 2, "{stdout}");
    assert!(
        first.stderr().contains("$ programs/pixi-image build --lock cuda-exercise/pixi.lock"),
        "{}",
        first.stderr()
    );

    let second = repository.xtask(&["all"]).stdout();
    assert_eq!(second, "There is nothing to do: every step is done.\n");
    assert_eq!(repository.asked(), ["pixi-image probe"]);
    let status = repository.xtask(&["status"]).stdout();
    assert!(
        status.contains("\nrun apptainer        done\n") && status.contains("\nworkflows apptainer  done\n"),
        "{status}"
    );
    let image = repository.path("target/containers/cuda-exercise-gpu.sif");
    fs::write(&image, "something else").unwrap();
    let status = repository.xtask(&["status"]).stdout();
    assert!(status.contains("\nbuild apptainer      stale  what it made was exchanged since\n"), "{status}");
    assert!(status.ends_with("\nNext: cargo xtask build apptainer\n"), "{status}");
}

#[test]
fn all_goes_on_where_it_stopped() {
    let repository = Repository::new("resume").online();
    repository.write("programs/fail-build", "");
    let stopped = repository.xtask(&["all"]);
    stopped.ends(1);
    assert!(stopped.stderr().contains("error: build cannot\n"), "{}", stopped.stderr());
    assert!(
        stopped.stderr().ends_with(
            "error: build docker, build apptainer: `programs/pixi-image build` ended with exit code 1; \
             what it said stands above\n"
        ),
        "{}",
        stopped.stderr()
    );
    repository.calls();
    repository.remove("programs/fail-build");
    repository.xtask(&["all"]).ends(0);
    assert_eq!(
        repository.asked(),
        ["probe", "build", "test", "run", "test", "run"].map(|name| format!("pixi-image {name}"))
    );
}

#[test]
fn what_changed_is_done_again_and_nothing_else() {
    let repository = Repository::new("changed").online();
    repository.xtask(&["all"]).ends(0);
    repository.calls();

    repository.remove("target/containers/cuda-exercise-gpu.sif");
    repository.xtask(&["all"]).ends(0);
    let calls = repository.calls();
    assert!(calls[1].contains("--sif") && !calls[1].contains("--oci"), "{calls:?}");
    assert_eq!(calls.len(), 4, "probe, build, test and run of one image: {calls:?}");

    repository.write("cuda-exercise/app/mine.py", "print(1)\n");
    repository.xtask(&["all"]).ends(0);
    assert_eq!(
        repository.asked(),
        ["probe", "build", "test", "run", "test", "run"].map(|name| format!("pixi-image {name}"))
    );

    let manifest = repository.read("cuda-exercise/pixi.toml");
    repository.write("cuda-exercise/pixi.toml", &format!("# mine\n{manifest}"));
    repository.xtask(&["all"]).ends(0);
    let asked = repository.asked();
    assert_eq!(asked[1], "pixi-image lock", "it is asked whether the lock still fits");
    assert_eq!(asked[2], "pixi-image build", "and as it does, nothing is solved");
    repository.write("programs/fail-check", "");
    repository.write("cuda-exercise/pixi.toml", &format!("# ours\n{manifest}"));
    repository.xtask(&["all"]).ends(0);
    assert_eq!(repository.asked()[1..3], ["pixi-image lock"; 2]);
    repository.remove("programs/fail-check");

    // The other environment has its own images; the lock holds both.
    repository.xtask(&["all", "--env", "cpu"]).ends(0);
    assert_eq!(repository.asked()[1], "pixi-image build");
    assert!(repository.path("target/containers/cuda-exercise-cpu.sif").is_file());
}

#[test]
fn an_image_of_other_inputs_does_not_count_as_done() {
    let repository = Repository::new("other-inputs").online();
    repository.xtask(&["all"]).ends(0);
    repository.write("cuda-exercise/app/mine.py", "print(1)\n");
    repository.xtask(&["build", "docker", "--source", "conda-forge"]).ends(0);
    repository.remove("cuda-exercise/app/mine.py");
    repository.calls();
    repository.xtask(&["all"]).ends(0);
    let build = &repository.calls()[1];
    assert!(build.contains("--oci") && !build.contains("--sif"), "{build}");
}

#[test]
fn where_nothing_answers_the_rehearsal_works_on_a_copy() {
    let repository = Repository::new("rehearsal");
    let before = repository.read("cuda-exercise/pixi.toml");
    let run = repository.xtask(&["all"]);
    let stdout = run.stdout();
    assert!(run.stderr().contains("\n    https://ghcr.io/v2/: no such host\n"), "{}", run.stderr());
    assert!(
        run.stderr().contains("REHEARSAL, because conda-forge or the base's registry is out of reach:"),
        "{}",
        run.stderr()
    );
    assert!(run.stderr().contains("A script of our own that does the same job stands in for it"), "{}", run.stderr());
    assert!(stdout.contains("rehearse  ") && stdout.contains("cuda-exercise-gpu-rehearsal.sif"), "{stdout}");

    let calls = repository.calls();
    let build = calls.iter().find(|call| call.starts_with("pixi-image build")).unwrap();
    assert!(build.contains("--base target/rehearsal/source/base.oci.tar"), "{build}");
    assert!(
        build
            .contains(" --reference cuda-exercise:gpu-rehearsal --label org.opencontainers.image.title=cuda-exercise "),
        "{build}"
    );
    let words: Vec<_> = calls.iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let served = words.iter().position(|call| call == "rehearsal serve").unwrap();
    assert_eq!(words[served + 1], "pixi-image lock", "the channel is served while it is needed");

    assert_eq!(repository.read("cuda-exercise/pixi.toml"), before, "the learner's manifest is as it was");
    assert_eq!(fs::read_dir(repository.path("cuda-exercise")).unwrap().count(), 1, "and nothing stands beside it");
    let copy = repository.read("target/rehearsal/cuda-exercise/pixi.toml");
    assert!(copy.contains("channels = [\"http://127.0.0.1:8765\"]") && copy.contains("gpu = [\"gpu\"]"), "{copy}");
    assert!(repository.read("target/rehearsal/cuda-exercise/app/torch_detect_GPU.py").contains("import torch"));

    let second = repository.xtask(&["all"]);
    assert_eq!(second.stdout(), "There is nothing to do: every step is done.\n");
    // The images say by themselves where they came from: no probe is needed to run one.
    repository.calls();
    assert!(repository.xtask(&["run", "apptainer"]).stdout().contains("no active GPU"));
    assert_eq!(repository.asked(), ["pixi-image run"]);
}

#[test]
fn the_rehearsal_takes_the_learners_own_script_where_there_is_one() {
    let repository = Repository::new("own-script");
    repository.write(SCRIPT, "print('mine')\n");
    repository.write("cuda-exercise/app/data/x.txt", "x");
    repository.xtask(&["fetch", "--source", "rehearsal"]).ends(0);
    assert_eq!(repository.read("target/rehearsal/cuda-exercise/app/torch_detect_GPU.py"), "print('mine')\n");
    assert_eq!(repository.read("target/rehearsal/cuda-exercise/app/data/x.txt"), "x");
}

#[test]
fn an_exit_code_of_the_command_in_the_image_is_passed_on() {
    let repository = Repository::new("exit-code").online();
    repository.xtask(&["all"]).ends(0);
    repository.write("programs/run-code", "7");
    let run = repository.xtask(&["run", "docker", "--", "false"]);
    assert!(!run.ends(7).stderr().contains("error:"), "the command speaks for itself: {}", run.stderr());
    let script = repository.xtask(&["run", "docker"]);
    assert!(!script.ends(7).stderr().contains("error:"), "and so does the script: {}", script.stderr());
    assert!(repository.xtask(&["status"]).stdout().contains("\nrun docker           to do "), "it did not run well");
    repository.write("target/containers/cuda-exercise-gpu.oci.tar", "another");
    let all = repository.xtask(&["all"]);
    assert!(
        all.ends(1).stderr().contains("run docker, run apptainer") || all.stderr().contains("run docker:"),
        "{}",
        all.stderr()
    );
}

#[test]
fn edit_touches_no_network_and_shows_how_pixi_does_it() {
    let repository = Repository::new("edit");
    let run = repository.xtask(&["edit"]);
    run.ends(0);
    assert!(run.stderr().contains("    pixi add --feature cpu 'pytorch-cpu=*'\n"), "{}", run.stderr());
    assert!(repository.calls().is_empty());
    let exercise = concat!(env!("CARGO_MANIFEST_DIR"), "/../cuda-exercise/pixi.toml");
    assert_eq!(repository.read("cuda-exercise/pixi.toml"), fs::read_to_string(exercise).unwrap());
    assert!(repository.xtask(&["edit"]).stdout().contains("nothing to change"));
}

#[test]
fn edit_adds_what_is_asked_for_once_and_says_what_it_replaces() {
    let repository = Repository::new("edit-more").online();
    repository.xtask(&["all"]).ends(0);
    repository.calls();
    let more =
        ["edit", "--add-dep", "numpy>=1", "--feature", "gpu", "--add-platform", "linux-aarch64", "--cuda", "12.9"];
    let run = repository.xtask(&more);
    assert_eq!(
        run.stdout().split(" (").next(),
        Some("cuda-exercise/pixi.toml: platform linux-aarch64, CUDA 12.9 instead of 12, numpy >=1 for feature gpu")
    );
    let shown = "With pixi, the same is done by:\n    cd cuda-exercise\n    \
                 pixi workspace platform add linux-aarch64\n    # by hand: ";
    assert!(run.stderr().contains(shown), "{}", run.stderr());
    assert!(run.stderr().ends_with("\n    pixi add --feature gpu 'numpy>=1'\n"), "{}", run.stderr());
    assert!(run.stderr().contains("for CUDA 12; `--cuda-version 12.9` tells builds by Docker"), "{}", run.stderr());

    let manifest = repository.read("cuda-exercise/pixi.toml");
    let again = repository.xtask(&more);
    assert!(again.stdout().contains("cuda-exercise/pixi.toml: nothing to change"), "{}", again.stdout());
    let already = "The platform linux-aarch64 is there already.\nThe gpu feature asks for CUDA 12.9 already.\n\
                   numpy is in [feature.gpu.dependencies] already: >=1.\n";
    assert_eq!(again.stderr(), already, "and no command is shown");
    assert_eq!(repository.read("cuda-exercise/pixi.toml"), manifest);

    let newer = repository.xtask(&["edit", "--add-dep", "numpy=2", "--feature", "gpu"]);
    assert!(newer.stdout().contains(": numpy 2.* instead of >=1 for feature gpu ("), "{}", newer.stdout());
    assert!(repository.read("cuda-exercise/pixi.toml").contains("numpy = \"2.*\"\n"));
    assert!(repository.calls().is_empty(), "no program is needed for that");
    repository.xtask(&["all"]).ends(0);
    assert_eq!(repository.asked()[1], "pixi-image lock", "what follows is done anew, and no second edit");
    assert!(repository.read("cuda-exercise/pixi.toml").contains("numpy = \"2.*\"\n"));
}

#[test]
fn a_rehearsal_takes_no_edit_of_its_own_but_what_the_manifest_says() {
    let repository = Repository::new("edit-rehearsal");
    let before = repository.read("cuda-exercise/pixi.toml");
    let refused = repository.xtask(&["edit", "--source", "rehearsal", "--add-dep", "numpy"]).ends(1).stderr();
    assert!(
        refused.contains(
            "error: edit: a rehearsal works on a copy, which is made anew from your cuda-exercise/pixi.toml\n  \
             hint: leave `--source rehearsal` away"
        ),
        "{refused}"
    );
    assert_eq!(repository.read("cuda-exercise/pixi.toml"), before);
    assert!(!repository.path("target/rehearsal").exists());

    repository.xtask(&["edit", "--add-dep", "numpy"]).ends(0);
    repository.xtask(&["edit", "--source", "rehearsal"]).ends(0);
    let copy = repository.read("target/rehearsal/cuda-exercise/pixi.toml");
    assert!(copy.contains("numpy = \"*\"\n") && copy.contains("platforms = [\"linux-64\"]"), "{copy}");
}

#[test]
fn a_broken_manifest_is_named_with_its_place_and_left_alone() {
    let repository = Repository::new("broken");
    let text = "[workspace]\nname = \"x\"\nplatforms = \"linux-64\"\n";
    repository.write("cuda-exercise/pixi.toml", text);
    let stderr = repository.xtask(&["edit"]).ends(1).stderr();
    assert_eq!(
        stderr.trim_end(),
        "error: edit: cuda-exercise/pixi.toml: line 3, column 13: `workspace.platforms` is of type string, but an \
         array belongs there\n  hint: mend this place and try again; the file was not touched"
    );
    assert_eq!(repository.read("cuda-exercise/pixi.toml"), text);
}

#[test]
fn pixi_solves_where_it_is_unless_ours_is_asked_for_and_one_line_says_which() {
    let lock = |repository: &Repository, more: &[&str]| {
        let run = repository.xtask(&[&["lock", "--source", "conda-forge"], more].concat());
        let said = run.ends(0).stderr().lines().find(|line| line.starts_with("Solver: ")).unwrap().to_owned();
        (said, repository.calls().concat())
    };
    let ours = "pixi-image lock --manifest cuda-exercise/pixi.toml --out cuda-exercise/pixi.lock";
    let without = Repository::new("lock-without-pixi");
    assert_eq!(lock(&without, &[]), ("Solver: pixi-image (pixi is not installed).".to_owned(), ours.to_owned()));
    let with = Repository::new("lock-with-pixi").with_tool("pixi");
    with.write("cuda-exercise/pixi.lock", "");
    let pixis = "pixi lock --manifest-path cuda-exercise/pixi.toml";
    assert_eq!(lock(&with, &[]), ("Solver: pixi (it is installed).".to_owned(), pixis.to_owned()));
    assert_eq!(lock(&with, &["--engine", "docker"]).1, pixis, "who builds images is another question");
    assert_eq!(lock(&with, &["--check"]).1, format!("{pixis} --check"));
    let (said, asked) = lock(&with, &["--engine", "native"]);
    assert_eq!((said.as_str(), asked.as_str()), ("Solver: pixi-image (--engine native).", ours));
    assert_eq!(lock(&with, &["--engine", "native", "--check"]).1, format!("{ours} --check"));
    let (said, asked) = lock(&with, &["--offline"]);
    assert_eq!(said, "Solver: pixi-image (it can do without the network).");
    assert_eq!(asked, format!("{ours} --offline"));
}

#[test]
fn a_recipe_is_not_begun_with_a_lock_that_has_fallen_behind() {
    let repository = Repository::new("fallen-behind").online().with_tool("docker");
    for step in [&["fetch"][..], &["edit"], &["lock"], &["recipe", "docker"]] {
        repository.xtask(&[step, &["--source", "conda-forge"]].concat()).ends(0);
    }
    repository.calls();
    repository.write("programs/fail-lock", "");
    let run = repository.xtask(&["build", "docker", "--source", "conda-forge", "--env", "cpu"]);
    assert!(run.ends(1).stderr().contains("error: lock cannot\n"), "{}", run.stderr());
    let calls = repository.calls();
    let check =
        "pixi-image lock --check --environment cpu --manifest cuda-exercise/pixi.toml --out cuda-exercise/pixi.lock";
    assert_eq!(calls.last().map(String::as_str), Some(check), "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains(" build ")), "{calls:?}");
    repository.xtask(&["build", "docker", "--source", "conda-forge", "--env", "cpu", "--frozen"]);
    let calls = repository.calls();
    assert!(calls.iter().any(|call| call.starts_with("docker buildx build ")), "it goes on: {calls:?}");
    assert!(!calls.iter().any(|call| call.contains("lock --check")), "{calls:?}");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let repository = Repository::new("missing");
    let error = |arguments: &[&str]| repository.xtask(arguments).ends(1).stderr();
    let build = error(&["build", "docker", "--source", "conda-forge"]);
    assert!(build.contains("cuda-exercise/pixi.lock is not there\n  hint: `cargo xtask lock` makes it"), "{build}");
    let run = error(&["run", "sif"]);
    assert!(
        run.contains("cuda-exercise-gpu.sif is not there\n  hint: `cargo xtask build apptainer` makes it"),
        "{run}"
    );
    let lock = error(&["lock", "--source", "rehearsal"]);
    assert!(lock.contains("`cargo xtask edit --source rehearsal` makes it"), "{lock}");
    let workspace = error(&["status", "--workspace", "elsewhere"]);
    assert!(workspace.contains("there is no directory elsewhere\n  hint: `--workspace DIR`"), "{workspace}");
    let fetch = error(&["fetch", "--offline"]);
    assert!(fetch.contains("run `cargo xtask fetch` once without --offline"), "{fetch}");
    repository.remove("programs/pixi-image");
    let program = error(&["fetch", "--source", "conda-forge"]);
    assert!(program.contains("XTASK_PIXI_IMAGE names ") && program.contains("which is not there"), "{program}");
}

#[test]
fn the_heavy_programs_are_compiled_once_and_that_is_said() {
    let repository = Repository::new("compile");
    let edit = repository.xtask_that_compiles(&["edit"]);
    edit.ends(0);
    assert!(repository.calls().is_empty(), "an edit needs none of them");

    let announced = "Compiling pixi-image and rehearsal. This happens once and takes about 5 minutes on two cores.\n\
                     $ cargo build -p pixi-image -p rehearsal\n";
    let first = repository.xtask_that_compiles(&["fetch", "--source", "conda-forge"]).ends(0).stderr();
    assert!(first.starts_with(announced) && first.contains("\nCompiled in "), "{first}");
    assert!(first.contains("\n$ target/debug/pixi-image fetch "), "{first}");
    let second = repository.xtask_that_compiles(&["fetch", "--source", "rehearsal"]).ends(0).stderr();
    assert!(!second.contains("Compil"), "{second}");
    assert_eq!(repository.calls(), ["cargo build -p pixi-image -p rehearsal"; 2], "once in each run of xtask");
}

#[test]
fn wrong_usage_ends_with_2() {
    let repository = Repository::new("usage");
    for arguments in [
        &["build"] as &[&str],
        &["build", "vmdk"],
        &["all", "--engine", "vmware"],
        &["all", "--env", "../x"],
        &["all", "-q", "-v"],
        &["edit", "--add-platform", "solaris-64"],
        &["edit", "--add-dep", "conda-forge::numpy"],
        &["edit", "--feature", "gpu"],
        &["edit", "--add-dep", "numpy", "--feature", "a b"],
        &["edit", "--cuda", "twelve"],
        &["edit", "--channel", "a b"],
        &["nothing"],
        &[],
    ] {
        repository.xtask(arguments).ends(2);
    }
    assert!(repository.calls().is_empty());
}

#[test]
fn off_a_terminal_there_are_no_colours_and_quiet_says_results_only() {
    let repository = Repository::new("quiet").online();
    let run = repository.xtask(&["all", "--quiet"]);
    assert!(!run.stdout().contains('\x1b') && run.stderr().is_empty(), "{}", run.stderr());
    repository.remove(SCRIPT);
    let loud = repository.xtask(&["all", "-v"]);
    assert!(!loud.stderr().contains('\x1b'), "{}", loud.stderr());
    assert!(
        loud.stderr().contains("fetch: cuda-exercise/app/torch_detect_GPU.py is not there yet"),
        "{}",
        loud.stderr()
    );
}

const WORKFLOWS: [&str; 2] = [".github/workflows/docker.yaml", ".github/workflows/apptainer.yaml"];

#[test]
fn the_workflows_in_git_are_those_that_xtask_writes() {
    let repository = Repository::new("workflows");
    let run = repository.xtask(&["workflows"]);
    assert!(run.stdout().starts_with(".github/workflows: docker.yaml and apptainer.yaml ("), "{}", run.stdout());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for file in WORKFLOWS {
        assert_eq!(repository.read(file), fs::read_to_string(format!("{root}/{file}")).unwrap(), "{file}");
    }
    assert!(repository.xtask(&["workflows"]).stdout().contains("nothing to change"));
    assert!(repository.calls().is_empty(), "no program is needed for that");
}

#[test]
fn a_workflow_that_was_changed_is_kept_until_forced() {
    let repository = Repository::new("workflow-changed").online();
    repository.xtask(&["all"]).ends(0);
    let [docker, apptainer] = WORKFLOWS;
    let ours = repository.read(docker);
    repository.write(docker, "# mine\n");
    repository.remove(apptainer);

    let status = repository.xtask(&["status"]).stdout();
    let changed = status.lines().find(|line| line.starts_with("workflows ")).unwrap();
    assert!(changed.contains("  changed  .github/workflows/docker.yaml: not as the lesson has it"), "{status}");
    let refused = repository.xtask(&["workflows"]).ends(1).stderr();
    assert!(
        refused.contains(".github/workflows/docker.yaml: not as xtask writes it") && refused.contains("--force"),
        "{refused}"
    );
    let all = repository.xtask(&["all"]);
    assert!(
        all.ends(0).stderr().contains(".github/workflows/docker.yaml: not as the lesson has it, and is kept"),
        "{}",
        all.stderr()
    );
    assert_eq!(repository.read(docker), "# mine\n");
    assert!(repository.path(apptainer).is_file(), "the one that was missing is there again");
    let second = repository.xtask(&["all"]);
    assert_eq!(second.stdout(), "There is nothing to do: every step is done.\n");

    repository.xtask(&["workflows", "--force"]).ends(0);
    assert_eq!(repository.read(docker), ours);
    // The lesson's own are to look at: they never replace ours, through which GitHub publishes.
    let exact = repository.xtask(&["workflows", "--exact"]).stdout();
    let place = "target/xtask/conda-forge/cuda-exercise/exact/.github/workflows";
    assert!(exact.starts_with(&format!("{place}: docker.yaml and apptainer.yaml")), "{exact}");
    assert!(repository.read(&format!("{place}/docker.yaml")).contains("docker/setup-qemu-action"));
    assert_eq!(repository.read(docker), ours);
}

#[test]
fn a_rehearsal_leaves_the_repositorys_workflows_alone() {
    let repository = Repository::new("workflows-rehearsed");
    let rehearse = || repository.xtask(&["workflows", "--source", "rehearsal"]).stdout();
    assert!(rehearse().starts_with("target/rehearsal/.github/workflows: docker.yaml and apptainer.yaml"));
    assert!(!repository.path(".github").exists());
    let [docker, _] = WORKFLOWS;
    repository.write(docker, "# mine\n");
    rehearse();
    assert_eq!(repository.read(docker), "# mine\n");
    assert!(repository.read(&format!("target/rehearsal/{docker}")).contains("--source conda-forge"));
    repository.xtask(&["workflows", "--force"]).ends(0);
    assert!(rehearse().starts_with(".github/workflows: nothing to change"));
}

#[test]
fn workflows_name_the_workspace_that_was_asked_for() {
    let repository = Repository::new("workflows-elsewhere");
    let manifest = repository.read("cuda-exercise/pixi.toml");
    repository.write("courses/Mine/pixi.toml", &manifest);
    repository.xtask(&["workflows", "--workspace", "courses/Mine"]).ends(0);
    let docker = repository.read(WORKFLOWS[0]);
    let build = "cargo xtask build docker --engine docker --source conda-forge --workspace courses/Mine\n";
    assert!(docker.contains(build) && docker.contains("docker tag mine:gpu "), "{docker}");
    assert!(docker.contains("- 'courses/Mine/pixi.lock'") && !docker.contains("cuda-exercise"), "{docker}");

    let outside = repository.path("").with_file_name("workflows-outside");
    fs::create_dir_all(&outside).unwrap();
    let outside = outside.to_str().unwrap();
    let refused = repository.xtask(&["workflows", "--workspace", outside]).ends(1).stderr();
    assert!(refused.contains("no workflow can name the workspace") && refused.contains("  hint: "), "{refused}");
    let status = repository.xtask(&["status", "--workspace", outside]).stdout();
    assert!(!status.contains("workflows "), "it is no step of such a workspace: {status}");
}
