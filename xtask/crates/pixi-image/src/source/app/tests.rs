use std::os::unix::fs::{PermissionsExt, symlink};

use rattler_conda_types::{PackageRecord, RepoDataRecord, Subdir, Version};

use super::*;
use crate::activation::ENTRYPOINT_PATH;
use crate::model::{CondaPackage, Digest};

/// Keeps everything, and checks that a file's content is as long as was said.
#[derive(Default)]
struct Recorder {
    entries: Vec<(Entry, Vec<u8>)>,
    refuse: Option<&'static str>,
}

impl EntrySink for Recorder {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.check();
        if self.refuse.is_some_and(|path| entry.path.as_bytes() == path.as_bytes()) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.entries.push((entry.clone(), Vec::new()));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.entries.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }
}

impl Recorder {
    fn check(&self) {
        if let Some((Entry { kind: EntryKind::File { size }, path, .. }, content)) = self.entries.last() {
            assert_eq!(*size, content.len() as u64, "{path}");
        }
    }

    fn listing(&self) -> Vec<String> {
        let line = |(entry, _): &(Entry, Vec<u8>)| format!("{:o} {}", entry.mode.0, entry.path);
        self.entries.iter().map(line).collect()
    }

    fn text(&self, path: &str) -> &str {
        let found = self.entries.iter().find(|(entry, _)| entry.path.as_bytes() == path.as_bytes());
        std::str::from_utf8(&found.unwrap_or_else(|| panic!("no {path}")).1).unwrap()
    }
}

fn environment() -> Environment {
    Environment {
        name: "gpu".to_owned(),
        subdir: Subdir::Linux64,
        platform: "p1".to_owned(),
        cuda: None,
        virtual_packages: Vec::new(),
        lock_hash: None,
        packages: Vec::new(),
    }
}

fn run(application: Option<&Path>, sink: &mut Recorder) -> Result<(), AppError> {
    let environment = environment();
    let entrypoint =
        Entrypoint { path: ENTRYPOINT_PATH, content: b"#!/bin/sh\n".to_vec(), oci: vec![ENTRYPOINT_PATH.to_owned()] };
    let input = AppInput {
        application,
        manifest: b"[workspace]\n",
        lock: b"version: 7\n",
        environment: &environment,
        entrypoint: Some(&entrypoint),
        mtime: 11,
    };
    push(&input, sink)
}

fn pushed(application: &Path) -> Recorder {
    let mut sink = Recorder::default();
    run(Some(application), &mut sink).unwrap();
    sink.check();
    sink
}

fn refused(application: &Path) -> String {
    run(Some(application), &mut Recorder::default()).unwrap_err().to_string()
}

fn write(path: PathBuf, mode: u32, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn everything_comes_in_the_order_of_the_paths_with_modes_that_no_umask_touches() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join("b/deep/run.sh"), 0o4710, "run");
    write(dir.path().join("b-side.py"), 0o600, "side");
    write(dir.path().join("a.py"), 0o666, "a");
    write(dir.path().join(".hidden"), 0o644, "");
    for skipped in [".git/config", ".pixi/envs/x", "__pycache__/a.pyc", "b/__pycache__/c.pyc"] {
        write(dir.path().join(skipped), 0o644, "skipped");
    }
    symlink("../a.py", dir.path().join("b/link")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let sink = pushed(dir.path());
    assert_eq!(
        sink.listing(),
        [
            "755 app",
            "755 app/.pixi",
            "644 app/.pixi/.condapackageignore",
            "644 app/.pixi/.gitignore",
            "755 app/.pixi/environment",
            "755 app/.pixi/environment/conda-meta",
            "644 app/.pixi/environment/conda-meta/history",
            "644 app/.pixi/environment/conda-meta/pixi",
            "644 app/.pixi/environment/conda-meta/pixi_env_prefix",
            "755 app/.pixi/envs",
            "777 app/.pixi/envs/gpu",
            "755 app/entrypoint.sh",
            "644 app/pixi.lock",
            "644 app/pixi.toml",
            "755 app/src",
            "644 app/src/.hidden",
            "644 app/src/a.py",
            "755 app/src/b",
            "644 app/src/b-side.py",
            "755 app/src/b/deep",
            "755 app/src/b/deep/run.sh",
            "777 app/src/b/link",
            "755 app/src/empty",
        ]
    );
    assert!(sink.entries.iter().all(|(entry, _)| entry.mtime == 11));
    assert_eq!(sink.text("app/src/b/deep/run.sh"), "run");
    let (link, _) = sink.entries.iter().find(|(entry, _)| entry.path.file_name() == b"link").unwrap();
    assert_eq!(link.kind, EntryKind::Symlink { target: b"../a.py".to_vec() });
}

#[test]
fn pixi_finds_its_own_files() {
    let mut sink = Recorder::default();
    run(None, &mut sink).unwrap();
    let marker: serde_json::Value = serde_json::from_str(sink.text("app/.pixi/environment/conda-meta/pixi")).unwrap();
    assert_eq!(marker["manifest_path"], "/app/pixi.toml");
    assert_eq!(marker["environment_name"], "gpu");
    assert_eq!(marker["environment_lock_file_hash"], "invalid-hash");
    assert_eq!(sink.text("app/.pixi/environment/conda-meta/pixi_env_prefix"), "/app/.pixi/envs/gpu/conda-meta");
    let (link, _) = sink.entries.iter().find(|(entry, _)| entry.path.as_bytes() == b"app/.pixi/envs/gpu").unwrap();
    assert_eq!(link.kind, EntryKind::Symlink { target: b"../environment".to_vec() });
    assert_eq!(sink.text("app/.pixi/.gitignore"), "*\n!config.toml\n");
    assert_eq!(sink.text("app/pixi.lock"), "version: 7\n");
    assert!(!sink.listing().iter().any(|line| line.contains("app/src")));
}

#[test]
fn an_environment_of_a_row_that_promises_something_is_told_as_pixi_tells_it() {
    let mut record = PackageRecord::new("a".parse().unwrap(), Version::major(1), "0".parse().unwrap());
    record.depends = ["__glibc >=2.17,<3.0.a0", "b", "__cuda"].map(str::to_owned).to_vec();
    let record = RepoDataRecord {
        package_record: record,
        identifier: "a-1-0.conda".parse().unwrap(),
        url: "https://example.invalid/linux-64/a-1-0.conda".parse().unwrap(),
        channel: None,
    };
    let packages = vec![CondaPackage { record, sha256: Digest([0; 32]) }.into()];
    let virtual_packages = vec!["__cuda=12".to_owned(), "__unix=0=0".to_owned()];
    let told = marker(&Environment { virtual_packages, lock_hash: Some("5f".into()), packages, ..environment() });
    assert_eq!(told["environment_lock_file_hash"], "5f");
    let resolved = json!({"subdir": "linux-64", "virtual_packages": ["__cuda=12", "__unix=0=0"]});
    assert_eq!(told["resolved_platform"], resolved);
    let needed = json!({"subdir": "linux-64", "requirements": ["__cuda", "__glibc >=2.17,<3.0.a0"]});
    assert_eq!(told["minimum_supported_platform"], needed);
}

#[test]
fn a_large_file_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let content: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    write(dir.path().join("large"), 0o644, &content);
    assert_eq!(pushed(dir.path()).text("app/src/large"), content);
}

#[test]
fn a_link_out_of_the_application_is_refused_by_name() {
    for (place, target) in
        [("x", "/etc/passwd"), ("x", "../y"), ("a/x", "../../y"), ("a/x", "b/../../../y"), ("x", "..")]
    {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        symlink(target, dir.path().join(place)).unwrap();
        let error = refused(dir.path());
        assert!(error.contains(&dir.path().join(place).display().to_string()) && error.contains(target), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    symlink("a/../not-there-yet", dir.path().join("x")).unwrap();
    pushed(dir.path());
}

#[test]
fn what_is_no_file_is_refused_by_name_and_kind() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("talk")).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("talk") && error.contains("a socket"), "{error}");
}

#[test]
fn what_cannot_be_read_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = refused(&missing);
    assert!(error.contains(&missing.display().to_string()) && error.contains("hint: create"), "{error}");

    let denied = AppError::Read { path: missing, source: io::Error::from(io::ErrorKind::PermissionDenied) };
    assert!(denied.to_string().contains("hint: make it readable"), "{denied}");
    write(dir.path().join("secret.py"), 0o000, "x");
    if File::open(dir.path().join("secret.py")).is_ok() {
        eprintln!("skipped: this user reads every file");
        return;
    }
    let error = refused(dir.path());
    assert!(error.contains("secret.py") && error.contains("hint: make it readable"), "{error}");
}

#[test]
fn a_file_that_grew_or_shrank_is_an_error_and_no_wrong_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "four").unwrap();
    for size in [3, 5] {
        let entry =
            Entry { path: ImagePath::new("log").unwrap(), kind: EntryKind::File { size }, mode: Mode::FILE, mtime: 0 };
        let error = copy(&path, &entry, &mut Recorder::default()).unwrap_err();
        assert!(matches!(error, AppError::Changed { .. }), "{error}");
    }
}

#[test]
fn an_entry_that_the_image_does_not_take_is_named() {
    let mut sink = Recorder { refuse: Some("app/pixi.toml"), ..Recorder::default() };
    let error = run(None, &mut sink).unwrap_err().to_string();
    assert!(error.contains("app/pixi.toml"), "{error}");
}
