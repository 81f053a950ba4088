//! Places that cannot be read or written, and disks that are full.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::machine::{as_ordinary_user, is_root, skip, with_little_space};
use crate::packages::{Member, Package};
use crate::workspace::{OCI, OLDER, SIF, Workspace, stderr, succeeds};
use crate::{noise, small};

fn forbid(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_application_file_that_cannot_be_read_is_named() {
    let workspace = Workspace::new(&small());
    workspace.write("app/secret.py", b"");
    let owned = ["cache", "home", "tmp", "work"].map(|name| workspace.path(name));
    let mut build = as_ordinary_user(&workspace.build(), workspace.directory.path(), &owned[1..]);
    forbid(&workspace.work("app/secret.py"), 0);
    drop(fs::remove_dir_all(&owned[0]));
    build.env("PIXI_IMAGE_CACHE", workspace.path("tmp/cache"));
    let before = workspace.work("app/secret.py");
    let output = build.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("app/secret.py") && text.contains("Permission denied") && text.contains("chmod"), "{text}");
    forbid(&before, 0o644);
    assert_eq!((workspace.read(OCI), workspace.read(SIF)), (OLDER.to_vec(), OLDER.to_vec()));
}

#[test]
fn an_application_that_reaches_out_of_its_directory_is_refused() {
    let workspace = Workspace::new(&small());
    for target in ["/etc/passwd", "../pixi.toml", "sub/../../pixi.toml"] {
        symlink(target, workspace.work("app/link")).unwrap();
        workspace.fails(&mut workspace.build(), &["app/link", target]);
        fs::remove_file(workspace.work("app/link")).unwrap();
    }
    rustix::fs::mknodat(rustix::fs::CWD, workspace.work("app/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    workspace.fails(&mut workspace.build(), &["app/pipe", "named pipe"]);
    fs::remove_file(workspace.work("app/pipe")).unwrap();
    fs::remove_dir_all(workspace.work("app")).unwrap();
    workspace.fails(&mut workspace.build(), &["app", "No such file"]);
    workspace.write("app", b"a file");
    workspace.fails(&mut workspace.build(), &["app", "ot a directory"]);
}

#[test]
fn a_target_that_cannot_be_written_is_found_out_before_the_work() {
    let workspace = Workspace::new(&small());
    let owned = ["home", "tmp"].map(|name| workspace.path(name));
    let build = as_ordinary_user(&workspace.build(), workspace.directory.path(), &owned);
    forbid(&workspace.work("out"), if is_root() { 0o755 } else { 0o555 });
    let mut build = build;
    build.env("PIXI_IMAGE_CACHE", workspace.path("tmp/cache"));
    let text = workspace.fails(&mut build, &[OCI, "Permission denied", "that you may write to"]);
    assert!(!text.contains("Packing"), "{text}");
    forbid(&workspace.work("out"), 0o755);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let workspace = Workspace::new(&small());
    let owned = ["home", "work", "tmp"].map(|name| workspace.path(name));
    let mut build = as_ordinary_user(&workspace.build(), workspace.directory.path(), &owned);
    let locked = workspace.path("locked");
    fs::create_dir(&locked).unwrap();
    forbid(&locked, if is_root() { 0o755 } else { 0o555 });
    build.env("PIXI_IMAGE_CACHE", locked.join("cache"));
    workspace.fails(&mut build, &["locked/cache", "Permission denied", "that you may write to"]);
    let mut homeless = workspace.build();
    homeless.env_remove("PIXI_IMAGE_CACHE").env_remove("HOME");
    workspace.fails(&mut homeless, &["HOME is not set", "--cache"]);
}

#[test]
fn a_target_that_is_no_file_is_left_alone() {
    let workspace = Workspace::new(&small());
    fs::create_dir(workspace.work("out/directory")).unwrap();
    workspace.fails(
        workspace.command(["build", "--base", "scratch", "--reference", "w:t"]).args(["--oci", "out/directory"]),
        &["out/directory", "is a directory"],
    );
    rustix::fs::mknodat(rustix::fs::CWD, workspace.work("out/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    for option in ["--oci", "--sif"] {
        let mut build = workspace.command(["build", "--base", "scratch", "--reference", "w:t"]);
        workspace.fails(build.args([option, "out/pipe"]), &["out/pipe", "pipe"]);
    }
    let mut build = workspace.command(["build", "--base", "scratch", "--reference", "w:t"]);
    workspace.fails(build.args(["--oci", "pixi.toml/x/image.tar"]), &["pixi.toml/x/image.tar", "ot a directory"]);
}

/// A package of some MB that do not compress.
fn large() -> Vec<Package> {
    vec![Package::new("large", [Member::file("lib/large", noise(6 << 20))])]
}

#[test]
fn a_full_disk_is_named_whatever_is_written_to_it() {
    let workspace = Workspace::new(&large());
    let listing = workspace.path("cache-listing");
    fs::write(&listing, "").unwrap();
    let build = workspace.build();
    // The download, the pack, the application's pack.
    for (what, space, part) in [("packages", 2 << 20, "cannot fetch large"), ("packs", 9 << 20, "cannot write")] {
        let cache = workspace.path("cache");
        let Some(mut full) = with_little_space(&build, &cache, space, &listing) else {
            return skip("this machine does not let tests mount a small file system");
        };
        let text = fails_on_a_full_disk(&workspace, &mut full, &[part, "/cache/", what]);
        assert!(!text.contains("hostile") && !text.contains("download it again"), "{text}");
        let left = fs::read_to_string(&listing).unwrap();
        assert!(!left.contains("partial"), "{left}");
        fs::write(&listing, "").unwrap();
    }
}

#[test]
fn a_full_disk_for_one_result_leaves_both_older_ones() {
    let workspace = Workspace::new(&large());
    succeeds(&mut workspace.build());
    workspace.forget_results();
    let listing = workspace.path("listing");
    for full in ["oci", "sif"] {
        let directory = workspace.work("full");
        fs::create_dir_all(&directory).unwrap();
        fs::write(&listing, "").unwrap();
        let (place, other) = ("full/image".to_owned(), if full == "oci" { ("--sif", SIF) } else { ("--oci", OCI) });
        let mut build = workspace.command(["build", "--base", "scratch", "--reference", "w:test"]);
        build.args([&format!("--{full}"), &place, other.0, other.1]);
        let Some(mut build) = with_little_space(&build, &directory, 2 << 20, &listing) else {
            return skip("this machine does not let tests mount a small file system");
        };
        fails_on_a_full_disk(&workspace, &mut build, &["cannot write full/image"]);
        assert_eq!(fs::read_to_string(&listing).unwrap(), "");
    }
}

#[test]
fn a_full_disk_under_the_merged_base_is_not_the_fault_of_the_base() {
    let workspace = Workspace::new(&small());
    let content: String = noise(3 << 20).iter().map(|byte| char::from(b' ' + byte % 95)).collect();
    crate::workspace::base(&workspace.work("base.tar"), "amd64", &[("bin/sh", &content)]);
    let listing = workspace.path("listing");
    fs::write(&listing, "").unwrap();
    fs::create_dir_all(workspace.path("cache")).unwrap();
    let build = workspace.build_on("./base.tar");
    let Some(mut build) = with_little_space(&build, &workspace.path("cache"), 1 << 20, &listing) else {
        return skip("this machine does not let tests mount a small file system");
    };
    let text = fails_on_a_full_disk(&workspace, &mut build, &["cannot write", "/cache/packs/"]);
    assert!(!text.contains("damaged"), "{text}");
}

#[track_caller]
fn fails_on_a_full_disk(workspace: &Workspace, command: &mut std::process::Command, parts: &[&str]) -> String {
    let all: Vec<&str> = parts.iter().copied().chain(["No space left on device", "free some space"]).collect();
    // The list of what is left is written by the wrapper.
    let listing = ["listing", "cache-listing"].map(|name| workspace.path(name));
    let before: Vec<_> = workspace.snapshot().into_iter().filter(|(path, _)| !listing.contains(path)).collect();
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in all {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let after: Vec<_> = workspace.snapshot().into_iter().filter(|(path, _)| !listing.contains(path)).collect();
    assert_eq!(after, before, "{text}");
    text
}
