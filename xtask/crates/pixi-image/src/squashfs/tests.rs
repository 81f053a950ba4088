//! Tests of the file system against readers that others wrote: backhand, unsquashfs and Linux.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use backhand::{FilesystemReader, InnerNode, Squashfs};
use proptest::prelude::*;

use super::*;
use crate::entry::{ImagePath, Mode};
use crate::tree::FragmentRef;

mod support;

use support::{Image, Reader, backhand_contents, kernel, listing, noise, output, path, zoo};

#[test]
fn backhand_reads_back_every_entry_and_content() {
    let image = zoo();
    let bytes = image.bytes(99);
    assert_eq!(bytes.len() % 4096, 0);
    assert_eq!(backhand_contents(&bytes), image.contents());
    let squashfs = Squashfs::from_reader(Cursor::new(&bytes)).unwrap();
    assert_eq!(squashfs.superblock.mod_time, 99);
    assert_eq!(squashfs.superblock.id_count, 1);
}

#[test]
fn the_export_table_finds_each_inode_by_its_number() {
    let bytes = zoo().bytes(0);
    let field = |at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (id_table, inode_table, directory_table, export_table) = (field(48), field(64), field(72), field(88));
    let inodes = support::metadata_blocks(&bytes, inode_table, directory_table);
    let exported = support::lookup_records(&bytes, export_table);
    let count = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    assert_eq!(exported.len(), 8 * count);
    assert!(count > 1024, "more than fit into one metadata block");
    for (number, reference) in exported.chunks(8).enumerate() {
        let reference = u64::from_le_bytes(reference.try_into().unwrap());
        let block = inodes.range(reference >> 16..).flat_map(|(_, block)| block);
        let inode: Vec<u8> = block.skip(reference as usize & 0xffff).take(16).copied().collect();
        assert_eq!(inode[12..], (number as u32 + 1).to_le_bytes(), "at {reference:#x}");
    }
    assert!(export_table < id_table);
}

#[test]
fn more_fragments_than_fit_into_one_metadata_block_can_be_read() {
    let mut tree = Tree::new(Mode::EXECUTABLE, 0);
    let (mut data, mut fragments) = (vec![0; 96], Vec::new());
    for index in 0..1100u32 {
        let place = Some(FragmentRef { index, offset: 1 });
        let file = FileData { size: 4, fragment: place, ..FileData::default() };
        tree.insert_file(&path(&index.to_string()), Mode::FILE, 0, file).unwrap();
        fragments.push(Fragment { start: data.len() as u64, size: 5 | STORED_RAW });
        data.extend(format!("-{index:04}").bytes());
    }
    let tables = tables(&tree, &fragments, data.len() as u64, 0).unwrap();
    data[..96].copy_from_slice(&tables.superblock);
    let bytes = [data, tables.tail].concat();
    for (path, (_, _, kind)) in backhand_contents(&bytes) {
        let number: u32 = String::from_utf8(path).unwrap().parse().unwrap();
        assert_eq!(kind, support::Kind::File(format!("{number:04}").into_bytes()));
    }
    if let Some(said) = kernel(&bytes, Path::new("/"), "cat 0 511 512 1023 1024 1099") {
        assert_eq!(said, "000005110512102310241099");
    }
}

#[test]
fn unsquashfs_extracts_what_was_put_in() {
    let Some(mut unsquashfs) = Reader::Unsquashfs.command() else { return };
    let image = zoo();
    let work = tempfile::tempdir().unwrap();
    let (file, source, extracted) = (work.path().join("image"), work.path().join("source"), work.path().join("out"));
    std::fs::write(&file, image.bytes(0)).unwrap();
    image.extract(&source);
    let said = output(unsquashfs.args(["-no-progress", "-strict-errors", "-d"]).arg(&extracted).arg(&file));
    assert!(!said.to_lowercase().contains("corrupt"), "{said}");
    assert_eq!(output(Command::new("diff").args(["-r", "--no-dereference"]).arg(&source).arg(&extracted)), "");
    // As an ordinary user unsquashfs leaves setuid and setgid bits out.
    let kept = if output(Command::new("id").arg("-u")) == "0\n" { 0o7777 } else { 0o1777 };
    assert_eq!(listing(&extracted), image.listing(kept, false));
}

#[test]
fn linux_mounts_it_and_shows_what_was_put_in() {
    let image = zoo();
    let source = tempfile::tempdir().unwrap();
    image.extract(source.path());
    let script = r#"diff -r --no-dereference "$SOURCE" . && find . -mindepth 1 -printf '%U:%G\n' | sort -u"#;
    let Some(said) = kernel(&image.bytes(0), source.path(), script) else { return };
    assert_eq!(said, "0:0\n");
    let Some(said) = kernel(&image.bytes(0), source.path(), support::LIST_WITH_LINKS) else { return };
    assert_eq!(support::sorted(&said), image.listing(0o7777, true));
}

#[test]
fn hard_links_are_one_inode_with_as_many_links_as_names() {
    let mut image = Image::new();
    image.file("a/one", 0o755, b"the content");
    for name in ["a/two", "b/three", "zero"] {
        image.tree.insert_hardlink(&path(name), &path("a/one")).unwrap();
    }
    image.tree.insert_symlink(&path("soft"), "a/one", 0).unwrap();
    image.tree.insert_hardlink(&path("soft-too"), &path("soft")).unwrap();
    let bytes = image.bytes(0);
    let squashfs = Squashfs::from_reader(Cursor::new(&bytes)).unwrap();
    assert_eq!(squashfs.superblock.inode_count, 5, "the root, two directories, the file and the link");
    assert_eq!(backhand_contents(&bytes), image.contents());
    let script = "stat -c '%i %h' a/one a/two b/three zero | sort -u | wc -l; stat -c %h zero soft soft-too; cat zero";
    if let Some(said) = kernel(&bytes, Path::new("/"), script) {
        assert_eq!(said, "1\n4\n2\n2\nthe content");
    }
}

#[test]
fn a_directory_of_a_hundred_thousand_files_is_found_whole_and_by_name() {
    let mut image = Image::new();
    for number in 0..100_000 {
        image.file(&format!("many/file-{number:06}-{}", "x".repeat(number % 40)), 0o644, &[]);
    }
    image.file("many/file-077777-", 0o644, b"found\n");
    let bytes = image.bytes(0);
    let squashfs = Squashfs::from_reader(Cursor::new(&bytes)).unwrap();
    let filesystem = squashfs.into_filesystem_reader().unwrap();
    assert_eq!(filesystem.files().count(), 100_003);
    // Linux needs 0.1 ms for each lookup in so large a directory: one name in a hundred is looked up.
    let script = "cd many; find . -type f | wc -l; cat file-077777-; cat file-999999; echo $?; \
                  find . -type f | sort | sed -n '0~100p' | xargs stat -c %h | sort | uniq -c";
    if let Some(said) = kernel(&bytes, Path::new("/"), script) {
        assert_eq!(said, "100001\nfound\n1\n   1000 1\n");
    }
}

#[test]
fn a_file_beyond_4_gib_and_one_that_starts_there_can_be_read() {
    let (place, end) = (4_500_000_000u64, 4_600_000_000u64);
    let (size, blocks) = (5 << 30 | 3, (5u64 << 30).div_ceil(BLOCK_SIZE as u64) as usize + 1);
    let mut tree = Tree::new(Mode::EXECUTABLE, 0);
    let zeros = FileData { size, blocks: vec![0; blocks], sparse: size, ..FileData::default() };
    tree.insert_file(&path("zeros"), Mode::FILE, 0, zeros).unwrap();
    let far = FileData { size: 7, start: place, blocks: vec![7 | STORED_RAW], ..FileData::default() };
    tree.insert_file(&path("far"), Mode::FILE, 0, far).unwrap();
    let tables = tables(&tree, &[], end, 0).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut write = |at, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    write(0, &tables.superblock);
    write(place, b"far off");
    write(end, &tables.tail);
    assert_eq!(file.metadata().unwrap().len(), tables.bytes_used.next_multiple_of(4096));

    file.rewind().unwrap();
    let filesystem = FilesystemReader::from_reader(BufReader::new(file.try_clone().unwrap())).unwrap();
    for node in filesystem.files() {
        let InnerNode::File(found) = &node.inner else { continue };
        if node.fullpath == Path::new("/far") {
            let mut content = String::new();
            filesystem.file(found).reader().read_to_string(&mut content).unwrap();
            assert_eq!(content, "far off");
        } else {
            assert_eq!((found.file_len() as u64, found.sparse()), (size, size - 1));
        }
    }
    let script = "cat far; stat -c ' %s' zeros; tail -c 4 zeros | od -An -tx1; dd if=zeros bs=1M skip=4500 count=1 status=none | tr -d '\\0' | wc -c";
    if let Some(said) = support::kernel_file(&file, Path::new("/"), script) {
        assert_eq!(said, format!("far off {size}\n 00 00 00 00\n0\n"));
    }
}

#[test]
fn zeros_take_no_room_and_show_no_disk_use() {
    let mut image = Image::new();
    let mut content = noise(BLOCK_SIZE);
    content.extend(vec![0; 6 * BLOCK_SIZE]);
    content.extend(noise(10));
    image.file("sparse", 0o644, &content);
    let bytes = image.bytes(0);
    assert!(bytes.len() < 2 * BLOCK_SIZE);
    assert_eq!(backhand_contents(&bytes), image.contents());
    if let Some(said) = kernel(&bytes, Path::new("/"), "stat -c '%s %b' sparse") {
        assert_eq!(said, format!("{} {}\n", 7 * BLOCK_SIZE + 10, (BLOCK_SIZE + 10).div_ceil(512)));
    }
}

#[test]
fn a_link_target_of_4095_bytes_and_a_path_of_300_directories_survive() {
    let mut image = Image::new();
    let target = "t/".repeat(2047) + "t";
    image.tree.insert_symlink(&path("long"), target.as_str(), 5).unwrap();
    let deep = "d/".repeat(300) + "end";
    image.file(&deep, 0o644, b"deep");
    let script = format!("readlink long; cat {deep}");
    if let Some(said) = kernel(&image.bytes(0), Path::new("/"), &script) {
        assert_eq!(said, format!("{target}\ndeep"));
    }
}

#[test]
fn the_empty_tree_is_a_file_system_too() {
    let image = Image::new();
    let bytes = image.bytes(0);
    assert_eq!(bytes.len(), 4096);
    assert!(backhand_contents(&bytes).is_empty());
    if let Some(said) = kernel(&bytes, Path::new("/"), "ls -A | wc -l; stat -c '%a %h' .") {
        assert_eq!(said, "0\n755 2\n");
    }
}

#[test]
fn the_superblock_says_what_linux_expects() {
    let Tables { superblock, tail, bytes_used } = tables(&Tree::new(Mode::EXECUTABLE, 0), &[], 96, 7).unwrap();
    assert_eq!(superblock[..4], *b"hsqs");
    assert_eq!(superblock[4..8], 1u32.to_le_bytes(), "one inode");
    assert_eq!(superblock[8..12], 7u32.to_le_bytes(), "time");
    assert_eq!(superblock[12..16], 131_072u32.to_le_bytes(), "block size");
    assert_eq!(superblock[20..24], [1, 0, 17, 0], "gzip, and the logarithm of the block size");
    assert_eq!(superblock[24..26], 0x2d0u16.to_le_bytes(), "no fragments, duplicates, exportable, no xattrs");
    assert_eq!(superblock[26..32], [1, 0, 4, 0, 0, 0], "one id, version 4.0");
    assert_eq!(superblock[40..48], bytes_used.to_le_bytes());
    assert_eq!(superblock[56..64], [0xff; 8], "no table of extended attributes");
    assert_eq!(superblock[64..72], 96u64.to_le_bytes(), "the inodes follow the data");
    assert_eq!(superblock[80..88], [0xff; 8], "no fragment table");
    assert_eq!(96 + tail.len(), 4096);
}

#[test]
fn two_calls_give_equal_bytes() {
    assert_eq!(zoo().bytes(3), zoo().bytes(3));
}

#[test]
fn what_was_removed_or_replaced_leaves_no_trace() {
    let mut plain = Image::new();
    plain.file("d/kept", 0o644, b"x");
    let mut busy = Image::new();
    busy.file("d/kept", 0o644, b"x");
    busy.file("gone/for/good", 0o644, b"");
    busy.tree.insert_hardlink(&path("d/second"), &path("d/kept")).unwrap();
    assert!(busy.tree.remove(&path("gone")) && busy.tree.remove(&path("d/second")));
    assert_eq!(plain.bytes(0), busy.bytes(0));
}

#[test]
fn a_file_whose_place_cannot_be_is_refused_by_name() {
    let block = BLOCK_SIZE as u32;
    let place = |index, offset| Some(FragmentRef { index, offset });
    let data =
        |size, start, blocks: &[u32], fragment| FileData { size, start, blocks: blocks.into(), fragment, sparse: 0 };
    let full = u64::from(block);
    let fragments = [Fragment { start: 96, size: 500 }];
    for (bad, reason) in [
        (data(5, 96, &[], None), "number of its blocks"),
        (data(full, 96, &[9, 9], None), "number of its blocks"),
        (data(full + 1, 96, &[9], None), "number of its blocks"),
        (data(full, 96, &[9], place(0, 0)), "no bytes after"),
        (data(5, 0, &[], place(1, 0)), "not in the list"),
        (data(5, 0, &[], place(0, block - 4)), "beyond the end of its fragment"),
        (data(5, 0, &[], place(0, u32::MAX)), "beyond the end of its fragment"),
        (data(full, 96, &[block + 1], None), "size on the disk"),
        (data(full, 96, &[9 | STORED_RAW], None), "size on the disk"),
        (data(full, 96, &[9 | 1 << 25], None), "size on the disk"),
        (data(full, 992, &[9], None), "do not lie in the data"),
        (data(full, 95, &[9], None), "do not lie in the data"),
        (data(full, u64::MAX, &[9], None), "do not lie in the data"),
    ] {
        let mut tree = Tree::new(Mode::EXECUTABLE, 0);
        tree.insert_file(&path("bin/broken"), Mode::FILE, 0, bad).unwrap();
        let error = tables(&tree, &fragments, 1000, 0).unwrap_err().to_string();
        assert!(error.contains("`bin/broken`") && error.contains(reason), "{error}");
    }
    let mut tree = Tree::new(Mode::EXECUTABLE, 0);
    tree.insert_file(&path("good"), Mode::FILE, 0, data(full, 991, &[9], None)).unwrap();
    tables(&tree, &fragments, 1000, 0).unwrap();
}

#[test]
fn a_fragment_outside_the_data_is_refused() {
    let tree = Tree::new(Mode::EXECUTABLE, 0);
    for (start, size) in [(95, 1), (96, 5), (u64::MAX, 1), (96, 0), (96, STORED_RAW), (96, 1 << 25)] {
        let error = tables(&tree, &[Fragment { start, size }], 100, 0).unwrap_err();
        assert!(matches!(error, SquashfsError::Fragment { index: 0, .. }), "{error}");
    }
}

fn any_path() -> impl Strategy<Value = ImagePath> {
    let name = prop_oneof![
        4 => "[a-c]".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 1..20),
        1 => proptest::collection::vec(any::<u8>(), 200..=255),
    ];
    let parts = proptest::collection::vec(name, 1..5);
    parts.prop_filter_map("not a path", |parts| ImagePath::new(parts.join(&b'/')).ok())
}

#[derive(Clone, Debug)]
enum Step {
    Directory(ImagePath, u16, u32),
    File(ImagePath, Vec<u8>),
    Symlink(ImagePath, Vec<u8>),
    Hardlink(ImagePath, ImagePath),
    Remove(ImagePath),
}

fn any_step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..50),
        1 => (any::<u8>(), 0..3 * BLOCK_SIZE).prop_map(|(byte, size)| vec![byte; size]),
        1 => (1..3 * BLOCK_SIZE).prop_map(noise),
    ];
    let target = proptest::collection::vec(1u8.., 1..250); // backhand reads targets of up to 255 bytes
    prop_oneof![
        2 => (any_path(), 0..0o10000u16, any::<u32>()).prop_map(|(path, mode, mtime)| Step::Directory(path, mode, mtime)),
        6 => (any_path(), content).prop_map(|(path, content)| Step::File(path, content)),
        2 => (any_path(), target).prop_map(|(path, target)| Step::Symlink(path, target)),
        2 => (any_path(), any_path()).prop_map(|(path, target)| Step::Hardlink(path, target)),
        1 => any_path().prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn backhand_reads_back_any_tree(steps in proptest::collection::vec(any_step(), 0..120)) {
        let mut image = Image::new();
        for step in &steps {
            // A step that the tree refuses, such as a file below a file, is left out.
            let _ = match step {
                Step::Directory(path, mode, mtime) => image.tree.insert_directory(path, Mode(*mode), *mtime),
                Step::File(path, content) => image.try_file(path, Mode::FILE, content),
                Step::Symlink(path, target) => image.tree.insert_symlink(path, target.as_slice(), 1),
                Step::Hardlink(path, target) => image.tree.insert_hardlink(path, target),
                Step::Remove(path) => { image.tree.remove(path); Ok(()) }
            };
        }
        prop_assert!(backhand_contents(&image.bytes(0)) == image.contents());
    }
}
