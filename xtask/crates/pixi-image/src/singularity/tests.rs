use std::path::Path;
use std::process::Output;

use rattler_conda_types::{RepoDataRecord, Subdir};

use super::*;
use crate::activation::rootfs::{NoFiles, Rootfs, environment_of, shellcheck};
use crate::activation::{ActivationInput, HAND_BACK_PATH, Script};
use crate::model::{CondaPackage, Digest, LockedPackage, Prefix, Wheel};

const PREFIX: &str = "/app/.pixi/envs/gpu";
const SCRIPT: &str = "app/.pixi/envs/gpu/etc/conda/activate.d/script.sh";

/// A conda package, or with `pypi/` before its name a wheel.
fn package(name: &str) -> LockedPackage {
    if let Some(name) = name.strip_prefix("pypi/") {
        let file_name = format!("{name}-1.0-py3-none-any.whl");
        return Wheel {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            url: format!("https://example.invalid/{file_name}").parse().unwrap(),
            file_name,
            index: None,
            direct: false,
            sha256: Digest::of(name.as_bytes()),
        }
        .into();
    }
    let record: RepoDataRecord = serde_json::from_value(json!({
        "name": name, "version": "1.0", "build": "0", "build_number": 0, "subdir": "linux-64", "depends": [],
        "fn": format!("{name}-1.0-0.conda"), "url": format!("https://example.invalid/linux-64/{name}-1.0-0.conda"),
        "channel": "https://example.invalid/",
    }))
    .unwrap();
    CondaPackage { record, sha256: Digest::of(name.as_bytes()) }.into()
}

fn environment(packages: &[&str]) -> Environment {
    Environment {
        name: "gpu".to_owned(),
        subdir: Subdir::Linux64,
        platform: "p1".to_owned(),
        cuda: None,
        virtual_packages: Vec::new(),
        lock_hash: None,
        packages: packages.iter().map(|name| package(name)).collect(),
    }
}

fn activation(environment: &Environment, shell: Option<Shell>, scripts: &[&str]) -> Activation {
    Activation::new(ActivationInput {
        environment,
        prefix: &Prefix::of_environment("gpu"),
        workspace_name: "workspace",
        scripts: scripts.iter().map(|script| Script { path: ImagePath::new(script).unwrap(), content: None }).collect(),
        files: &NoFiles,
        env_vars: Vec::new(),
        base_env: Vec::new(),
        shell,
    })
    .unwrap()
}

fn bash() -> Option<Shell> {
    Some(Shell::Bash("/bin/bash".to_owned()))
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("org.opencontainers.image.title".to_owned(), "two\nlines".to_owned())])
}

fn text<'a>(items: &'a [Item], path: &str) -> Option<&'a str> {
    let (_, content) = items.iter().find(|(entry, _)| entry.path.as_bytes() == path.as_bytes())?;
    Some(std::str::from_utf8(content).unwrap())
}

fn unpack(items: &[Item], root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for (entry, content) in items {
        let place = root.join(entry.path.lossy().as_ref());
        match &entry.kind {
            EntryKind::Directory => std::fs::create_dir_all(place).unwrap(),
            EntryKind::File { .. } => {
                std::fs::write(&place, content).unwrap();
                std::fs::set_permissions(place, std::fs::Permissions::from_mode(entry.mode.0.into())).unwrap();
            }
            EntryKind::Symlink { target } => {
                std::os::unix::fs::symlink(std::str::from_utf8(target).unwrap(), place).unwrap();
            }
            EntryKind::Hardlink { .. } => unreachable!("there are no hard links here"),
        }
    }
}

/// A root with `/.singularity.d`, a python that only answers where it lives, and a script for bash.
fn image(packages: &[&str]) -> Option<Rootfs> {
    let root = Rootfs::new()?;
    let environment = environment(packages);
    let activation = activation(&environment, bash(), &[SCRIPT]);
    let metadata = Metadata { environment: &environment, activation: &activation, labels: &labels(), base: None };
    unpack(&metadata.entries(0), root.path());
    root.write(SCRIPT, 0o644, "words=(a b); export FROM_SCRIPT=${words[1]}\n");
    root.write(ENTRYPOINT_PATH, 0o755, activation.entrypoint().unwrap().content);
    let python =
        "#!/bin/sh\ncase $* in *metadata*) exit \"${WHEELS_ANSWER:-0}\" ;; esac\nexit \"${PYTHON_ANSWER:-0}\"\n";
    root.write(&format!("{PREFIX}/bin/python"), 0o755, python);
    for name in packages.iter().filter(|name| !name.starts_with("pypi/")) {
        root.write(&format!("{PREFIX}/conda-meta/{name}-1.0-0.json"), 0o644, "{}");
    }
    Some(root)
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn the_tree_has_what_apptainers_own_images_have() {
    let environment = environment(&["python"]);
    let activation = activation(&environment, bash(), &[SCRIPT]);
    let metadata = Metadata { environment: &environment, activation: &activation, labels: &labels(), base: None };
    let items = metadata.entries(7);
    let listing: Vec<_> = items.iter().map(|(entry, _)| format!("{:o} {}", entry.mode.0, entry.path)).collect();
    assert_eq!(
        listing,
        [
            "777 .exec",
            "777 .run",
            "777 .shell",
            "755 .singularity.d",
            "644 .singularity.d/Singularity",
            "755 .singularity.d/actions",
            "755 .singularity.d/actions/exec",
            "755 .singularity.d/actions/run",
            "755 .singularity.d/actions/shell",
            "755 .singularity.d/actions/start",
            "755 .singularity.d/actions/test",
            "644 .singularity.d/activate.bash",
            "755 .singularity.d/env",
            "755 .singularity.d/env/90-environment.sh",
            "755 .singularity.d/env/99-base.sh",
            "644 .singularity.d/labels.json",
            "755 .singularity.d/libs",
            "755 .singularity.d/runscript",
            "644 .singularity.d/runscript.help",
            "755 .singularity.d/startscript",
            "755 .singularity.d/test",
            "777 .test",
            "777 environment",
            "777 singularity",
        ]
    );
    for (entry, content) in &items {
        assert_eq!(entry.mtime, 7);
        if let EntryKind::File { size } = entry.kind {
            assert_eq!(size, content.len() as u64, "{}", entry.path);
        }
    }
}

#[test]
fn an_image_without_a_shell_has_no_scripts_that_could_not_start() {
    let environment = environment(&[]);
    let activation = activation(&environment, None, &[SCRIPT]);
    let metadata = Metadata { environment: &environment, activation: &activation, labels: &labels(), base: None };
    let items = metadata.entries(0);
    for absent in [".singularity.d/runscript", ".singularity.d/test", ".run", "singularity", &HAND_BACK_PATH[1..]] {
        assert_eq!(text(&items, absent), None, "{absent}");
    }
    assert!(text(&items, ".singularity.d/env/90-environment.sh").unwrap().contains("CONDA_PREFIX"));
}

#[test]
fn the_inspect_object_says_what_the_files_say() {
    let environment = environment(&["python"]);
    let activation = activation(&environment, bash(), &[]);
    let base = Some("example.invalid/base@sha256:00\n%post\nrm");
    let metadata = Metadata { environment: &environment, activation: &activation, labels: &labels(), base };
    let items = metadata.entries(0);
    let value: serde_json::Value = serde_json::from_slice(&metadata.inspect_metadata()).unwrap();
    assert_eq!(value["type"], "container");
    let attributes = &value["data"]["attributes"];
    for (name, file) in [
        ("runscript", "runscript"),
        ("startscript", "startscript"),
        ("test", "test"),
        ("helpfile", "runscript.help"),
        ("deffile", "Singularity"),
    ] {
        assert_eq!(attributes[name], text(&items, &format!(".singularity.d/{file}")).unwrap(), "{name}");
    }
    let shown = &attributes["environment"]["/.singularity.d/env/90-environment.sh"];
    assert_eq!(shown, text(&items, ".singularity.d/env/90-environment.sh").unwrap());
    assert_eq!(attributes["labels"]["org.opencontainers.image.title"], "two\nlines");
    let definition = attributes["deffile"].as_str().unwrap();
    assert!(
        definition.contains("\nBootstrap: docker\nFrom: example.invalid/base@sha256:00 %post rm\n"),
        "{definition}"
    );
    assert!(definition.contains("    org.opencontainers.image.title two lines\n"), "{definition}");
}

#[test]
fn an_older_runtimes_actions_activate_and_run() {
    let Some(root) = image(&["python"]) else { return };
    let path = [("PATH", "/usr/bin:/bin")];
    let output = root.run(&["/.exec", "/usr/bin/env", "-0"], &path);
    let env = environment_of(&output);
    assert_eq!((env["FROM_SCRIPT"].as_str(), env["CONDA_PREFIX"].as_str()), ("b", PREFIX));
    assert_eq!((env["PATH"].as_str(), env.contains_key("file")), ("/app/.pixi/envs/gpu/bin:/usr/bin:/bin", false));
    let print = ["/bin/sh", "-c", "printf '%s|' \"$FROM_SCRIPT\" \"$@\"", "sh", "a b", "$HOME"];
    let output = root.run(&[&["/.run"], &print[..]].concat(), &path);
    assert_eq!(both(&output), "b|a b|$HOME|");
    assert_eq!(root.run(&["/.run"], &path).status.code(), Some(64));
    let output = root.run(&["/.shell", "-c", "echo $FROM_SCRIPT"], &path);
    assert_eq!(both(&output), "b\n");
    let output = root.run(&["/.singularity.d/actions/start"], &path);
    assert_eq!((both(&output).as_str(), output.status.code()), ("", Some(0)));
    let output = root.run(&["/.singularity.d/actions/start", "/bin/busybox", "echo", "started"], &path);
    assert_eq!(both(&output), "started\n");
}

#[test]
fn the_test_passes_in_silence_and_fails_with_the_reason() {
    // T06
    let Some(root) = image(&["python", "pytorch"]) else { return };
    let path = ("PATH", "/usr/bin:/bin");
    let output = root.run(&["/.test"], &[path]);
    assert_eq!((both(&output).as_str(), output.status.code()), ("", Some(0)));
    let output = root.run(&["/.test"], &[path, ("PYTHON_ANSWER", "1")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains("python does not start"), "{}", both(&output));
    let output = root.run(&["/.singularity.d/test"], &[path]);
    assert_eq!(
        (both(&output).as_str(), output.status.code()),
        ("test failed: the environment is not active\n", Some(1))
    );
    std::fs::remove_file(root.path().join(format!("{}/conda-meta/pytorch-1.0-0.json", &PREFIX[1..]))).unwrap();
    let output = root.run(&["/.test"], &[path]);
    assert_eq!(
        (both(&output).as_str(), output.status.code()),
        ("test failed: conda-meta holds 1 of 2 packages\n", Some(1))
    );
}

#[test]
fn the_test_asks_python_for_packages_from_pypi() {
    let Some(root) = image(&["python", "pypi/rich", "pypi/numpy"]) else { return };
    let path = ("PATH", "/usr/bin:/bin");
    let output = root.run(&["/.test"], &[path]);
    assert_eq!((both(&output).as_str(), output.status.code()), ("", Some(0)));
    let output = root.run(&["/.test"], &[path, ("WHEELS_ANSWER", "1")]);
    assert_eq!(
        (both(&output).as_str(), output.status.code()),
        ("test failed: not all of 2 packages from PyPI are installed\n", Some(1))
    );
}

#[test]
fn an_environment_without_packages_or_python_passes_its_test() {
    let Some(root) = image(&[]) else { return };
    let output = root.run(&["/.test"], &[("PATH", "/bin"), ("PYTHON_ANSWER", "1")]);
    assert_eq!((both(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn the_skeleton_has_the_places_that_runtimes_mount_over() {
    let listing: Vec<_> = skeleton(3)
        .iter()
        .map(|(entry, content)| format!("{:o} {} {}", entry.mode.0, entry.path, content.len()))
        .collect();
    assert_eq!(
        listing,
        [
            "755 dev 0",
            "755 etc 0",
            "644 etc/group 10",
            "644 etc/hosts 0",
            "644 etc/localtime 0",
            "644 etc/passwd 30",
            "644 etc/resolv.conf 0",
            "755 home 0",
            "755 proc 0",
            "700 root 0",
            "755 run 0",
            "755 sys 0",
            "1777 tmp 0",
            "755 var 0",
            "1777 var/tmp 0",
        ]
    );
}

#[test]
fn every_script_is_clean_by_shellcheck() {
    for (shell, dialect) in [(bash(), "bash"), (Some(Shell::Posix("/bin/sh".to_owned())), "sh")] {
        let environment = environment(&["python", "pypi/rich"]);
        let activation = activation(&environment, shell, &[]);
        let metadata = Metadata { environment: &environment, activation: &activation, labels: &labels(), base: None };
        for (entry, content) in metadata.entries(0) {
            let content = String::from_utf8(content).unwrap();
            let dialect = if content.starts_with("#!") { dialect } else { "sh" };
            if entry.mode == Mode::EXECUTABLE && matches!(entry.kind, EntryKind::File { .. }) {
                let Some(complaints) = shellcheck(dialect, &content) else { return };
                assert_eq!(complaints, "", "{}", entry.path);
            }
        }
    }
}
