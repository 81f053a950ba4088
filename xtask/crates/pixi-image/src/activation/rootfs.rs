//! For tests: a root with real shells, mounted read-only and entered as an ordinary user without a home.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ENTER: &str = r#"
root=$1; shift
mount --bind "$root" "$root" && mount --rbind /dev "$root/dev" && mount -o remount,bind,ro "$root" || exit 125
exec unshare --user --map-user=1234 --map-group=1234 --root="$root" --wd=/ /usr/bin/env -i "$@"
"#;

/// An image of which nothing is known.
pub struct NoFiles;

impl super::Files for NoFiles {
    fn kind(&self, _: &str) -> Option<super::FileKind> {
        None
    }

    fn names(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

pub struct Rootfs {
    directory: tempfile::TempDir,
}

impl Rootfs {
    /// A root with bash, dash (as `sh`), busybox and env. None, with the reason printed, where it cannot be had.
    pub fn new() -> Option<Self> {
        match Self::build() {
            Ok(root) => Some(root),
            Err(reason) if std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1") => {
                panic!("real shells are required here: {reason}")
            }
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    fn build() -> Result<Self, String> {
        let root = Self { directory: tempfile::tempdir().map_err(|e| e.to_string())? };
        for directory in ["dev", "bin", "usr/bin"] {
            fs::create_dir_all(root.path().join(directory)).map_err(|e| e.to_string())?;
        }
        for (program, place) in
            [("bash", "/bin/bash"), ("dash", "/bin/dash"), ("busybox", "/bin/busybox"), ("env", "/usr/bin/env")]
        {
            let source = find(program).ok_or_else(|| format!("there is no {program} on this machine"))?;
            root.copy(&source, place)?;
            for library in libraries(&source)? {
                root.copy(&library, library.to_str().ok_or("a library with a strange name")?)?;
            }
        }
        symlink("dash", root.path().join("bin/sh")).map_err(|e| e.to_string())?;
        let entered = root.run(&["/bin/sh", "-c", ":"], &[]);
        if entered.status.success() {
            return Ok(root);
        }
        Err(format!("cannot enter a root of our own: {}", String::from_utf8_lossy(&entered.stderr)))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn copy(&self, source: &Path, place: &str) -> Result<(), String> {
        let target = self.path().join(&place[1..]);
        fs::create_dir_all(target.parent().unwrap()).map_err(|e| e.to_string())?;
        fs::copy(source, target).map(drop).map_err(|e| format!("{}: {e}", source.display()))
    }

    pub fn write(&self, place: &str, mode: u32, content: impl AsRef<[u8]>) {
        let target = self.path().join(place.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, content).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, words: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "enter"]).arg(self.path());
        command.args(env.iter().map(|(name, value)| format!("{name}={value}"))).args(words);
        command
    }

    /// Runs a command there with nothing but `env` in its environment, and nothing to read.
    pub fn run(&self, words: &[&str], env: &[(&str, &str)]) -> Output {
        self.run_with_input(words, env, "")
    }

    pub fn run_with_input(&self, words: &[&str], env: &[(&str, &str)], input: &str) -> Output {
        feed(self.command(words, env), input)
    }

    /// Runs a command on a terminal, on which `input` is typed.
    pub fn run_on_terminal(&self, words: &[&str], env: &[(&str, &str)], input: &str) -> Output {
        let command = self.command(words, env);
        let text: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| super::quote(word.to_str().unwrap()))
            .collect();
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &text.join(" "), "/dev/null"]);
        feed(terminal, input)
    }
}

fn feed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // a command need not read
    child.wait_with_output().unwrap()
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("ldd").arg(program).output().map_err(|e| format!("ldd: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// What `env -0` printed.
pub fn environment_of(output: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let pairs = text.split_terminator('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What shellcheck says about a text; none, with the reason printed, where it is not installed.
pub fn shellcheck(shell: &str, text: &str) -> Option<String> {
    if find("shellcheck").is_none() {
        assert!(
            std::env::var_os("XTASK_REQUIRE_ENGINES").is_none_or(|value| value != "1"),
            "shellcheck is required here"
        );
        eprintln!("skipped: there is no shellcheck on this machine");
        return None;
    }
    let mut command = Command::new("shellcheck");
    // 1090, 1091: the files that are sourced exist in the image only. 2016: values with `$` are data.
    command.args(["--shell", shell, "--exclude", "SC1090,SC1091,SC2016", "--severity", "style", "-"]);
    let output = feed(command, text);
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
