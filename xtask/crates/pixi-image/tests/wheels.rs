//! Wheels of a lock in images and environments, beside the conda packages whose python they are installed for.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/wheels.rs"]
mod wheels;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use packages::{Member, Node, Package, Tree};
use pixi_image::layout::ImageSource;
use pixi_image::lock;
use pixi_image::model::{Digest, Prefix};
use pixi_image::publish::Readable;
use pixi_image::runner::complete;
use pixi_image::runner::root::Root;
use pixi_image::source::placement::{GENERATED_MTIME, Placement};
use pixi_image::source::python::Python;
use pixi_image::source::wheel;
use rattler_conda_types::Subdir;
use serde_json::Value;
use web::Answer;
use wheels::{File, MadeWheel};
use workspace::{OCI, SIF, Workspace, stderr};

const MODULES: &str = "lib/python3.12/site-packages";

/// A workspace with a python, a conda package that has a module, and two wheels.
fn workspace() -> Workspace {
    let python = Package::new("python", [Member::file("bin/python3.12", "#!/bin/sh\necho fake\n").executable()]);
    let native = Package::new(
        "native",
        [Member::file(&format!("{MODULES}/shared.py"), "native\n"), Member::file("share/native", "native\n")],
    );
    let workspace = Workspace::new(&[python.version("3.12.4"), native]);
    add(&workspace, &[first(), second()]);
    workspace
}

/// Serves the wheels and adds them to manifest and lock.
fn add(workspace: &Workspace, made: &[MadeWheel]) {
    let told = made.iter().map(|made| {
        let path = format!("/wheels/{}", made.file_name());
        workspace.web.set(&path, vec![Answer::Bytes(made.bytes())]);
        (workspace.web.url(&path), made.name.as_str(), made.version.as_str(), Digest::of(&made.bytes()))
    });
    let lock = wheels::lock_with(&workspace.lock_text(), &told.collect::<Vec<_>>());
    workspace.write("pixi.lock", lock.as_bytes());
    let wanted: String = made.iter().map(|made| format!("{} = \"*\"\n", made.name)).collect();
    let mut manifest = String::from_utf8(workspace.read("pixi.toml")).unwrap();
    if !manifest.contains("[pypi-dependencies]") {
        manifest.push_str("\n[pypi-dependencies]\n");
    }
    workspace.write("pixi.toml", format!("{manifest}{wanted}").as_bytes());
}

fn first() -> MadeWheel {
    let mut first = MadeWheel::new(
        "first",
        [
            File::new("first/__init__.py", "def main(): pass\n"),
            File::new("first/native.so", vec![7; 300_000]).executable(),
            File::new("shared.py", "first\n"),
            File::new("first-1.2.3.data/scripts/first-script", "#!python -E\nprint(1)\n"),
            File::new("first-1.2.3.data/data/etc/conda/env_vars.d/first.json", r#"{"FROM_WHEEL": "yes"}"#),
        ],
    );
    first.directories = vec!["first/plugins/".to_owned(), "first-1.2.3.data/data/var/first/".to_owned()];
    first.entry_points("[console_scripts]\nfirst = first:main\n").tags("cp312-abi3-manylinux_2_17_x86_64")
}

fn second() -> MadeWheel {
    MadeWheel::new("second", [File::new("second.py", "x = 2\n"), File::new("shared.py", "second\n")])
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(&output));
    output
}

/// Mode, time and content of every file of an OCI archive; the modes of its directories.
fn files(place: &Path) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
    let source = ImageSource::open(place).unwrap();
    let image = source.image("amd64").unwrap();
    let mut files = BTreeMap::new();
    for descriptor in image.manifest.layers() {
        let mut layer = tar::Archive::new(source.layer(descriptor).unwrap());
        for entry in layer.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (mode, mtime) = (entry.header().mode().unwrap(), entry.header().mtime().unwrap());
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, (mode, mtime, content));
        }
    }
    files
}

#[test]
fn an_image_has_the_files_of_its_wheels_where_its_python_wants_them() {
    let workspace = workspace();
    let said = stderr(&succeeds(&mut workspace.build()));
    assert!(said.contains("\n  first-1.2.3  "), "{said}");
    let files = files(&workspace.work(OCI));
    let at = |path: &str| &files[&format!("app/.pixi/environment/{path}")];
    let text = |path: &str| String::from_utf8(at(path).2.clone()).unwrap();
    let zip_time = 1_680_674_828; // 2023-04-05 06:07:08, taken for UTC
    assert_eq!(at(&format!("{MODULES}/first/native.so")), &(0o755, zip_time, vec![7; 300_000]));
    assert_eq!(at(&format!("{MODULES}/second.py")), &(0o644, zip_time, b"x = 2\n".to_vec()));
    assert_eq!(text("bin/first-script"), "#!/app/.pixi/environment/bin/python3.12\nprint(1)\n");
    assert_eq!(at("bin/first-script").0, 0o755);
    let command = text("bin/first");
    assert!(command.starts_with("#!/app/.pixi/environment/bin/python3.12\n"), "{command}");
    assert!(command.contains("\nfrom first import main\n") && command.ends_with("    sys.exit(main())\n"), "{command}");
    assert_eq!((at("bin/first").0, at("bin/first").1), (0o755, u64::from(GENERATED_MTIME)));
    assert_eq!(text(&format!("{MODULES}/first-1.2.3.dist-info/INSTALLER")), "uv-pixi");
    assert_eq!(text(&format!("{MODULES}/first-1.2.3.dist-info/REQUESTED")), "");
    for directory in [format!("{MODULES}/first/plugins"), "var/first".to_owned()] {
        assert_eq!(at(&directory).0, 0o755);
    }
    assert!(!files.keys().any(|path| path.ends_with(".pyc") || path.contains(".data/")));

    let config = ImageSource::open(&workspace.work(OCI)).unwrap().image("amd64").unwrap().config;
    let env = config.config().as_ref().unwrap().env().clone().unwrap();
    assert!(env.contains(&"FROM_WHEEL=yes".to_owned()), "{env:?}");
}

#[test]
fn a_wheel_is_fetched_and_packed_once_and_gives_the_same_bytes_each_time() {
    let workspace = workspace();
    succeeds(&mut workspace.build());
    let right = workspace.digests();
    let asked = workspace.web.asked().len();
    workspace.forget_results();
    let said = stderr(&succeeds(workspace.build().arg("--offline")));
    assert_eq!(said.matches("(cached)").count(), 4, "{said}");
    assert_eq!((workspace.digests(), workspace.web.asked().len()), (right, asked));
    for jobs in ["1", "16"] {
        workspace.forget_results();
        let cache = workspace.path("tmp").join(jobs);
        succeeds(workspace.build().env("PIXI_IMAGE_CACHE", cache).env("TZ", "Pacific/Kiritimati").args(["-j", jobs]));
        assert_eq!(workspace.digests(), right, "-j{jobs}");
    }
    assert!(workspace.work(SIF).exists());
}

#[test]
fn of_a_path_that_several_ship_the_last_wheel_wins_and_each_record_tells_where_its_file_is() {
    let workspace = workspace();
    let said = stderr(&succeeds(&mut workspace.build()));
    let clash = format!("{MODULES}/shared.py is shipped by second and native, first");
    assert!(said.contains(&clash), "{said}");
    let files = files(&workspace.work(OCI));
    let text = |path: &str| String::from_utf8(files[&format!("app/.pixi/environment/{path}")].2.clone()).unwrap();
    assert_eq!(text(&format!("{MODULES}/shared.py")), "second\n");
    assert_eq!(text(&format!("__clobbers__/first/{MODULES}/shared.py")), "first\n");
    assert_eq!(text(&format!("__clobbers__/native/{MODULES}/shared.py")), "native\n");
    let record = text(&format!("{MODULES}/first-1.2.3.dist-info/RECORD"));
    assert!(record.contains(&format!("../../../__clobbers__/first/{MODULES}/shared.py,sha256=")), "{record}");
    let record = text(&format!("{MODULES}/second-1.2.3.dist-info/RECORD"));
    let line = format!("\nshared.py,{},7\n", wheels::checksum(b"second\n"));
    assert!(record.contains(&line) && record.contains("second-1.2.3.dist-info/RECORD,,\n"), "{record}");
}

#[test]
fn a_file_that_wheels_bring_alike_is_there_once_and_in_each_record() {
    let workspace = workspace();
    let part = |name: &str, executable: bool| {
        let shared = File::new("space/__init__.py", "");
        let shared = if executable { shared.executable() } else { shared };
        MadeWheel::new(name, [shared, File::new(&format!("space/{name}.py"), "x")])
    };
    add(&workspace, &[part("part_a", false), part("part_b", false), part("part_c", false)]);
    let said = stderr(&succeeds(&mut workspace.build()));
    assert!(!said.contains("space/__init__.py"), "{said}");
    let found = files(&workspace.work(OCI));
    let copies: Vec<_> = found.keys().filter(|path| path.ends_with("space/__init__.py")).collect();
    assert_eq!(copies, [&format!("app/.pixi/environment/{MODULES}/space/__init__.py")]);
    for name in ["part_a", "part_b", "part_c"] {
        let record = &found[&format!("app/.pixi/environment/{MODULES}/{name}-1.2.3.dist-info/RECORD")].2;
        let line = format!("space/__init__.py,{},0\n", wheels::checksum(b""));
        assert!(String::from_utf8_lossy(record).contains(&line), "{name}");
    }
    // One that can be run is not the same.
    add(&workspace, &[part("part_d", true)]);
    let said = stderr(&succeeds(&mut workspace.build()));
    assert!(said.contains("space/__init__.py is shipped by part-d and part-a, part-b, part-c"), "{said}");
}

#[test]
fn a_version_may_say_only_in_the_file_name_what_it_was_built_with() {
    let workspace = workspace();
    let mut made = MadeWheel::new("attention", [File::new("attention.py", "x")]);
    let bytes = made.bytes();
    made.version = "1.2.3+cu12".to_owned();
    let path = format!("/wheels/{}", made.file_name().replace('+', "%2B"));
    workspace.web.set(&path, vec![Answer::Bytes(bytes.clone())]);
    let wheel = (workspace.web.url(&path), "attention", "1.2.3+cu12", Digest::of(&bytes));
    workspace.write("pixi.lock", wheels::lock_with(&workspace.lock_text(), &[wheel]).as_bytes());
    let said = stderr(&succeeds(workspace.build().arg("--frozen")));
    assert!(said.contains("\n  attention-1.2.3+cu12  "), "{said}");
    assert!(files(&workspace.work(OCI)).contains_key(&format!("app/.pixi/environment/{MODULES}/attention.py")));
}

#[test]
fn an_installed_environment_has_the_files_that_an_image_gets() {
    let workspace = workspace();
    succeeds(&mut workspace.build());
    let files = files(&workspace.work(OCI));
    symlink(env!("CARGO_BIN_EXE_pixi-image"), workspace.path("pixi")).unwrap();
    let pixi = |arguments: &[&str]| {
        let mut named = Command::new(workspace.path("pixi"));
        named.args(arguments).current_dir(workspace.work("")).env_clear();
        named.env("HOME", workspace.path("home")).env("PIXI_CACHE_DIR", workspace.path("cache"));
        named
    };
    succeeds(&mut pixi(&["install", "--frozen"]));
    let prefix = workspace.work(".pixi/envs/default");
    let place = prefix.to_str().unwrap().as_bytes();
    let mut compared = 0;
    for (path, (mode, mtime, content)) in &files {
        let Some(path) = path.strip_prefix("app/.pixi/environment/") else { continue };
        let found = prefix.join(path);
        let metadata = fs::symlink_metadata(&found).unwrap_or_else(|error| panic!("{path}: {error}"));
        if path.starts_with("conda-meta") || path.ends_with("/RECORD") || metadata.is_dir() {
            continue;
        }
        assert_eq!((metadata.mode() & 0o777, metadata.mtime() as u64), (*mode, *mtime), "{path}");
        assert_eq!(fs::read(&found).unwrap(), moved(content, place), "{path}");
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
    let listed = String::from_utf8(succeeds(&mut pixi(&["list", "--frozen"])).stdout).unwrap();
    let line = listed.lines().find(|line| line.starts_with("first")).unwrap();
    assert_eq!(line.split_whitespace().take(3).collect::<Vec<_>>(), ["first", "1.2.3", "pypi"], "{listed}");
    let again = stderr(&succeeds(&mut pixi(&["install", "--frozen"])));
    assert!(!again.contains("Installing"), "{again}");
}

/// The text of a script as it is at another place.
fn moved(content: &[u8], place: &[u8]) -> Vec<u8> {
    match content.strip_prefix(b"#!/app/.pixi/environment") {
        Some(rest) => [b"#!", place, rest].concat(),
        None => content.to_vec(),
    }
}

#[test]
fn an_environment_is_complete_when_every_file_of_its_wheels_is_there() {
    let workspace = workspace();
    succeeds(&mut workspace.build());
    let root = tempfile::tempdir().unwrap();
    for (path, (mode, _, content)) in files(&workspace.work(OCI)) {
        let place = root.path().join(&path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        if mode != 0o755 || !content.is_empty() {
            fs::write(place, content).unwrap();
        }
    }
    let locked = lock::read(&workspace.work("pixi.lock"), "default", "linux-64").unwrap();
    let prefix = Prefix::of_packages();
    let check = || complete::check(&Root::open(root.path()).unwrap(), &locked, &prefix);
    let found = check();
    assert_eq!(found.missing, Vec::<String>::new());
    let modules = root.path().join("app/.pixi/environment").join(MODULES);
    fs::remove_file(modules.join("second.py")).unwrap();
    fs::remove_dir_all(modules.join("first-1.2.3.dist-info")).unwrap();
    let missing = check().missing;
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].starts_with("first-1.2.3: ") && missing[0].contains("no metadata in /app"), "{missing:?}");
    assert!(missing[1].ends_with(&format!("/{MODULES}/second.py")), "{missing:?}");
    fs::rename(modules.join("second-1.2.3.dist-info"), modules.join("second-1.2.4.dist-info")).unwrap();
    assert!(check().missing[1].contains("no metadata"), "another version is not the one of the lock");
}

#[test]
fn a_plan_tells_wheels_from_conda_packages() {
    let workspace = workspace();
    let plan =
        |arguments: &[&str]| String::from_utf8(succeeds(workspace.command(["plan"]).args(arguments)).stdout).unwrap();
    let text = plan(&[]);
    assert!(text.starts_with("environment default for linux-64: 4 packages, "), "{text}");
    assert!(text.lines().next().unwrap().ends_with("bytes to download and 2 of unknown size, 4 layers"), "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("first")[..6], ["first", "1.2.3", "-", "?", "pypi", "layer"]);
    assert_eq!(row("native")[4], "conda");
    let json: Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    let package = |name: &str| json["packages"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone();
    assert_eq!((&package("first")["kind"], &package("first")["build"]), (&Value::from("pypi"), &Value::Null));
    assert_eq!(
        (&package("python")["kind"], &package("python")["build"]),
        (&Value::from("conda"), &Value::from("h0_0"))
    );
    assert!(package("second")["url"].as_str().unwrap().ends_with("/wheels/second-1.2.3-py3-none-any.whl"));
}

#[test]
fn a_long_prefix_gets_a_shebang_that_the_kernel_reads_and_signatures_stay_files() {
    let directory = tempfile::tempdir().unwrap();
    let record = |file: &str| File::new(&format!("first-1.2.3.dist-info/{file}"), "{}").line(None);
    let mut made = first();
    made.files.extend([record("RECORD.jws"), record("RECORD.p7s"), record("INSTALLER").line(Some("x,sha256=x,1"))]);
    made.files.retain(|file| !file.path.ends_with("INSTALLER"));
    made.files.push(File::new("first-1.2.3.dist-info/INSTALLER", "somebody else"));
    let archive = Readable::at(made.write(directory.path()));
    let locked = made.locked("https://example.org/w.whl");
    let prefix = Prefix::of_environment(&"long".repeat(40));
    let (python, moved) = (Python::of_version(3, 12, None).unwrap(), BTreeMap::new());
    let placement = Placement {
        prefix: &prefix,
        python: Some(&python),
        subdir: Subdir::Linux64,
        moved: &moved,
        shared: &BTreeSet::new(),
    };
    let index = wheel::read_index(&archive).unwrap();
    let trees = [(); 2].map(|()| {
        let mut tree = Tree::default();
        wheel::stream(&archive, &locked, &index, &placement, &mut tree).unwrap();
        tree.finish();
        tree
    });
    assert_eq!(trees[0].entries, trees[1].entries);
    let at = |path: &str| trees[0].text(&format!("{}/{path}", prefix.relative()));
    let interpreter = format!("{}/bin/python3.12", prefix.as_str());
    assert!(at("bin/first").starts_with(&format!("#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\" #'''\n")));
    assert!(at("bin/first-script").ends_with("#'''\nprint(1)\n"));
    assert_eq!(at(&format!("{MODULES}/first-1.2.3.dist-info/RECORD.jws")), "{}");
    assert_eq!(at(&format!("{MODULES}/first-1.2.3.dist-info/INSTALLER")), "uv-pixi");
    let lines = at(&format!("{MODULES}/first-1.2.3.dist-info/RECORD"));
    assert_eq!(lines.matches("INSTALLER,").count(), 1, "{lines}");
    assert!(matches!(trees[0].node(&format!("{}/bin/first", prefix.relative())), Node::File { executable: true, .. }));
}
