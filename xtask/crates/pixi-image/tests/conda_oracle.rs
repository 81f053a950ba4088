//! Streams packages and compares with what rattler's installer makes of them, then streams what no package should be.
#![cfg(unix)]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use packages::{Built, Content, Format, Member, Node, Package, Tree, append, append_raw, bz2, conda, tar_of};
use pixi_image::clobber::{self, ClobberError, ClobberPlan};
use pixi_image::entry::{EntryKind, ImagePath};
use pixi_image::model::{Environment, LockedPackage, Prefix};
use pixi_image::publish::Readable;
use pixi_image::source::conda::{CondaError, MAX_PATCHED, PackageIndex, Problem};
use pixi_image::source::conda::{read_index, stream};
use pixi_image::source::placement::{GENERATED_MTIME, Placement};
use pixi_image::source::python::Python;
use rattler::install::Installer;
use rattler::package_cache::PackageCache;
use rattler_conda_types::package::FileMode;
use rattler_conda_types::{PackageRecord, PrefixRecord, RepoDataRecord, Subdir};

/// As long as conda-build makes them.
fn placeholder() -> String {
    format!("/home/builder/work_{}", "placehold_".repeat(22))
}

fn prefix() -> Prefix {
    Prefix::of_environment("gpu")
}

fn image_path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

/// Content that does not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| byte()).collect()
}

fn python_package() -> Package {
    let old = placeholder();
    let library = [noise(1000), format!("\0{old}/lib:{old}/lib64\0").into_bytes(), noise(300_000)].concat();
    Package::new(
        "python",
        [
            Member::file("bin/python3.12", noise(5000)).executable(),
            Member::new("bin/python", Content::Symlink("python3.12".to_owned())),
            Member::new("bin/python3", Content::Symlink("python3.12".to_owned())),
            Member::file("lib/libpython3.12.so", library).patched(&old, FileMode::Binary).executable(),
            Member::file("lib/python3.12/os.py", "import sys\n").mtime(1_600_000_000),
            Member::file("lib/python3.12/__pycache__/os.cpython-312.pyc", noise(90)).mtime(1_600_000_001),
            Member::file("lib/python3.12/_sysconfigdata.py", format!("a = '{old}/include'\n"))
                .patched(&old, FileMode::Text),
        ],
    )
    .version("3.12.4")
}

fn native_package() -> Package {
    let old = placeholder();
    let text = |path: &str, content: String| Member::file(path, content).patched(&old, FileMode::Text);
    Package::new(
        "native",
        [
            Member::file("lib/libnative.so.1.2", noise(200_000)).executable(),
            Member::new("lib/libnative.so", Content::Symlink("libnative.so.1.2".to_owned())),
            Member::new("share/outside", Content::Symlink("../../../../../etc/passwd".to_owned())),
            Member::new("share/absolute", Content::Symlink("/usr/lib/libcuda.so".to_owned())),
            text("lib/pkgconfig/native.pc", format!("prefix={old}\nlibdir={old}/lib\n")),
            text("bin/native-config", format!("#!{old}/bin/perl -w\nprint '{old}';\n")).executable(),
            text("bin/native-py", format!("#!{old}/bin/python\nimport sys\n")).executable(),
            text("etc/conda/activate.d/native.sh", format!("export NATIVE_HOME={old}/share\n")),
            Member::file("bin/native", [noise(100), format!("\0{old}/etc\0\0").into_bytes()].concat())
                .patched(&old, FileMode::Binary)
                .executable(),
            text("share/listed-without-occurrence", "nothing here\n".to_owned()),
            Member::file("share/copied", "not linked\n").no_link(),
            Member::file("share/empty", ""),
            Member::file("share/with space & ümlaut", "x"),
        ],
    )
}

/// The same files elsewhere, of a package that gives no digests and sizes.
fn without_sums(package: Package) -> Package {
    let elsewhere = |member: Member| Member { path: format!("nosums/{}", member.path), ..member };
    let members: Vec<_> = package.members.into_iter().map(elsewhere).collect();
    Package::new("nosums", members).without_sums()
}

fn noarch_package() -> Package {
    let old = placeholder();
    Package::new(
        "tool",
        [
            Member::file("site-packages/tool/__init__.py", "def main(): pass\n"),
            Member::file("site-packages/tool-1.dist-info/direct", format!("{old}/x")).patched(&old, FileMode::Text),
            Member::file("python-scripts/tool-old", format!("#!{old}/bin/python\n"))
                .patched(&old, FileMode::Text)
                .executable(),
            Member::file("share/tool/data", "data"),
        ],
    )
    .noarch("python")
    .entry_points(&["tool = tool:main", "tool-more = tool.cli:App.run"])
    .depends(&["python"])
}

fn legacy_package() -> Package {
    let old = placeholder();
    Package::new(
        "legacy",
        [
            Member::file("bin/legacy", format!("#!{old}/bin/sh\n")).patched(&old, FileMode::Text).executable(),
            Member::file("lib/liblegacy.so", [b"\x7fELF\0".as_slice(), old.as_bytes(), b"/lib\0"].concat())
                .patched(&old, FileMode::Binary),
            Member::file("share/legacy/plain", noise(70_000)),
            Member::file("share/legacy/copied", "copied").no_link(),
            Member::new("lib/liblegacy.so.1", Content::Symlink("liblegacy.so".to_owned())),
        ],
    )
    .legacy()
}

/// Packages that ship the same paths, the later named ones depending on the earlier.
fn clobbering_packages() -> Vec<Package> {
    let old = placeholder();
    let shared = |text: &str| Member::file("share/shared/file", text);
    let patched = |text: &str| Member::file("etc/shared.conf", format!("{text}={old}\n")).patched(&old, FileMode::Text);
    let own = |name: &str| Member::file(&format!("share/shared/{name}"), name);
    let module = Member::file("site-packages/shared.py", "noarch");
    vec![
        Package::new("z-base", [shared("base"), patched("base"), own("base")]),
        Package::new("m-middle", [shared("middle"), own("middle")]).depends(&["z-base"]),
        Package::new("a-top", [shared("top"), patched("top"), own("top")]).depends(&["m-middle", "z-base"]),
        Package::new("unrelated-one", [Member::file("share/unrelated", "1")]),
        Package::new("unrelated-two", [Member::file("share/unrelated", "2")]),
        Package::new("py-noarch", [module]).noarch("python").depends(&["python"]),
        Package::new("py-native", [Member::file("lib/python3.12/site-packages/shared.py", "native")])
            .depends(&["python"]),
    ]
}

/// Hard links of every kind: plain, both patched, patched on one side only, to a symbolic link, chained.
fn hardlinked_package() -> Package {
    let old = placeholder();
    let link = |path: &str, target: &str| Member::new(path, Content::Hardlink(target.to_owned()));
    let text = format!("#!{old}/bin/sh\n{old}\n");
    Package::new(
        "hardlinks",
        [
            Member::file("bin/tool-1.0", noise(150_000)).executable(),
            link("bin/tool", "bin/tool-1.0").executable(),
            link("bin/tool-chained", "bin/tool").executable(),
            Member::file("bin/script", text.clone()).patched(&old, FileMode::Text).executable(),
            link("bin/script-alike", "bin/script").patched(&old, FileMode::Text).executable(),
            link("share/script-as-it-was", "bin/script").executable(),
            Member::file("share/template", text),
            link("share/template-patched", "share/template").patched(&old, FileMode::Text),
        ],
    )
    .by_hand()
}

/// Installs with rattler, for the prefix of the image.
fn install_with_rattler(built: &[Built]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let records: Vec<_> = built.iter().map(|built| built.locked.record.clone()).collect();
    runtime
        .block_on(
            Installer::new()
                .with_package_cache(PackageCache::new(directory.path().join("cache")))
                .with_target_platform(Subdir::Linux64)
                .with_alternative_target_prefix(prefix().as_str())
                .with_execute_link_scripts(false)
                .install(directory.path().join("prefix"), records),
        )
        .unwrap();
    directory
}

/// The packages in the order of the lock: each after what it depends on.
fn sorted(built: Vec<Built>) -> Vec<Built> {
    let mut by_name: BTreeMap<String, Built> =
        built.into_iter().map(|built| (built.locked.name().to_owned(), built)).collect();
    let records: Vec<RepoDataRecord> = by_name.values().map(|built| built.locked.record.clone()).collect();
    let order = PackageRecord::sort_topologically(records);
    order.iter().map(|record| by_name.remove(record.package_record.name.as_normalized()).unwrap()).collect()
}

fn python_of(built: &[Built]) -> Option<Python> {
    let environment = Environment {
        name: "gpu".to_owned(),
        subdir: Subdir::Linux64,
        platform: "linux-64".to_owned(),
        cuda: None,
        virtual_packages: Vec::new(),
        lock_hash: None,
        packages: built.iter().map(|built| built.locked.clone().into()).collect(),
    };
    Python::of(&environment).map(Result::unwrap)
}

fn placement<'a>(
    prefix: &'a Prefix,
    python: Option<&'a Python>,
    moved: &'a BTreeMap<ImagePath, ImagePath>,
) -> Placement<'a> {
    static NOTHING: BTreeSet<ImagePath> = BTreeSet::new();
    Placement { prefix, python, subdir: Subdir::Linux64, moved, shared: &NOTHING }
}

fn plan(built: &[Built], python: Option<&Python>) -> Result<(Vec<PackageIndex>, ClobberPlan), ClobberError> {
    let indexes: Vec<_> = built.iter().map(|built| read_index(&Readable::at(&built.archive)).unwrap()).collect();
    let paths: Vec<_> = built
        .iter()
        .zip(&indexes)
        .map(|(built, index)| index.installed_paths(&built.locked, python).unwrap())
        .collect();
    let locked: Vec<LockedPackage> = built.iter().map(|built| built.locked.clone().into()).collect();
    Ok((indexes, clobber::plan(&locked, &paths)?))
}

/// Installs by streaming.
fn install_by_streaming(built: &[Built]) -> (Tree, ClobberPlan) {
    let python = python_of(built);
    let (indexes, plan) = plan(built, python.as_ref()).unwrap();
    let mut tree = Tree::default();
    for ((built, index), moved) in built.iter().zip(&indexes).zip(&plan.moved) {
        let prefix = prefix();
        let placement = placement(&prefix, python.as_ref(), moved);
        stream(&Readable::at(&built.archive), &built.locked, index, &placement, &mut tree).unwrap();
        tree.next_package();
    }
    (tree, plan)
}

/// Everything below a directory but directories, with paths as in the image.
fn read_tree(root: &Path, directory: &Path, nodes: &mut BTreeMap<ImagePath, Node>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            read_tree(root, &path, nodes);
            continue;
        }
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap();
        let node = if metadata.is_symlink() {
            Node::Symlink(fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
        } else {
            Node::File {
                content: fs::read(&path).unwrap(),
                executable: metadata.permissions().mode() & 0o100 != 0,
                mtime: u32::try_from(metadata.mtime()).unwrap(),
            }
        };
        nodes.insert(image_path(&format!("{}/{relative}", prefix().relative())), node);
    }
}

/// A record without what only holds on the machine that rattler linked on.
fn comparable(node: &Node) -> PrefixRecord {
    let Node::File { content, executable: false, .. } = node else { panic!("a record is a file: {node:?}") };
    let mut record: PrefixRecord = serde_json::from_slice(content).unwrap();
    record.extracted_package_dir = None;
    record.link = None;
    record.paths_data.paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
    record.files.sort();
    record
}

fn is_record(path: &ImagePath) -> bool {
    path.lossy().contains("/conda-meta/") && path.as_bytes().ends_with(b".json")
}

/// What rattler adds to the environment besides packages.
fn is_of_rattler(path: &ImagePath) -> bool {
    [b"/conda-meta/history".as_slice(), b"/CACHEDIR.TAG"].iter().any(|end| path.as_bytes().ends_with(end))
}

/// The same paths, contents, modes, links, times and records.
fn assert_same(streamed: &Tree, rattler: &Path, generated: &[&str]) {
    let mut expected = BTreeMap::new();
    read_tree(rattler, rattler, &mut expected);
    expected.retain(|path, _| !is_of_rattler(path));
    assert_eq!(streamed.nodes.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, node) in &streamed.nodes {
        let mut oracle = expected[path].clone();
        if is_record(path) {
            let (record, oracle) = (comparable(node), comparable(&oracle));
            for (entry, oracle) in record.paths_data.paths.iter().zip(&oracle.paths_data.paths) {
                assert_eq!(entry, oracle, "{path}");
            }
            assert_eq!(record, oracle, "{path}");
            continue;
        }
        if let (Node::File { mtime, .. }, true) = (&mut oracle, generated.iter().any(|end| path.lossy().ends_with(end)))
        {
            *mtime = GENERATED_MTIME; // rattler writes the time of day
        }
        assert!(*node == oracle, "{path}: streamed {node:?}\nrattler {oracle:?}");
    }
}

fn write_all(packages: &[Package], directory: &Path, format: Format) -> Vec<Built> {
    sorted(packages.iter().map(|package| package.write(directory, format)).collect())
}

#[test]
fn packages_of_both_formats_and_both_writers_are_streamed_as_rattler_installs_them() {
    let data = Package::new("data", [Member::file("share/data/a", "a"), Member::file("share/data/b", "b")]);
    let packages =
        [python_package(), native_package(), noarch_package(), data.noarch("generic"), without_sums(native_package())];
    for format in Format::ALL {
        for by_hand in [false, true] {
            let packages = packages.clone().map(|package| Package { by_hand, ..package });
            let directory = tempfile::tempdir().unwrap();
            let built = write_all(&packages, directory.path(), format);
            let (tree, plan) = install_by_streaming(&built);
            assert_eq!(plan.clashes, []);
            let rattler = install_with_rattler(&built);
            assert_same(&tree, &rattler.path().join("prefix"), &["bin/tool", "bin/tool-more"]);
            let config = tree.text("app/.pixi/envs/gpu/lib/pkgconfig/native.pc");
            assert_eq!(config, "prefix=/app/.pixi/envs/gpu\nlibdir=/app/.pixi/envs/gpu/lib\n");
        }
    }
}

#[test]
fn packages_from_before_paths_json_are_streamed_as_rattler_installs_them() {
    for by_hand in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let package = Package { by_hand, ..legacy_package() };
        let built = write_all(&[package], directory.path(), Format::TarBz2);
        let (tree, _) = install_by_streaming(&built);
        assert_same(&tree, &install_with_rattler(&built).path().join("prefix"), &[]);
        assert!(tree.text("app/.pixi/envs/gpu/bin/legacy").starts_with("#!/app/.pixi/envs/gpu/bin/sh\n"));
    }
}

#[test]
fn the_dependent_wins_a_clash_and_the_loser_is_kept_as_rattler_does() {
    for format in Format::ALL {
        let directory = tempfile::tempdir().unwrap();
        let packages = [clobbering_packages(), vec![python_package()]].concat();
        let built = write_all(&packages, directory.path(), format);
        let (tree, plan) = install_by_streaming(&built);
        assert_same(&tree, &install_with_rattler(&built).path().join("prefix"), &[]);
        let shared = plan.clashes.iter().find(|clash| clash.path == image_path("share/shared/file")).unwrap();
        assert_eq!(
            (shared.winner.as_str(), shared.losers.as_slice()),
            ("a-top", ["z-base", "m-middle"].map(str::to_owned).as_slice())
        );
        let gpu = "app/.pixi/envs/gpu";
        assert_eq!(tree.text(&format!("{gpu}/share/shared/file")), "top");
        assert_eq!(tree.text(&format!("{gpu}/__clobbers__/z-base/etc/shared.conf")), "base=/app/.pixi/envs/gpu\n");
    }
}

#[test]
fn hard_links_have_the_content_that_rattler_gives_them_and_stay_links_where_they_can() {
    for format in Format::ALL {
        let directory = tempfile::tempdir().unwrap();
        let winner = Package::new("winner", [Member::file("bin/tool-1.0", "wins")]).depends(&["hardlinks"]);
        let built = write_all(&[hardlinked_package(), winner], directory.path(), format);
        let (tree, _) = install_by_streaming(&built);
        assert_same(&tree, &install_with_rattler(&built).path().join("prefix"), &[]);
        let gpu = |path: &str| image_path(&format!("app/.pixi/envs/gpu/{path}"));
        let moved = gpu("__clobbers__/hardlinks/bin/tool-1.0");
        let links = [
            (gpu("bin/tool"), moved.clone()),
            (gpu("bin/tool-chained"), moved),
            (gpu("bin/script-alike"), gpu("bin/script")),
        ];
        assert_eq!(tree.hardlinks, links);
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_or_to_a_file_that_is_not_listed_has_its_content() {
    let link = |path: &str, target: &str| Member::new(path, Content::Hardlink(target.to_owned()));
    let members = [
        Member::new("lib/s", Content::Symlink("elsewhere".to_owned())),
        link("lib/of-symlink", "lib/s"),
        link("lib/of-unlisted", "lib/unlisted"),
        link("lib/of-unlisted-symlink", "lib/unlisted-symlink"),
    ];
    let package = Package::new("links", members.clone());
    let unlisted = [
        Member::file("lib/unlisted", "content"),
        Member::new("lib/unlisted-symlink", Content::Symlink("far".to_owned())),
    ];
    let pkg = tar_of(&[unlisted.to_vec(), members.to_vec()].concat());
    let directory = tempfile::tempdir().unwrap();
    let tree = attempt(&package, &conda(&[("info", tar_of(&package.info())), ("pkg", pkg)]), directory.path()).unwrap();
    let gpu = "app/.pixi/envs/gpu/lib";
    assert_eq!(*tree.node(&format!("{gpu}/of-symlink")), Node::Symlink(b"elsewhere".to_vec()));
    assert_eq!(*tree.node(&format!("{gpu}/of-unlisted-symlink")), Node::Symlink(b"far".to_vec()));
    assert_eq!(tree.text(&format!("{gpu}/of-unlisted")), "content");
    assert!(!tree.nodes.contains_key(&image_path(&format!("{gpu}/unlisted"))));
}

#[test]
fn an_empty_directory_is_made_whether_the_archive_holds_it_or_not() {
    let package =
        Package::new("directories", [Member::new("var/empty", Content::Directory), Member::file("var/log/file", "")]);
    for pkg in [tar_of(&package.members), tar_of(&package.members[1..])] {
        let directory = tempfile::tempdir().unwrap();
        let archive = conda(&[("info", tar_of(&package.info())), ("pkg", pkg)]);
        let tree = attempt(&package, &archive, directory.path()).unwrap();
        let directories: Vec<_> = tree.directories.iter().map(|path| path.lossy().into_owned()).collect();
        let gpu = "app/.pixi/envs/gpu";
        let below = ["conda-meta", "var", "var/empty", "var/log"].map(|name| format!("{gpu}/{name}"));
        assert_eq!(directories, [["app", "app/.pixi", "app/.pixi/envs", gpu].map(str::to_owned), below].concat());
        let entry = tree.entries.iter().find(|entry| entry.path == image_path(&format!("{gpu}/var/empty"))).unwrap();
        assert_eq!((&entry.kind, entry.mtime), (&EntryKind::Directory, GENERATED_MTIME));
        assert!(
            tree.text(&format!("{gpu}/conda-meta/directories-1.2.3-h0_0.json")).contains(r#""path_type": "directory""#)
        );
    }
}

#[test]
fn an_entry_point_takes_the_place_of_a_file_and_of_an_earlier_one_of_the_same_name() {
    let package = Package::new("both", [Member::file("python-scripts/both", "file")])
        .noarch("python")
        .entry_points(&["both = both:old", "both = both:main"])
        .by_hand();
    let directory = tempfile::tempdir().unwrap();
    let built =
        [package.write(directory.path(), Format::Conda), python_package().write(directory.path(), Format::Conda)];
    let (tree, _) = install_by_streaming(&built);
    assert!(tree.text("app/.pixi/envs/gpu/bin/both").contains("from both import main"));
}

#[test]
fn a_script_to_run_after_linking_is_seen_and_kept_as_a_file() {
    let package = Package::new("scripted", [Member::file("bin/.scripted-post-link.sh", "rm -rf /").executable()]);
    let directory = tempfile::tempdir().unwrap();
    let built = package.write(directory.path(), Format::Conda);
    assert!(read_index(&Readable::at(&built.archive)).unwrap().has_post_link_script);
    assert!(
        !read_index(&Readable::at(&native_package().write(directory.path(), Format::Conda).archive))
            .unwrap()
            .has_post_link_script
    );
}

#[test]
fn the_index_of_a_tar_bz2_is_read_without_the_files_behind_it() {
    let package = Package::new("big", [Member::file("share/big", noise(4_000_000))]);
    let directory = tempfile::tempdir().unwrap();
    let built = package.write(directory.path(), Format::TarBz2);
    let whole = read_index(&Readable::at(&built.archive)).unwrap();
    let bytes = fs::read(&built.archive).unwrap();
    fs::write(&built.archive, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(read_index(&Readable::at(&built.archive)).unwrap(), whole);
}

#[test]
fn an_index_survives_being_cached() {
    let directory = tempfile::tempdir().unwrap();
    for package in [python_package(), noarch_package(), legacy_package()] {
        let index = read_index(&Readable::at(&package.write(directory.path(), Format::TarBz2).archive)).unwrap();
        let bytes = rmp_serde::to_vec(&index).unwrap();
        assert_eq!(rmp_serde::from_slice::<PackageIndex>(&bytes).unwrap(), index);
    }
}

/// Streams an archive made of `bytes` as if it were `package`.
fn attempt(package: &Package, bytes: &[u8], directory: &Path) -> Result<Tree, CondaError> {
    let archive = directory.join(package.file_name(Format::Conda));
    fs::write(&archive, bytes).unwrap();
    let locked = package.locked(&archive, bytes);
    let archive = Readable::at(archive);
    let index = read_index(&archive)?;
    let (prefix, moved, mut tree) = (prefix(), BTreeMap::new(), Tree::default());
    stream(&archive, &locked, &index, &placement(&prefix, None, &moved), &mut tree)?;
    tree.finish();
    Ok(tree)
}

/// Why an archive is refused: the archive holds `members` where its list promises those of `package`.
fn refusal(package: &Package, pkg: Vec<u8>) -> CondaError {
    let directory = tempfile::tempdir().unwrap();
    let in_bz2 = bz2(&[&tar_of(&package.info())[..tar_of(&package.info()).len() - 1024], pkg.as_slice()].concat());
    let in_conda = conda(&[("info", tar_of(&package.info())), ("pkg", pkg)]);
    let refused =
        [in_bz2, in_conda].map(|bytes| attempt(package, &bytes, directory.path()).err().expect("it is refused"));
    let [bz2, conda] = refused;
    assert_eq!(std::mem::discriminant(&*bz2.problem), std::mem::discriminant(&*conda.problem), "{bz2}\n{conda}");
    assert!(conda.to_string().contains(&package.name), "{conda}");
    conda
}

fn file_of_honest_package() -> Package {
    Package::new("honest", [Member::file("share/file", "content")])
}

#[test]
fn a_path_that_leads_out_of_the_environment_is_refused_wherever_it_stands() {
    let honest = file_of_honest_package();
    for path in ["../evil", "/etc/evil", "share/../../evil", "share/.."] {
        let evil = Member::file(path, "evil");
        let error = refusal(&honest, tar_of(&[honest.members[0].clone(), evil.clone()]));
        assert!(matches!(&*error.problem, Problem::BadPath(bad) if bad.path == path), "{error}");
        let listing = Package::new("listing", [evil]);
        let error = refusal(&listing, tar_of(&[]));
        assert!(matches!(&*error.problem, Problem::BadPath(bad) if bad.path == path), "{error}");
        let link = Package::new("linking", [Member::new("share/link", Content::Hardlink(path.to_owned()))]);
        let error = refusal(&link, tar_of(&link.members));
        assert!(matches!(&*error.problem, Problem::BadPath(bad) if bad.path == path), "{error}");
    }
}

#[test]
fn nothing_is_written_below_a_link_of_the_same_package() {
    let members = [
        Member::new("share/link", Content::Symlink("../../../../../etc".to_owned())),
        Member::file("share/link/passwd", "evil"),
    ];
    for members in [members.to_vec(), members.iter().rev().cloned().collect()] {
        let package = Package::new("through", members);
        let error = refusal(&package, tar_of(&package.members));
        assert!(
            matches!(&*error.problem, Problem::Below { path, above }
            if *path == image_path("share/link/passwd") && *above == image_path("share/link")),
            "{error}"
        );
    }
}

#[test]
fn a_list_that_names_the_record_or_a_place_twice_is_refused() {
    let forged = Package::new("forged", [Member::file("conda-meta/forged-1.2.3-h0_0.json", "{}")]);
    let error = refusal(&forged, tar_of(&forged.members));
    assert!(matches!(*error.problem, Problem::SamePlace(_)), "{error}");
    let twice = Package::new("twice", [Member::file("share/a", "1"), Member::file("share/a", "2")]);
    let error = refusal(&twice, tar_of(&twice.members));
    assert!(matches!(*error.problem, Problem::ListedTwice(_)), "{error}");
}

#[test]
fn a_file_that_is_missing_doubled_or_of_another_size_is_refused_by_name() {
    let honest = file_of_honest_package();
    let file = image_path("share/file");
    let error = refusal(&honest, tar_of(&[]));
    assert!(matches!(&*error.problem, Problem::Absent(path) if *path == file), "{error}");
    assert!(error.to_string().contains("download it again"), "{error}");
    let error = refusal(&honest, tar_of(&[honest.members.clone(), honest.members.clone()].concat()));
    assert!(matches!(&*error.problem, Problem::Twice(path) if *path == file), "{error}");
    let error = refusal(&honest, tar_of(&[Member::file("share/file", noise(1 << 20))]));
    assert!(
        matches!(&*error.problem, Problem::OtherSize { path, listed: 7, found: 1_048_576 } if *path == file),
        "{error}"
    );
    let error = refusal(&honest, tar_of(&[Member::new("share/file", Content::Directory)]));
    assert!(matches!(*error.problem, Problem::OtherKind { .. }), "{error}");
    let link = Package::new("link", [Member::new("share/file", Content::Symlink("x".to_owned()))]);
    let error = refusal(&link, tar_of(&honest.members));
    assert!(matches!(*error.problem, Problem::OtherKind { .. }), "{error}");
}

#[test]
fn devices_pipes_and_sparse_files_are_refused_even_if_not_listed() {
    let honest = file_of_honest_package();
    let kinds = [
        (tar::EntryType::Char, "a device"),
        (tar::EntryType::Block, "a device"),
        (tar::EntryType::Fifo, "a named pipe"),
        (tar::EntryType::GNUSparse, "a sparse file"),
        (tar::EntryType::new(b'?'), "of an unknown kind"),
    ];
    for (kind, name) in kinds {
        let mut builder = tar::Builder::new(tar_of(&[]));
        builder.get_mut().clear();
        append_raw(&mut builder, &Member::file("share/odd", ""), kind, &[], "");
        append(&mut builder, &honest.members[0]);
        let error = refusal(&honest, builder.into_inner().unwrap());
        assert!(matches!(&*error.problem, Problem::Unsupported { kind, .. } if *kind == name), "{error}");
    }
}

#[test]
fn links_that_lead_nowhere_are_refused() {
    let links = [
        Member::new("share/self", Content::Hardlink("share/self".to_owned())),
        Member::new("share/forward", Content::Hardlink("share/file".to_owned())),
        Member::new("share/nowhere", Content::Hardlink("share/absent".to_owned())),
    ];
    for link in links {
        let package = Package::new("linking", [link.clone(), Member::file("share/file", "x")]);
        let error = refusal(&package, tar_of(&package.members));
        assert!(
            matches!(&*error.problem, Problem::BadHardlink { path, .. } if *path == image_path(&link.path)),
            "{error}"
        );
    }
    let empty = Package::new("empty", [Member::new("share/empty", Content::Symlink(String::new()))]);
    let error = refusal(&empty, tar_of(&empty.members));
    assert!(matches!(*error.problem, Problem::BadSymlink(_)), "{error}");
}

#[test]
fn an_extension_header_may_not_fill_the_memory_and_honest_ones_are_read() {
    let honest = file_of_honest_package();
    let mut builder = tar::Builder::new(Vec::new());
    append_raw(&mut builder, &Member::file("././@LongLink", ""), tar::EntryType::GNULongName, &noise(2 << 20), "");
    append(&mut builder, &honest.members[0]);
    let error = refusal(&honest, builder.into_inner().unwrap());
    assert!(matches!(*error.problem, Problem::TooLarge { .. }), "{error}");

    let long = format!("share/{}/{}", "d".repeat(200), "f".repeat(200));
    let package = Package::new("long", [Member::file(&long, "content")]);
    for pax in [false, true] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(7);
        header.set_mode(0o644);
        if pax {
            builder.append_pax_extensions([("path", long.as_bytes()), ("mtime", b"1.5")]).unwrap();
            header.set_path("share/cut-off").unwrap();
            header.set_cksum();
            builder.append(&header, b"content".as_slice()).unwrap();
        } else {
            let mut header = tar::Header::new_gnu();
            header.set_size(7);
            header.set_mode(0o644);
            builder.append_data(&mut header, &long, b"content".as_slice()).unwrap();
        }
        let archive = conda(&[("info", tar_of(&package.info())), ("pkg", builder.into_inner().unwrap())]);
        let tree = attempt(&package, &archive, tempfile::tempdir().unwrap().path()).unwrap();
        assert_eq!(tree.text(&format!("app/.pixi/envs/gpu/{long}")), "content");
    }
}

#[test]
fn a_file_that_is_too_large_to_patch_or_a_placeholder_too_short_is_named() {
    let huge = Package::new("huge", [Member::file("bin/huge", "x").patched("/old", FileMode::Text)]).without_sums();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_path("bin/huge").unwrap();
    header.set_size(MAX_PATCHED + 1);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, b"x".as_slice()).unwrap();
    let error = refusal(&huge, builder.into_inner().unwrap());
    assert!(matches!(&*error.problem, Problem::TooLarge { what, .. } if what.contains("bin/huge")), "{error}");

    let short = Package::new("short", [Member::file("bin/short", "\0/old/lib\0").patched("/old", FileMode::Binary)]);
    let error = refusal(&short, tar_of(&short.members));
    assert!(
        matches!(&*error.problem, Problem::PrefixTooLong { path, .. } if *path == image_path("bin/short")),
        "{error}"
    );
    assert!(error.to_string().contains("/app/.pixi/envs/gpu"), "{error}");
}

#[test]
fn an_archive_that_was_cut_off_anywhere_is_refused_with_the_way_out() {
    for format in Format::ALL {
        let directory = tempfile::tempdir().unwrap();
        let package = native_package();
        let bytes = fs::read(package.write(directory.path(), format).archive).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 97).chain([1, 3, 4, bytes.len() - 1]) {
            let Err(error) = attempt(&package, &bytes[..cut], directory.path()) else {
                panic!("{format:?} cut at {cut} of {} is accepted", bytes.len());
            };
            assert!(error.to_string().contains("download it again"), "{format:?} {cut}: {error}");
        }
    }
}

#[test]
fn damaged_archives_never_panic() {
    let directory = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let package = Package { by_hand: true, ..hardlinked_package() };
        let bytes = fs::read(package.write(directory.path(), format).archive).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 300) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            let _ = attempt(&package, &damaged, directory.path());
        }
    }
}

#[test]
fn a_conda_archive_must_hold_its_two_parts_once_and_stored() {
    let package = file_of_honest_package();
    let (info, pkg) = (tar_of(&package.info()), tar_of(&package.members));
    let directory = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| *attempt(&package, bytes, directory.path()).err().expect("it is refused").problem;
    let (info, pkg) = (("info", info), ("pkg", pkg));
    assert!(matches!(refused(&conda(std::slice::from_ref(&info))), Problem::Parts { part: "pkg", found: 0 }));
    assert!(matches!(refused(&conda(std::slice::from_ref(&pkg))), Problem::Parts { part: "info", found: 0 }));
    assert!(matches!(refused(b"#!/bin/sh\n"), Problem::UnknownFormat));
    assert!(matches!(refused(b""), Problem::UnknownFormat));
    let no_index = conda(&[("info", tar_of(&[])), pkg.clone()]);
    assert!(matches!(refused(&no_index), Problem::NoInfo("info/index.json")));

    let mut compressed = conda(&[info, pkg]);
    // The method of the last local header and of the last central one (APPNOTE 4.3.7 and 4.3.12): 8 is deflate.
    for (signature, method) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let at = compressed.windows(4).rposition(|bytes| bytes == signature).unwrap();
        compressed[at + method] = 8;
    }
    let problem = refused(&compressed);
    assert!(matches!(&problem, Problem::NotStored(name) if name.starts_with("pkg-")), "{problem}");
}

#[test]
fn another_package_than_the_lock_says_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let archive = fs::read(native_package().write(directory.path(), Format::Conda).archive).unwrap();
    for other in [file_of_honest_package(), native_package().version("1.2.4")] {
        let error = attempt(&other, &archive, directory.path()).err().unwrap();
        assert!(matches!(&*error.problem, Problem::OtherPackage(found) if found == "native-1.2.3-h0_0"), "{error}");
    }
}

#[test]
fn a_noarch_python_package_needs_python() {
    let directory = tempfile::tempdir().unwrap();
    let archive = fs::read(noarch_package().write(directory.path(), Format::Conda).archive).unwrap();
    let error = attempt(&noarch_package(), &archive, directory.path()).err().unwrap();
    assert!(matches!(*error.problem, Problem::NoPython), "{error}");
}

#[test]
fn nothing_is_written_through_a_link_of_another_package() {
    let directory = tempfile::tempdir().unwrap();
    let link = Package::new("linker", [Member::new("lib64", Content::Symlink("/etc".to_owned()))]);
    for below in [Member::file("lib64/passwd", "evil"), Member::new("lib64", Content::Directory)] {
        let below = Package { by_hand: true, ..Package::new("writer", [below]) };
        for packages in [[&link, &below], [&below, &link]] {
            let built = packages.map(|package| package.write(directory.path(), Format::Conda));
            let error = plan(&built, None).unwrap_err();
            assert!(
                matches!(&error, ClobberError::Below { path, above, below }
                if *path == image_path("lib64") && above == "linker" && below == "writer"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_package_cannot_ship_the_record_of_another_nor_the_place_of_a_loser() {
    let directory = tempfile::tempdir().unwrap();
    let honest = file_of_honest_package();
    let forger = Package::new("forger", [Member::file("conda-meta/honest-1.2.3-h0_0.json", "{}")]);
    for packages in [[&honest, &forger], [&forger, &honest]] {
        let built = packages.map(|package| package.write(directory.path(), Format::Conda));
        let error = plan(&built, None).unwrap_err();
        assert!(matches!(&error, ClobberError::Record { package, .. } if package == "forger"), "{error}");
    }
    let squatter = Package::new(
        "squatter",
        [Member::file("__clobbers__/honest/share/file", "x"), Member::file("share/file", "y")],
    );
    let built = [&honest, &squatter].map(|package| package.write(directory.path(), Format::Conda));
    let error = plan(&built, None).unwrap_err();
    assert!(matches!(&error, ClobberError::Taken { package, .. } if package == "honest"), "{error}");
}

#[test]
fn packages_may_share_an_empty_directory() {
    let directory = tempfile::tempdir().unwrap();
    let package = |name| Package::new(name, [Member::new("var/shared", Content::Directory)]).by_hand();
    let built = ["one", "two"].map(|name| package(name).write(directory.path(), Format::Conda));
    assert_eq!(plan(&built, None).unwrap().1.clashes, []);
}

#[test]
fn a_password_of_the_channel_does_not_get_into_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut built = write_all(&[python_package()], directory.path(), Format::Conda);
    let place = "https://me:sec-ret@example.invalid/t/tk-sec-ret/channel";
    built[0].locked.record.url = format!("{place}/linux-64/python.conda").parse().unwrap();
    built[0].locked.record.channel = Some(place.to_owned());
    let (tree, _) = install_by_streaming(&built);
    let record = tree.text("app/.pixi/envs/gpu/conda-meta/python-3.12.4-h0_0.json");
    assert!(
        record.contains("\"https://example.invalid/channel/linux-64/python.conda\"") && !record.contains("sec-ret")
    );
    assert!(record.contains("\"https://example.invalid/channel\""), "{record}");
}

#[test]
fn the_entries_are_the_same_every_time_and_hold_no_path_of_this_machine() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stream = |directory: &Path| {
        let mut built = write_all(&[python_package(), noarch_package()], directory, Format::Conda);
        for built in &mut built {
            built.locked.record.url = "https://example.invalid/x.conda".parse().unwrap();
        }
        let tree = install_by_streaming(&built).0;
        (tree.entries.clone(), tree.nodes)
    };
    let (first, second) = (stream(one.path()), stream(two.path()));
    assert!(first == second);
    let here = one.path().to_str().unwrap().as_bytes();
    for (path, node) in &first.1 {
        if let Node::File { content, .. } = node {
            assert!(!content.windows(here.len()).any(|bytes| bytes == here), "{path}");
        }
    }
}
