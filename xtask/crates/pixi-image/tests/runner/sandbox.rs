//! A directory in which an ordinary user runs images, whoever runs the tests.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::image::Tree;

/// The ordinary user when the tests run as root; nothing on the machine knows this number.
const UID: u32 = 54321;

/// The files of one test: a home, a cache, images, and a copy of the program where everybody can reach it.
pub struct Sandbox {
    directory: tempfile::TempDir,
    program: PathBuf,
}

/// Whether the tests run as root, and so must step down to be an ordinary user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user in the container, as `id -u` prints it.
pub fn uid() -> u32 {
    if is_root() { UID } else { rustix::process::geteuid().as_raw() }
}

impl Sandbox {
    /// A new one; none, said loudly, where the machine forbids namespaces to ordinary users.
    pub fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("pixi-image");
        let built = env!("CARGO_BIN_EXE_pixi-image");
        std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(drop)).unwrap();
        let sandbox = Self { directory, program };
        for name in ["home", "work", "cache"] {
            sandbox.own_directory(name);
        }
        let probe = sandbox.as_user(&["unshare", "--user", "--mount", "--map-root-user", "true"]).status().unwrap();
        if !probe.success() {
            assert!(std::env::var_os("CI").is_none(), "this machine forbids namespaces: nothing could be tested");
            eprintln!("SKIPPED: this machine forbids namespaces to ordinary users");
            return None;
        }
        Some(sandbox)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a directory that belongs to the ordinary user.
    pub fn own_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        self.give(&path);
        path
    }

    /// Gives a file or directory to the ordinary user.
    pub fn give(&self, path: &Path) {
        if is_root() {
            std::os::unix::fs::chown(path, Some(UID), Some(UID)).unwrap();
        }
    }

    /// The programs of the host as an OCI layout.
    pub fn oci(&self, name: &str) -> PathBuf {
        Tree::with_programs().oci(&self.path(name), json!({"Env": ["PATH=/bin", "FROM_IMAGE=yes"]}))
    }

    /// A command line that is run by the ordinary user, without a terminal, in the directory `work`.
    pub fn as_user(&self, words: &[&str]) -> Command {
        // Whoever runs the tests in the background has them ignore signals, which no shell may trap then.
        let mut command = Command::new("env");
        command.args(["--default-signal", "setsid"]);
        if is_root() {
            let id = UID.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        }
        command.args(words).stdin(Stdio::null()).env("HOME", self.path("home"));
        if self.path("work").is_dir() {
            command.current_dir(self.path("work"));
        }
        command
    }

    /// `pixi-image run OPTIONS IMAGE -- COMMAND` by the ordinary user.
    pub fn command(&self, image: &Path, options: &[&str], command: &[&str]) -> Command {
        self.command_after(&[], image, options, command)
    }

    /// The same, started by another program.
    pub fn command_after(&self, before: &[&str], image: &Path, options: &[&str], command: &[&str]) -> Command {
        let cache = self.path("cache");
        let start = [self.program.to_str().unwrap(), "run", "--no-gpu", image.to_str().unwrap()];
        let cache = ["--cache", cache.to_str().unwrap()];
        self.as_user(&[before, &start, &cache, options, &["--"], command].concat())
    }

    /// Runs it to its end.
    pub fn run(&self, image: &Path, options: &[&str], command: &[&str]) -> Ended {
        Ended::of(&mut self.command(image, options, command))
    }

    /// The program.
    pub fn program(&self) -> &str {
        self.program.to_str().unwrap()
    }
}

/// What became of a command.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ended {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Asserts success and gives stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}
