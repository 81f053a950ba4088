//! A file is compared with what its inputs give: whatever was changed in it is found, and named.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/varied.rs"]
mod varied;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pixi_image::build::Format;
use pixi_image::layout::ImageSource;
use pixi_image::sif;
use pixi_image::squashfs::reader::{FileSystem, Found, Kind};
use pixi_image::verify::{Difference, compare};
use varied::{noise, workspace_on_a_base};
use workspace::{OCI, SIF, Workspace, stderr, succeeds};

/// `verify` of a file, with the inputs of `Workspace::build_on`.
fn verify(workspace: &Workspace, file: &str, base: &str) -> Command {
    let mut command = workspace.command(["verify", file, "--base", base, "--reference", "w:test", "--app", "app"]);
    command.env("TZ", "Pacific/Kiritimati");
    command
}

#[test]
fn a_file_that_its_inputs_give_is_the_same() {
    let workspace = workspace_on_a_base();
    let reported = workspace.build_on("./base.tar").output().unwrap();
    assert!(reported.status.success(), "{}", stderr(&reported));
    let before = workspace.snapshot();
    let mut said = Vec::new();
    for file in [OCI, SIF] {
        let output = verify(&workspace, file, "./base.tar").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        said.extend(output.stdout);
    }
    // One line a file, as `build` has it; of a SIF, of which all was read now, with its SHA-256.
    let reported = String::from_utf8(reported.stdout).unwrap();
    let [oci, sif] = reported.lines().collect::<Vec<_>>()[..] else { panic!("{reported}") };
    let built: Vec<&str> = sif.split('\t').collect();
    assert!(built[1].starts_with("uuid:"), "{sif}");
    let expected = format!("{oci}\nsif\t{}\t{}\t{}\n", workspace.digests()[1], built[2], built[3]);
    assert_eq!(String::from_utf8(said).unwrap(), expected);
    assert_eq!(workspace.snapshot(), before);
    assert!(fs::read_dir(workspace.path("cache/tmp")).unwrap().next().is_none(), "something was left in the cache");
}

/// An image of each format that is whole, and a copy in which bytes are changed.
struct Pair {
    format: Format,
    whole: PathBuf,
    copy: File,
    length: u64,
}

impl Pair {
    fn new(format: Format, whole: &Path, directory: &Path) -> Self {
        let copy = directory.join("copy");
        fs::copy(whole, &copy).unwrap();
        let copy = File::options().read(true).write(true).open(copy).unwrap();
        Self { format, whole: whole.to_owned(), length: copy.metadata().unwrap().len(), copy }
    }

    fn compare(&mut self) -> Option<(u64, Difference)> {
        compare(self.format, &mut self.copy, &mut File::open(&self.whole).unwrap()).unwrap()
    }

    /// Flips bits of one byte, and back: what is said must be about that byte.
    #[track_caller]
    fn flip(&mut self, at: u64, mask: u8) -> String {
        assert!(at < self.length);
        let mut byte = [0];
        self.copy.read_exact_at(&mut byte, at).unwrap();
        self.copy.write_all_at(&[byte[0] ^ mask], at).unwrap();
        let found = self.compare();
        self.copy.write_all_at(&byte, at).unwrap();
        let (found, difference) = found.unwrap_or_else(|| panic!("byte {at} ^ {mask} is not found"));
        assert_eq!(found, at, "{difference:?}");
        assert_eq!(difference.causes, [""; 0], "byte {at}: {difference:?}");
        let said = format!("{}: {}", difference.place, difference.what);
        assert!(
            !said.starts_with("a part that cannot be read") && !said.contains(char::is_control),
            "byte {at}: {said}"
        );
        said
    }

    /// Flips bytes at the beginning, in the middle and at the end of a range.
    #[track_caller]
    fn flips(&mut self, range: Range<u64>, parts: &[&str]) {
        assert!(!range.is_empty(), "nothing in it for {parts:?}");
        for at in [range.start, range.start.midpoint(range.end - 1), range.end - 1] {
            for mask in [1, 0x80] {
                let said = self.flip(at, mask);
                for part in parts {
                    assert!(said.contains(part), "byte {at} ^ {mask}: no `{part}` in `{said}`");
                }
            }
        }
    }
}

/// Bytes spread over a file, the same at each call.
fn spread(length: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % length)
}

#[test]
fn a_changed_byte_of_an_oci_archive_is_found_wherever_it_is_and_named() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    let whole = workspace.work(OCI);
    let mut pair = Pair::new(Format::Oci, &whole, &workspace.path("tmp"));
    assert!(pair.compare().is_none());

    let image = ImageSource::open(&whole).unwrap().image("amd64").unwrap();
    let digests: Vec<_> = image.manifest.layers().iter().map(|layer| layer.digest().digest().to_owned()).collect();
    let config = image.manifest.config().digest().digest().to_owned();
    let mut end = 0;
    let mut layers = Vec::new();
    for entry in tar::Archive::new(File::open(&whole).unwrap()).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let (header, start, size) = (entry.raw_header_position(), entry.raw_file_position(), entry.size());
        let hex = name.rsplit('/').next().unwrap();
        let layer = digests.iter().position(|digest| digest == hex);
        let title = match (layer, name.as_str()) {
            (Some(layer), _) => format!("layer {} of {}", layer + 1, digests.len()),
            _ if hex == config => "the configuration".to_owned(),
            _ if hex == image.digest.hex() => "the manifest".to_owned(),
            (_, name) => name.to_owned(),
        };
        pair.flips(header..header + 100, &["the tar header of", &title, "its name"]);
        pair.flips(header + 100..header + 108, &["the tar header of", &title, "its mode"]);
        pair.flips(header + 136..header + 148, &["the tar header of", &title, "its time"]);
        if size > 0 {
            pair.flips(start..start + size, &[&title]);
        }
        end = (start + size).next_multiple_of(512);
        if end > start + size {
            pair.flips(start + size..end, &["the padding behind", &title]);
        }
        layers.extend(layer.map(|layer| (layer, start, size)));
    }
    pair.flips(end..pair.length, &["the end of the archive"]);

    // JSON is named by its key, also where it can no longer be read.
    let bytes = fs::read(&whole).unwrap();
    let find = |text: &str| memchr::memmem::find(&bytes, text.as_bytes()).unwrap_or_else(|| panic!("{text}")) as u64;
    assert!(
        pair.flip(find("\"architecture\":\"amd64\"") + 18, 1).starts_with("the configuration: `architecture` is \"")
    );
    assert!(pair.flip(find("\"architecture\""), 1).contains("it is no JSON any more"));
    assert!(pair.flip(find("\"WorkingDir\"") + 3, 1).contains("`config.WorkingDir` is missing"));
    assert!(pair.flip(find("\"imageLayoutVersion\"") + 22, 1).contains("oci-layout: `imageLayoutVersion` is"));

    // What does not compress stands in the archive as it is.
    let large = find_noise(&bytes, &noise(3_000_001)[1_000_000..1_000_100]);
    let said = pair.flip(large, 4);
    assert!(said.contains("(large), app/.pixi/environment/lib/noise: "), "{said}");
    // The parts of the gzip members: every layer begins with one.
    for (layer, start, size) in layers {
        let title = format!("layer {} of", layer + 1);
        let first = pair.flip(start + 4, 1); // the time in its header
        assert!(first.starts_with(&title) && first.contains("the gzip header of its data is another"), "{first}");
        let broken = pair.flip(start, 1);
        assert!(broken.contains("cannot be read any more"), "{broken}");
        let last = pair.flip(start + size - 8, 1);
        assert!(last.contains("the end of its tar stream: the gzip checksum"), "{last}");
    }
    for at in spread(pair.length, 400) {
        pair.flip(at, 1 << (at % 8));
    }
}

fn find_noise(bytes: &[u8], noise: &[u8]) -> u64 {
    memchr::memmem::find(bytes, noise).unwrap() as u64
}

#[test]
fn a_changed_byte_of_a_sif_is_found_wherever_it_is_and_named() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    let whole = workspace.work(SIF);
    let mut pair = Pair::new(Format::Sif, &whole, &workspace.path("tmp"));
    assert!(pair.compare().is_none());
    pair.flips(0..32, &["the header of the SIF", "launch script"]);
    pair.flips(32..42, &["the header of the SIF", "its magic"]);
    pair.flips(45..48, &["the header of the SIF", "its architecture"]);
    pair.flips(48..64, &["the header of the SIF", "its uuid"]);
    pair.flips(120..128, &["the header of the SIF", "its size of the data"]);
    pair.flips(128..4096, &["the padding behind the header"]);
    pair.flips(4096..4100, &["the descriptor of the definition file", "its type"]);
    pair.flips(4096 + 585 + 17..4096 + 585 + 25, &["the descriptor of the metadata", "its place"]);
    pair.flips(4096 + 1170 + 201..4096 + 1170 + 205, &["the descriptor of the squashfs", "its file system"]);
    pair.flips(4096 + 3 * 585..4096 + 48 * 585, &["the free descriptor"]);

    let mut file = File::open(&whole).unwrap();
    let objects = sif::descriptors(&mut file).unwrap();
    let (definition, metadata, squashfs) = (&objects[0], &objects[1], &objects[2]);
    pair.flips(definition.offset..definition.offset + definition.size, &["the definition file: line "]);
    pair.flips(definition.offset + definition.size..metadata.offset, &["the padding before an object"]);
    pair.flips(metadata.offset..metadata.offset + metadata.size, &["the metadata for `apptainer inspect`: "]);
    let at = squashfs.offset;
    pair.flips(at..at + 4, &["the superblock of the squashfs", "its magic"]);
    pair.flips(at + 40..at + 48, &["the superblock of the squashfs", "its size"]);
    pair.flips(at + 88..at + 96, &["the superblock of the squashfs", "its place of the export table"]);

    let files = FileSystem::read(file, at, squashfs.size).unwrap();
    let mut areas = Vec::new();
    for area in &files.areas {
        areas.push(area.name);
        pair.flips(at + area.start..at + area.end, &[area.name, "differs"]);
    }
    let tables = ["inode", "directory", "fragment", "export", "id"].map(|name| format!("the {name} table"));
    assert_eq!(areas, tables);
    pair.flips(at + files.bytes_used..pair.length, &["the padding behind the squashfs"]);
    // What is said of a file's data names the file; of what files share, at least one.
    let mut in_fragments = 0;
    for found in &files.found {
        let Kind::File(data) = &found.kind else { continue };
        let path = found.shown();
        let stored: u64 = data.blocks.iter().map(|block| u64::from(block & 0xff_ffff)).sum();
        if stored > 0 {
            let said = pair.flip(at + data.start + stored / 2, 1);
            let first = files.found.iter().find(|other| matches!(&other.kind, Kind::File(other) if other == data));
            assert!(said.contains(&format!("{}, block ", first.unwrap().shown())), "{path}: {said}");
        }
        if let Some(place) = data.fragment {
            let fragment = files.fragments[place.index as usize];
            let said = pair.flip(at + fragment.start + u64::from(fragment.size & 0xff_ffff) / 2, 1);
            let shares = |other: &&Found| match &other.kind {
                Kind::File(other) => other.fragment.is_some_and(|other| other.index == place.index),
                _ => false,
            };
            let is_named = files.found.iter().filter(shares).any(|other| said.contains(&other.shown()));
            assert!(is_named, "{path}: {said}");
            in_fragments += 1;
        }
    }
    assert!(in_fragments > 5);
    for at in spread(pair.length, 400) {
        pair.flip(at, 1 << (at % 8));
    }
}

#[test]
fn a_file_that_ends_early_or_late_or_is_overwritten_is_named_without_a_panic() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    for (format, name) in [(Format::Oci, OCI), (Format::Sif, SIF)] {
        let whole = workspace.work(name);
        let mut pair = Pair::new(format, &whole, &workspace.path("tmp"));
        let bytes = fs::read(&whole).unwrap();
        for length in spread(pair.length, 60).chain([0, 1, 511, 512, 40_000, pair.length - 1]) {
            pair.copy.set_len(length).unwrap();
            let (byte, found) = pair.compare().unwrap();
            assert_eq!(byte, length);
            let expected = format!("the file is cut short, {length} of {} bytes are there", pair.length);
            assert_eq!(found.what, expected, "{found:?}");
            pair.copy.rewind().unwrap();
            pair.copy.write_all(&bytes).unwrap();
        }
        pair.copy.seek(SeekFrom::End(0)).unwrap();
        pair.copy.write_all(&[0; 700]).unwrap();
        let (byte, found) = pair.compare().unwrap();
        assert_eq!((byte, found.what.as_str()), (pair.length, "700 bytes too many"));
        pair.copy.set_len(pair.length).unwrap();
        // Longer damage: zeros, noise, and pieces of the file itself at another place.
        for (round, at) in spread(pair.length - 5000, 60).enumerate() {
            let length = 1 + 97 * round;
            let other = match round % 3 {
                0 => vec![0; length],
                1 => noise(length),
                _ => bytes[bytes.len() - at as usize - length..][..length].to_vec(),
            };
            pair.copy.write_all_at(&other, at).unwrap();
            if other != bytes[at as usize..][..length] {
                let (byte, found) = pair.compare().unwrap_or_else(|| panic!("{length} bytes at {at}"));
                assert!((at..at + length as u64).contains(&byte), "{found:?}");
                assert!(!found.place.is_empty() && !found.what.is_empty());
            }
            pair.copy.write_all_at(&bytes[at as usize..][..length], at).unwrap();
        }
        assert!(pair.compare().is_none());
    }
}

#[test]
fn a_sif_that_says_it_is_another_image_and_is_damaged_is_compared_as_far_as_it_can_be_read() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    let mut pair = Pair::new(Format::Sif, &workspace.work(SIF), &workspace.path("tmp"));
    let bytes = workspace.read(SIF);
    pair.copy.write_all_at(&[bytes[50] ^ 1], 50).unwrap();
    pair.copy.write_all_at(&[bytes[3] ^ 1], 3).unwrap();
    assert_eq!(pair.compare().unwrap().1.what, "its launch script differs");
    pair.copy.write_all_at(&[bytes[3]], 3).unwrap();
    for at in spread(pair.length - 4096, 300) {
        pair.copy.write_all_at(&[bytes[at as usize] ^ 1], at).unwrap();
        let (byte, found) = pair.compare().unwrap();
        assert!(byte == 50 || byte == at, "{found:?}");
        assert!(!found.place.is_empty() && !found.what.is_empty(), "{at}: {found:?}");
        pair.copy.write_all_at(&[bytes[at as usize]], at).unwrap();
    }
}

#[test]
fn another_build_is_told_from_damage_and_says_what_it_was_made_from() {
    let workspace = workspace_on_a_base();
    succeeds(&mut workspace.build_on("./base.tar"));
    // What changes the inputs, what is said of it, and the part that is named in each format.
    let says = |file: &str, command: &mut Command, parts: &[&str]| {
        let output = command.output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in parts.iter().chain(&[&*format!("{file} is not what these inputs give; first difference at byte ")])
        {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    };
    for file in [OCI, SIF] {
        let time = verify(&workspace, file, "./base.tar").env("SOURCE_DATE_EPOCH", "1600000000").output().unwrap();
        assert!(
            stderr(&time).contains("not 2020-09-13T12:26:40Z: SOURCE_DATE_EPOCH was set otherwise"),
            "{}",
            stderr(&time)
        );
        says(file, verify(&workspace, file, "./base.tar").args(["--label", "a=b"]), &["its label a is none, not b"]);
        says(file, &mut verify(&workspace, file, "scratch"), &["it stands on another base image: sha256:", "not none"]);
    }
    // The same image in an archive that another program wrote.
    let mut archive = tar::Builder::new(Vec::new());
    let mut ours = tar::Archive::new(File::open(workspace.work(OCI)).unwrap());
    for entry in ours.entries().unwrap().map(Result::unwrap).filter(|entry| entry.header().entry_type().is_file()) {
        archive.append(&entry.header().clone(), entry).unwrap();
    }
    workspace.write("out/copied.tar", &archive.into_inner().unwrap());
    says(
        "out/copied.tar",
        &mut verify(&workspace, "out/copied.tar", "./base.tar"),
        &[
            "in the archive: its members are others",
            "another program wrote it, of the same image: its manifest is sha256:",
        ],
    );
    let name = |file| {
        let mut command = workspace.command(["verify", file, "--base", "./base.tar", "--app", "app"]);
        command.args(["--reference", "w:other"]);
        command
    };
    says(OCI, &mut name(OCI), &["index.json", "it is called w:test, and was to be called w:other"]);
    let same = name(SIF).output().unwrap();
    assert!(same.status.success(), "a SIF has no tag: {}", stderr(&same));

    workspace.write("app/a.py", b"A.PY");
    says(
        OCI,
        &mut verify(&workspace, OCI, "./base.tar"),
        &["(the application), app/src/a.py: its content differs, at byte 0 of 4", "it is whole, but another image"],
    );
    says(
        SIF,
        &mut verify(&workspace, SIF, "./base.tar"),
        &["in /app/src/a.py: its content differs, at byte 0 of 4", "its uuid is another"],
    );
    fs::remove_file(workspace.work("app/a.py")).unwrap();
    for file in [OCI, SIF] {
        says(file, &mut verify(&workspace, file, "./base.tar"), &["app/src/a.py: it should not be there"]);
    }
    workspace.write("app/a.py", b"a.py");
    workspace.write("app/added", b"");
    for file in [OCI, SIF] {
        says(file, &mut verify(&workspace, file, "./base.tar"), &["app/src/added: it is missing"]);
    }
    fs::remove_file(workspace.work("app/added")).unwrap();

    let lock = workspace.lock_text();
    workspace.write("pixi.lock", format!("# mine\n{lock}").as_bytes());
    for file in [OCI, SIF] {
        let parts = ["it was built from another pixi.lock: theirs differs from line 1 on"];
        says(file, &mut verify(&workspace, file, "./base.tar"), &parts);
    }
    workspace.write("pixi.lock", lock.as_bytes());
    for file in [OCI, SIF] {
        succeeds(&mut verify(&workspace, file, "./base.tar"));
    }
}

#[test]
fn what_is_no_image_of_this_program_is_refused_with_the_reason() {
    let workspace = workspace_on_a_base();
    let refused = |name: &str, content: &[u8], reason: &str| {
        workspace.write(name, content);
        let said = workspace.fails(&mut verify(&workspace, name, "scratch"), &[name, reason]);
        assert!(!said.contains("Reading the lock"), "it was built in vain: {said}");
    };
    refused("out/empty", b"", "it is empty");
    refused("out/text", b"hello", "it is neither an OCI archive nor a SIF");
    refused("out/noise", &noise(100_000), "it is neither an OCI archive nor a SIF");
    refused("out/gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0], "it is compressed as a whole");
    // The base was not made by `build`, and a tar of something else is no image.
    refused("out/base.tar", &workspace.read("base.tar"), "it is an image that another program made");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    tar.append_data(&mut header, "manifest.json", &b"[]"[..]).unwrap();
    refused("out/docker.tar", &tar.into_inner().unwrap(), "it is no OCI archive of this program");
    let mut sif = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0".to_vec();
    sif.resize(100_000, 0);
    refused("out/other.sif", &sif, "it is a SIF that another program made");
    workspace.fails(&mut verify(&workspace, "out/none", "scratch"), &["cannot read out/none"]);
    workspace.fails(&mut verify(&workspace, "out", "scratch"), &["cannot read out: "]);
}
