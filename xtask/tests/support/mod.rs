//! A repository in a temporary directory, and stand-ins for the heavy programs: they are named by XTASK_PIXI_IMAGE and
//! XTASK_REHEARSAL, as prebuilt ones are. What the real ones do is tested elsewhere; here it is the seam to them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Answers as pixi-image does, and notes what it was asked. Files beside it make it fail or reach the network.
const PIXI_IMAGE: &str = r#"#!/bin/sh
here=${0%/*}
if [ "$1" = plan ]; then # a look at the lock, not noted
    cat "$here/plan-$5" 2>/dev/null || echo "environment $5 for linux-64: 1 packages, 1000 bytes to download, 1 layers"
    exit
fi
printf 'pixi-image %s\n' "$*" >>"$here/calls"
command=$1
[ ! -e "$here/hang-$command" ] || { echo "$command takes long" >&2; exec sleep 600; }
[ ! -e "$here/fail-$command" ] || { echo "error: $command cannot" >&2; exit 1; }
case $command in
probe)
    shift
    for url; do
        case $url in --timeout) break ;; esac
        case $(cat "$here/reachable" 2>/dev/null) in
        *all*) printf 'reachable\t%s\n' "$url" ;;
        *) printf 'unreachable\t%s\tno such host\n' "$url"; code=1 ;;
        esac
    done
    exit ${code:-0} ;;
bundle) [ "$2" != open ] || { cat "$here/facts"; exit 0; } ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    --) break ;;
    --check) [ ! -e "$here/fail-check" ] || { echo "error: the lock does not fit" >&2; exit 1; }; exit 0 ;;
    --out) mkdir -p "${2%/*}"; printf '%-862s\n' "made by $command" >"$2" ;;
    --oci | --sif) mkdir -p "${2%/*}"; echo "$$ $1" >"$2"; printf '%s\tsha256:00\t%s\t12000000\n' "${1#--}" "$2" ;;
    esac
    shift
done
case $command in
resolve) echo "ghcr.io/prefix-dev/pixi@sha256:0000000000000000000000000000000000000000000000000000000000000000" ;;
run) echo "PyTorch has no active GPU"; exit "$(cat "$here/run-code" 2>/dev/null || echo 0)" ;;
esac
"#;

/// What names the stand-ins.
const PROGRAMS: [(&str, &str); 2] =
    [("XTASK_PIXI_IMAGE", "programs/pixi-image"), ("XTASK_REHEARSAL", "programs/rehearsal")];

const REHEARSAL: &str = r#"#!/bin/sh
here=${0%/*}
printf 'rehearsal %s\n' "$*" >>"$here/calls"
case $1 in
make) mkdir -p "$3/channel"; echo base >"$3/base.oci.tar" ;;
serve) echo "http://127.0.0.1:$5"; cat >/dev/null; echo 'rehearsal served' >>"$here/calls" ;;
esac
"#;

const CARGO: &str = r#"#!/bin/sh
here=${0%/*}
case $1 in --version) echo 'cargo 1.95.0'; exit ;; esac
echo "cargo $*" >>"$here/calls"
mkdir -p target/debug
for name in pixi-image rehearsal; do cp -p "$here/$name" target/debug/; done
"#;

/// A repository with the exercise's start in it.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// An empty directory for the test of that name, with a workspace as `pixi init` makes it.
    pub fn new(test: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", root.display()),
            _ => {}
        }
        let repository = Self { root };
        // No container engine that this machine may have: what there is to choose from is part of a test.
        fs::create_dir_all(repository.path("tools")).unwrap();
        let repository = ["cat", "cp", "mkdir", "sleep"].into_iter().fold(repository, Self::with_real_tool);
        let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("lesson/exercise/pixi.toml");
        repository.write("cuda-exercise/pixi.toml", &fs::read_to_string(start).unwrap());
        repository.write("xtask/Cargo.toml", "");
        for (name, text) in [("pixi-image", PIXI_IMAGE), ("rehearsal", REHEARSAL)] {
            let path = repository.write(&format!("programs/{name}"), text);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        repository
    }

    /// A tool that this machine seems to have: it notes what it was asked, and is content.
    pub fn with_tool(self, name: &str) -> Self {
        self.with_script(name, &format!("echo \"{name} $*\" >>programs/calls"))
    }

    /// A tool that this machine seems to have, as the shell script that it is.
    pub fn with_script(self, name: &str, script: &str) -> Self {
        let path = self.write(&format!("tools/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// A tool of this machine.
    pub fn with_real_tool(self, name: &str) -> Self {
        let place = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(name)).into_iter().find(|path| path.exists());
        std::os::unix::fs::symlink(place.unwrap(), self.path("tools").join(name)).unwrap();
        self
    }

    /// The machine's own git.
    pub fn with_git(self) -> Self {
        std::os::unix::fs::symlink(installed("git"), self.path("tools/git")).unwrap();
        self
    }

    /// Everything on the network answers.
    pub fn online(self) -> Self {
        self.write("programs/reachable", "all");
        self
    }

    /// The place of a file of the repository.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// Writes a file of the repository.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Reads a file of the repository.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Removes a file of the repository.
    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// `cargo xtask ARGUMENTS` there, with nothing else in its environment than what finds the shell.
    pub fn xtask(&self, arguments: &[&str]) -> Run {
        self.xtask_in(arguments, &[], "")
    }

    /// The same with more in its environment, and in another directory than the root where one is named.
    pub fn xtask_in(&self, arguments: &[&str], variables: &[(&str, &str)], directory: &str) -> Run {
        let mut command = self.command(arguments);
        command.envs(PROGRAMS).envs(variables.iter().copied()).current_dir(self.path(directory));
        Run(command.output().unwrap())
    }

    /// The same, in an environment or with an input that `set` gives it.
    pub fn xtask_with(&self, arguments: &[&str], set: impl FnOnce(&mut Command)) -> Run {
        let mut command = self.command(arguments);
        set(&mut command);
        Run(command.output().unwrap())
    }

    /// The same on a terminal, where somebody types this; all that is printed comes as standard output.
    pub fn xtask_on_a_terminal(&self, arguments: &[&str], typed: &str) -> Run {
        // The shell that script(1) starts becomes xtask: some shells would stay between the two.
        let line = format!("exec {} {}", env!("CARGO_BIN_EXE_xtask"), arguments.join(" "));
        let mut command = Command::new(installed("script"));
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(&self.root).env_clear();
        command.env("PATH", self.path("tools")).env("CARGO_MANIFEST_DIR", self.path("xtask"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        Run(process.wait_with_output().unwrap())
    }

    /// The same, where no prebuilt programs are named and cargo is a stand-in that puts them into target/debug.
    pub fn xtask_that_compiles(&self, arguments: &[&str]) -> Run {
        let cargo = self.write("programs/cargo", CARGO);
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        Run(self.command(arguments).env("CARGO", cargo).output().unwrap())
    }

    /// The command of [`Repository::xtask`], not started yet. It hears Ctrl-C, whatever this test was started by.
    pub fn xtask_command(&self, arguments: &[&str]) -> Command {
        let plain = self.command(arguments);
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=INT").arg(plain.get_program()).args(plain.get_args());
        command.current_dir(&self.root).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(PROGRAMS);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).current_dir(&self.root).env_clear();
        command.env("PATH", self.path("tools")).env("CARGO_MANIFEST_DIR", self.path("xtask"));
        command
    }

    /// What the stand-ins were asked since the last look, one call a line.
    pub fn calls(&self) -> Vec<String> {
        let path = self.path("programs/calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    /// The first two words of each call since the last look.
    pub fn asked(&self) -> Vec<String> {
        let words = |call: &String| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.calls().iter().map(words).collect()
    }
}

/// Where this machine has a program.
fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|bin| bin.join(program)).find(|place| place.exists()).unwrap()
}

/// A run of xtask that has ended.
pub struct Run(Output);

impl Run {
    /// Standard output of a run that ended with 0.
    pub fn stdout(&self) -> String {
        self.ends(0);
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// Standard output, however the run ended.
    pub fn printed(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// Standard error, however the run ended.
    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Whether it ended with 0.
    pub fn succeeded(&self) -> bool {
        self.0.status.success()
    }

    /// Standard output, however the run ended.
    pub fn output(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// Fails unless the run ended with this exit code.
    #[track_caller]
    pub fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.0.status.code(), Some(code), "{}", String::from_utf8_lossy(&self.0.stderr));
        self
    }
}

/// Compares with `tests/golden/NAME.txt`, byte by byte; with SNAPSHOTS=overwrite in the environment it is written.
#[track_caller]
pub fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    let expected = snapbox::Data::read_from(&path, Some(snapbox::data::DataFormat::Text)).raw();
    snapbox::Assert::new().action_env("SNAPSHOTS").eq(actual, expected);
}
