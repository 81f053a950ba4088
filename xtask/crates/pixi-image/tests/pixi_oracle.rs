//! Our locks in the hands of pixi itself: it must take them as they are, and ours must take those that it makes.
//!
//! The pixi is the one that `PIXI_IMAGE_TEST_PIXI` names, else that on PATH. Where there is none of the version whose
//! locks we write, the tests are skipped: on CI there is none.

#[allow(dead_code)] // each test uses its part of it
#[path = "support/channel.rs"]
mod channel;
#[allow(dead_code)]
#[path = "support/locks.rs"]
mod locks;
#[path = "support/manifests.rs"]
mod manifests;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Completion, Trial};
use locks::{CASES, Case};
use pixi_image::model::PIXI_VERSION;
use proptest::test_runner::{Config, TestRunner};
use web::Web;

const VARIABLE: &str = "PIXI_IMAGE_TEST_PIXI";

fn main() -> ExitCode {
    let pixi = find();
    let trial = |name: &str, run: Box<dyn FnOnce(&Path) + Send>| {
        let pixi = pixi.clone();
        Trial::ignorable_test(name, move || {
            Ok(match pixi {
                Err(reason) => Completion::ignored_with(reason),
                Ok(pixi) => {
                    run(&pixi);
                    Completion::Completed
                }
            })
        })
    };
    let mut trials: Vec<_> =
        CASES.iter().map(|case| trial(case.name, Box::new(|pixi| Bench::new(case, pixi).run(case)))).collect();
    trials.push(trial("any_lock_of_ours_is_taken", Box::new(any_lock)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Manifests as they come; those that nobody can solve say nothing.
fn any_lock(pixi: &Path) {
    let bench = Bench::new(&CASES[0], pixi);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let result = runner.run(&manifests::any_manifest(), |written| {
        bench.write(&locks::addressed(&written.text(), &bench.web));
        if bench.ours(&[]).status.success() {
            bench.take_as_it_is();
        }
        Ok(())
    });
    result.unwrap();
}

/// The place of a pixi of our version, or why there is none.
fn find() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|directory| directory.join("pixi")).find(|place| place.is_file());
    let pixi = std::env::var_os(VARIABLE).map(PathBuf::from).or_else(on_path);
    let pixi =
        pixi.ok_or_else(|| format!("skipped: no pixi on PATH, and {VARIABLE} names none (CI has none either)"))?;
    let output = Command::new(&pixi)
        .arg("--version")
        .output()
        .map_err(|error| format!("skipped: {}: {error}", pixi.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    if minor(said.trim_start_matches("pixi ")) != minor(PIXI_VERSION) {
        return Err(format!("skipped: {} is {said}, and our locks are those of pixi {PIXI_VERSION}", pixi.display()));
    }
    Ok(pixi)
}

/// A workspace of ours, and channels on loopback.
struct Bench<'a> {
    pixi: &'a Path,
    directory: tempfile::TempDir,
    web: Web,
}

impl<'a> Bench<'a> {
    fn new(case: &Case, pixi: &'a Path) -> Self {
        let bench = Self { pixi, directory: tempfile::tempdir().unwrap(), web: Web::start() };
        std::fs::create_dir(bench.directory.path().join("w")).unwrap();
        bench.write(&case.prepare(&bench.web, &bench.directory.path().join("w")));
        bench
    }

    fn write(&self, manifest: &str) {
        std::fs::write(self.directory.path().join("w/pixi.toml"), manifest).unwrap();
    }

    /// A program in the workspace, that sees nothing of this machine's configuration and finds a GPU.
    fn run_in_workspace(&self, program: &Path, arguments: &[&str]) -> Output {
        let home = self.directory.path().join("home");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path().join("w")).env_clear().env("PATH", "/usr/bin:/bin");
        for variable in ["HOME", "PIXI_HOME", "PIXI_CACHE_DIR", "RATTLER_CACHE_DIR", "XDG_CONFIG_HOME"] {
            command.env(variable, &home);
        }
        command.env("CONDA_OVERRIDE_CUDA", "12.9").output().unwrap()
    }

    fn pixi(&self, arguments: &[&str]) -> Output {
        self.run_in_workspace(self.pixi, arguments)
    }

    fn ours(&self, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_pixi-image"));
        self.run_in_workspace(program, &[&["lock", "--cache", "../cache"], arguments].concat())
    }

    fn lock(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("w/pixi.lock")).unwrap()
    }

    fn take_as_it_is(&self) {
        let lock = self.lock();
        done("pixi lock --check", &self.pixi(&["lock", "--check"]));
        assert_eq!(self.lock(), lock, "pixi changed it while it checked");
    }

    fn run(&self, case: &Case) {
        done("pixi-image lock", &self.ours(&[]));
        let lock = self.lock();
        self.take_as_it_is();
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            for environment in case.install {
                done("pixi install --locked", &self.pixi(&["install", "--locked", "--environment", environment]));
            }
        }
        done("pixi-image lock --check", &self.ours(&["--check"]));
        assert_eq!(self.lock(), lock, "pixi changed it while it installed");
        // The other way round: pixi solves for itself, and what it takes is what we took.
        std::fs::remove_file(self.directory.path().join("w/pixi.lock")).unwrap();
        done("pixi lock", &self.pixi(&["lock"]));
        done("pixi-image lock --check", &self.ours(&["--check"]));
        let (theirs, ours) = (packages(&self.lock()), packages(&lock));
        assert_eq!(theirs != ours, case.pixi_ignores, "pixi takes {theirs:#?}\nours took {ours:#?}");
    }
}

/// The packages of each environment and platform, as the lock lists them; rich platforms have other names in pixi's.
fn packages(lock: &str) -> Vec<String> {
    let lines = lock.lines().filter(|line| line.starts_with("  ") || line.starts_with("- conda"));
    let mut packages: Vec<_> = lines.filter(|line| line.contains("conda: ")).map(str::to_owned).collect();
    packages.sort();
    packages
}

fn done(what: &str, output: &Output) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{what}: {}\n{}", output.status, String::from_utf8_lossy(&said));
}
