use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;

/// One member of a tar stream, its path written as it is, however hostile.
struct Member<'m>(&'m str, tar::EntryType, &'m str, u32);

fn file<'m>(path: &'m str, content: &'m str) -> Member<'m> {
    Member(path, tar::EntryType::Regular, content, 0o644)
}

fn directory(path: &str) -> Member<'_> {
    Member(path, tar::EntryType::Directory, "", 0o755)
}

fn symlink<'m>(path: &'m str, target: &'m str) -> Member<'m> {
    Member(path, tar::EntryType::Symlink, target, 0o777)
}

fn hardlink<'m>(path: &'m str, target: &'m str) -> Member<'m> {
    Member(path, tar::EntryType::Link, target, 0o644)
}

fn layer(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Member(path, kind, text, mode) in members {
        let mut header = tar::Header::new_gnu();
        let is_link = kind.is_symlink() || kind.is_hard_link();
        let content = if is_link { "" } else { text };
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if is_link {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(1_600_000_000);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn unpack(top: &Path, layers: &[&[Member<'_>]]) -> Result<(), EntryError> {
    std::fs::create_dir_all(top).unwrap();
    let root = Root::open(top).unwrap();
    let mut unpacker = Unpacker::new(&root);
    layers.iter().try_for_each(|members| apply_layer(&mut unpacker, layer(members).as_slice()))
}

fn listing(top: &Path) -> Vec<String> {
    fn visit(directory: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(top).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                visit(&path, top, found);
            }
        }
    }
    let mut found = Vec::new();
    visit(top, top, &mut found);
    found.sort();
    found
}

#[test]
fn a_hostile_layer_is_refused_or_stays_inside() {
    let hostile: [&[Member<'_>]; 12] = [
        &[file("../out", "x")],
        &[file("a/../../out", "x")],
        &[file("/out", "x")],
        &[symlink("link", ".."), file("link/out", "x")],
        &[symlink("link", "/"), file("link/out", "x")],
        &[symlink("a", "b"), symlink("b", "../.."), file("a/out", "x")],
        &[hardlink("mine", "../secret")],
        &[symlink("up", ".."), hardlink("mine", "up/secret")],
        &[symlink("mine", "../secret"), file("mine", "overwritten")],
        &[symlink("up", ".."), file("up/.wh.secret", "")],
        &[symlink("up", ".."), file("up/.wh..wh..opq", "")],
        &[file("x/.wh...", ""), file(".wh...", "")],
    ];
    for (number, members) in hostile.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let top = dir.path().join("root");
        let _refused_or_kept_inside = unpack(&top, &[members]);
        let outside: Vec<_> = listing(dir.path()).into_iter().filter(|path| !path.starts_with("root")).collect();
        assert_eq!(outside, ["secret"], "case {number}");
        let secret = dir.path().join("secret");
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret", "case {number}");
        assert_eq!(secret.metadata().unwrap().nlink(), 1, "case {number}");
    }
}

#[test]
fn a_refusal_names_the_path_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(dir.path(), &[&[file("a/../../out", "x")]]).unwrap_err().to_string();
    assert!(error.contains("a/../../out") && error.contains(".."), "{error}");
    let error = unpack(dir.path(), &[&[hardlink("b", "not/there")]]).unwrap_err().to_string();
    assert!(error.contains("b: is a hard link to not/there"), "{error}");
    let mut cut = layer(&[file("cut", "0123456789")]);
    cut.truncate(515);
    let root = Root::open(dir.path()).unwrap();
    assert!(apply_layer(&mut Unpacker::new(&root), cut.as_slice()).is_err());
}

#[test]
fn later_layers_replace_and_whiteouts_remove() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    let first = [
        directory("./"),
        file("kept", "1"),
        file("gone", "1"),
        file("tree/deep/gone", "1"),
        file("opaque/old", "1"),
        file("opaque/both/old", "1"),
        file("was-file", "1"),
        file("was-dir/file", "1"),
        file("...", "a name of dots alone"),
    ];
    let second = [
        file(".wh.gone", ""),
        file(".wh.tree", ""),
        file(".wh.never-there", ""),
        file("no/such/dir/.wh.x", ""),
        file("opaque/both/new", "2"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/after", "2"),
        file(".wh..wh.plnk", "bookkeeping"),
        directory("was-file"),
        file("was-file/inside", "2"),
        file("was-dir", "2"),
        file("kept", "22"),
    ];
    unpack(top, &[&first, &second]).unwrap();
    let expected = [
        "...",
        "kept",
        "opaque",
        "opaque/after",
        "opaque/both",
        "opaque/both/new",
        "was-dir",
        "was-file",
        "was-file/inside",
    ];
    assert_eq!(listing(top), expected);
    assert_eq!(std::fs::read(top.join("kept")).unwrap(), b"22");
}

#[test]
fn a_layer_may_write_through_links_of_directories_inside_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let base = [directory("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib")];
    unpack(dir.path(), &[&base, &[file("lib/a.so", "a"), file("abs/b.so", "b")]]).unwrap();
    assert!(dir.path().join("usr/lib/a.so").is_file() && dir.path().join("usr/lib/b.so").is_file());
}

#[test]
fn modes_times_and_hard_links_are_kept_but_setuid_bits_and_devices_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    let members = [
        Member("closed", tar::EntryType::Directory, "", 0o000),
        Member("tmp", tar::EntryType::Directory, "", 0o1777),
        Member("closed/su", tar::EntryType::Regular, "x", 0o6755),
        Member("shadow", tar::EntryType::Regular, "x", 0o000),
        Member("null", tar::EntryType::Char, "", 0o666),
        Member("pipe", tar::EntryType::Fifo, "", 0o666),
        hardlink("other", "closed/su"),
    ];
    unpack(top, &[&members]).unwrap();
    let mode = |path: &str| top.join(path).symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("closed"), mode("tmp"), mode("closed/su"), mode("shadow")], [0o700, 0o1777, 0o755, 0o400]);
    let (one, other) = (top.join("closed/su").metadata().unwrap(), top.join("other").metadata().unwrap());
    assert_eq!((one.ino(), one.mtime()), (other.ino(), 1_600_000_000));
    assert_eq!(listing(top), ["closed", "closed/su", "other", "shadow", "tmp"]);
}
