//! What is made of a wheel is what pip makes of it: the same files, the same text in them, the same list of them.
//!
//! pip is looked for where `.ci/validators` installs one (`XTASK_VALIDATORS`), else an environment is made with the python
//! on PATH. Where neither works the tests are skipped; with `XTASK_REQUIRE_ENGINES=1`, as in CI, they fail.

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/wheels.rs"]
mod wheels;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use packages::{Node, Tree};
use pixi_image::entry::ImagePath;
use pixi_image::model::{Digest, Prefix, WHEEL_INSTALLER};
use pixi_image::publish::Readable;
use pixi_image::source::placement::Placement;
use pixi_image::source::python::Python;
use pixi_image::source::wheel;
use rattler_conda_types::Subdir;
use wheels::{File, MadeWheel};

type Check = (&'static str, fn(&Pip));

const CHECKS: [Check; 4] = [
    ("a_pure_wheel_with_commands_and_scripts_is_what_pip_makes_of_it", pure),
    ("a_binary_wheel_is_what_pip_makes_of_it", binary),
    ("strange_names_are_what_pip_makes_of_them", strange_names),
    ("the_commands_run_and_python_finds_the_package", commands_run),
];

fn main() -> ExitCode {
    // Found once, by the first that needs it, and removed at the end.
    let pip = Arc::new(OnceLock::new());
    let trials = CHECKS.map(|(name, run)| {
        let pip = Arc::clone(&pip);
        Trial::ignorable_test(name, move || trial(run, &pip))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn trial(run: fn(&Pip), pip: &OnceLock<Result<Pip, String>>) -> Result<Completion, Failed> {
    match pip.get_or_init(Pip::find) {
        Ok(pip) => {
            run(pip);
            Ok(Completion::Completed)
        }
        Err(reason) if std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1") => {
            Err(Failed::from(format!("no pip, but it is required here: {reason}")))
        }
        Err(reason) => Ok(Completion::ignored_with(format!("skipped: no pip: {reason}"))),
    }
}

/// A python of a virtual environment, with pip. Nothing is ever installed into that.
struct Pip {
    python: PathBuf,
    minor: u64,
    _environment: Option<tempfile::TempDir>,
}

impl Pip {
    fn find() -> Result<Self, String> {
        let installed = std::env::var_os("XTASK_VALIDATORS").map(|place| PathBuf::from(place).join("python"));
        let (python, environment) = match installed.filter(|python| python.exists()) {
            Some(python) => (python, None),
            None => {
                let environment = tempfile::tempdir().map_err(|error| error.to_string())?;
                said(Command::new("python3").args(["-m", "venv"]).arg(environment.path()))?;
                (environment.path().join("bin/python"), Some(environment))
            }
        };
        said(Command::new(&python).args(["-m", "pip", "--version"]))?;
        let version = said(Command::new(&python).args(["-c", "import sys; print(*sys.version_info[:2])"]))?;
        let minor = version.trim().strip_prefix("3 ").and_then(|minor| minor.parse().ok());
        let minor = minor.ok_or_else(|| format!("its python has the version {version}"))?;
        Ok(Self { python, minor, _environment: environment })
    }

    /// The files that pip makes of a wheel below an empty prefix, but for those of bytecode.
    fn install(&self, made: &MadeWheel) -> BTreeMap<String, (Vec<u8>, bool)> {
        let directory = tempfile::tempdir().unwrap();
        made.write(directory.path());
        let out = directory.path().join("out");
        let mut pip = Command::new(&self.python);
        // By name, so that it is a wheel of an index and not one that was named itself.
        pip.args(["-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--ignore-installed"])
            .args(["--disable-pip-version-check", "--no-warn-script-location", "--find-links"])
            .arg(directory.path())
            .arg("--prefix")
            .arg(&out)
            .arg(format!("{}=={}", made.name, made.version))
            .env_clear() // of what configures pip
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("HOME", directory.path())
            .current_dir(directory.path());
        said(&mut pip).unwrap();
        let mut found = BTreeMap::new();
        walk(&out, &out, &mut found);
        found
    }

    fn of_environment(&self) -> Python {
        Python::of_version(3, self.minor, None).unwrap()
    }
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, (Vec<u8>, bool)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, found);
            continue;
        }
        let executable = path.metadata().unwrap().permissions().mode() & 0o111 != 0;
        // In a virtual environment headers go one directory deeper.
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace("include/site/python", "include/python");
        found.insert(name, (fs::read(&path).unwrap(), executable));
    }
}

/// The files that are made of a wheel here, by their path below the prefix.
fn ours(pip: &Pip, made: &MadeWheel, prefix: &Prefix) -> BTreeMap<String, (Vec<u8>, bool)> {
    let directory = tempfile::tempdir().unwrap();
    let archive = Readable::at(made.write(directory.path()));
    let locked = made.locked("https://example.org/w.whl");
    let (python, moved) = (pip.of_environment(), BTreeMap::new());
    let placement =
        Placement { prefix, python: Some(&python), subdir: Subdir::Linux64, moved: &moved, shared: &BTreeSet::new() };
    let index = wheel::read_index(&archive).unwrap();
    let planned: BTreeSet<ImagePath> = index
        .installed_paths(&locked, Some(&python))
        .unwrap()
        .into_iter()
        .filter(|installed| !installed.directory)
        .map(|installed| installed.path)
        .collect();
    let mut tree = Tree::default();
    wheel::stream(&archive, &locked, &index, &placement, &mut tree).unwrap();
    tree.finish();
    let below = format!("{}/", prefix.relative());
    let nodes = tree.nodes.into_iter().map(|(path, node)| match node {
        Node::File { content, executable, .. } => {
            (path.lossy().strip_prefix(&below).unwrap().to_owned(), (content, executable))
        }
        Node::Symlink(_) => panic!("{path} is a link"),
    });
    let nodes: BTreeMap<_, _> = nodes.collect();
    let made: BTreeSet<ImagePath> = nodes.keys().map(|path| ImagePath::new(path).unwrap()).collect();
    assert_eq!(made, planned, "what is planned is what is made");
    nodes
}

/// Compares the two trees, but for what must differ: who installed it, the path of python, the launcher's text.
fn compare(pip: &Pip, made: &MadeWheel, commands: &[&str]) {
    let mut expected = pip.install(made);
    let mut found = ours(pip, made, &Prefix::of_environment("x"));
    let site = format!("lib/python3.{}/site-packages", pip.minor);
    let metadata = format!("{site}/{}", made.metadata_path(""));
    let [rows, expected_rows] = [&mut found, &mut expected].map(|tree| {
        let installer = tree.remove(&format!("{metadata}INSTALLER")).unwrap().0;
        assert!([b"uv-pixi".as_slice(), b"pip\n"].contains(&installer.as_slice()));
        let record = tree.remove(&format!("{metadata}RECORD")).unwrap().0;
        rows(&record)
    });
    // pip keeps a line for the older launcher that it leaves out.
    let paths = |rows: &BTreeMap<String, (String, String)>| {
        rows.keys().filter(|path| !path.contains(".data/")).cloned().collect::<Vec<_>>()
    };
    assert!(!rows.keys().any(|path| path.contains(".data/")));
    assert_eq!(paths(&rows), paths(&expected_rows), "RECORD lists the same files");
    for (path, (digest, size)) in &rows {
        let place = resolve(&site, path);
        let Some((content, _)) = found.get(&place) else {
            assert!(path.ends_with("/INSTALLER") || path.ends_with("/RECORD"), "{path} is listed and absent");
            continue;
        };
        assert_eq!((digest, size), (&wheels::checksum(content), &content.len().to_string()), "{path}");
        if !place.starts_with("bin/") {
            assert_eq!((digest, size), (&expected_rows[path].0, &expected_rows[path].1), "{path}");
        }
    }
    let interpreter = format!("#!/app/.pixi/envs/x/bin/python3.{}", pip.minor);
    for (tree, interpreter) in [(&mut found, interpreter), (&mut expected, format!("#!{}", pip.python.display()))] {
        for (path, (content, executable)) in tree.iter_mut() {
            let Some(rest) = content.strip_prefix(interpreter.as_bytes()) else { continue };
            assert!(path.starts_with("bin/") && *executable, "{path}");
            *content = [b"#!PYTHON", rest].concat();
            if commands.iter().any(|command| *path == format!("bin/{command}")) {
                *content = said_by_launcher(content).into_bytes();
            }
        }
    }
    assert_eq!(shown(&found), shown(&expected));
    for command in commands {
        assert!(found.contains_key(&format!("bin/{command}")), "{command}");
    }
}

/// Path, digest and size of each line, by path.
fn rows(record: &[u8]) -> BTreeMap<String, (String, String)> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(record);
    let text = |row: &csv::StringRecord, at: usize| row.get(at).unwrap_or_default().to_owned();
    let row = |row: csv::StringRecord| {
        let path = text(&row, 0).replace("include/site/python", "include/python");
        (path, (text(&row, 1), text(&row, 2)))
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

fn resolve(site: &str, path: &str) -> String {
    match path.strip_prefix("../../../") {
        Some(path) => path.to_owned(),
        None => format!("{site}/{path}"),
    }
}

/// What a launcher imports and calls; what stands around that differs between installers.
fn said_by_launcher(script: &[u8]) -> String {
    let text = String::from_utf8(script.to_vec()).unwrap();
    let matters = |line: &&str| line.starts_with("#!") || line.starts_with("from ") || line.contains("sys.exit(");
    text.lines().filter(matters).map(str::trim).collect::<Vec<_>>().join("\n")
}

fn shown(tree: &BTreeMap<String, (Vec<u8>, bool)>) -> BTreeMap<&str, (String, bool)> {
    let text = |content: &[u8]| match std::str::from_utf8(content) {
        Ok(text) => text.to_owned(),
        Err(_) => Digest::of(content).to_string(),
    };
    tree.iter().map(|(path, (content, executable))| (path.as_str(), (text(content), *executable))).collect()
}

fn with_everything() -> MadeWheel {
    let long = "x = 1\n".repeat(50_000);
    let mut made = MadeWheel::new(
        "Oracle_Pure",
        [
            File::new("oracle_pure/__init__.py", "def main():\n    print('main was called')\n"),
            File::new(
                "oracle_pure/cli.py",
                "class C:\n    @staticmethod\n    def run():\n        print('run was called')\n",
            ),
            File::new("oracle_pure/large.py", long),
            File::new("oracle_pure/empty.py", ""),
            File::new("oracle_pure/tool.sh", "#!/bin/sh\necho tool\n").executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/oracle-script", "#!python\nprint('script was run')\n")
                .executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/oracle-arguments", "#!python3 -E\r\nprint('ran')\n").executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/oracle-window", "#!pythonw\nprint('window')\n").executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/oracle-shell", "#!/bin/sh\necho shell\n").executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/short", "#!py").executable(),
            File::new("Oracle_Pure-1.2.3.data/scripts/oracle-main", "#!python\nan older launcher\n").executable(),
            File::new("Oracle_Pure-1.2.3.data/data/share/oracle/data.txt", "data\n"),
            File::new("Oracle_Pure-1.2.3.data/data/etc/oracle.conf", "key = 1\n"),
            File::new("Oracle_Pure-1.2.3.data/purelib/oracle_more/pure.py", "pure = True\n"),
            File::new("Oracle_Pure-1.2.3.data/platlib/oracle_more/plat.py", "plat = True\n"),
            File::new("Oracle_Pure-1.2.3.dist-info/licenses/LICENSE", "do what you like\n"),
        ],
    );
    made.directories = vec!["oracle_pure/".to_owned(), "Oracle_Pure-1.2.3.data/".to_owned()];
    made.entry_points(
        "[console_scripts]\noracle-main = oracle_pure:main\noracle.run=oracle_pure.cli:C.run [extra]\n\n[gui_scripts]\n\
         oracle-gui = oracle_pure:main\n[other]\nx = y\n",
    )
}

const COMMANDS: [&str; 3] = ["oracle-main", "oracle.run", "oracle-gui"];

fn pure(pip: &Pip) {
    compare(pip, &with_everything(), &COMMANDS);
}

fn binary(pip: &Pip) {
    let object: Vec<u8> =
        b"\x7fELF".iter().copied().chain((0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8)).collect();
    let tags = format!("cp3{0}-cp3{0}-manylinux_2_5_x86_64.linux_x86_64", pip.minor);
    // What is installed is the same on every machine, but pip takes only what runs on this one.
    let tags = if cfg!(target_arch = "x86_64") { tags } else { "py3-none-any".to_owned() };
    let made = MadeWheel::new(
        "oracle_binary",
        [
            File::new("oracle_binary/__init__.py", "from . import native\n"),
            File::new("oracle_binary/native.so", object.clone()).executable(),
            File::new("oracle_binary.libs/libnative-1.so", object.clone()),
            File::new("oracle_binary-1.2.3.data/scripts/oracle-program", object).executable(),
        ],
    );
    compare(pip, &made.tags(&tags), &[]);
    // pip names the directory of headers as the wheel does, uv by the normalized name: here both are one.
    let headers =
        MadeWheel::new("oracleh", [File::new("oracleh-1.2.3.data/headers/sub/native.h", "#define NATIVE 1\n")]);
    compare(pip, &headers, &[]);
}

fn strange_names(pip: &Pip) {
    let made = MadeWheel::new(
        "oracle_names",
        [
            File::new("oracle_names/with space.py", "1\n"),
            File::new("oracle_names/comma,quote\".py", "2\n")
                .line(Some(&format!("\"oracle_names/comma,quote\"\".py\",{},2", wheels::checksum(b"2\n")))),
            File::new("oracle_names/\u{fc}ml\u{e4}ut.py", "3\n"),
            File::new("oracle_names-1.2.3.data/data/share/deep/er/x y", "4\n"),
        ],
    );
    compare(pip, &made, &[]);
}

/// Laid out at the prefix that it is made for, with the python of pip in the place of the environment's.
fn commands_run(pip: &Pip) {
    let directory = tempfile::tempdir().unwrap();
    let prefix = Prefix::at(directory.path().to_str().unwrap()).unwrap();
    for (path, (content, executable)) in ours(pip, &with_everything(), &prefix) {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 })).unwrap();
    }
    let interpreter = directory.path().join(format!("bin/python3.{}", pip.minor));
    fs::write(&interpreter, format!("#!/bin/sh\nexec {} \"$@\"\n", pip.python.display())).unwrap();
    fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)).unwrap();
    let modules = directory.path().join(format!("lib/python3.{}/site-packages", pip.minor));
    let run = |program: &Path, arguments: &[&str]| {
        said(Command::new(program).args(arguments).env("PYTHONPATH", &modules).env("PYTHONDONTWRITEBYTECODE", "1"))
            .unwrap()
    };
    let bin = |name: &str| directory.path().join("bin").join(name);
    assert_eq!(run(&bin("oracle-main"), &[]), "main was called\n");
    assert_eq!(run(&bin("oracle.run"), &[]), "run was called\n");
    assert_eq!(run(&bin("oracle-gui"), &[]), "main was called\n");
    assert_eq!(run(&bin("oracle-script"), &[]), "script was run\n");
    assert_eq!(run(&bin("oracle-window"), &[]), "window\n");
    let script = "import importlib.metadata as m; d = m.distribution('oracle-pure'); \
                  print(d.version, d.read_text('INSTALLER'), all(f.locate().exists() for f in d.files))";
    assert_eq!(run(&interpreter, &["-c", script]), "1.2.3 uv-pixi True\n");
    // What `apptainer test` asks.
    symlink(&interpreter, bin("python")).unwrap();
    for (wheels, answer) in [("1", "all there\n"), ("2", "not all of 2 packages from PyPI are installed\n")] {
        let question = include_str!("../src/singularity/test-wheels.sh");
        let question = question.replace("{installer}", WHEEL_INSTALLER).replace("{wheels}", wheels);
        let path = format!("{}:/usr/bin:/bin", directory.path().join("bin").display());
        let script = format!("PATH={path}; fail() {{ echo \"$1\"; exit 0; }}\n{question}echo all there\n");
        assert_eq!(run(Path::new("/bin/sh"), &["-c", &script]), answer);
    }
}
