//! The same lock gives the same bytes, whoever builds it where and when; and both formats hold the same files.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "support/packages.rs"]
mod packages;
#[path = "support/varied.rs"]
mod varied;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use packages::{Format, Member, Package};
use pixi_image::layout::ImageSource;
use pixi_image::model::Digest;
use varied::{link, noise, workspace_on_a_base};
use web::Answer;
use workspace::{OCI, SIF, Shelf, Workspace, base, stderr, succeeds};

/// Puts `words` before the command.
fn under(words: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(words[0]);
    outer.args(&words[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    outer.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    outer
}

/// What must be one and the same: the archive, the SIF, the image's manifest, and what docker reads of the archive.
type Artifacts = [Digest; 4];

fn artifacts(archive: &Path, sif: &Path) -> Artifacts {
    let manifest = ImageSource::open(archive).unwrap().image("amd64").unwrap().digest;
    let mut members = tar::Archive::new(fs::File::open(archive).unwrap());
    let of_docker = |entry: &tar::Entry<'_, fs::File>| entry.path_bytes().as_ref() == b"manifest.json";
    let mut docker = members.entries().unwrap().map(Result::unwrap).find(of_docker).unwrap();
    let mut text = Vec::new();
    docker.read_to_end(&mut text).unwrap();
    let [archive, sif] = [archive, sif].map(|place| Digest::of(&fs::read(place).unwrap()));
    [archive, sif, manifest, Digest::of(&text)]
}

struct Variations {
    workspace: Workspace,
    right: Artifacts,
}

impl Variations {
    /// Builds otherwise; all results must be the ones that are known.
    #[track_caller]
    fn check(&self, what: &str, command: &mut Command) {
        self.workspace.forget_results();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{what}: {}", stderr(&output));
        let made = artifacts(&self.workspace.work(OCI), &self.workspace.work(SIF));
        assert_eq!(made, self.right, "{what} changes the image");
        let report = String::from_utf8(output.stdout).unwrap();
        let reported: Vec<&str> = report.lines().filter_map(|line| line.split('\t').nth(1)).collect();
        let sif = fs::read(self.workspace.work(SIF)).unwrap();
        let uuid = pixi_image::sif::Uuid(sif[48..64].try_into().unwrap());
        assert_eq!(reported, [made[2].to_string(), format!("uuid:{uuid}")], "{what}: {report}");
    }

    fn build(&self) -> Command {
        self.workspace.build_on("./base.tar")
    }

    /// With a cache of its own.
    fn cold(&self, name: &str) -> Command {
        let mut build = self.build();
        build.env("PIXI_IMAGE_CACHE", self.workspace.path("tmp").join(name));
        build
    }
}

#[test]
fn one_lock_gives_the_same_bytes_whoever_builds_it_where_and_when() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    let right = artifacts(&workspace.work(OCI), &workspace.work(SIF));
    let variations = Variations { workspace, right };
    variations.check("a warm cache", &mut variations.build());
    variations.check("a cold cache", &mut variations.cold("cold"));
    for jobs in ["1", "3", "16", "32"] {
        variations.check(&format!("-j{jobs}"), variations.cold(&format!("jobs-{jobs}")).args(["-j", jobs]));
    }
    let surroundings = [
        ("TZ", "Pacific/Kiritimati"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("USER", "x"),
    ];
    let mut elsewhere = variations.cold("surroundings");
    variations.check("the environment", elsewhere.envs(surroundings));
    for umask in ["077", "022", "000"] {
        let script = format!("umask {umask}; exec \"$@\"");
        let build = variations.cold(&format!("umask-{umask}"));
        variations.check(&format!("umask {umask}"), &mut under(&["sh", "-c", &script, "sh"], &build));
    }
    another_directory(&variations);
    files_of_another_age(&variations);
    another_user(&variations);
    another_clock(&variations);
    another_file_system(&variations);
}

fn another_directory(variations: &Variations) {
    let mut build = variations.cold("directory");
    let work = |name: &str| variations.workspace.work(name).into_os_string();
    let arguments: Vec<OsString> = build.get_args().map(|argument| argument.to_owned()).collect();
    let mut moved = Command::new(build.get_program());
    for argument in arguments {
        let is_path =
            variations.workspace.work(argument.to_str().unwrap()).exists() || argument == OCI || argument == SIF;
        moved.arg(if is_path { work(argument.to_str().unwrap()) } else { argument });
    }
    moved.arg("--lock").arg(work("pixi.lock")).arg("--manifest").arg(work("pixi.toml"));
    for (name, value) in build.env("XDG_CACHE_HOME", "/nonexistent").get_envs() {
        moved.env(name, value.unwrap_or_default());
    }
    variations.check("another directory", moved.current_dir("/"));
}

/// Times and owners' permissions of inputs are the checkout's, not the author's.
fn files_of_another_age(variations: &Variations) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["pixi.toml", "pixi.lock", "base.tar", "app/z.py", "app/sub/m.py"] {
        let path = variations.workspace.work(name);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    variations.check("times and permissions of the inputs", &mut variations.cold("age"));
}

fn another_user(variations: &Variations) {
    if !machine::is_root() {
        return eprintln!("skipped: only root can build as another user");
    }
    let directory = variations.workspace.directory.path();
    let owned = ["work", "tmp", "home"].map(|name| variations.workspace.path(name));
    variations.check("another user", &mut machine::as_ordinary_user(&variations.cold("user"), directory, &owned));
}

fn another_clock(variations: &Variations) {
    if !Command::new("faketime").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: there is no faketime on this machine");
    }
    for time in ["2001-09-09 01:46:40", "+1y", "2037-01-01 00:00:00"] {
        let build = variations.cold(&format!("clock-{}", time.replace([' ', ':'], "-")));
        variations.check(time, &mut under(&["faketime", "-f", time], &build));
    }
}

fn another_file_system(variations: &Variations) {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("skipped: there is no /dev/shm on this machine");
    };
    let mut build = variations.cold("unused");
    let places = [("--oci", "image.oci.tar"), ("--sif", "image.sif")].map(|(_, name)| directory.path().join(name));
    let arguments: Vec<OsString> = build
        .get_args()
        .map(|argument| match argument {
            argument if argument == OCI => places[0].clone().into_os_string(),
            argument if argument == SIF => places[1].clone().into_os_string(),
            argument => argument.to_owned(),
        })
        .collect();
    let mut moved = Command::new(build.get_program());
    moved.args(arguments).current_dir(variations.workspace.work(""));
    for (name, value) in build.env("PIXI_IMAGE_CACHE", directory.path().join("cache")).get_envs() {
        moved.env(name, value.unwrap_or_default());
    }
    succeeds(&mut moved);
    assert_eq!(artifacts(&places[0], &places[1]), variations.right, "another file system");
}

#[test]
fn what_changes_the_image_changes_its_digest() {
    let workspace = workspace_on_a_base();
    let mut seen = vec![Vec::from(built(&mut workspace.build_on("./base.tar"), &workspace))];
    seen.push(built(workspace.build_on("./base.tar").env("SOURCE_DATE_EPOCH", "1600000000"), &workspace).into());
    seen.push(built(workspace.build_on("./base.tar").args(["--label", "a=b"]), &workspace).into());
    seen.push(built(&mut workspace.build_on("scratch"), &workspace).into());
    workspace.write("app/a.py", b"changed");
    seen.push(built(&mut workspace.build_on("./base.tar"), &workspace).into());
    let mut all: Vec<Digest> = seen.concat();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

fn built(command: &mut Command, workspace: &Workspace) -> [Digest; 2] {
    workspace.forget_results();
    succeeds(command);
    workspace.digests()
}

/// What a reader sees at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Directory(u32, u64),
    File(u32, u64, Digest),
    Symlink(Vec<u8>),
}

#[test]
fn an_image_that_stands_is_left_as_it_is_until_anything_changes() {
    let workspace = workspace_on_a_base();
    let build = |options: &[&str]| {
        succeeds(workspace.build_on("./base.tar").args(options));
        let inodes = [OCI, SIF].map(|name| fs::metadata(workspace.work(name)).unwrap().ino());
        (workspace.digests(), inodes)
    };
    let first = build(&[]);
    assert_eq!(build(&[]), first, "nothing has changed");
    // One is damaged, the other is not.
    let place = workspace.work(SIF);
    let mut bytes = fs::read(&place).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&place, &bytes).unwrap();
    let mended = build(&[]);
    assert_eq!((mended.0, mended.1[0]), (first.0, first.1[0]));
    assert_ne!(mended.1[1], first.1[1]);
    // What is asked for is something else, and then again what it was.
    let other = build(&["--label", "of=another"]);
    assert!(other.0[0] != first.0[0] && other.0[1] != first.0[1]);
    assert_eq!(build(&[]).0, first.0);
}

/// Builds with a new cache, `slow`, while one package is slow to come and the others are packed.
fn built_before_it_arrives(workspace: &Workspace, last: &str, mut build: Command) {
    workspace.answer(last, |bytes| vec![Answer::Slow(bytes, Duration::from_millis(100))]);
    workspace.forget_results();
    let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while files(workspace, "packs") == 0 {
        assert!(build.try_wait().unwrap().is_none(), "it ended without packs");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        files(workspace, "packages") < workspace.shelf.archives.len(),
        "nothing was packed before the last one came"
    );
    assert!(build.wait().unwrap().success());
}

/// How many files a directory of the cache `slow` has.
fn files(workspace: &Workspace, of: &str) -> usize {
    fs::read_dir(workspace.path("slow").join(of)).map_or(0, Iterator::count)
}

#[test]
fn what_arrives_is_packed_while_the_rest_is_on_its_way_and_the_bytes_are_the_same() {
    let workspace = workspace_on_a_base();
    let build = |cache: &str| {
        let mut command = workspace.build();
        command.env("PIXI_IMAGE_CACHE", workspace.path(cache));
        command
    };
    let arriving = built(&mut build("cache"), &workspace);
    for directory in ["packs", "indexes", "diff-ids"] {
        let _ = fs::remove_dir_all(workspace.path("cache").join(directory)); // not all of them are there
    }
    assert_eq!(built(&mut build("cache"), &workspace), arriving, "all packages were at hand");

    built_before_it_arrives(&workspace, "large", build("slow"));
    assert_eq!(workspace.digests(), arriving);
}

#[test]
fn a_package_that_loses_a_path_to_one_that_comes_later_is_packed_again() {
    let of = |name: &str, length: usize| {
        Package::new(name, [Member::file("lib/both", name), Member::file(&format!("lib/{name}"), noise(length))])
    };
    // Its layer is the first, and is written while it is packed for the first time.
    let workspace = Workspace::new(&[of("loser", 3_000_000), of("winner", 2_000_000).depends(&["loser"])]);
    succeeds(&mut workspace.build());
    fs::remove_dir_all(workspace.path("cache/packs")).unwrap();
    let right = built(&mut workspace.build(), &workspace); // all packages are at hand
    let mut build = workspace.build();
    build.env("PIXI_IMAGE_CACHE", workspace.path("slow"));
    built_before_it_arrives(&workspace, "winner", build);
    assert_eq!(workspace.digests(), right);
    assert_eq!(files(&workspace, "packs"), workspace.shelf.archives.len() + 1, "none was packed again");
}

#[test]
fn a_format_alone_has_the_bytes_that_it_has_beside_the_other() {
    let workspace = workspace_on_a_base();
    let both = |cache: &str| {
        let mut command = workspace.build_on("./base.tar");
        built(command.env("PIXI_IMAGE_CACHE", workspace.path(cache)), &workspace)
    };
    let right = both("cache-of-both");
    for (cache, format, name, right) in [("1", "--oci", OCI, right[0]), ("2", "--sif", SIF, right[1])] {
        for cache in [cache, "cache-of-both"] {
            workspace.forget_results();
            let mut alone = workspace.command([
                "build",
                "--base",
                "./base.tar",
                "--reference",
                "w:test",
                "--app",
                "app",
                format,
                name,
            ]);
            succeeds(alone.env("PIXI_IMAGE_CACHE", workspace.path(cache)));
            assert_eq!(Digest::of(&workspace.read(name)), right, "{name} alone, {cache}");
        }
    }
    assert_eq!([both("1"), both("2")], [right; 2], "what was packed for one format is in no image's way");
}

type Tree = BTreeMap<Vec<u8>, Seen>;

/// The layers of an OCI archive, unpacked as runtimes stack them. Also how many there are.
fn oci_tree(place: &Path) -> (Tree, usize) {
    oci_tree_for(place, "amd64")
}

fn oci_tree_for(place: &Path, architecture: &str) -> (Tree, usize) {
    let source = ImageSource::open(place).unwrap();
    let image = source.image(architecture).unwrap();
    let mut tree = Tree::new();
    for descriptor in image.manifest.layers() {
        let mut layer = tar::Archive::new(source.layer(descriptor).unwrap());
        let mut paths = BTreeSet::new();
        for entry in layer.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert!(paths.insert(entry.path_bytes().into_owned()), "a path comes twice in a layer: no docker takes it");
            let header = entry.header();
            let (mode, mtime, kind) = (header.mode().unwrap(), header.mtime().unwrap(), header.entry_type());
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let path = entry.path_bytes().trim_ascii_end().to_vec();
            let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let seen = match kind {
                tar::EntryType::Directory => Seen::Directory(mode, mtime),
                tar::EntryType::Symlink => Seen::Symlink(target),
                tar::EntryType::Link => tree[&target].clone(),
                _ => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).unwrap();
                    Seen::File(mode, mtime, Digest::of(&content))
                }
            };
            tree.insert(path, seen);
        }
    }
    (tree, image.manifest.layers().len())
}

/// The file system of a SIF, read by a library that did not write it.
fn sif_tree(place: &Path) -> Tree {
    let mut file = fs::File::open(place).unwrap();
    let (start, size) = pixi_image::sif::find_squashfs(&mut file).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start)).unwrap();
    file.take(size).read_to_end(&mut bytes).unwrap();
    let filesystem = backhand::FilesystemReader::from_reader(BufReader::new(std::io::Cursor::new(bytes))).unwrap();
    let mut tree = Tree::new();
    for node in filesystem.files() {
        let (mode, mtime) = (u32::from(node.header.permissions), u64::from(node.header.mtime));
        let seen = match &node.inner {
            backhand::InnerNode::Dir(_) => Seen::Directory(mode, mtime),
            backhand::InnerNode::Symlink(link) => Seen::Symlink(link.link.as_os_str().as_bytes().to_vec()),
            backhand::InnerNode::File(file) => {
                let mut content = Vec::new();
                filesystem.file(file).reader().read_to_end(&mut content).unwrap();
                Seen::File(mode, mtime, Digest::of(&content))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((node.header.uid, node.header.gid), (0, 0));
        tree.insert(node.fullpath.as_os_str().as_bytes()[1..].to_vec(), seen);
    }
    tree.remove(&b""[..]);
    tree
}

/// Paths that only a SIF has: what Apptainer reads, and the places over which it mounts.
fn is_of_apptainer(path: &[u8]) -> bool {
    let in_root = [".exec", ".run", ".shell", ".test", "environment", "singularity"];
    let skeleton = pixi_image::singularity::skeleton(0);
    path.starts_with(b".singularity.d")
        || in_root.iter().any(|name| name.as_bytes() == path)
        || skeleton.iter().any(|(entry, _)| entry.path.as_bytes() == path)
}

/// Both formats hold the same files.
fn assert_same_trees(workspace: &Workspace) -> (Tree, usize) {
    let (oci, layers) = oci_tree(&workspace.work(OCI));
    // A SIF has the packages where it shows them, and the link at the other place.
    let (shared, shown) = (b"app/.pixi/environment", b"app/.pixi/envs/default");
    let place = |(path, seen): (Vec<u8>, Seen)| match path.strip_prefix(shown) {
        Some(below) => ([&shared[..], below].concat(), seen),
        None => (path, seen),
    };
    let mut sif = sif_tree(&workspace.work(SIF));
    assert_eq!(sif.remove(&shared[..]), Some(Seen::Symlink(b"envs/default".to_vec())));
    let mut sif: Tree = sif.into_iter().map(place).collect();
    sif.insert(shown.to_vec(), oci[&shown[..]].clone());
    for (path, seen) in &oci {
        assert_eq!(sif.get(path), Some(seen), "{}", String::from_utf8_lossy(path));
    }
    let mut parents: Vec<PathBuf> = Vec::new(); // directories that no entry of a layer names
    for path in oci.keys() {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        parents.extend(path.ancestors().skip(1).map(Path::to_owned));
    }
    for path in sif.keys().filter(|path| !oci.contains_key(*path) && !is_of_apptainer(path)) {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        assert!(parents.contains(&path.to_owned()), "{} is in the SIF only", path.display());
    }
    (oci, layers)
}

#[test]
fn both_formats_hold_the_same_files() {
    let workspace = workspace_on_a_base();
    for base in ["./base.tar", "scratch"] {
        succeeds(&mut workspace.build_on(base));
        let (tree, _) = assert_same_trees(&workspace);
        let prefix = "app/.pixi/environment";
        for path in [
            "bin/pure",
            "bin/another",
            "bin/old",
            "lib/third",
            "__clobbers__/links/lib/small",
            "conda-meta/pure-1.2.3-h0_0.json",
        ] {
            assert!(tree.contains_key(format!("{prefix}/{path}").as_bytes()), "{path}");
        }
    }
}

/// The packages of each layer, as the history of an OCI archive has them.
fn layers_of_packages(place: &Path) -> Vec<Vec<String>> {
    let image = ImageSource::open(place).unwrap().image("amd64").unwrap();
    let history = image.config.history().iter().flatten().filter_map(|history| history.created_by().clone());
    let packages = history.filter_map(|by| by.strip_prefix("pixi-image: ").map(str::to_owned));
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    packages.filter(|text| !text.starts_with("application files")).map(words).collect()
}

/// The same, as `pixi-image plan` has them before anything is downloaded.
fn planned_layers(workspace: &Workspace) -> Vec<Vec<String>> {
    let plan = workspace.command(["plan", "--json"]).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let names = |layer: &serde_json::Value| serde_json::from_value(layer["packages"].clone()).unwrap();
    plan["layers"].as_array().unwrap().iter().map(names).collect()
}

#[test]
fn of_many_packages_some_share_a_layer_and_both_formats_hold_the_same_files() {
    let mut shelf = Shelf::default();
    for number in 0..150 {
        let name = format!("p{number:03}");
        let members = [
            Member::file(&format!("lib/{name}/large"), noise(1000 + number * 900)),
            Member::file(&format!("lib/{name}/small"), format!("of {name}\n")),
            Member::file("share/shared", format!("of {name}\n")),
            link(&format!("lib/{name}/link"), "small"),
        ];
        // Every tenth ships what others ship too.
        let members = members.into_iter().filter(|member| number % 10 == 0 || member.path != "share/shared");
        shelf.add(&Package::new(&name, members.collect::<Vec<_>>()), Format::ALL[number % 2]);
    }
    let workspace = Workspace::of(shelf);
    base(&workspace.work("base.tar"), "amd64", &[("bin/sh", "#!")]);
    succeeds(&mut workspace.build_on("./base.tar"));
    let right = workspace.digests();
    let (tree, layers) = assert_same_trees(&workspace);
    assert!((50..=100).contains(&layers), "{layers} layers");
    let made = layers_of_packages(&workspace.work(OCI));
    assert_eq!(made.iter().flatten().count(), 150);
    assert_eq!(made, planned_layers(&workspace));
    let records = tree.keys().filter(|path| path.starts_with(b"app/.pixi/environment/conda-meta/p")).count();
    assert!(records >= 150, "{records} records");
    fs::remove_dir_all(workspace.path("cache")).unwrap();
    assert_eq!(built(workspace.build_on("./base.tar").args(["-j", "8"]), &workspace), right);
}

#[test]
fn images_for_another_architecture_are_made_of_its_packages_and_say_what_they_are_for() {
    let mut shelf = Shelf::default();
    for (subdir, content) in [("linux-64", "x86"), ("linux-aarch64", "arm")] {
        let native =
            Package::new("native", [Member::file("lib/which", content)]).made_for(subdir).depends(&["__glibc"]);
        shelf.add(&native, Format::Conda);
    }
    let shared = Package::new("shared", [Member::file("share/for-all", "all")]).noarch("generic");
    shelf.add(&shared, Format::TarBz2);
    let workspace = Workspace::of(shelf);
    let files = [("bin/bash", "#!"), ("etc/motd", "of arm")];
    base(&workspace.work("base.tar"), "arm64", &files);
    for base in ["./base.tar", "scratch"] {
        succeeds(workspace.build_on(base).args(["--platform", "linux-aarch64"]));
        let source = ImageSource::open(&workspace.work(OCI)).unwrap();
        assert_eq!(source.image("arm64").unwrap().config.architecture().to_string(), "arm64");
        assert!(source.image("amd64").is_err());
        let mut sif = fs::File::open(workspace.work(SIF)).unwrap();
        let mut header = [0; 48];
        sif.read_exact(&mut header).unwrap();
        assert_eq!(&header[45..48], b"04\0", "the architecture of the header");
        sif.rewind().unwrap();
        let partitions =
            pixi_image::sif::descriptors(&mut sif).unwrap().into_iter().filter_map(|found| found.partition);
        assert_eq!(partitions.map(|partition| partition.architecture).collect::<Vec<_>>(), ["04"]);
        let (oci, sif) = (oci_tree_for(&workspace.work(OCI), "arm64").0, sif_tree(&workspace.work(SIF)));
        for (tree, place) in [(oci, "environment"), (sif, "envs/default")] {
            for (path, content) in [("lib/which", "arm"), ("share/for-all", "all")] {
                let seen = &tree[format!("app/.pixi/{place}/{path}").as_bytes()];
                assert!(
                    matches!(seen, Seen::File(_, _, digest) if *digest == Digest::of(content.as_bytes())),
                    "{seen:?}"
                );
            }
            assert_eq!(tree.contains_key(&b"etc/motd"[..]), base != "scratch");
        }
    }
    // The same lock on the machine's own architecture, and on a base that is for another.
    succeeds(&mut workspace.build_on("scratch"));
    let which = &oci_tree(&workspace.work(OCI)).0[&b"app/.pixi/environment/lib/which"[..]];
    assert!(matches!(which, Seen::File(_, _, digest) if *digest == Digest::of(b"x86")));
    workspace.forget_results();
    workspace.fails(&mut workspace.build_on("./base.tar"), &["base.tar", "linux/amd64", "linux/arm64"]);
}

#[test]
fn a_post_link_script_is_named_and_never_run_whatever_the_configuration_says() {
    let script = "#!/bin/sh\ntouch \"$HOME/it-ran\"\n";
    let scripted = Package::new("scripted", [Member::file("bin/.scripted-post-link.sh", script).executable()]);
    let workspace = Workspace::new(&[scripted]);
    let said = succeeds(&mut workspace.build());
    assert!(said.contains("scripted-1.2.3-h0_0 brings a post-link script; like pixi"), "{said}");
    fs::create_dir_all(workspace.work(".pixi")).unwrap();
    workspace.write(".pixi/config.toml", b"run-post-link-scripts = \"insecure\"\n");
    let said = succeeds(&mut workspace.build());
    assert!(said.contains("whatever `run-post-link-scripts` says, this tool does not run it"), "{said}");
    assert_eq!(fs::read_dir(workspace.path("home")).unwrap().count(), 0);
}
