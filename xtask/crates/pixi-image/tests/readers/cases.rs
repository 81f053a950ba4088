//! What packages, base images and applications may hold and writers get wrong.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pixi_image::layers::PACKAGE_LAYERS;
use rattler_conda_types::package::FileMode;
use serde_json::json;

use crate::image;
use crate::packages::{Content, Member, Package};

const BLOCK: usize = 128 << 10;
const PLACEHOLDER: &str = "/home/builder/placeholder_placeholder_placeholder_placeholder_placeholder_placeholder";

/// Content that does not compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn text(length: usize) -> Vec<u8> {
    b"all work and no play\n".iter().copied().cycle().take(length).collect()
}

fn symlink(path: &str, target: impl Into<String>) -> Member {
    Member::new(path, Content::Symlink(target.into()))
}

fn hardlink(path: &str, target: &str) -> Member {
    Member::new(path, Content::Hardlink(target.to_owned()))
}

/// All packages; none needs another but where they clash.
pub fn packages() -> Vec<Package> {
    let packages = [sizes(), again(), sparse(), links(), names(), deep(), patched(), Package::new("only-info", [])];
    packages.into_iter().chain(clashing()).chain(many()).map(Package::by_hand).collect()
}

fn sizes() -> Package {
    let mut members = Vec::new();
    for size in
        [0, 1, 511, 512, 513, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK + 7]
    {
        members.push(Member::file(&format!("sizes/{size}-noise"), noise(size)));
        members.push(Member::file(&format!("sizes/{size}-text"), text(size)).executable());
        members.push(Member::file(&format!("sizes/{size}-zeros"), vec![0; size]));
    }
    Package::new("sizes", members)
}

/// What `sizes` holds, too, between files that no other package has.
fn again() -> Package {
    let own = |seed: usize| Member::file(&format!("again/own-{seed}"), noise(3 * BLOCK + seed));
    Package::new(
        "again",
        [
            own(11),
            Member::file("again/noise", noise(5 * BLOCK + 7)),
            own(12),
            Member::file("again/text", text(2 * BLOCK + 1)).executable(),
            hardlink("again/second-name", "again/noise"),
            own(13),
            Member::file("again/small", text(513)),
        ],
    )
}

/// So many that some share a layer, in which no directory may come twice.
fn many() -> impl Iterator<Item = Package> {
    (0..PACKAGE_LAYERS + 20).map(|number| {
        let name = format!("many-{number}");
        let members = ["lib/many/common", "lib/many"].map(|directory| {
            let content = format!("{directory} of {name}");
            Member::file(&format!("{directory}/{name}"), content)
        });
        Package::new(&name, members)
    })
}

fn sparse() -> Package {
    let holes = |pieces: &[(usize, bool)]| -> Vec<u8> {
        pieces.iter().flat_map(|(size, hole)| if *hole { vec![0; *size] } else { noise(*size) }).collect()
    };
    Package::new(
        "sparse",
        [
            Member::file("sparse/middle", holes(&[(BLOCK, false), (6 * BLOCK, true), (BLOCK + 10, false)])),
            Member::file("sparse/start", holes(&[(3 * BLOCK, true), (BLOCK, false)])),
            Member::file("sparse/end", holes(&[(BLOCK, false), (3 * BLOCK + 5, true)])),
            Member::file(
                "sparse/islands",
                holes(&[(BLOCK, true), (9, false), (2 * BLOCK, true), (BLOCK, false), (1, true)]),
            ),
            hardlink("sparse/second-name", "sparse/middle"),
        ],
    )
}

fn links() -> Package {
    Package::new(
        "links",
        [
            Member::file("links/large", noise(3 * BLOCK + 1)).executable(),
            hardlink("links/large-too", "links/large").executable(),
            hardlink("links/a-name-before", "links/large").executable(),
            hardlink("links/chained", "links/large-too").executable(),
            Member::file("links/small", "small"),
            hardlink("elsewhere/small", "links/small"),
            Member::file("links/empty", ""),
            hardlink("links/empty-too", "links/empty"),
            symlink("links/to-file", "large"),
            symlink("links/to-directory", "../elsewhere"),
            symlink("links/dangling", "no/such/file"),
            symlink("links/loop", "loop"),
            symlink("links/absolute", "/usr/lib/libcuda.so.1"),
            symlink("links/outside", "../../../../../../../../etc/passwd"),
            symlink("links/odd", "a b\nc\\d"),
            symlink("links/100", "t".repeat(100)),
            symlink("links/101", "t".repeat(101)),
            // backhand reads no longer one; the tests of `squashfs` go to 4095.
            symlink("links/long", "t".repeat(255)),
        ],
    )
}

fn names() -> Package {
    let long = "n".repeat(255);
    let two_bytes = "é".repeat(127);
    let names = [
        "a space",
        " before",
        "after ",
        "new\nline",
        "tab\t",
        "back\\slash",
        "quote'\"`",
        "-dash",
        "--dash",
        "*?[glob]",
        "$HOME",
        "%s",
        "ümlaut",
        "u\u{308}mlaut",
        "日本語",
        "🦀",
        "\u{1}\u{7f}",
        "...",
        ". ",
        "a:b",
        "con",
        "#hash",
        "~",
        "CASE",
        "case",
        &long,
        &two_bytes,
    ];
    let mut members: Vec<_> =
        names.iter().map(|name| Member::file(&format!("names/{name}"), format!("of {name}"))).collect();
    members.extend(names.iter().map(|name| Member::file(&format!("named/{name}/file"), "")));
    // The header of a tar member holds 100 bytes; the prefix of the image takes some of them.
    for length in 60..110 {
        members.push(Member::file(&format!("lengths/{}", "l".repeat(length)), ""));
    }
    Package::new("names", members)
}

fn deep() -> Package {
    let many = "d/".repeat(150);
    let long = format!("{}/", "e".repeat(255)).repeat(12);
    Package::new(
        "deep",
        [
            Member::file(&format!("{many}file"), "at the end of many"),
            symlink(&format!("{many}link"), "file"),
            Member::file(&format!("{long}file"), "at the end of a long path"),
            hardlink(&format!("{long}second"), &format!("{long}file")),
        ],
    )
}

fn patched() -> Package {
    let script = format!("#!{PLACEHOLDER}/bin/python\nprint('{PLACEHOLDER}')\n");
    let binary = [noise(BLOCK), format!("\0{PLACEHOLDER}/lib:{PLACEHOLDER}\0").into_bytes(), noise(2 * BLOCK)].concat();
    Package::new(
        "patched",
        [
            Member::file("patched/script", script.clone()).patched(PLACEHOLDER, FileMode::Text).executable(),
            hardlink("patched/script-too", "patched/script").patched(PLACEHOLDER, FileMode::Text).executable(),
            Member::file("patched/binary", binary).patched(PLACEHOLDER, FileMode::Binary).executable(),
            Member::file("patched/as-it-is", script),
        ],
    )
}

/// Two packages that bring the same paths; what loses has another name.
fn clashing() -> [Package; 2] {
    let first = Package::new(
        "clash-first",
        [
            Member::file("clash/file", noise(BLOCK + 3)),
            hardlink("clash/second-name", "clash/file"),
            symlink("clash/link", "file"),
        ],
    );
    let second = Package::new(
        "clash-second",
        [Member::file("clash/file", "the later one wins"), Member::file("clash/link", "a file now")],
    );
    [first, second.depends(&["clash-first"])]
}

/// One entry of a base's layer.
fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &[u8], kind: tar::EntryType, mode: u32, owner: u64, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_600_000_000);
    let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
    header.set_size(if is_link { 0 } else { content.len() as u64 });
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    if is_link {
        old.linkname[..content.len()].copy_from_slice(content);
    }
    header.set_cksum();
    tar.append(&header, if is_link { &[] } else { content }).unwrap();
}

/// A base image: what only a base may hold, what its upper layers hide, and what the programs in `programs` need to run.
pub fn base(directory: &Path, programs: &[&Path]) {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let mut lower = tar::Builder::new(Vec::new());
    for directory in ["bin/", "etc/", "opt/", "opt/hard/", "opt/bytes/", "tmp/", "opt/removed/", "opt/emptied/"] {
        entry(&mut lower, directory.as_bytes(), Directory, 0o755, 0, b"");
    }
    entry(&mut lower, b"opt/sticky/", Directory, 0o1777, 0, b"");
    entry(&mut lower, b"opt/setgid/", Directory, 0o2750, 0, b"");
    entry(&mut lower, b"opt/closed/", Directory, 0o700, 0, b"");
    entry(&mut lower, b"opt/closed/file", Regular, 0o600, 0, b"secret");
    entry(&mut lower, b"opt/setuid", Regular, 0o4755, 0, b"#!/bin/sh\n");
    entry(&mut lower, b"opt/of-somebody", Regular, 0o640, 1000, b"owned");
    for name in [b"\xff\xfe".as_slice(), b"\xc3", b"latin-\xe9", b"utf-8-\xc3\xa9"] {
        entry(&mut lower, &[b"opt/bytes/", name].concat(), Regular, 0o644, 0, name);
        entry(&mut lower, &[b"opt/bytes/to-", name].concat(), Symlink, 0o777, 0, name);
        entry(&mut lower, &[b"opt/bytes/also-", name].concat(), Link, 0o644, 0, &[b"opt/bytes/", name].concat());
    }
    let mut file = |path: &str, content: &[u8]| entry(&mut lower, path.as_bytes(), Regular, 0o644, 0, content);
    file("opt/replaced", &noise(2 * BLOCK + 1));
    file("opt/replaced-small", b"the lower one");
    file("opt/removed-file", &noise(BLOCK + 5));
    file("opt/removed/small", b"gone");
    file("opt/removed/large", &noise(2 * BLOCK + 5));
    file("opt/emptied/small", b"gone");
    file("opt/emptied/large", &noise(3 * BLOCK + 5));
    file("opt/first-name", &noise(BLOCK + 9));
    file("opt/behind", &noise(BLOCK + 11));
    entry(&mut lower, b"opt/second-name", Link, 0o644, 0, b"opt/first-name");

    let mut upper = tar::Builder::new(Vec::new());
    for directory in ["opt/", "opt/emptied/"] {
        entry(&mut upper, directory.as_bytes(), Directory, 0o755, 0, b"");
    }
    let mut file = |path: &str, content: &[u8]| entry(&mut upper, path.as_bytes(), Regular, 0o644, 0, content);
    file("opt/replaced", &noise(BLOCK + 1));
    file("opt/replaced-small", b"the upper one");
    file("opt/.wh.removed-file", b"");
    file("opt/.wh.removed", b"");
    file("opt/emptied/new", b"new");
    file("opt/emptied/.wh..wh..opq", b"");
    file("opt/.wh.first-name", b"");
    // What the lower layer held elsewhere, where it is hidden now.
    file("opt/again", &noise(2 * BLOCK + 5));

    let tree = programs.iter().fold(image::Tree::empty(), |tree, program| tree.libraries_of(program));
    let layers = [lower.into_inner().unwrap(), upper.into_inner().unwrap(), tree.layer()];
    image::layout(directory, &layers, json!({"Env": ["PATH=/usr/bin:/bin"]}));
}

/// Application files, whose names are the file system's.
pub fn application(directory: &Path) {
    fs::create_dir_all(directory.join("empty/directory")).unwrap();
    for name in [b"plain".as_slice(), b"\xff\xfe", b"new\nline", b"latin-\xe9"] {
        fs::write(directory.join(super::listing::path(name)), name).unwrap();
    }
    fs::hard_link(directory.join("plain"), directory.join("second-name")).unwrap();
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"\xff\xfe"), directory.join("link")).unwrap();
    // A file with a hole in it, as the file system has it.
    let hole = fs::File::create(directory.join("hole")).unwrap();
    hole.set_len(1_000_000).unwrap();
}
