//! The program under the name `pixi`: what it installs is what rattler installs, and the traps of the lesson's recipe are there.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use packages::{Content, Format, Member, Package};
use pixi_image::lock;
use rattler::install::Installer;
use rattler::package_cache::PackageCache;
use rattler_conda_types::package::FileMode;
use rattler_conda_types::{PrefixRecord, Subdir};
use serde_json::{Value, json};
use web::Answer;
use workspace::Workspace;

const OLD: &str = "/home/builder/work_placehold_placehold_placehold_placehold_placehold_placehold_placehold_placehold_\
                   placehold_placehold_placehold_placehold_placehold_placehold";

/// A workspace whose environments are `default`, and `gpu`, which needs CUDA as the lesson's does.
struct Bench(Workspace);

impl Bench {
    fn new(style: &str) -> Self {
        let mut workspace = Workspace::new(&packages());
        // Only now: the workspace as it is made asks for all packages, and the default environment has no CUDA.
        let gpulib = Package::new("gpulib", [Member::file("share/gpulib", "x")]).depends(&["__cuda >=12"]);
        workspace.shelf.add(&gpulib, Format::Conda);
        workspace.serve();
        fs::remove_dir_all(workspace.path("cache/repodata")).unwrap();
        let manifest = String::from_utf8(workspace.read("pixi.toml")).unwrap();
        let gpu = "\n[feature.gpu.dependencies]\ngpulib = \"*\"\n[environments]\ngpu = [\"gpu\"]\n";
        let manifest = match style {
            "legacy" => format!("{manifest}\n[feature.gpu.system-requirements]\ncuda = \"12\"\n{gpu}"),
            _ => {
                manifest.replace(
                    "platforms = [\"linux-64\"]",
                    "platforms = [\"linux-64\", { name = \"with-cuda\", platform = \"linux-64\", cuda = \"12\" }]",
                ) + &gpu.replace("[environments]", "[feature.gpu]\nplatforms = [\"with-cuda\"]\n[environments]")
            }
        };
        let manifest = manifest.replace("[workspace]", "[workspace]\nversion = \"0.1.0\"");
        workspace.write("pixi.toml", manifest.as_bytes());
        workspace::succeeds(&mut workspace.lock());
        symlink(env!("CARGO_BIN_EXE_pixi-image"), workspace.path("pixi")).unwrap();
        Self(workspace)
    }

    fn pixi(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command([]);
        let mut named = Command::new(self.0.path("pixi"));
        named.args(arguments).current_dir(self.0.work("")).env_clear().stdin(std::process::Stdio::null());
        named.envs(command.env("PATH", "/usr/bin:/bin").get_envs().filter_map(|(name, value)| Some((name, value?))));
        named
    }

    fn with_cuda(&self, arguments: &[&str]) -> Command {
        let mut command = self.pixi(arguments);
        command.env("CONDA_OVERRIDE_CUDA", "12");
        command
    }

    fn install(&self) {
        succeeds(&mut self.with_cuda(&["install", "--locked", "--all"]));
    }

    fn prefix(&self, environment: &str) -> PathBuf {
        self.0.work(".pixi/envs").join(environment)
    }
}

fn packages() -> Vec<Package> {
    let text = |path: &str, content: String| Member::file(path, content).patched(OLD, FileMode::Text);
    let variables = r#"{"FROM_PACKAGE": "a b"}"#;
    vec![
        Package::new(
            "python",
            [
                Member::file("bin/python3.12", "#!/bin/sh\necho fake\n").executable(),
                Member::new("bin/python", Content::Symlink("python3.12".to_owned())),
                Member::file("lib/python3.12/os.py", "import sys\n").mtime(1_600_000_000),
                Member::file("lib/libpython.so", [b"\x7fELF\0", OLD.as_bytes(), b"/lib\0"].concat())
                    .patched(OLD, FileMode::Binary)
                    .executable(),
            ],
        )
        .version("3.12.4"),
        Package::new(
            "native",
            [
                text("bin/native-config", format!("#!/bin/sh\necho {OLD} \"$@\"\n")).executable(),
                text("etc/conda/activate.d/native.sh", format!("export NATIVE_HOME={OLD}/share\n")),
                Member::file("etc/conda/env_vars.d/native.json", variables),
                Member::file("share/shared", "native"),
                Member::new("share/link", Content::Hardlink("share/shared".to_owned())),
            ],
        )
        .by_hand(),
        Package::new("dependent", [Member::file("share/shared", "dependent")]).depends(&["native"]),
        Package::new("tool", [Member::file("site-packages/tool/__init__.py", "def main(): pass\n")])
            .noarch("python")
            .entry_points(&["tool = tool:main"])
            .depends(&["python"]),
    ]
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, workspace::stderr(&output));
    output
}

/// Everything below a prefix but what pixi adds: content or target, whether it is executable, and its time.
fn tree(root: &Path) -> BTreeMap<String, (Vec<u8>, bool, i64)> {
    fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, (Vec<u8>, bool, i64)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                walk(root, &path, found);
                continue;
            }
            let content = match metadata.is_symlink() {
                true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                false => fs::read(&path).unwrap(),
            };
            let executable = !metadata.is_symlink() && metadata.mode() & 0o111 != 0;
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            // Nobody sets the time of a link.
            let mtime = if metadata.is_symlink() { 0 } else { metadata.mtime() };
            found.insert(name, (content, executable, mtime));
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    let added = ["history", "pixi", "pixi_env_prefix", ".pixi-environment-fingerprint"];
    found.retain(|path, _| !added.iter().any(|name| *path == format!("conda-meta/{name}")) && path != "CACHEDIR.TAG");
    found
}

fn record(content: &[u8]) -> PrefixRecord {
    let mut record: PrefixRecord = serde_json::from_slice(content).unwrap();
    (record.extracted_package_dir, record.link) = (None, None);
    record.paths_data.paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
    record.files.sort();
    record
}

#[test]
fn an_installed_environment_is_the_one_that_rattler_installs_there() {
    let bench = Bench::new("legacy");
    succeeds(&mut bench.pixi(&["install", "--locked"]));
    let prefix = bench.prefix("default");
    let locked = lock::read(&bench.0.work("pixi.lock"), "default", "linux-64").unwrap();
    let records: Vec<_> = locked.packages.iter().filter_map(|package| Some(package.conda()?.record.clone())).collect();
    let other = tempfile::tempdir().unwrap();
    let installer = Installer::new()
        .with_package_cache(PackageCache::new(other.path().join("cache")))
        .with_target_platform(Subdir::Linux64)
        .with_alternative_target_prefix(&prefix)
        .with_execute_link_scripts(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(installer.install(other.path().join("prefix"), records)).unwrap();

    let (ours, rattlers) = (tree(&prefix), tree(&other.path().join("prefix")));
    assert_eq!(ours.keys().collect::<Vec<_>>(), rattlers.keys().collect::<Vec<_>>());
    for (path, (content, executable, mtime)) in &ours {
        let (expected, expected_executable, expected_mtime) = &rattlers[path];
        assert_eq!(executable, expected_executable, "{path}");
        if path.starts_with("conda-meta/") {
            assert_eq!(record(content), record(expected), "{path}");
            // T19: other users cannot read what is installed.
            for root in [&prefix, &other.path().join("prefix")] {
                assert_eq!(root.join(path).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path}");
            }
            continue;
        }
        assert_eq!(String::from_utf8_lossy(content), String::from_utf8_lossy(expected), "{path}");
        let generated = path == "bin/tool";
        assert!(generated || mtime == expected_mtime, "{path}: {mtime} {expected_mtime}");
    }
    assert_eq!(ours["share/shared"].0, b"dependent");
    let own = prefix.join("share/link").metadata().unwrap();
    assert_eq!(own.nlink(), prefix.join("__clobbers__/native/share/shared").metadata().unwrap().nlink());
}

#[test]
fn what_pixi_leaves_beside_the_packages_is_there() {
    let bench = Bench::new("legacy");
    bench.install();
    assert_eq!(bench.0.read(".pixi/.gitignore"), b"*\n!config.toml\n");
    assert_eq!(bench.0.read(".pixi/.condapackageignore"), b".pixi\n!.pixi/config.toml\n");
    let meta = bench.prefix("gpu").join("conda-meta");
    assert_eq!(fs::read_to_string(meta.join("pixi_env_prefix")).unwrap(), meta.to_str().unwrap());
    let marker: Value = serde_json::from_slice(&fs::read(meta.join("pixi")).unwrap()).unwrap();
    assert_eq!(marker["environment_name"], "gpu");
    assert_eq!(marker["manifest_path"], bench.0.work("pixi.toml").to_str().unwrap());
    assert_eq!(marker["minimum_supported_platform"], json!({"subdir": "linux-64", "requirements": ["__cuda >=12"]}));
    assert!(meta.join("history").is_file() && meta.join(".pixi-environment-fingerprint").is_file());
    let left: Vec<_> =
        fs::read_dir(bench.0.work(".pixi/envs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn an_environment_of_the_same_lock_is_left_alone_and_one_of_another_is_replaced() {
    let bench = Bench::new("legacy");
    bench.install();
    let mark = bench.prefix("default").join("share/mark");
    fs::write(&mark, "").unwrap();
    let asked = bench.0.web.asked().len();
    bench.install();
    assert!(mark.exists() && bench.0.web.asked().len() == asked);
    let manifest = String::from_utf8(bench.0.read("pixi.toml")).unwrap();
    bench.0.write("pixi.toml", manifest.replacen("dependent = \"*\"\n", "", 1).as_bytes());
    let stale = bench.pixi(&["install", "--locked"]).output().unwrap();
    let said = workspace::stderr(&stale);
    assert!(!stale.status.success() && said.contains("lock-file not up-to-date with the workspace"), "{said}");
    assert!(said.contains("`dependent` is locked, but nothing asks for it"), "{said}");
    succeeds(&mut bench.pixi(&["install", "--frozen"]));
    assert!(mark.exists());
    succeeds(&mut bench.pixi(&["install"]));
    assert!(!mark.exists());
    assert_eq!(fs::read_to_string(bench.prefix("default").join("share/shared")).unwrap(), "native");
    // A copy does not work in another place, so it is not taken for one.
    let moved = bench.0.path("moved");
    fs::rename(bench.0.work(""), &moved).unwrap();
    fs::write(moved.join(".pixi/envs/default/share/mark"), "").unwrap();
    succeeds(bench.pixi(&["install", "--frozen"]).current_dir(&moved));
    assert!(!moved.join(".pixi/envs/default/share/mark").exists());
}

#[test]
fn an_installation_that_fails_or_was_killed_leaves_what_was_there() {
    let bench = Bench::new("legacy");
    fs::create_dir_all(bench.0.work(".pixi/envs/.default.partial/bin")).unwrap();
    fs::write(bench.0.work(".pixi/envs/.default.partial/bin/half"), "").unwrap();
    bench.0.answer("native", |_| vec![Answer::Status(404)]);
    let output = bench.pixi(&["install", "--locked"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(workspace::stderr(&output).contains("cannot fetch native-1.2.3-h0_0"), "{}", workspace::stderr(&output));
    assert!(!bench.prefix("default").exists());
    bench.0.serve();
    succeeds(&mut bench.pixi(&["install", "--locked"]));
    assert!(!bench.0.work(".pixi/envs/.default.partial").exists());
    assert!(!bench.prefix("default").join("bin/half").exists());

    // Damaged in the cache: what is installed stays as it is.
    let archive = bench.0.cached().into_iter().find(|path| path.parent().unwrap().ends_with("packages")).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    bytes[40] ^= 1;
    fs::write(&archive, bytes).unwrap();
    fs::write(bench.prefix("default").join("conda-meta/pixi"), "{}").unwrap();
    let output = bench.pixi(&["install", "--locked"]).output().unwrap();
    assert!(workspace::stderr(&output).contains("is damaged"), "{}", workspace::stderr(&output));
    assert!(bench.prefix("default").join("bin/python").exists());
}

#[test]
fn without_a_gpu_listing_and_running_need_the_override() {
    // T08, and T09 where the manifest is in the lesson's style.
    for (style, row) in [("legacy", "linux-64-cuda-12"), ("rich", "with-cuda")] {
        let bench = Bench::new(style);
        for arguments in
            [&["install", "--locked", "-e", "gpu"][..], &["list", "-e", "gpu"], &["run", "-e", "gpu", "true"]]
        {
            // An empty override says that there is no CUDA, also on a machine with a GPU.
            let output = bench.pixi(arguments).env("CONDA_OVERRIDE_CUDA", "").output().unwrap();
            let said = workspace::stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            for part in [
                "no platform supported by environment 'gpu' matches the current system",
                &format!("{row} (subdir linux-64): missing virtual packages: __cuda >= 12"),
                "hint: mock the missing virtual packages via the environment, e.g.: CONDA_OVERRIDE_CUDA=12",
            ] {
                assert!(said.contains(part), "no `{part}` in\n{said}");
            }
            assert_eq!(said.contains("the `[system-requirements]` table is deprecated"), style == "legacy", "{said}");
        }
        bench.install();
        let listed = stdout(&succeeds(&mut bench.with_cuda(&["list", "-e", "gpu"])));
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["Name", "Version", "Build", "Size", "Kind", "Source"]);
        let gpulib = lines.iter().find(|line| line[0] == "gpulib").unwrap();
        assert_eq!((gpulib[1], gpulib[2], gpulib[4], gpulib[5]), ("1.2.3", "h0_0", "KiB", "conda"));
        // The default environment needs nothing.
        succeeds(bench.pixi(&["list"]).env("CONDA_OVERRIDE_CUDA", ""));
        let too_old = bench.pixi(&["list", "-e", "gpu"]).env("CONDA_OVERRIDE_CUDA", "11.8").output().unwrap();
        assert!(!too_old.status.success());
    }
}

#[test]
fn the_hook_activates_with_the_path_of_the_builder() {
    let bench = Bench::new("legacy");
    bench.install();
    let hook = |command: &mut Command| stdout(&succeeds(command));
    let text =
        hook(bench.with_cuda(&["shell-hook", "-e", "gpu", "-s", "bash"]).env("PATH", "/builders/bin:/usr/bin:/bin"));
    let prefix = bench.prefix("gpu");
    let prefix = prefix.to_str().unwrap();
    // T17.
    assert!(text.starts_with(&format!("export PATH=\"{prefix}/bin:/builders/bin:/usr/bin:/bin\"\n")), "{text}");
    assert!(text.contains("\npixi() {\n") && text.contains("export PS1="), "{text}");
    assert!(!hook(&mut bench.with_cuda(&["shell-hook", "-e", "gpu", "--change-ps1", "false"])).contains("PS1"));

    let show = "set -e; eval \"$1\"; printf '%s\\n' \"$CONDA_PREFIX\" \"$CONDA_SHLVL\" \"$CONDA_DEFAULT_ENV\" \
                \"$PIXI_PROJECT_NAME $PIXI_PROJECT_VERSION $PIXI_IN_SHELL\" \"$PIXI_PROJECT_ROOT\" \"$PIXI_PROJECT_MANIFEST\" \
                \"$PIXI_ENVIRONMENT_NAME $PIXI_ENVIRONMENT_PLATFORMS\" \"$PIXI_PROMPT\" \"$PIXI_EXE\"; \
                pixi list >/dev/null";
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", show, "bash", &text]).env_clear().env("HOME", bench.0.path("home")).current_dir(bench.0.work(""));
    let output = succeeds(bash.env("CONDA_OVERRIDE_CUDA", "12").env("PIXI_IMAGE_CACHE", bench.0.path("cache")));
    let root = bench.0.work("");
    let root = root.to_str().unwrap().trim_end_matches('/');
    let said = stdout(&output);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..4], [prefix, "1", "w:gpu", "w 0.1.0 1"]);
    assert_eq!(lines[4..6], [root, &format!("{root}/pixi.toml")]);
    assert_eq!(lines[6..8], ["gpu linux-64-cuda-12", "(w:gpu) "]);
    // In the shell of an environment it is the one that is meant.
    assert!(workspace::stderr(&output).contains("Environment: gpu"), "{}", workspace::stderr(&output));
    // The packages' own variables and scripts.
    let text = hook(&mut bench.pixi(&["shell-hook"]));
    assert!(
        text.contains("export FROM_PACKAGE='a b'\n") && text.contains("/etc/conda/activate.d/native.sh\n"),
        "{text}"
    );
}

#[test]
fn a_command_runs_in_the_environment_with_its_arguments_untouched() {
    let bench = Bench::new("legacy");
    let arguments = ["run", "native-config", "a b", "$HOME", "--flag", "it's"];
    let output = succeeds(&mut bench.pixi(&arguments));
    let prefix = bench.prefix("default");
    assert_eq!(stdout(&output), format!("{} a b $HOME --flag it's\n", prefix.display()));
    let script = "echo \"$FROM_PACKAGE $NATIVE_HOME $PIXI_ENVIRONMENT_NAME\"; exit 7";
    let output = bench.pixi(&["run", "--as-is", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), format!("a b {}/share default\n", prefix.display()));
    assert_eq!(bench.pixi(&["run", "no-such-program"]).output().unwrap().status.code(), Some(127));
    // With --as-is nothing is looked at: neither the machine nor the lock.
    fs::remove_file(bench.0.work("pixi.lock")).unwrap();
    succeeds(&mut bench.pixi(&["run", "--as-is", "true"]));
    fs::write(bench.0.work("pixi.toml"), [&bench.0.read("pixi.toml")[..], b"[tasks]\nhello = \"echo\"\n"].concat())
        .unwrap();
    let output = bench.pixi(&["run", "--as-is", "hello"]).output().unwrap();
    assert!(workspace::stderr(&output).contains("`hello` is a task"), "{}", workspace::stderr(&output));
}

#[test]
fn a_local_workspace_hides_the_one_of_the_shell() {
    // T20.
    let bench = Bench::new("rich");
    let (inside, elsewhere) = (bench.0.path("local/deep"), bench.0.path("home"));
    fs::create_dir_all(&inside).unwrap();
    let local = "[workspace]\nname = \"local\"\nchannels = []\nplatforms = [\"linux-64\"]\n";
    fs::write(bench.0.path("local/pixi.toml"), local).unwrap();
    let info = |directory: &Path, in_shell: bool| {
        let mut command = bench.pixi(&["info"]);
        command.current_dir(directory).env("PIXI_PROJECT_MANIFEST", bench.0.work("pixi.toml"));
        if in_shell {
            command.env("PIXI_IN_SHELL", "1");
        }
        let output = succeeds(&mut command);
        let text = stdout(&output);
        let name = text.lines().find_map(|line| line.trim().strip_prefix("Name: ")).unwrap().to_owned();
        (name, workspace::stderr(&output))
    };
    assert_eq!(info(&elsewhere, false).0, "w");
    assert_eq!(info(&inside, false), ("local".to_owned(), String::new()));
    let (name, said) = info(&inside, true);
    assert_eq!(name, "local");
    assert!(said.contains("WARN Using local manifest") && said.contains("`PIXI_PROJECT_MANIFEST`"), "{said}");
    // Named, it is taken; and the shell of another workspace says nothing about this one's environments.
    let manifest = bench.0.work("pixi.toml");
    let mut named = bench.pixi(&["list", "--manifest-path", manifest.to_str().unwrap()]);
    named.current_dir(&inside).env("PIXI_IN_SHELL", "1").env("PIXI_ENVIRONMENT_NAME", "gpu");
    let output = succeeds(named.env("PIXI_PROJECT_ROOT", bench.0.path("local")));
    assert!(!workspace::stderr(&output).contains("Environment: gpu"));
    let none = bench.pixi(&["list"]).current_dir("/").output().unwrap();
    assert!(
        workspace::stderr(&none).contains("could not find pixi.toml at directory /"),
        "{}",
        workspace::stderr(&none)
    );
    succeeds(bench.pixi(&["info"]).current_dir("/"));
}

#[test]
fn it_says_what_it_is_and_refuses_by_name_what_it_does_not_know() {
    let bench = Bench::new("rich");
    for flag in ["--version", "-V"] {
        let said = stdout(&succeeds(&mut bench.pixi(&[flag])));
        assert_eq!(said, format!("pixi 0.77.0 (pixi-image {} standing in)\n", env!("CARGO_PKG_VERSION")));
    }
    for (arguments, named) in [
        (&["add", "numpy"][..], "add"),
        (&["install", "--skip", "x"], "--skip"),
        (&["shell-hook", "--json"], "--json"),
        (&["shell-hook", "-s", "fish"], "fish"),
        (&["list", "--frozen", "--locked"], "--locked"),
    ] {
        let output = bench.pixi(arguments).output().unwrap();
        let said = workspace::stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains(named), "{arguments:?}: {said}");
    }
    let unknown = bench.pixi(&["install", "-e", "tpu"]).output().unwrap();
    let said = workspace::stderr(&unknown);
    assert!(said.contains("unknown environment 'tpu'") && said.contains("default, gpu"), "{said}");
    let manifest = [&bench.0.read("pixi.toml")[..], b"[activation.env]\nA = \"b\"\n"].concat();
    bench.0.write("pixi.toml", &manifest);
    let refused = bench.pixi(&["shell-hook"]).output().unwrap();
    assert!(workspace::stderr(&refused).contains("`activation` is not supported"), "{}", workspace::stderr(&refused));
}
