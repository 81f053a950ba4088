//! What goes into a pack comes out of its layer and out of its squashfs bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::entry::{Entry, EntryKind, EntrySink, push_file};
use crate::publish::Publisher;
use crate::squashfs::BLOCK_SIZE;

fn path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

fn pack(threads: usize, targets: Targets, fill: impl FnOnce(&mut dyn EntrySink)) -> PackFile {
    let compressors = Compressors::start(NonZeroUsize::new(threads).unwrap());
    PackFile::temporary::<PackError>(&std::env::temp_dir(), |out| {
        let mut writer = PackWriter::new(out, &compressors, targets, |path| path.file_name() == b"captured");
        fill(&mut writer);
        let (index, mut out) = writer.finish().unwrap();
        std::io::Write::flush(&mut out).unwrap();
        Ok(index)
    })
    .unwrap()
}

/// The uncompressed tar stream by way of the gzip members, with an independent decoder.
fn layer(packs: &[&PackFile]) -> Vec<u8> {
    let (mut gzip, mut tar) = (Vec::new(), Vec::new());
    write_layer(packs, &mut gzip).unwrap();
    flate2::read::MultiGzDecoder::new(&gzip[..]).read_to_end(&mut tar).unwrap();
    tar
}

/// The contents by way of the squashfs bytes.
fn squashfs_contents(pack: &PackFile) -> BTreeMap<ImagePath, Vec<u8>> {
    let mut bytes = Vec::new();
    pack.write_squashfs(&Default::default(), &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, pack.index.squashfs_size());
    let block = |start: u64, size: u32| {
        let stored = &bytes[start as usize..][..(size & 0xff_ffff) as usize];
        let mut raw = Vec::new();
        match size & (1 << 24) {
            0 => flate2::read::ZlibDecoder::new(stored).read_to_end(&mut raw).unwrap(),
            _ => stored.to_vec().as_slice().read_to_end(&mut raw).unwrap(),
        };
        raw
    };
    let mut contents = BTreeMap::new();
    for entry in &pack.index.entries {
        let PackedKind::File(content) = &entry.kind else { continue };
        let mut raw = Vec::new();
        let mut position = content.start;
        for size in &content.blocks {
            if *size == 0 {
                raw.resize((raw.len() + BLOCK_SIZE).min(content.size as usize), 0);
            } else {
                raw.extend(block(position, *size));
                position += u64::from(size & 0xff_ffff);
            }
        }
        if let Some((index, offset)) = content.fragment {
            let (start, size) = pack.index.fragments[index as usize];
            raw.extend_from_slice(&block(start, size)[offset as usize..][..content.size as usize]);
        }
        contents.insert(entry.path.clone(), raw);
    }
    contents
}

fn content(kind: u8, size: usize) -> Vec<u8> {
    let mut state = size as u32 | 1;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    match kind {
        0 => vec![0; size],
        1 => (0..size).map(|_| noise()).collect(),
        2 => (0..size).map(|at| if at < BLOCK_SIZE { 0 } else { noise() & 3 }).collect(),
        _ => (0..size).map(|_| b'a' + (noise() & 7)).collect(),
    }
}

#[test]
fn every_kind_of_entry_reads_back_from_the_layer() {
    let long = format!("{}/{}", "d".repeat(150), "n".repeat(200));
    let pack = pack(2, Targets::Both, |sink| {
        let entry = |kind, place: &str| Entry { path: path(place), kind, mode: Mode(0o755), mtime: 7 };
        sink.entry(&entry(EntryKind::Directory, "d")).unwrap();
        push_file(sink, path("d/captured"), Mode::FILE, 1, b"seen").unwrap();
        push_file(sink, path(&long), Mode::EXECUTABLE, 2, b"long").unwrap();
        sink.entry(&entry(EntryKind::Symlink { target: vec![b't'; 300] }, "d/s")).unwrap();
        sink.entry(&entry(EntryKind::Hardlink { target: path("d/captured") }, "d/h")).unwrap();
    });
    assert_eq!(pack.index.captured, [(path("d/captured"), b"seen".to_vec())]);
    let tar = layer(&[&pack]);
    let mut archive = tar::Archive::new(&tar[..]);
    let seen: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name_bytes().map(|link| link.len()).unwrap_or(0);
            (String::from_utf8(entry.path_bytes().to_vec()).unwrap(), entry.header().mtime().unwrap(), link)
        })
        .collect();
    let expected = [("d/", 7, 0), ("d/captured", 1, 0), (&long, 2, 0), ("d/s", 7, 300), ("d/h", 7, 10)];
    assert_eq!(seen, expected.map(|(name, mtime, link)| (name.to_owned(), mtime, link)));
}

#[test]
fn packs_that_share_a_layer_have_every_directory_in_it_once() {
    let long = "n".repeat(120);
    let of = |directories: &[&str], files: &[&str]| {
        pack(1, Targets::Both, |sink| {
            for name in directories {
                let kind = EntryKind::Directory;
                sink.entry(&Entry { path: path(name), kind, mode: Mode::EXECUTABLE, mtime: 7 }).unwrap();
            }
            for name in files {
                push_file(sink, path(name), Mode::FILE, 1, &content(2, 200_000)).unwrap();
            }
        })
    };
    let packs =
        [of(&["a", "a/b", &long], &["a/b/1", "top"]), of(&["a", "a/b"], &["a/b/2"]), of(&["c"], &[]), of(&[], &["3"])];
    let packs: Vec<&PackFile> = packs.iter().collect();
    let names = |packs: &[&PackFile]| -> Vec<String> {
        let tar = layer(packs);
        let mut inflated = Vec::new();
        write_layer_tar(packs, &mut inflated).unwrap();
        assert_eq!(inflated, tar);
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap();
        entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap()).collect()
    };
    let long = format!("{long}/");
    assert_eq!(names(&packs), ["a/", "a/b/", "c/", &long, "a/b/1", "top", "a/b/2", "3"]);
    assert_eq!(names(&packs[1..2]), ["a/", "a/b/", "a/b/2"]);
    assert_eq!(packs[1].index.diff_id, Some(Digest::of(&layer(&packs[1..2]))));
}

#[test]
fn content_that_is_short_or_long_is_an_error() {
    let compressors = Compressors::start(NonZeroUsize::MIN);
    let mut writer = PackWriter::new(Vec::new(), &compressors, Targets::Both, |_| false);
    let file = Entry { path: path("f"), kind: EntryKind::File { size: 3 }, mode: Mode::FILE, mtime: 0 };
    writer.entry(&file).unwrap();
    assert!(writer.data(b"four").is_err());
    assert!(writer.entry(&file).unwrap_err().to_string().contains("f: 3 bytes"));
}

#[test]
fn a_cached_pack_that_was_cut_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("p.pack");
    let publisher = Publisher::default();
    PackFile::create::<PackError>(&place, &publisher, |_| Ok(PackIndex::default())).unwrap();
    publisher.finish().unwrap();
    assert!(PackFile::open(&place).unwrap().is_some());
    assert!(PackFile::open(&dir.path().join("none")).unwrap().is_none());
    let bytes = std::fs::read(&place).unwrap();
    std::fs::write(&place, &bytes[..bytes.len() - 1]).unwrap();
    assert!(PackFile::open(&place).unwrap_err().to_string().contains("delete that file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn contents_survive_both_formats_whatever_their_size_and_the_number_of_threads(
        files in proptest::collection::vec((0u8..4, prop_oneof![0usize..3000, SMALL - 2..SMALL + 2000, 130_000usize..132_500, 262_000usize..400_000]), 1..12),
        threads in 1usize..4,
    ) {
        let make = |threads, targets| pack(threads, targets, |sink| {
            for (at, (kind, size)) in files.iter().enumerate() {
                push_file(sink, path(&format!("f{at}")), Mode::FILE, 0, &content(*kind, *size)).unwrap();
            }
        });
        let packed = make(threads, Targets::Both);
        let expected: BTreeMap<_, _> =
            files.iter().enumerate().map(|(at, (kind, size))| (path(&format!("f{at}")), content(*kind, *size))).collect();
        prop_assert_eq!(&squashfs_contents(&packed), &expected);
        prop_assert_eq!(&squashfs_contents(&make(1, Targets::SquashfsOnly)), &expected);

        let tar = layer(&[&packed]);
        let mut inflated = Vec::new();
        write_layer_tar(&[&packed], &mut inflated).unwrap();
        prop_assert_eq!(&inflated, &tar);
        prop_assert_eq!(packed.index.diff_id, Some(Digest::of(&tar)));
        let mut read = BTreeMap::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            read.insert(ImagePath::new(entry.path_bytes()).unwrap(), bytes);
        }
        prop_assert_eq!(&read, &expected);

        let (mut one, mut other) = (Vec::new(), Vec::new());
        write_layer(&[&packed], &mut one).unwrap();
        write_layer(&[&make(1, Targets::Both)], &mut other).unwrap();
        prop_assert_eq!(one, other);
    }
}

#[test]
fn a_size_that_octal_digits_cannot_hold_is_read_by_every_tar() {
    let size = 9 << 30;
    let entry = Entry { path: path("giant"), kind: EntryKind::File { size }, mode: Mode::FILE, mtime: 0 };
    let header = super::tar_header::headers(&entry);
    assert_eq!(tar::Header::from_byte_slice(&header).entry_size().unwrap(), size);
    let place = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(place.path(), &header).unwrap();
    place.as_file().set_len(512 + size + 1024).unwrap(); // a hole, which takes no room
    let list = "import sys, tarfile; print(*[member.size for member in tarfile.open(sys.argv[1], 'r:')])";
    for words in [&["tar", "-tvf"][..], &["bsdtar", "-tvf"], &["python3", "-c", list]] {
        let listed = std::process::Command::new(words[0]).args(&words[1..]).arg(place.path()).output();
        let Ok(listed) = listed else { continue }; // no such program here
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && text.contains("9663676416"), "{words:?}: {text}");
    }
}

#[test]
fn only_the_same_bytes_are_taken_for_the_same() {
    let content = |seed: u8| -> Vec<u8> { (0..3 * BLOCK_SIZE).map(|at| (at / 7) as u8 ^ seed).collect() };
    let of = |contents: [Vec<u8>; 2]| {
        pack(1, Targets::Both, |sink| {
            for (number, content) in contents.iter().enumerate() {
                push_file(sink, path(&format!("file-{number}")), Mode::FILE, 0, content).unwrap();
            }
        })
    };
    let (one, two) = (of([content(1), content(2)]), of([content(2), content(3)]));
    let blocks = |pack: &PackFile| -> Vec<usize> {
        let chunks = pack.index.chunks.iter().enumerate();
        chunks.filter(|(_, chunk)| chunk.used == Use::Both).map(|(at, _)| at).collect()
    };
    let (of_one, of_two) = (blocks(&one), blocks(&two));
    assert!(one.holds_the_same(&of_one[3..], &two, &of_two[..3]).unwrap());
    assert!(!one.holds_the_same(&of_one[..3], &two, &of_two[..3]).unwrap());
    assert!(!one.holds_the_same(&of_one[3..], &two, &of_two[..2]).unwrap(), "one of them is longer");
}

/// Bytes that deflate makes a little smaller: of every eight, seven are noise.
fn hard_content(size: usize) -> Vec<u8> {
    let mut state = 7u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    noise.take(size).enumerate().map(|(at, byte)| if at % 8 == 0 { 0 } else { byte }).collect()
}

#[test]
fn what_hardly_becomes_smaller_gets_the_same_levels_whatever_the_threads() {
    let hard = hard_content((LOOK_BACK + 20) * BLOCK_SIZE);
    let easy: Vec<u8> = hard.iter().map(|byte| byte % 16).collect();
    let make = |threads, targets, content: &[u8]| {
        pack(threads, targets, |sink| push_file(sink, path("file"), Mode::FILE, 0, content).unwrap())
    };
    let blocks = |pack: &PackFile| match &pack.index.entries[0].kind {
        PackedKind::File(content) => content.blocks.clone(),
        other => panic!("{other:?}"),
    };
    let alone = |content: &[u8], level: i32| {
        let chunks = content.chunks(BLOCK_SIZE);
        chunks.map(|raw| compress::compress(raw.to_vec(), Use::Both, level).0.squashfs_block()).collect::<Vec<_>>()
    };
    assert_ne!(alone(&hard, LEVEL)[LOOK_BACK..], alone(&hard, HARD_LEVEL)[LOOK_BACK..], "levels can be told apart");
    let expected = [&alone(&hard, LEVEL)[..LOOK_BACK], &alone(&hard, HARD_LEVEL)[LOOK_BACK..]].concat();
    for (threads, targets) in
        [(1, Targets::Both), (40, Targets::Both), (3, Targets::LayerOnly), (2, Targets::SquashfsOnly)]
    {
        assert_eq!(blocks(&make(threads, targets, &hard)), expected, "{threads} threads, {targets:?}");
    }
    assert_eq!(blocks(&make(2, Targets::Both, &easy)), alone(&easy, LEVEL));
}
