//! Manifests are solved against channels that are served on loopback, and their locks read back.

#[allow(dead_code)] // each test uses its part of it
#[path = "support/channel.rs"]
mod channel;
#[allow(dead_code)] // each test uses its part of it
#[path = "support/locks.rs"]
mod locks;
#[allow(dead_code)] // each test uses its part of it
#[path = "support/web.rs"]
mod web;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use channel::{Channel, exercise};
use locks::CASES;
use pixi_image::lock;
use pixi_image::model::LockedPackage;
use web::{Answer, Web};

/// A directory with a manifest, and a server with a channel.
struct Bench {
    directory: tempfile::TempDir,
    web: Web,
}

impl Bench {
    fn new(channel: &Channel, manifest: impl FnOnce(&str) -> String) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap(), web: Web::start() };
        channel.serve(&bench.web);
        bench.write(&manifest(&bench.web.url("/channel")));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, manifest: &str) {
        std::fs::write(self.path("pixi.toml"), manifest).unwrap();
    }

    fn manifest(&self) -> String {
        std::fs::read_to_string(self.path("pixi.toml")).unwrap()
    }

    fn lock_text(&self) -> String {
        std::fs::read_to_string(self.path("pixi.lock")).unwrap()
    }

    fn lock(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pixi-image"))
            .args(["lock", "--manifest", "pixi.toml", "--cache", "cache"])
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn locked(&self) {
        let output = self.lock(&[]);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn names(&self, environment: &str, platform: &str) -> Vec<String> {
        let environment = lock::read(&self.path("pixi.lock"), environment, platform).unwrap();
        let mut names: Vec<_> = environment.packages.iter().map(LockedPackage::identity).collect();
        names.sort();
        names
    }

    /// What `--check` has to say; nothing when it is content.
    fn check(&self) -> String {
        let output = self.lock(&["--check"]);
        assert_eq!(output.status.success(), output.stderr.is_empty(), "{}", stderr(&output));
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_exercise_is_solved_for_every_environment_and_platform() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    let output = bench.lock(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lock\tpixi.lock\n");
    let gpu =
        ["cuda-version-12.9-h_0", "python-3.12.1-0_cpython", "pytorch-2.8.0-cuda129_1", "pytorch-gpu-2.8.0-cuda129_1"];
    assert_eq!(bench.names("gpu", "linux-64"), gpu, "CUDA 12 is promised, so 13 is not taken");
    assert_eq!(bench.names("gpu", "win-64-cuda-12"), gpu);
    assert!(bench.names("gpu", "osx-arm64").is_empty());
    assert!(bench.names("default", "linux-64").is_empty());
    let cpu =
        ["python-3.12.1-0_cpython", "pytorch-2.8.0-cpu_1", "pytorch-cpu-2.8.0-cpu_1", "typing-extensions-4.0-pyhd_0"];
    assert_eq!(bench.names("cpu", "osx-arm64"), cpu);
    let read = lock::read(&bench.path("pixi.lock"), "gpu", "linux-64").unwrap();
    assert_eq!((read.platform.as_str(), read.cuda.as_deref()), ("linux-64-cuda-12", Some("12")));
    assert_eq!(bench.check(), "");
    let row = "- name: linux-64-cuda-12\n  subdir: linux-64\n  virtual-packages:\n  - __cuda=12\n  - __unix=0=0\n  \
               - __linux=4.18\n  - __glibc=2.28\n  - __archspec=0=x86_64\n";
    assert!(bench.lock_text().starts_with("version: 7\n") && bench.lock_text().contains(row), "{}", bench.lock_text());
}

#[test]
fn the_same_manifest_and_channel_give_the_same_lock() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    bench.locked();
    let first = bench.lock_text();
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    std::fs::remove_file(bench.path("pixi.lock")).unwrap();
    bench.locked();
    assert_eq!(bench.lock_text(), first);
}

#[test]
fn a_lock_that_no_longer_fits_is_told_by_requirement_environment_and_platform() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    bench.locked();
    let manifest = bench.manifest();
    for (from, to, expected) in [
        (
            "pytorch-cpu = \">=2.8.0,<3\"",
            "pytorch-cpu = \">=2.9\"",
            "environment `cpu` for osx-arm64: `pytorch-cpu >=2.9` (pixi.toml:12:1) is not met: locked is 2.8.0 cpu_1",
        ),
        (
            "[dependencies]",
            "[dependencies]\nnumpy = \"*\"",
            "environment `default` for linux-64: `numpy` (pixi.toml:10:1) is not met: it is not locked",
        ),
        ("gpu = [\"gpu\"]", "", "environment `gpu`: it is locked, but no longer in the manifest"),
        ("cpu = [\"cpu\"]", "cpu = [\"cpu\"]\nboth = [\"cpu\", \"gpu\"]", "environment `both`: it is not locked"),
        (
            "cuda = \"12\"",
            "cuda = \"13\"",
            "environment `gpu` for linux-64-cuda-13: it is not locked for this platform",
        ),
        (", \"win-64\"]", "]", "environment `cpu` for win-64: it is locked, but the manifest has no such platform"),
        ("/channel\"]", "/channel\", \"conda-forge\"]", "environment `cpu`: its channels are"),
        (
            "pytorch-cpu = \">=2.8.0,<3\"",
            "",
            "environment `cpu` for linux-64: `pytorch-cpu` is locked, but nothing asks for it",
        ),
    ] {
        bench.write(&manifest.replace(from, to));
        let said = bench.check();
        assert!(said.contains(expected) && said.contains("hint: lock anew"), "{expected}\n{said}");
    }
    bench.write(&manifest);
    let lock = bench.lock_text();
    let without = lock.replace("      - conda: REPLACE", "");
    let line =
        without.lines().find(|line| line.starts_with("      - conda") && line.contains("/cuda-version-12")).unwrap();
    std::fs::write(bench.path("pixi.lock"), lock.replacen(&format!("{line}\n"), "", 1)).unwrap();
    let said = bench.check();
    assert!(said.contains("pytorch 2.8.0 needs `cuda-version >=12,<13`, which is not locked"), "{said}");
}

#[test]
fn what_cannot_be_solved_names_environment_platform_and_reason_and_keeps_the_old_lock() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    bench.locked();
    let (manifest, lock) = (bench.manifest(), bench.lock_text());
    bench.write(&manifest.replace("[dependencies]", "[dependencies]\npython = \">=3.13\""));
    let output = bench.lock(&[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("error: environment `cpu` cannot be solved for linux-64:"), "{said}");
    assert!(said.contains("pytorch") && said.contains("python") && said.contains("hint: loosen"), "{said}");
    bench.write(&manifest.replace("[dependencies]", "[dependencies]\nnumpyy = \"*\""));
    let said = stderr(&bench.lock(&[]));
    assert!(said.contains("/channel/) has `numpyy` (pixi.toml:10:1) for this platform"), "{said}");
    assert_eq!(bench.lock_text(), lock);
    let left: Vec<_> =
        std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_channel_out_of_reach_is_named_with_the_way_out() {
    let bench = Bench::new(&Channel::exercise(), |_| exercise("http://127.0.0.1:9/channel"));
    let said = stderr(&bench.lock(&[]));
    assert!(said.contains("cannot read the channel http://127.0.0.1:9/channel/: "), "{said}");
    assert!(said.contains("--source rehearsal") && said.contains("HTTPS_PROXY"), "{said}");
    let bench = Bench::new(&Channel::exercise(), exercise);
    bench.web.clear();
    let said = stderr(&bench.lock(&[]));
    assert!(said.contains("/channel/noarch/: ") && said.contains("404"), "{said}");
    assert!(!bench.path("pixi.lock").exists());
}

#[test]
fn a_channel_that_stumbles_is_asked_again() {
    let channel = Channel::exercise();
    let bench = Bench::new(&channel, exercise);
    let good = Answer::Bytes(channel.repodata("noarch"));
    bench.web.set("/channel/noarch/repodata.json", vec![Answer::Status(503), Answer::Status(503), good]);
    bench.locked();
}

#[test]
fn off_line_the_cache_is_enough_once_it_is_filled() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    let said = stderr(&bench.lock(&["--offline"]));
    assert!(said.contains("cannot read the channel"), "{said}");
    bench.locked();
    let lock = bench.lock_text();
    bench.web.clear();
    let asked = bench.web.asked().len();
    let output = bench.lock(&["--offline"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((bench.lock_text(), bench.web.asked().len()), (lock, asked));
}

#[test]
fn environments_of_a_solve_group_get_the_same_versions() {
    let manifest = |url: &str| {
        format!(
            "[workspace]\nchannels = [\"{url}\"]\nplatforms = [\"linux-64\"]\n[feature.old.dependencies]\npython = \"<3.13\"\n\
             [feature.any.dependencies]\npython = \"*\"\n[environments]\nold = {{ features = [\"old\"], solve-group = \"g\" }}\n\
             any = {{ features = [\"any\"], solve-group = \"g\" }}\nfree = [\"any\"]\n"
        )
    };
    let bench = Bench::new(&Channel::exercise(), manifest);
    bench.locked();
    assert_eq!(bench.names("any", "linux-64"), ["python-3.12.1-0_cpython"]);
    assert_eq!(bench.names("free", "linux-64"), ["python-3.13.1-0_cpython"]);
    assert_eq!(bench.check(), "");
}

#[test]
fn rich_platforms_are_rows_of_the_lock() {
    let manifest = |url: &str| {
        format!(
            "[workspace]\nchannels = [\"{url}\"]\n\
             platforms = [\"linux-64\", {{ name = \"gpu-box\", platform = \"linux-64\", cuda = \"13\" }}]\n\
             [feature.gpu]\nplatforms = [\"gpu-box\"]\ndependencies = {{ pytorch-gpu = {{ build = \"cuda130*\" }} }}\n[environments]\ngpu = [\"gpu\"]\n"
        )
    };
    let bench = Bench::new(&Channel::exercise(), manifest);
    bench.locked();
    assert!(bench.names("gpu", "gpu-box").contains(&"pytorch-gpu-2.8.0-cuda130_1".to_owned()));
    assert_eq!(bench.check(), "");
    let renamed = bench.lock_text().replace("gpu-box", "p1");
    std::fs::write(bench.path("pixi.lock"), renamed).unwrap();
    assert_eq!(bench.check(), "", "pixi itself calls such rows p1, p2");
}

#[test]
fn a_channel_may_be_a_directory() {
    let channel = Channel::exercise();
    let bench = Bench::new(&channel, |_| exercise("./local"));
    channel.write(&bench.path("local"));
    bench.locked();
    assert_eq!(bench.check(), "");
    let read = lock::read(&bench.path("pixi.lock"), "cpu", "linux-64").unwrap();
    assert!(read.packages.iter().all(|package| package.url().scheme() == "file"));
}

#[test]
fn a_plan_names_packages_and_bytes_and_downloads_nothing() {
    let bench = Bench::new(&Channel::exercise(), exercise);
    bench.locked();
    let asked = bench.web.asked().len();
    let plan = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pixi-image"));
        command.args(["plan", "--lock"]).arg(bench.path("pixi.lock")).args(arguments).output().unwrap()
    };
    let text = String::from_utf8(plan(&["--environment", "gpu"]).stdout).unwrap();
    assert!(text.starts_with("environment gpu for linux-64-cuda-12, needs CUDA 12: 4 packages, "), "{text}");
    assert_eq!(text.lines().count(), 5);
    let output = plan(&["--environment", "gpu", "--platform", "win-64-cuda-12", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes: u64 =
        json["packages"].as_array().unwrap().iter().map(|package| package["bytes"].as_u64().unwrap()).sum();
    assert_eq!((json["subdir"].as_str(), json["download_bytes"].as_u64()), (Some("win-64"), Some(bytes)));
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.iter().map(|layer| layer["download_bytes"].as_u64().unwrap()).sum::<u64>(), bytes);
    for package in json["packages"].as_array().unwrap() {
        let layer = &layers[package["layer"].as_u64().unwrap() as usize - 1];
        assert!(layer["packages"].as_array().unwrap().contains(&package["name"]), "{package}");
    }
    assert_eq!(bench.web.asked().len(), asked);
    let output = plan(&["--environment", "nope"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it has: cpu, default, gpu"), "{}", stderr(&output));
}

#[test]
fn a_manifest_that_is_not_there_or_broken_is_told_by_name() {
    let bench = Bench::new(&Channel::exercise(), |_| "[workspace\n".to_owned());
    let said = stderr(&bench.lock(&[]));
    assert!(said.starts_with("error: pixi.toml:1:11: "), "{said}");
    std::fs::remove_file(bench.path("pixi.toml")).unwrap();
    let said = stderr(&bench.lock(&[]));
    assert!(said.contains("no manifest at pixi.toml"), "{said}");
    assert!(!Path::new(&bench.path("pixi.lock")).exists());
}

#[test]
fn all_that_can_be_said_is_locked_as_expected_and_once_more_to_the_same_bytes() {
    for case in CASES {
        let bench = Bench { directory: tempfile::tempdir().unwrap(), web: Web::start() };
        bench.write(&case.prepare(&bench.web, bench.directory.path()));
        bench.locked();
        let lock = bench.lock_text();
        for (environment, platform, expected) in case.picks {
            assert_eq!(bench.names(environment, platform), *expected, "{}: {environment} for {platform}", case.name);
        }
        assert_eq!(bench.check(), "", "{}", case.name);
        bench.locked();
        assert_eq!(bench.lock_text(), lock, "{}", case.name);
    }
}

const WHEELS: &str = "[workspace]\nchannels = [\"{}\"]\nplatforms = [\"linux-64\"]\n[dependencies]\npython = \"3.12.*\"\n\
                      [feature.w.pypi-dependencies]\nSmall_Wheel = \">=1,<2\"\n[environments]\nw = [\"w\"]\n";
/// What pixi adds to a lock for it.
const WHEEL: &str = "- pypi: https://files.example.invalid/small_wheel-1.5-py3-none-any.whl\n  name: small-wheel\n  version: '1.5'\n  \
                     sha256: 0000000000000000000000000000000000000000000000000000000000000000\n";

#[test]
fn what_cannot_be_locked_is_refused_before_any_channel_is_asked_and_a_check_says_what_it_cannot_tell() {
    let bench = Bench::new(&Channel::exercise(), |url| WHEELS.replace("{}", url).replace("w = [\"w\"]", ""));
    bench.locked();
    let lock = bench.lock_text();
    // As pixi would have it: a second environment, with the wheel.
    let at = |what: &str| lock.find(what).unwrap();
    let (environment, packages) =
        (&lock[at("  default:")..at("packages:\n- conda")], &lock[at("packages:\n- conda")..]);
    let address = WHEEL.lines().next().unwrap();
    let second = format!("{}      {address}\n", environment.replace("default", "w"));
    let whole = format!("{}{environment}{second}{packages}{WHEEL}", &lock[..at("  default:")]);
    std::fs::write(bench.path("pixi.lock"), whole).unwrap();
    bench.write(&WHEELS.replace("{}", &bench.web.url("/channel")));
    let asked = bench.web.asked().len();
    let said = stderr(&bench.lock(&[]));
    assert!(
        said.contains("pixi.toml:6:12: `feature.w.pypi-dependencies` is not supported: packages from PyPI"),
        "{said}"
    );
    assert!(said.contains("hint: lock with pixi itself (`pixi lock`); `build` takes its lock"), "{said}");
    assert_eq!(bench.web.asked().len(), asked);

    let said = bench.check();
    assert!(said.contains("could not be compared with all of pixi.toml; what could be, fits:"), "{said}");
    let wheels = "environment `w`: what its packages from PyPI need is not checked, for pixi.toml:6:12: ";
    assert!(said.contains(wheels), "{said}");
    let one = |name: &str| bench.lock(&["--check", "--environment", name]);
    assert_eq!(stderr(&one("default")), "");
    let output = one("w");
    assert!(output.status.success() && stderr(&output).starts_with(&format!("warning: pixi.lock, {wheels}")));
    // What is asked for is compared all the same.
    let manifest = bench.manifest();
    for (from, to, expected) in [
        ("3.12.*", "3.13.*", "`python 3.13.*` (pixi.toml:5:1) is not met: locked is 3.12.1 0_cpython"),
        (">=1,<2", ">=2", "`Small_Wheel >=2` of PyPI (pixi.toml:7:1) is not met: locked is 1.5"),
        ("Small_Wheel", "other-wheel", "`other-wheel >=1, <2` of PyPI (pixi.toml:7:1) is not met: it is not locked"),
    ] {
        bench.write(&manifest.replace(from, to));
        let output = one("w");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("environment `w` for linux-64: {expected}")), "{said}");
    }
    // A conda package may be the one of that name, and a marker may mean another machine.
    for requirement in ["Python = \"*\"", "other = { version = \"*\", env-markers = \"sys_platform == 'win32'\" }"] {
        bench.write(&manifest.replace("Small_Wheel = \">=1,<2\"", requirement));
        assert!(one("w").status.success(), "{requirement}");
    }
    bench.write(&manifest);
    bench.write(&bench.manifest().replace("[feature.w.pypi-dependencies]", "[feature.w.whatever]"));
    let output = one("w");
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("pixi.lock was not compared with its manifest: pixi.toml:6:12: `feature.w.whatever`"),
        "{said}"
    );
    bench.write("nonsense");
    assert_eq!(one("w").status.code(), Some(1));
}

#[test]
fn a_lock_is_compared_with_how_it_would_be_solved_and_how_old_packages_may_be() {
    let manifest = |url: &str| {
        format!(
            "[workspace]\nchannels = [\"{url}\"]\nplatforms = [\"linux-64\"]\n[dependencies]\npytorch-cpu = \"*\"\n"
        )
    };
    let bench = Bench::new(&Channel::exercise(), manifest);
    bench.locked();
    let manifest = bench.manifest();
    for (line, expected) in [
        ("channel-priority = \"disabled\"", "environment `default`: it is locked with another channel priority"),
        ("solve-strategy = \"lowest\"", "environment `default`: it is locked with another solve strategy"),
        ("pypi-options = { prerelease-mode = \"allow\" }", "it is locked with another prerelease mode of PyPI"),
        (
            "exclude-newer = \"2023-01-01\"",
            "for linux-64: pytorch 2.8.0 was made at 2023-11-14T22:13:20Z, and `exclude-newer` takes nothing after \
             2023-01-02T00:00:00Z",
        ),
        ("[constraints]\npython = \"<3\"", "`python <3` (pixi.toml:5:1) is not met: locked is 3.12.1 0_cpython"),
        ("requires-pixi = \">=99\"", "`workspace.requires-pixi` asks for pixi >=99"),
    ] {
        bench.write(&manifest.replace("[dependencies]", &format!("{line}\n[dependencies]")));
        let said = bench.check();
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    for line in
        ["exclude-newer = \"1d\"", "[constraints]\npython = \"<4\"\nabsent = \"<1\"", "requires-pixi = \">=0.77\""]
    {
        bench.write(&manifest.replace("[dependencies]", &format!("{line}\n[dependencies]")));
        assert_eq!(bench.check(), "", "{line}");
    }
}

#[test]
fn a_lock_may_call_a_channel_by_its_name() {
    let manifest = "[workspace]\nchannels = [\"conda-forge\"]\nplatforms = [\"linux-64\"]\n";
    let bench = Bench::new(&Channel::exercise(), |_| manifest.to_owned());
    bench.locked();
    assert!(bench.web.asked().is_empty(), "nothing is asked for, so nobody is asked");
    let address = "https://conda.anaconda.org/conda-forge/";
    let (named, other) =
        (bench.lock_text().replace(address, "conda-forge"), bench.lock_text().replace(address, "bioconda"));
    std::fs::write(bench.path("pixi.lock"), named).unwrap();
    assert_eq!(bench.check(), "");
    std::fs::write(bench.path("pixi.lock"), other).unwrap();
    assert!(bench.check().contains("its channels are"), "{}", bench.check());
}
