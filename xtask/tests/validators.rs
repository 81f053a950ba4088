//! The texts that others read, in the hands of the programs that check them: workflows, Dockerfiles, shell.
//!
//! `.ci/validators` installs the programs and names their place in `XTASK_VALIDATORS`; else they are looked for on PATH.
//! One that is not there skips its tests; with `XTASK_REQUIRE_ENGINES=1`, as in CI, they fail.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

struct Check {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn() -> anyhow::Result<()>,
}

const CHECKS: &[Check] = &[
    Check { name: "workflows_follow_githubs_schema", needs: &["check-jsonschema"], run: schema },
    Check { name: "zizmor_finds_nothing_in_the_workflows", needs: &["zizmor"], run: zizmor },
    Check {
        name: "actionlint_and_shellcheck_find_nothing_in_the_workflows",
        needs: &["actionlint", "shellcheck"],
        run: actionlint,
    },
    Check { name: "hadolint_finds_nothing_in_the_dockerfiles", needs: &["hadolint"], run: hadolint },
    Check { name: "shellcheck_finds_nothing_in_what_dockerfiles_write", needs: &["shellcheck"], run: entrypoints },
    Check { name: "shellcheck_finds_nothing_in_the_definition_files", needs: &["shellcheck"], run: definitions },
    Check {
        name: "what_is_known_to_be_wrong_is_found",
        needs: &["check-jsonschema", "zizmor", "actionlint", "shellcheck", "hadolint"],
        run: controls,
    },
    Check { name: "sections_of_a_definition_file_are_told_apart", needs: &[], run: sections_are_told_apart },
];

fn main() -> ExitCode {
    let trials = CHECKS.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(check: &'static Check) -> Trial {
    Trial::ignorable_test(check.name, move || {
        let required = std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1");
        match check.needs.iter().find(|name| find(name).is_none()) {
            Some(name) if required => Err(Failed::from(format!("no {name}, but validators are required here"))),
            Some(name) => Ok(Completion::ignored_with(format!("skipped: no {name}"))),
            None => (check.run)().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
        }
    })
}

/// The place of a validator.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::var_os("XTASK_VALIDATORS").map(PathBuf::from).into_iter();
    let mut places = directories.chain(std::env::split_paths(&path)).map(|directory| directory.join(name));
    places.find(|place| place.is_file())
}

/// What a validator says about a text, and whether it is content.
struct Verdict {
    content: bool,
    said: String,
}

impl Verdict {
    /// An error with all that was said, unless the validator is content.
    fn clean(self, what: &str) -> anyhow::Result<()> {
        ensure!(self.content, "{what}:\n{}", self.said);
        Ok(())
    }

    /// An error unless the validator found this.
    fn finds(self, finding: &str) -> anyhow::Result<()> {
        ensure!(!self.content && self.said.contains(finding), "{finding} was not found:\n{}", self.said);
        Ok(())
    }
}

/// Runs a validator in the project's directory, with `input` on its standard input.
fn ask<S: Into<OsString>>(name: &str, arguments: impl IntoIterator<Item = S>, input: &str) -> anyhow::Result<Verdict> {
    let program = find(name).with_context(|| format!("find {name}"))?;
    let mut command = Command::new(program);
    command.args(arguments.into_iter().map(Into::into)).current_dir(project());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input is no failure. The inputs are short: no pipe fills up.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {name}"))?;
    let said = [output.stdout, output.stderr].concat();
    Ok(Verdict { content: output.status.success(), said: String::from_utf8_lossy(&said).into_owned() })
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below a directory of the project whose names fit, as paths from the project's directory.
fn files(directory: &str, fits: fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(project().join(&directory)).with_context(|| format!("list {directory}"))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let path = format!("{directory}/{name}");
            match entry.file_type()?.is_dir() {
                true => pending.push(path),
                false if fits(&name) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(project().join(path)).with_context(|| format!("read {path}"))
}

/// The project's own workflow, and those of the exercise.
fn workflows() -> anyhow::Result<Vec<String>> {
    let workflows = files(".github/workflows", |_| true)?;
    ensure!(workflows.len() >= 3, "{workflows:?}");
    Ok(workflows)
}

fn check_schema(path: &str) -> anyhow::Result<Verdict> {
    ask("check-jsonschema", ["--builtin-schema", "vendor.github-workflows", path], "")
}

fn check_security(path: &str) -> anyhow::Result<Verdict> {
    ask("zizmor", ["--offline", "--no-progress", "--color", "never", "--min-severity", "medium", path], "")
}

fn check_actions(path: &str) -> anyhow::Result<Verdict> {
    let shellcheck = find("shellcheck").context("find shellcheck")?;
    ask("actionlint", [OsString::from("-shellcheck"), shellcheck.into(), "-no-color".into(), path.into()], "")
}

fn check_dockerfile(text: &str) -> anyhow::Result<Verdict> {
    ask("hadolint", ["--no-color", "--failure-threshold", "style", "-"], text)
}

fn check_shell(dialect: &str, text: &str) -> anyhow::Result<Verdict> {
    // 1090, 1091: the files that are sourced exist in the image only.
    ask("shellcheck", ["--shell", dialect, "--color=never", "--exclude", "SC1090,SC1091", "-"], text)
}

fn schema() -> anyhow::Result<()> {
    workflows()?.iter().try_for_each(|path| check_schema(path)?.clean(path))
}

fn zizmor() -> anyhow::Result<()> {
    workflows()?.iter().try_for_each(|path| check_security(path)?.clean(path))
}

fn actionlint() -> anyhow::Result<()> {
    workflows()?.iter().try_for_each(|path| check_actions(path)?.clean(path))
}

/// Files of the recipes that learners use; those of the lesson as printed are what they are.
fn recipes(fits: fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let mut files = files("xtask/lesson", fits)?;
    files.retain(|path| !path.starts_with("xtask/lesson/exact/"));
    Ok(files)
}

fn hadolint() -> anyhow::Result<()> {
    let dockerfiles = recipes(|name| name.ends_with("Dockerfile"))?;
    ensure!(!dockerfiles.is_empty(), "there is no Dockerfile");
    dockerfiles.iter().try_for_each(|path| check_dockerfile(&read(path)?)?.clean(path))
}

fn entrypoints() -> anyhow::Result<()> {
    for path in recipes(|name| name.ends_with("Dockerfile"))? {
        let written = written_by_dockerfile(&read(&path)?)?;
        ensure!(written.iter().any(|(name, _)| name == "entrypoint.sh"), "{path} writes no entrypoint.sh: {written:?}");
        for (name, text) in written {
            check_shell("bash", &text)?.clean(&format!("{path}, {name}"))?;
        }
    }
    Ok(())
}

fn definitions() -> anyhow::Result<()> {
    let definitions = recipes(|name| name.ends_with(".def"))?;
    ensure!(!definitions.is_empty(), "there is no definition file");
    for path in definitions {
        let sections = sections(&read(&path)?);
        ensure!(!sections.is_empty(), "{path} has no section of shell");
        for Section { name, dialect, script } in sections {
            check_shell(dialect, &script)?.clean(&format!("{path}, %{name}"))?;
            for (file, text) in here_documents(&script) {
                check_shell("bash", &text)?.clean(&format!("{path}, {file}"))?;
            }
        }
    }
    Ok(())
}

/// The validators are awake: each finds what is known to be wrong.
fn controls() -> anyhow::Result<()> {
    let exact = files("xtask/lesson/exact", |name| name.ends_with(".yaml"))?;
    ensure!(exact.len() == 2, "{exact:?}");
    for path in &exact {
        // The lesson's own are valid; what they lack is safety.
        check_schema(path)?.clean(path)?;
        check_security(path)?.finds("unpinned-uses")?;
    }
    check_actions("xtask/lesson/exact/apptainer.yaml")?.finds("SC2086")?;
    check_dockerfile("FROM debian\nRUN cd /tmp && ls $HOME\n")?.finds("DL3006")?;
    check_shell("sh", "ls $1\n")?.finds("SC2086")?;
    let directory = tempfile::tempdir()?;
    let broken = directory.path().join("broken.yaml");
    fs::write(&broken, "on: push\njobs: {a: {runs-on: x, step: []}}\n")?;
    check_schema(&broken.display().to_string())?.finds("step")
}

/// A section of a definition file that is shell.
#[derive(Debug, PartialEq)]
struct Section {
    name: String,
    dialect: &'static str,
    script: String,
}

/// The shell in a definition file, with arguments as they may be filled in.
fn sections(definition: &str) -> Vec<Section> {
    const SHELL: [&str; 8] = ["pre", "setup", "post", "environment", "runscript", "startscript", "test", "appinstall"];
    let mut sections = Vec::new();
    let mut current: Option<Section> = None;
    for line in definition.lines() {
        let header = ["Bootstrap:", "Stage:"].iter().any(|key| line.starts_with(key));
        if let Some(head) = line.strip_prefix('%') {
            sections.extend(current.take());
            let name = head.split_whitespace().next().unwrap_or_default().to_owned();
            let dialect = head.split_once(" -c ").and_then(|(_, shell)| dialect_of(shell)).unwrap_or("sh");
            current = SHELL.contains(&name.as_str()).then(|| Section { name, dialect, script: String::new() });
        } else if header {
            sections.extend(current.take());
        } else if let Some(section) = &mut current {
            if section.script.is_empty() && line.trim_start().starts_with("#!") {
                section.dialect = dialect_of(line).unwrap_or(section.dialect);
            } else {
                section.script += &filled_in(line);
                section.script.push('\n');
            }
        }
    }
    sections.extend(current);
    sections
}

/// The scripts that a script writes: the files and the texts of `cat >FILE <<'END'`. Those of an image are bash's.
fn here_documents(script: &str) -> Vec<(String, String)> {
    let mut documents = Vec::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let Some((file, end)) = line.trim().strip_prefix("cat >").and_then(|rest| rest.split_once(" <<")) else {
            continue;
        };
        let end = end.trim_matches('\'');
        let text: String = lines.by_ref().take_while(|line| *line != end).map(|line| format!("{line}\n")).collect();
        documents.push((file.to_owned(), text));
    }
    documents
}

/// The scripts that a Dockerfile writes with `echo`: its instructions are run beside a stand-in for pixi.
fn written_by_dockerfile(dockerfile: &str) -> anyhow::Result<Vec<(String, String)>> {
    let joined = dockerfile.replace("\\\n", " ");
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let pixi =
        "#!/bin/sh\necho 'export PATH=\"/app/.pixi/envs/gpu/bin:/usr/bin\"'\necho 'export CONDA_PREFIX=\"/x\"'\n";
    fs::write(place.join("pixi"), pixi)?;
    for line in joined.lines().filter_map(|line| line.strip_prefix("RUN ")).filter(|line| line.contains(".sh")) {
        let script = format!("chmod +x pixi; PATH=$PWD:$PATH; ENVIRONMENT=gpu; {line}");
        let status = Command::new("bash").args(["-euc", &script]).current_dir(place).status().context("start bash")?;
        ensure!(status.success(), "{line}");
    }
    let mut written = Vec::new();
    for entry in fs::read_dir(place)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.ends_with(".sh") {
            let text = fs::read_to_string(place.join(&name))?;
            written.push((name, text));
        }
    }
    Ok(written)
}

/// A shell by its path, alone or behind `#!`.
fn dialect_of(shell: &str) -> Option<&'static str> {
    let word = shell.trim().trim_start_matches("#!").trim().split(' ').next().unwrap_or_default();
    match word.rsplit('/').next() {
        Some("bash") => Some("bash"),
        Some("sh") => Some("sh"),
        _ => None,
    }
}

/// `{{ NAME }}` as a word.
fn filled_in(line: &str) -> String {
    let mut parts = line.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + "value" + part.split_once("}}").map_or("", |(_, rest)| rest))
}

fn sections_are_told_apart() -> anyhow::Result<()> {
    let definition = "Bootstrap: docker\nFrom: x\nStage: build\n\n%arguments\n    A=1\n%files\n    ./a /a\n\
                      %post -c /bin/bash\n    echo {{ A }}-{{A}}\nBootstrap: docker\nFrom: y\n\
                      %environment\n    export A=b\n%labels\n    a b\n%test\n    #!/bin/bash -e\n    [[ -e /a ]]\n";
    let section =
        |name: &str, dialect, script: &str| Section { name: name.to_owned(), dialect, script: script.to_owned() };
    let expected = [
        section("post", "bash", "    echo value-value\n"),
        section("environment", "sh", "    export A=b\n"),
        section("test", "bash", "    [[ -e /a ]]\n"),
    ];
    ensure!(sections(definition) == expected, "{:#?}", sections(definition));
    let written = here_documents("a\n    cat >x.sh <<'END'\nb\n  END\nEND\nc\n");
    ensure!(written == [("x.sh".to_owned(), "b\n  END\n".to_owned())], "{written:?}");
    Ok(())
}
