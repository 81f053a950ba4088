//! The learner's files beside the lesson's, back to them, and into git; and what shells complete.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use support::{Repository, golden};

const DOCKERFILE: &str = "cuda-exercise/Dockerfile";
const SCRIPT: &str = "cuda-exercise/app/torch_detect_GPU.py";
const LOCK: &str = "cuda-exercise/pixi.lock";
const MANIFEST: &str = "cuda-exercise/pixi.toml";
const WORKFLOW: &str = ".github/workflows/docker.yaml";

/// A file of `xtask/lesson/`.
fn lesson(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lesson").join(file)).unwrap()
}

/// A repository with the files of all steps in it, as the lesson has them.
fn with_all_files(test: &str) -> Repository {
    let repository = Repository::new(test);
    for file in [".gitignore", ".gitattributes"] {
        repository.write(&format!("cuda-exercise/{file}"), &lesson(&format!("exercise/{file}")));
    }
    for step in [&["edit"][..], &["recipe", "docker"], &["recipe", "apptainer"], &["workflows"]] {
        repository.xtask(step).ends(0);
    }
    repository
}

/// Every file below the workspace and the workflows, with its text.
fn files(repository: &Repository) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec!["cuda-exercise".to_owned(), ".github".to_owned()];
    while let Some(place) = pending.pop() {
        if repository.path(&place).is_dir() {
            let names = fs::read_dir(repository.path(&place)).unwrap();
            pending.extend(names.map(|name| format!("{place}/{}", name.unwrap().file_name().to_str().unwrap())));
        } else if repository.path(&place).is_file() {
            found.push((place.clone(), fs::read_to_string(repository.path(&place)).unwrap()));
        }
    }
    found.sort();
    found
}

/// Runs a line as somebody who pastes it into a shell in the repository's root.
fn paste(repository: &Repository, line: &str) {
    let status = Command::new("sh").args(["-c", line.trim()]).current_dir(repository.path("")).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn the_help_says_how() {
    let repository = Repository::new("help-files");
    for command in ["diff", "reset", "commit", "completions"] {
        let help = repository.xtask(&[command, "--help"]).stdout();
        golden(&format!("help-{command}"), help.split("\nCommon options:").next().unwrap());
    }
}

#[test]
fn files_that_are_as_the_lesson_has_them_are_said_to_be_so() {
    let repository = with_all_files("diff-same");
    assert_eq!(repository.xtask(&["diff"]).stdout(), "8 files are as the lesson has them.\n");
    let one = repository.xtask(&["diff", "recipe", "apptainer"]).stdout();
    assert_eq!(one, "cuda-exercise/apptainer.def is as the lesson has it.\n");
    assert!(repository.calls().is_empty(), "no program is needed for that");
}

#[test]
fn a_change_is_shown_with_the_trap_that_it_leads_into() {
    let repository = with_all_files("diff-trap");
    let ours = repository.read(DOCKERFILE);
    repository.write(DOCKERFILE, &ours.replace("pixi:0.77.0-noble", "pixi:noble").replace("WORKDIR /app\n", ""));
    let diff = repository.xtask(&["diff", "Dockerfile"]);
    golden("diff-trap", &diff.printed());
    golden("diff-trap-stderr", &diff.ends(1).stderr());
    let exact = repository.xtask(&["diff", "recipe-docker", "--exact"]).ends(1).printed();
    let theirs = exact.lines().find(|line| line.starts_with("-FROM")).unwrap();
    assert_eq!(theirs, "-FROM ghcr.io/prefix-dev/pixi:noble AS build");
    repository.write(DOCKERFILE, &ours);
    let mended = repository.xtask(&["diff", "recipe-docker", "--exact"]).ends(1).printed();
    assert!(mended.contains("\nhint: T07, the base image moves: yours is not in this trap\n"), "{mended}");
}

#[test]
fn what_is_missing_differs_and_its_command_is_named() {
    let repository = Repository::new("diff-missing");
    let diff = repository.xtask(&["diff"]);
    diff.ends(1);
    let said = diff.printed();
    for line in [
        "cuda-exercise/.gitignore is not there; `pixi init` writes it with these lines:\n# pixi environments\n",
        "cuda-exercise/Dockerfile is not there yet: `cargo xtask recipe docker` writes it.\n",
        ".github/workflows/apptainer.yaml is not there yet: `cargo xtask workflows apptainer` writes it.\n",
        "\n+++ cuda-exercise/pixi.toml\tas it is here\n",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(!said.contains("reset start"), "that would take all away: {said}");
    assert!(diff.stderr().contains("8 of 8 files are not as the lesson has them. "), "{}", diff.stderr());
}

#[test]
fn any_file_is_compared_in_words_that_fit_it() {
    let repository = with_all_files("diff-odd");
    let ours = repository.read(DOCKERFILE);
    let diff = |content: &[u8]| {
        fs::write(repository.path(DOCKERFILE), content).unwrap();
        let run = repository.xtask(&["diff", "recipe", "docker"]);
        run.ends(1);
        (run.printed(), run.stderr())
    };
    let windows = diff(ours.replace('\n', "\r\n").as_bytes()).0;
    assert!(windows.starts_with("cuda-exercise/Dockerfile differs in its line ends alone: "), "{windows}");
    let (said, note) = diff(ours.replace('\n', "\r\n").replace("/app\r\n", "/srv\r\n").as_bytes());
    assert!(said.contains("\n-WORKDIR /app\n+WORKDIR /srv\n") && !said.contains('\r'), "{said}");
    assert!(note.contains("has line ends of Windows (CRLF)"), "{note}");
    let (cut, _) = diff(ours.trim_end().as_bytes());
    assert!(cut.contains("\n+ENTRYPOINT [ \"/app/entrypoint.sh\" ]\n\\ No newline at end of file\n"), "{cut}");
    assert!(cut.contains("hint: only blanks differ here"), "{cut}");
    let (unseen, _) = diff(ours.replace("WORKDIR /app", "WORKDIR\u{a0}/app\u{1b}[31m").as_bytes());
    assert!(unseen.contains("+WORKDIR\\u{a0}/app\\u{1b}[31m\n"), "{unseen}");
    for (content, words) in [
        (&b"\xff\xfeF\0R\0O\0M\0"[..], "is written in UTF-16"),
        (b"FROM x\0y\n", "is no text: it holds zeros."),
        (b"FROM x\nRUN \xe4\n", "is no text in UTF-8: what stands at the end of line 2 is none."),
        (&[b'x'; 1_000_001], "has 1.0 MB: too much to be the lesson's"),
        (b"", "\n@@ -1,72 +0,0 @@\n"),
    ] {
        let (said, _) = diff(content);
        assert!(said.contains(words), "{words} in {said}");
    }
    repository.remove(DOCKERFILE);
    let said = || repository.xtask(&["diff", "recipe", "docker"]).ends(1).printed();
    symlink("nowhere", repository.path(DOCKERFILE)).unwrap();
    assert_eq!(said(), "cuda-exercise/Dockerfile is a symbolic link to nowhere, where nothing is.\n");
    repository.remove(DOCKERFILE);
    fs::create_dir(repository.path(DOCKERFILE)).unwrap();
    assert_eq!(said(), "cuda-exercise/Dockerfile is no file; the lesson has one of 3.1 kB there.\n");
    fs::remove_dir(repository.path(DOCKERFILE)).unwrap();
    repository.write("cuda-exercise/mine", &ours);
    symlink("mine", repository.path(DOCKERFILE)).unwrap();
    let linked = repository.xtask(&["diff", "recipe", "docker"]);
    assert!(linked.ends(0).stderr().contains("is a symbolic link to mine: that is compared."), "{}", linked.stderr());
}

#[test]
fn a_step_without_a_text_says_what_compares_it() {
    let repository = Repository::new("diff-none");
    for (step, hint) in [
        ("fetch", "`cargo xtask fetch` compares it"),
        ("lock", "`cargo xtask lock --check` compares it"),
        ("build-docker", "`cargo xtask test docker` compares the image"),
        ("test-sif", "`cargo xtask diff recipe apptainer` the recipe"),
        ("submit", "`cargo xtask diff` compares all"),
    ] {
        let run = repository.xtask(&["diff", step]);
        assert!(run.ends(1).stderr().contains(hint), "{step}: {}", run.stderr());
    }
    let unknown = repository.xtask(&["diff", "build"]).ends(2).stderr();
    assert!(unknown.contains("there is no step 'build'\n  hint: the steps are "), "{unknown}");
    repository.write("other/pixi.toml", "");
    let other = repository.xtask(&["diff", "edit", "--workspace", "other"]).ends(1).stderr();
    assert!(other.contains("what the pixi.toml of other is to hold, nobody knows but you"), "{other}");
}

#[test]
fn on_a_terminal_a_diff_is_in_colour() {
    let repository = with_all_files("diff-colour");
    repository.write(DOCKERFILE, "FROM ghcr.io/prefix-dev/pixi:noble\n");
    let shown = repository.xtask_on_a_terminal(&["diff", "Dockerfile"], "").printed();
    assert!(shown.contains("\x1b[32m+FROM ghcr.io/prefix-dev/pixi:noble\x1b[0m"), "{shown}");
    assert!(shown.contains("\x1b[1;33mhint: T07, ") && shown.contains("\x1b[36m@@ -1,72 +1 @@\x1b[0m"), "{shown}");
    let plain = repository.xtask_on_a_terminal(&["diff", "Dockerfile", "--plain"], "").printed();
    assert!(!plain.contains('\x1b'), "{plain}");
}

#[test]
fn a_step_is_reset_and_what_was_there_can_be_had_again() {
    let repository = with_all_files("reset");
    let ours = repository.read(DOCKERFILE);
    repository.write(DOCKERFILE, "FROM scratch\n");
    let asked = repository.xtask(&["reset", "recipe", "docker"]);
    assert!(
        asked.ends(1).stderr().contains(
            "replaces cuda-exercise/Dockerfile\nerror: reset recipe docker: it would change what is named above, \
             and nobody can be asked here\n  hint: `--yes` says that it may\n"
        ),
        "{}",
        asked.stderr()
    );
    let dry = repository.xtask(&["reset", "recipe", "docker", "--yes", "--dry-run"]).stdout();
    assert_eq!(
        dry,
        "# replaces cuda-exercise/Dockerfile\n# keeps what is replaced or moved, in target/backups/cuda-exercise\n"
    );
    assert_eq!(repository.read(DOCKERFILE), "FROM scratch\n");
    assert!(!repository.path("target/backups").exists());

    let said = repository.xtask(&["reset", "Dockerfile", "--yes"]).stdout();
    let back = "    cp -R target/backups/cuda-exercise/1/. .\n";
    assert!(said.starts_with("recipe docker is reset. ") && said.ends_with(back), "{said}");
    assert_eq!(repository.read(DOCKERFILE), ours);
    let again = repository.xtask(&["reset", "recipe-docker", "--yes"]).stdout();
    assert_eq!(again, "recipe docker is as the lesson has it: nothing to reset.\n");

    paste(&repository, back);
    assert_eq!(repository.read(DOCKERFILE), "FROM scratch\n");
    let second = repository.xtask(&["reset", "recipe-docker", "--yes"]).stdout();
    assert!(second.contains("target/backups/cuda-exercise/2/. ."), "no backup is overwritten: {second}");
    assert_eq!(repository.read("target/backups/cuda-exercise/1/cuda-exercise/Dockerfile"), "FROM scratch\n");
}

#[test]
fn on_a_terminal_a_reset_asks_and_only_a_yes_is_one() {
    let repository = with_all_files("reset-asks");
    repository.write(DOCKERFILE, "mine\n");
    for (typed, is_reset) in [("\n", false), ("n\n", false), ("\x04", false), ("yes\n", true)] {
        let run = repository.xtask_on_a_terminal(&["reset", "Dockerfile", "--plain"], typed);
        let shown = run.ends(i32::from(!is_reset)).printed();
        assert!(shown.contains("replaces cuda-exercise/Dockerfile\r\nReset recipe docker? [y/N] "), "{shown}");
        assert_eq!(shown.contains("Nothing was changed."), !is_reset, "{shown}");
        assert_eq!(repository.read(DOCKERFILE) != "mine\n", is_reset, "{typed:?}");
    }
    repository.remove(DOCKERFILE);
    let lost = repository.xtask(&["reset", "Dockerfile"]).stdout();
    assert!(!lost.contains("cp -R"), "nobody is asked where nothing is lost, and nothing is kept: {lost}");
    assert!(repository.path(DOCKERFILE).is_file());
}

#[test]
fn reset_start_leaves_the_empty_exercise_and_what_is_the_learners_own() {
    let repository = with_all_files("reset-start").online();
    repository.xtask(&["all", "--source", "conda-forge"]).ends(0);
    repository.write("cuda-exercise/app/mine.py", "print(1)\n");
    repository.write("cuda-exercise/notes/todo.md", "sleep\n");
    repository.write(".github/workflows/ci.yaml", "on: push\n");
    let before = files(&repository);
    assert!(before.iter().any(|(file, _)| file == "cuda-exercise/base.lock"), "{before:?}");

    let said = repository.xtask(&["reset", "start", "--yes"]).stdout();
    let names = |files: &[(String, String)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let left = files(&repository);
    assert_eq!(
        names(&left),
        [
            ".github/workflows/ci.yaml",
            "cuda-exercise/.gitattributes",
            "cuda-exercise/.gitignore",
            "cuda-exercise/app/mine.py",
            "cuda-exercise/notes/todo.md",
            "cuda-exercise/pixi.toml"
        ]
    );
    assert_eq!(repository.read(MANIFEST), lesson("exercise/pixi.toml"));
    let status = repository.xtask(&["status"]).stdout();
    assert!(status.ends_with("\nNext: cargo xtask fetch\n"), "{status}");
    for step in ["build docker", "run docker", "build apptainer", "run apptainer"] {
        let line = status.lines().find(|line| line.starts_with(step)).unwrap();
        assert!(line.contains("  to do  "), "an image that is still there was not built here: {line}");
    }
    assert!(repository.path("target/containers/cuda-exercise-gpu.sif").is_file(), "it took long enough to make");

    paste(&repository, said.lines().last().unwrap());
    assert_eq!(files(&repository), before);

    fs::remove_dir_all(repository.path("cuda-exercise")).unwrap();
    let lost = repository.xtask(&["status"]).ends(1).stderr();
    assert!(lost.contains("there is no directory cuda-exercise\n  hint: `cargo xtask reset start` makes it"), "{lost}");
    repository.remove(WORKFLOW);
    repository.remove(".github/workflows/apptainer.yaml");
    let made = repository.xtask(&["reset", "start"]).stdout();
    assert!(made.starts_with("The exercise is as `pixi init` leaves it."), "{made}");
    assert_eq!(repository.read("cuda-exercise/.gitattributes"), lesson("exercise/.gitattributes"));
}

#[test]
fn what_steps_make_goes_too_and_only_what_a_learner_typed_is_kept() {
    let repository = Repository::new("reset-made").online();
    repository.xtask(&["all", "--source", "conda-forge"]).ends(0);
    let state = |step: &str| {
        let status = repository.xtask(&["status"]).stdout();
        let line = status.lines().find(|line| line.starts_with(&format!("{step}  "))).unwrap().to_owned();
        line[step.len()..].split("  ").find(|word| !word.is_empty()).unwrap().trim().to_owned()
    };
    assert_eq!(repository.xtask(&["reset", "run", "docker"]).stdout(), "run docker is to do again.\n");
    assert_eq!([state("run docker"), state("run apptainer"), state("build docker")], ["to do", "done", "done"]);

    let image = "target/containers/cuda-exercise-gpu.oci.tar";
    let asked = repository.xtask(&["reset", "build", "docker"]).ends(1).stderr();
    let words = format!("removes {image} (");
    assert!(asked.contains(&words) && asked.contains("not kept: `cargo xtask build docker` makes it again"), "{asked}");
    let said = repository.xtask(&["reset", "build", "docker", "--yes"]).stdout();
    assert!(!said.contains("cp -R") && !repository.path(image).exists(), "{said}");
    assert!(repository.path("target/containers/cuda-exercise-gpu.sif").is_file(), "it is of the other format");
    assert_eq!([state("build docker"), state("build apptainer")], ["to do", "done"]);

    let lock = repository.read(LOCK);
    let said = repository.xtask(&["reset", "pixi.lock", "--yes"]).stdout();
    assert!(!repository.path(LOCK).exists());
    paste(&repository, said.lines().last().unwrap());
    assert_eq!(repository.read(LOCK), lock);

    let done = repository.xtask(&["reset", "fetch", "--yes"]).stdout();
    assert_eq!(done, "fetch is as the lesson has it: nothing to reset.\n");
    repository.write(SCRIPT, "print(1)\n");
    repository.xtask(&["reset", "fetch", "--yes"]).ends(0);
    assert!(!repository.path(SCRIPT).exists());
    assert_eq!(repository.read(&format!("target/backups/cuda-exercise/2/{SCRIPT}")), "print(1)\n");
}

#[test]
fn what_cannot_be_reset_says_why() {
    let repository = Repository::new("reset-refused");
    repository.write("other/pixi.toml", "");
    for (arguments, code, words) in [
        (&["reset"] as &[&str], 2, "which step is to be reset?\n  hint: the steps are rehearse, start, fetch"),
        (&["reset", "everything"], 2, "there is no step 'everything'"),
        (&["reset", "push"], 1, "what git holds, git brings back"),
        (&["reset", "submit"], 1, "a job is on the cluster"),
        (&["reset", "rehearse"], 1, "nothing of yours is in it"),
        (&["reset", "Dockerfile", "--exact"], 1, "`cargo xtask diff --exact` shows them"),
        (&["reset", "start", "--workspace", "other"], 1, "nobody knows but you"),
        (&["reset", "edit", "--workspace", "other"], 1, "nobody knows but you"),
    ] {
        let run = repository.xtask(arguments);
        assert!(run.ends(code).stderr().contains(words), "{arguments:?}: {}", run.stderr());
    }
    assert_eq!(repository.read("other/pixi.toml"), "");
}

#[test]
fn nothing_is_written_through_a_link() {
    let repository = with_all_files("reset-links");
    fs::create_dir_all(repository.path("outside")).unwrap();
    let theirs = repository.write("outside/Dockerfile", "theirs\n");
    let refused = |step: &str| {
        let run = repository.xtask(&["reset", step, "--yes"]);
        run.ends(1).stderr()
    };
    repository.remove(DOCKERFILE);
    symlink(&theirs, repository.path(DOCKERFILE)).unwrap();
    assert!(refused("Dockerfile").contains("cuda-exercise/Dockerfile is a symbolic link to "));
    // Nor is anything done of a reset of which only a part could be done.
    assert!(refused("start").contains("nothing is written through a link"));
    assert!(repository.path("cuda-exercise/apptainer.def").is_file() && theirs.is_file());
    repository.remove(DOCKERFILE);
    fs::rename(repository.path(".github/workflows"), repository.path("outside/workflows")).unwrap();
    symlink("../outside/workflows", repository.path(".github/workflows")).unwrap();
    repository.write(WORKFLOW, "theirs\n");
    assert!(refused("workflows-docker").contains(".github/workflows is a symbolic link to ../outside/workflows"));
    fs::rename(repository.path("cuda-exercise"), repository.path("outside/real")).unwrap();
    symlink("outside/real", repository.path("cuda-exercise")).unwrap();
    assert!(refused("Dockerfile").contains("cuda-exercise is a symbolic link to outside/real"));
    assert!(!repository.path("outside/real/Dockerfile").exists());
    assert_eq!(repository.read("outside/workflows/docker.yaml"), "theirs\n");
    assert!(!repository.path("target/backups").exists());
}

#[test]
fn a_directory_in_the_way_is_no_file_to_replace() {
    let repository = with_all_files("reset-directory");
    repository.remove(DOCKERFILE);
    repository.write("cuda-exercise/Dockerfile/inside", "mine\n");
    let refused = repository.xtask(&["reset", "Dockerfile", "--yes"]).ends(1).stderr();
    assert!(refused.contains("cuda-exercise/Dockerfile is no file\n  hint: move it away"), "{refused}");
    assert_eq!(repository.read("cuda-exercise/Dockerfile/inside"), "mine\n");
}

#[test]
fn what_cannot_be_kept_is_not_replaced() {
    let repository = with_all_files("reset-unkept");
    repository.write(DOCKERFILE, "mine\n");
    repository.write("target/backups", "a file in the place of the directory");
    let failed = repository.xtask(&["reset", "Dockerfile", "--yes"]).ends(1).stderr();
    assert!(failed.contains("cannot make a directory in target/backups/cuda-exercise"), "{failed}");
    assert_eq!(repository.read(DOCKERFILE), "mine\n");
}

#[test]
fn a_workspace_elsewhere_is_kept_and_restored_by_its_own_place() {
    let repository = with_all_files("reset-elsewhere");
    let outside = repository.path("").with_file_name("reset-outside").join("cuda-exercise");
    let _ = fs::remove_dir_all(&outside);
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("Dockerfile"), "mine\n").unwrap();
    let typed = "../reset-outside/cuda-exercise";
    let said = repository.xtask(&["reset", "Dockerfile", "--yes", "--workspace", typed]).stdout();
    assert_eq!(fs::read_to_string(outside.join("Dockerfile")).unwrap(), lesson("recipes/Dockerfile"));
    assert_eq!(repository.read("target/backups/cuda-exercise/1/Dockerfile"), "mine\n");
    paste(&repository, said.lines().last().unwrap());
    assert_eq!(fs::read_to_string(outside.join("Dockerfile")).unwrap(), "mine\n");
}

/// A repository of git with everything but the path's files committed on `main`.
struct InGit {
    repository: Repository,
    top: std::path::PathBuf,
}

impl InGit {
    fn new(test: &str) -> Self {
        let repository = with_all_files(test).with_git();
        repository.write("README.md", "a lesson\n");
        repository.write(".gitignore", "/target/\n/tools/\n/programs/\n/xtask/\n");
        let this = Self { top: repository.path(""), repository };
        this.git(&["init", "--quiet", "--initial-branch", "main"]);
        this.git(&["add", "README.md", ".gitignore"]);
        this.git(&["commit", "--quiet", "--message", "the lesson"]);
        this
    }

    fn settings(command: &mut Command) {
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        // The tests' own directory lies in a repository.
        command.env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"));
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Learner").env(format!("GIT_{who}_EMAIL"), "learner@example.org");
        }
    }

    fn git_answers(&self, words: &[&str]) -> Output {
        let mut command = Command::new("git");
        Self::settings(command.args(words).current_dir(&self.top));
        command.output().unwrap()
    }

    #[track_caller]
    fn git(&self, words: &[&str]) -> String {
        let output = self.git_answers(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn xtask(&self, arguments: &[&str]) -> support::Run {
        self.repository.xtask_with(arguments, Self::settings)
    }

    /// The files of the last commit.
    fn committed(&self) -> Vec<String> {
        self.git(&["show", "--name-only", "--format=", "HEAD"]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_commands_for_a_step_are_shown_and_only_run_when_asked_for() {
    let learner = InGit::new("commit");
    let shown = learner.xtask(&["commit", "recipe", "docker"]);
    assert_eq!(
        shown.stdout(),
        "git switch -c cuda-exercise-recipe-docker\n\
         git add -- cuda-exercise/Dockerfile cuda-exercise/.dockerignore\n\
         git commit --only --message 'Add the Dockerfile of cuda-exercise' -- \
         cuda-exercise/Dockerfile cuda-exercise/.dockerignore\n"
    );
    assert!(shown.stderr().contains("`cargo xtask commit recipe docker --yes` runs them."), "{}", shown.stderr());
    learner.xtask(&["commit", "recipe", "docker", "--yes", "--dry-run"]).ends(0);
    assert_eq!(learner.git(&["branch", "--show-current"]), "main");

    let run = learner.xtask(&["commit", "recipe", "docker", "--yes"]);
    assert!(run.stdout().contains("git remote add origin ADDRESS\n    git push -u origin HEAD\n"), "{}", run.stdout());
    assert_eq!(learner.git(&["branch", "--show-current"]), "cuda-exercise-recipe-docker");
    assert_eq!(learner.committed(), ["cuda-exercise/.dockerignore", DOCKERFILE]);
    assert_eq!(learner.git(&["rev-list", "--count", "main"]), "1", "main is as it was");
    let again = learner.xtask(&["commit", "recipe", "docker", "--yes"]).stdout();
    assert_eq!(again, "Nothing to commit: what is there is in git as it is.\n");
    let here = learner.xtask(&["commit", "edit"]).stdout();
    assert!(here.starts_with("git add -- cuda-exercise/pixi.toml\n"), "this branch is the learner's own: {here}");
}

#[test]
fn what_somebody_has_staged_beside_it_stays_staged() {
    let learner = InGit::new("commit-staged");
    learner.repository.write("README.md", "mine\n");
    learner.repository.write("notes.md", "mine\n");
    learner.repository.write("cuda-exercise/app/mine.py", "print(1)\n");
    learner.repository.write(SCRIPT, "print(2)\n");
    learner.git(&["add", "README.md", "notes.md", "cuda-exercise/apptainer.def"]);
    let run = learner.xtask(&["commit", "docker", "--yes"]);
    let own = "cuda-exercise/app/mine.py is your own, and no part of this commit";
    assert!(run.ends(0).stderr().contains(own), "{}", run.stderr());
    assert_eq!(
        learner.committed(),
        [
            WORKFLOW,
            "cuda-exercise/.dockerignore",
            "cuda-exercise/.gitattributes",
            "cuda-exercise/.gitignore",
            DOCKERFILE,
            SCRIPT,
            MANIFEST
        ]
    );
    assert_eq!(
        learner.git(&["status", "--porcelain"]),
        "M  README.md\nA  cuda-exercise/apptainer.def\nA  notes.md\n?? .github/workflows/apptainer.yaml\n\
         ?? cuda-exercise/app/mine.py"
    );
    learner.xtask(&["commit", "--yes", "-m", "All of it"]).ends(0);
    assert_eq!(learner.committed(), [".github/workflows/apptainer.yaml", "cuda-exercise/apptainer.def"]);
    assert_eq!(learner.git(&["log", "-1", "--format=%s"]), "All of it");
    assert_eq!(learner.git(&["diff", "--cached", "--name-only"]), "README.md\nnotes.md");
}

#[test]
fn a_branch_is_new_unless_it_is_named() {
    let learner = InGit::new("commit-branch");
    learner.git(&["branch", "cuda-exercise-edit"]);
    let next = learner.xtask(&["commit", "edit"]).stdout();
    assert!(next.starts_with("git switch -c cuda-exercise-edit-2\n"), "a new one is new: {next}");
    let named = learner.xtask(&["commit", "edit", "--branch", "cuda-exercise-edit"]).stdout();
    assert!(named.starts_with("git switch cuda-exercise-edit\n"), "{named}");
    let stay = learner.xtask(&["commit", "edit", "--branch", "main"]).stdout();
    assert!(stay.starts_with("git add "), "{stay}");
    let bad = learner.xtask(&["commit", "edit", "--branch=--force"]).ends(1).stderr();
    assert!(bad.contains("no branch can be called \"--force\""), "{bad}");
    learner.git(&["checkout", "--quiet", "--detach"]);
    let detached = learner.xtask(&["commit", "edit"]).stdout();
    assert!(detached.starts_with("git switch -c cuda-exercise-edit-2\n"), "{detached}");
    // What the remote repository takes as its state is not for this, whatever it is called.
    learner.git(&["switch", "--quiet", "-c", "stable"]);
    learner.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/stable"]);
    let default = learner.xtask(&["commit", "edit"]).stdout();
    assert!(default.starts_with("git switch -c cuda-exercise-edit-2\n"), "{default}");
}

#[test]
fn what_comes_next_names_the_page_of_the_pull_request() {
    let learner = InGit::new("commit-next");
    learner.git(&["remote", "add", "origin", "https://me:secret@github.com/somebody/lesson.git"]);
    let said = learner.xtask(&["commit", "docker", "--yes"]).stdout();
    let page = "https://github.com/somebody/lesson/compare/cuda-exercise-docker?expand=1";
    assert!(said.contains("    git push -u origin HEAD\n") && said.ends_with(&format!("    {page}\n")), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_commit_that_cannot_be_is_refused_before_anything_is_done() {
    let learner = InGit::new("commit-refused");
    let refused = |arguments: &[&str]| learner.xtask(arguments).ends(1).stderr();
    let nothing = refused(&["commit", "run", "docker", "--yes"]);
    assert!(nothing.contains("it writes no file that belongs into git"), "{nothing}");
    learner.xtask(&["commit", "everything"]).ends(2);

    learner.repository.write(LOCK, "version: 6\n");
    learner.repository.write("cuda-exercise/.gitignore", "# mine\n*.lock\n");
    let ignored = refused(&["commit", "lock", "--yes"]);
    assert!(
        ignored.contains("git ignores cuda-exercise/pixi.lock by cuda-exercise/.gitignore:2: *.lock\n"),
        "{ignored}"
    );
    assert!(ignored.contains("  hint: take that rule out"), "{ignored}");
    let status = learner.xtask(&["status"]).stdout();
    assert!(status.lines().any(|line| line.starts_with("commit  ") && line.contains("  to do  ")), "{status}");

    learner.git(&["switch", "--quiet", "-c", "other"]);
    learner.repository.write("README.md", "theirs\n");
    learner.git(&["commit", "--quiet", "--all", "--message", "theirs"]);
    learner.git(&["switch", "--quiet", "main"]);
    learner.repository.write("README.md", "mine\n");
    learner.git(&["commit", "--quiet", "--all", "--message", "mine"]);
    assert!(!learner.git_answers(&["merge", "other"]).status.success());
    let merging = refused(&["commit", "edit", "--yes"]);
    assert!(merging.contains("a merge is underway\n  hint: end it first"), "{merging}");
    learner.git(&["merge", "--abort"]);
    assert!(!learner.git_answers(&["rebase", "other"]).status.success());
    assert!(refused(&["commit", "edit", "--yes"]).contains("a rebase is underway"));
    learner.git(&["rebase", "--abort"]);

    fs::create_dir(learner.repository.path("cuda-exercise/.git")).unwrap();
    assert!(refused(&["commit", "edit"]).contains("cuda-exercise is a repository of its own"));
    fs::remove_dir(learner.repository.path("cuda-exercise/.git")).unwrap();
    assert_eq!(learner.git(&["branch", "--format=%(refname:short)"]), "main\nother", "no branch was made");
    assert_eq!(learner.git(&["diff", "--cached", "--name-only"]), "", "and nothing was staged");
}

#[test]
fn without_git_or_a_name_it_is_said_what_to_do() {
    let nameless = InGit::new("commit-nameless");
    let run = |arguments: &[&str]| {
        nameless.repository.xtask_with(arguments, |command| {
            InGit::settings(command);
            command.env_remove("GIT_AUTHOR_NAME").env_remove("GIT_COMMITTER_EMAIL").env("HOME", "/nonexistent");
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "user.useConfigOnly");
            command.env("GIT_CONFIG_VALUE_0", "true");
        })
    };
    let who = run(&["commit", "edit", "--yes"]).ends(1).stderr();
    assert!(
        who.contains("git does not know who you are; it says:\n") && who.contains("auto-detection is disabled"),
        "{who}"
    );
    assert!(who.contains("  hint: `git config user.name NAME`"), "{who}");
    assert_eq!(nameless.git(&["branch", "--show-current"]), "main");

    let none = with_all_files("commit-none").with_git();
    let refused = none.xtask_with(&["commit", "edit"], InGit::settings).ends(1).stderr();
    assert!(refused.contains("this is no repository of git yet\n  hint: `git init` makes it one"), "{refused}");
    let without = Repository::new("commit-without");
    let refused = without.xtask(&["commit", "edit"]).ends(1).stderr();
    assert!(refused.contains("git is not installed\n  hint: install it first"), "{refused}");
}

#[test]
fn the_first_commit_of_all_begins_the_first_branch() {
    let learner = InGit::new("commit-first");
    fs::remove_dir_all(learner.repository.path(".git")).unwrap();
    learner.git(&["init", "--quiet", "--initial-branch", "main"]);
    learner.repository.write("notes.md", "mine\n");
    learner.git(&["add", "notes.md"]);
    let said = learner.xtask(&["commit", "edit", "--yes"]);
    assert!(!said.ends(0).stderr().contains("switch"), "{}", said.stderr());
    assert_eq!(learner.committed(), [MANIFEST]);
    assert_eq!(learner.git(&["status", "--porcelain", "--", "notes.md"]), "A  notes.md");
}

#[test]
fn a_hook_that_refuses_is_heard_and_the_same_can_be_typed_again() {
    let learner = InGit::new("commit-hook");
    let hook = learner.repository.write(".git/hooks/pre-commit", "#!/bin/sh\necho too early >&2\nexit 1\n");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = learner.xtask(&["commit", "edit", "--yes"]).ends(1).stderr();
    assert!(refused.contains("too early\nerror: commit edit: `git commit` ended with exit code 1"), "{refused}");
    assert!(refused.contains("type the same again"), "{refused}");
    fs::remove_file(hook).unwrap();
    learner.xtask(&["commit", "edit", "--yes"]).ends(0);
    assert_eq!(learner.committed(), [MANIFEST]);
}

#[test]
fn the_project_may_lie_deep_in_a_repository_and_names_are_no_patterns() {
    let mut learner = InGit::new("commit-deep/project");
    fs::remove_dir_all(learner.repository.path(".git")).unwrap();
    learner.top = learner.repository.path("").parent().unwrap().to_owned();
    let _ = fs::remove_dir_all(learner.top.join(".git")); // of an earlier run
    learner.git(&["init", "--quiet", "--initial-branch", "main"]);
    fs::write(learner.top.join("theirs"), "1\n").unwrap();
    learner.git(&["add", "theirs"]);
    learner.git(&["commit", "--quiet", "--message", "theirs"]);
    let run = learner.xtask(&["commit", "workflows", "docker", "--yes"]);
    assert!(
        run.ends(0).stderr().contains("GitHub reads workflows at the top of a repository only"),
        "{}",
        run.stderr()
    );
    assert_eq!(learner.committed(), [format!("project/{WORKFLOW}")]);
    let status = learner.xtask(&["status"]).stdout();
    assert!(status.contains("  .github/workflows/apptainer.yaml is not committed, nor are 6 more\n"), "{status}");

    let outside = learner.top.with_file_name("commit-outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("pixi.toml"), "").unwrap();
    let outside = outside.to_str().unwrap();
    let status = learner.xtask(&["status", "--workspace", outside]).stdout();
    assert!(status.lines().any(|line| line.starts_with("commit  ") && line.contains("outside repository")), "{status}");
    let refused = learner.xtask(&["commit", "edit", "--workspace", outside]).ends(1).stderr();
    assert!(refused.contains("outside repository"), "{refused}");

    learner.repository.write("a?b/mine/pixi.toml", "1\n");
    learner.repository.write("acb/mine/pixi.toml", "2\n");
    learner.xtask(&["commit", "edit", "--workspace", "a?b/mine", "--yes"]).ends(0);
    assert_eq!(learner.committed(), ["project/a?b/mine/pixi.toml"]);
}

/// What bash proposes for the last of these words.
fn proposed(repository: &Repository, before: &str, words: &[&str]) -> String {
    repository.write("completions.bash", &repository.xtask(&["completions", "bash"]).stdout());
    let script = format!(
        "{before}\nsource completions.bash\nCOMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMP_LINE=\"$*\"\n\
         [[ $(complete -p cargo) =~ \" -F \"([^ ]+) ]]\n\
         \"${{BASH_REMATCH[1]}}\" cargo \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"\n\
         echo \"${{COMPREPLY[*]}}\"\n"
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script, "bash"]).args(words).current_dir(repository.path(""));
    let output = bash.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn bash_completes_cargo_xtask_and_what_else_follows_cargo_as_before() {
    let repository = Repository::new("completions");
    let ours = |words: &[&str]| proposed(&repository, "", words);
    assert_eq!(ours(&["cargo", "xtask", "bui"]), "build");
    assert_eq!(ours(&["cargo", "+nightly", "xtask", "bui"]), "build");
    assert_eq!(ours(&["cargo", "xtask", "explain", "recipe-d"]), "recipe-docker");
    assert_eq!(ours(&["cargo", "xtask", "explain", "tr"]), "traps");
    assert_eq!(ours(&["cargo", "xtask", "reset", "st"]), "start");
    assert_eq!(ours(&["cargo", "xtask", "commit", "docker", "--br"]), "--branch");
    assert_eq!(ours(&["cargo", "xtask", "build", "docker", "--engine", "n"]), "native");
    assert_eq!(ours(&["cargo", "bu"]), "", "there is nothing of cargo's here");
    let cargos = "_cargo() { COMPREPLY=(\"cargo's $2\"); }; complete -F _cargo cargo";
    assert_eq!(proposed(&repository, cargos, &["cargo", "bu"]), "cargo's bu");
    assert_eq!(proposed(&repository, cargos, &["cargo", "xtask", "bui"]), "build");
    let later = "_completion_loader() { _cargo() { COMPREPLY=(\"loaded $2\"); }; complete -F _cargo \"$1\"; }";
    assert_eq!(proposed(&repository, later, &["cargo", "bu"]), "loaded bu");
    let twice = format!("{cargos}\nsource completions.bash");
    assert_eq!(proposed(&repository, &twice, &["cargo", "bu"]), "cargo's bu");
}

#[test]
fn each_shell_reads_what_is_printed_for_it() {
    let repository = Repository::new("completions-shells");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let text = repository.xtask(&["completions", shell]).stdout();
        for word in ["build", "explain", "commit", "completions"] {
            assert!(text.contains(word), "{shell} knows no {word}");
        }
        let file = repository.write(&format!("completions.{shell}"), &text);
        if let Ok(output) = Command::new(shell).arg("-n").arg(file).output() {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    repository.xtask(&["completions", "elvish"]).ends(2);
    repository.xtask(&["completions"]).ends(2);
}
