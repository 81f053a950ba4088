//! A cache that was cut, overwritten or has a byte turned over gives the right image or none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::noise;
use crate::packages::{Format, Member, Package};
use crate::workspace::{Shelf, Workspace, base, stderr, succeeds};

/// A workspace with a base whose cache holds something of every kind.
fn filled() -> Workspace {
    let mut shelf = Shelf::default();
    for (name, format) in [("lib", Format::Conda), ("old", Format::TarBz2)] {
        let members = [
            Member::file("lib/text", "text ".repeat(40_000)),
            Member::file("lib/noise", noise(300_000)),
            Member::file("lib/small", "small"),
        ]
        .map(|member| Member { path: format!("{name}/{}", member.path), ..member });
        shelf.add(&Package::new(name, members), format);
    }
    let workspace = Workspace::of(shelf);
    base(&workspace.work("base.tar"), "amd64", &[("bin/sh", "#!"), ("etc/motd", &"hello ".repeat(50_000))]);
    succeeds(&mut workspace.build_on("./base.tar"));
    workspace
}

/// The same, but made without those files of the cache that hide what is under test.
fn build_without(workspace: &Workspace, hiding: &[&str]) -> std::process::Output {
    for directory in hiding {
        drop(fs::remove_dir_all(workspace.path("cache").join(directory)));
    }
    workspace.forget_results();
    workspace.build_on("./base.tar").output().unwrap()
}

fn damages(content: &[u8]) -> Vec<Vec<u8>> {
    let length = content.len();
    let flipped = |at: usize| {
        let mut content = content.to_vec();
        content[at] ^= 0x10;
        content
    };
    let mut damages = vec![Vec::new(), content[..length / 2].to_vec(), content[..length - 1].to_vec()];
    damages.push([content, b"more"].concat());
    damages.push(noise(length));
    let places: BTreeSet<usize> =
        (0..12).map(|part| part * (length - 1) / 11).chain([length - 2, length / 3 + 1]).collect();
    damages.extend(places.into_iter().map(flipped));
    damages
}

/// Damages `file` in every way; each time the build gives `right`, or fails naming the file, whose removal mends it.
fn check(workspace: &Workspace, file: &Path, hiding: &[&str]) {
    let right = workspace.digests();
    let whole = fs::read(file).unwrap();
    for (number, damaged) in damages(&whole).into_iter().enumerate() {
        fs::write(file, damaged).unwrap();
        let output = build_without(workspace, hiding);
        let text = stderr(&output);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains(&file.display().to_string()), "damage {number} of {}: {text}", file.display());
            assert!(text.contains("delete") && !text.contains("panicked"), "{text}");
            fs::remove_file(file).unwrap();
            let output = build_without(workspace, hiding);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        assert_eq!(workspace.digests(), right, "damage {number} of {} went into the image: {text}", file.display());
        fs::write(file, &whole).unwrap();
    }
}

fn files(workspace: &Workspace, directory: &str) -> Vec<std::path::PathBuf> {
    let directory = workspace.path("cache").join(directory);
    let found: Vec<_> = workspace.cached().into_iter().filter(|path| path.starts_with(&directory)).collect();
    assert!(!found.is_empty(), "nothing in {}", directory.display());
    found
}

#[test]
fn a_damaged_pack_never_gets_into_an_image() {
    let workspace = filled();
    for file in files(&workspace, "packs") {
        check(&workspace, &file, &[]);
    }
}

#[test]
fn a_damaged_archive_never_gets_into_an_image() {
    let workspace = filled();
    for file in files(&workspace, "packages") {
        // With its index known, and without: both ways lead into the archive.
        check(&workspace, &file, &["packs"]);
        check(&workspace, &file, &["packs", "indexes"]);
    }
}

#[test]
fn a_damaged_note_never_gets_into_an_image() {
    let workspace = filled();
    for file in files(&workspace, "indexes") {
        check(&workspace, &file, &[]);
        check(&workspace, &file, &["packs"]);
    }
}

#[test]
fn a_damaged_copy_of_a_pulled_base_never_gets_into_an_image() {
    let workspace = filled();
    let manifest =
        pixi_image::layout::ImageSource::open(&workspace.work("base.tar")).unwrap().image("amd64").unwrap().digest;
    let layout = workspace.path("cache/images").join(format!("{}-amd64", manifest.hex()));
    tar::Archive::new(&workspace.read("base.tar")[..]).unpack(&layout).unwrap();
    let base = format!("registry.invalid/base@{manifest}");
    let build = || {
        workspace.forget_results();
        drop(fs::remove_dir_all(workspace.path("cache/packs")));
        workspace.build_on(&base).arg("--offline").output().unwrap()
    };
    assert!(build().status.success());
    let right = workspace.digests();
    for file in files(&workspace, "images").into_iter().filter(|file| file.parent().unwrap().ends_with("sha256")) {
        let whole = fs::read(&file).unwrap();
        for damaged in damages(&whole) {
            fs::write(&file, damaged).unwrap();
            let output = build();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{}: {text}", file.display());
            assert!(
                text.contains(&workspace.path("cache/images").display().to_string()) && text.contains("delete it"),
                "{text}"
            );
            assert_eq!(text.matches("error: ").count(), 1, "{text}");
        }
        fs::write(&file, whole).unwrap();
    }
    assert!(build().status.success());
    assert_eq!(workspace.digests(), right);
}

#[test]
fn a_cache_in_pieces_is_mended_by_building() {
    let workspace = filled();
    let right = workspace.digests();
    for file in workspace.cached() {
        fs::write(file, b"garbage\n").unwrap();
    }
    let output = build_without(&workspace, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(workspace.digests(), right);
}
