//! A workspace of made-up packages, a channel that serves them, and the command under test with everything around it watched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pixi_image::model::Digest;
use serde_json::{Value, json};

use crate::packages::{Format, Package};
use crate::web::{Answer, Web};

/// Where what is built goes.
pub const OCI: &str = "out/image.oci.tar";
pub const SIF: &str = "out/image.sif";
/// What stands there before.
pub const OLDER: &[u8] = b"an older result";

/// Packages with their archives, as a channel has them.
#[derive(Default)]
pub struct Shelf {
    records: BTreeMap<String, BTreeMap<String, Value>>,
    pub archives: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    pub fn add(&mut self, package: &Package, format: Format) {
        let directory = tempfile::tempdir().unwrap();
        let built = package.write(directory.path(), format);
        self.add_bytes(package, format, fs::read(built.archive).unwrap());
    }

    /// With an archive that no honest writer makes.
    pub fn add_bytes(&mut self, package: &Package, format: Format, bytes: Vec<u8>) {
        let file = package.file_name(format);
        let locked = package.locked(&Path::new("/").join(&file), &bytes);
        let mut record = serde_json::to_value(&locked.record.package_record).unwrap();
        record["timestamp"] = json!(1_700_000_000_000_u64);
        let subdir = record["subdir"].as_str().unwrap().to_owned();
        self.archives.insert(format!("{subdir}/{file}"), bytes);
        self.records.entry(subdir).or_default().insert(file, record);
    }

    /// What its packages are made for.
    fn platforms(&self) -> Vec<&str> {
        let made_for: Vec<&str> =
            self.records.keys().map(String::as_str).filter(|subdir| *subdir != "noarch").collect();
        if made_for.is_empty() { vec!["linux-64"] } else { made_for }
    }

    fn repodata(&self, subdir: &str) -> Vec<u8> {
        let (mut conda, mut bz2) = (serde_json::Map::new(), serde_json::Map::new());
        for (file, record) in self.records.get(subdir).into_iter().flatten() {
            let list = if file.ends_with(".conda") { &mut conda } else { &mut bz2 };
            list.insert(file.clone(), record.clone());
        }
        json!({"info": {"subdir": subdir}, "packages": bz2, "packages.conda": conda, "repodata_version": 1})
            .to_string()
            .into_bytes()
    }
}

/// A directory with a workspace in `work/`, a cache in `cache/`, a home and a place for temporary files: whatever is touched
/// beside what may be is seen.
pub struct Workspace {
    pub directory: tempfile::TempDir,
    pub web: Web,
    pub shelf: Shelf,
}

impl Workspace {
    pub fn new(packages: &[Package]) -> Self {
        let mut shelf = Shelf::default();
        for (number, package) in packages.iter().enumerate() {
            shelf.add(package, Format::ALL[number % 2]);
        }
        Self::of(shelf)
    }

    /// With a lock of everything on the shelf.
    pub fn of(shelf: Shelf) -> Self {
        let workspace = Self { directory: tempfile::tempdir().unwrap(), web: Web::start(), shelf };
        readable(workspace.directory.path());
        for directory in ["work/app", "work/out", "home", "tmp"] {
            fs::create_dir_all(workspace.path(directory)).unwrap();
        }
        for result in [OCI, SIF] {
            workspace.write(result, OLDER);
        }
        workspace.write("app/main.py", b"print('hello')\n");
        workspace.serve();
        let wanted = |file: &String| format!("{} = \"*\"\n", file.rsplitn(3, '-').nth(2).unwrap());
        let wanted: BTreeSet<String> = workspace.shelf.records.values().flat_map(BTreeMap::keys).map(wanted).collect();
        let wanted: String = wanted.into_iter().collect();
        let platforms = workspace.shelf.platforms();
        let url = workspace.web.url("/channel");
        let manifest = format!(
            "[workspace]\nname = \"w\"\nchannels = [\"{url}\"]\nplatforms = {platforms:?}\n\n[dependencies]\n{wanted}"
        );
        workspace.write("pixi.toml", manifest.as_bytes());
        succeeds(&mut workspace.lock());
        workspace
    }

    pub fn serve(&self) {
        for subdir in self.shelf.platforms().into_iter().chain(["noarch"]) {
            self.web.set(&format!("/channel/{subdir}/repodata.json"), vec![Answer::Bytes(self.shelf.repodata(subdir))]);
        }
        for (path, bytes) in &self.shelf.archives {
            self.web.set(&format!("/channel/{path}"), vec![Answer::Bytes(bytes.clone())]);
        }
    }

    /// Answers for the archive whose name begins so.
    pub fn answer(&self, name: &str, answers: impl FnOnce(Vec<u8>) -> Vec<Answer>) {
        let (path, bytes) = self.shelf.archives.iter().find(|(path, _)| path.contains(&format!("/{name}-"))).unwrap();
        self.web.set(&format!("/channel/{path}"), answers(bytes.clone()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path of the workspace itself.
    pub fn work(&self, name: &str) -> PathBuf {
        self.directory.path().join("work").join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.work(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.work(name)).unwrap()
    }

    pub fn lock_text(&self) -> String {
        fs::read_to_string(self.work("pixi.lock")).unwrap()
    }

    pub fn lock(&self) -> Command {
        self.command(["lock"])
    }

    /// A build of both formats from scratch.
    pub fn build(&self) -> Command {
        self.build_on("scratch")
    }

    pub fn build_on(&self, base: &str) -> Command {
        let mut command = self.command(["build", "--base", base, "--reference", "w:test", "--app", "app"]);
        command.args(["--oci", OCI, "--sif", SIF]);
        command
    }

    /// The command under test, with nothing of this process's environment but what it needs to start.
    pub fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments);
        command.current_dir(self.work("")).env_clear().stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("PIXI_IMAGE_CACHE", self.path("cache"));
        command
    }

    /// Everything below the directory but the cache: kind and content of each path.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe(self.directory.path(), &mut found);
        found.retain(|path, _| !path.starts_with(self.path("cache")));
        found
    }

    /// The files of the cache.
    pub fn cached(&self) -> Vec<PathBuf> {
        let mut found = BTreeMap::new();
        describe(&self.path("cache"), &mut found);
        found.into_iter().filter(|(_, what)| what.starts_with("file")).map(|(path, _)| path).collect()
    }

    /// Digests of both results.
    pub fn digests(&self) -> [Digest; 2] {
        [OCI, SIF].map(|name| Digest::of(&self.read(name)))
    }

    /// Puts the older results back.
    pub fn forget_results(&self) {
        for result in [OCI, SIF] {
            self.write(result, OLDER);
        }
    }

    /// Runs what must fail: with exit code 1, a message of which each part is there, and nothing touched.
    #[track_caller]
    pub fn fails(&self, command: &mut Command, parts: &[&str]) -> String {
        let before = self.snapshot();
        let output = command.output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{:?}: {text}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{text}");
        assert_eq!(self.snapshot(), before, "{text}");
        assert_is_a_message(&text);
        for part in parts {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        self.assert_cache_is_whole();
        text
    }

    /// No file of the cache is half-written.
    #[track_caller]
    pub fn assert_cache_is_whole(&self) {
        for path in self.cached() {
            assert!(path.extension() != Some(OsStr::new("partial")), "{}", path.display());
        }
    }
}

/// What is at and below a path.
fn describe(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let what = if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten() {
            describe(&entry.unwrap().path(), found);
        }
        "directory".to_owned()
    } else if metadata.is_file() {
        format!("file {:?}", fs::read(path).map(|content| Digest::of(&content)).ok())
    } else if metadata.is_symlink() {
        format!("link to {:?}", fs::read_link(path).unwrap())
    } else {
        "something else".to_owned()
    };
    found.insert(path.to_owned(), what);
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{:?}: {text}", output.status);
    assert_is_plain(&text);
    text
}

/// One error in plain words: each cause once, the way out last, nothing of Rust.
#[track_caller]
fn assert_is_a_message(text: &str) {
    assert_is_plain(text);
    let errors: Vec<usize> = text.match_indices("error: ").map(|(at, _)| at).collect();
    let error = match errors.as_slice() {
        [at] if *at == 0 || text[..*at].ends_with('\n') => &text[*at..],
        _ => panic!("not one error in\n{text}"),
    };
    assert!(error.contains("\n  hint: "), "no way out in\n{text}");
    let said = &error[..error.find("\n  hint: ").unwrap()];
    let mut causes: Vec<_> = said.split(": ").filter(|cause| cause.len() > 8).collect();
    let all = causes.len();
    causes.sort();
    causes.dedup();
    assert_eq!(causes.len(), all, "said twice in\n{text}");
    for noise in ["Os {", "Err(", "Some(", "kind:", "Error {", "RUST_BACKTRACE", "Caused by"] {
        assert!(!text.contains(noise), "`{noise}` in\n{text}");
    }
}

#[track_caller]
fn assert_is_plain(text: &str) {
    assert!(!text.contains("panicked"), "{text}");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(control), "control codes in {text:?}");
}

fn readable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_pixi-image")
}

/// A base image of one layer, with the files that are named.
pub fn base(place: &Path, architecture: &str, files: &[(&str, &str)]) {
    use pixi_image::entry::{ImagePath, Mode, push_file};
    let config = pixi_image::archive::BaseConfig {
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cmd: vec!["/bin/sh".to_owned()],
        labels: BTreeMap::new(),
        architecture: architecture.to_owned(),
        created: 1_600_000_000,
    };
    pixi_image::archive::single_layer(place, "base:test", &config, &mut |sink| {
        for (path, content) in files {
            push_file(sink, ImagePath::new(path).unwrap(), Mode::EXECUTABLE, 1_600_000_000, content.as_bytes())?;
        }
        Ok(())
    })
    .unwrap();
}
