//! The hot pieces, each alone: `cargo bench -p pixi-image --profile dev`. What they make of whole builds, `cargo xtask bench` measures.

#[allow(dead_code)] // the tests use the rest of it
#[path = "../tests/support/packages.rs"]
mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use packages::{Format, Member, Package};
use pixi_image::entry::{Entry, EntrySink, ImagePath, Mode};
use pixi_image::model::Prefix;
use pixi_image::pack::{Compressors, LEVEL, PackWriter, Targets, Use};
use pixi_image::publish::Readable;
use pixi_image::source::conda::{read_index, stream};
use pixi_image::source::placement::Placement;
use pixi_image::source::prefix::{replace_binary, replace_text};
use pixi_image::squashfs::{self, BLOCK_SIZE, Fragment, SUPERBLOCK_SIZE};
use pixi_image::tree::{FileData, FragmentRef, Tree};
use rattler_conda_types::Subdir;
use rattler_conda_types::package::FileMode;

fn main() {
    divan::main();
}

/// As long as conda-build's.
fn placeholder() -> String {
    format!("/home/builder/work_{}", "placehold_".repeat(22))
}

/// Bytes that compress about as shared libraries do: runs of new ones, and copies of earlier ones.
fn library(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut number = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    };
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        (0..1 + number() % 5).for_each(|_| bytes.push(number() as u8));
        let copied = (4 + number() % 26) as usize;
        let distance = copied.max((number() % (8 << 10)) as usize).min(bytes.len());
        let from = bytes.len() - distance;
        bytes.extend_from_within(from..from + copied.min(distance));
    }
    bytes.truncate(length);
    bytes
}

/// Takes entries and content and keeps nothing.
struct Nothing;

impl EntrySink for Nothing {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        divan::black_box(entry);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        divan::black_box(bytes);
        Ok(())
    }
}

/// A package like python: a library that holds its prefix, a large one that does not, and many modules.
fn python_like() -> Package {
    let old = placeholder();
    let own = [library(3 << 20), format!("\0{old}/lib\0").into_bytes(), library(1 << 20)].concat();
    let mut members = vec![
        Member::file("lib/libown.so", own).patched(&old, FileMode::Binary).executable(),
        Member::file("lib/liblarge.so", library(12 << 20)).executable(),
        Member::file("bin/tool", format!("#!{old}/bin/python\n")).patched(&old, FileMode::Text).executable(),
    ];
    let modules = (0..500).map(|at| Member::file(&format!("lib/python3.12/m{at}.py"), library(3000 + 20 * at)));
    members.extend(modules);
    Package::new("native", members)
}

const BYTES: usize = (16 << 20) + 500 * (3000 + 20 * 250);

/// One archive: read, decoded, each file compared with its digest, prefixes replaced, entries handed on.
#[divan::bench]
fn package_decode(bencher: Bencher) {
    with_package(bencher, |push| push(&mut Nothing));
}

/// The same, packed for both formats with one compressing thread.
#[divan::bench]
fn package_pack(bencher: Bencher) {
    let compressors = Compressors::start(NonZeroUsize::MIN);
    with_package(bencher, |push| {
        let mut writer = PackWriter::new(io::sink(), &compressors, Targets::Both, |_| false);
        push(&mut writer);
        divan::black_box(writer.finish().unwrap().0);
    });
}

fn with_package(bencher: Bencher, work: impl Fn(&dyn Fn(&mut dyn EntrySink)) + Sync) {
    let directory = tempfile::tempdir().unwrap();
    let built = python_like().write(directory.path(), Format::Conda);
    let (prefix, moved, shared) = (Prefix::of_packages(), BTreeMap::new(), BTreeSet::new());
    let index = read_index(&Readable::at(&built.archive)).unwrap();
    bencher.counter(BytesCount::new(BYTES)).bench(|| {
        let subdir = Subdir::Linux64;
        let placement = Placement { prefix: &prefix, python: None, subdir, moved: &moved, shared: &shared };
        work(&|sink| stream(&Readable::at(&built.archive), &built.locked, &index, &placement, sink).unwrap());
    });
}

/// A library of 8 MiB that holds the placeholder a few times.
#[divan::bench]
fn prefix_patch_binary(bencher: Bencher) {
    let (old, new) = (placeholder(), Prefix::of_packages());
    let part = [library(1 << 20), format!("\0{old}/lib:{old}/lib64\0").into_bytes()].concat();
    let content = part.repeat(8);
    bencher.counter(BytesCount::new(content.len())).bench(|| {
        let mut write = |bytes: &[u8]| {
            divan::black_box(bytes);
            Ok(())
        };
        replace_binary(&mut content.as_slice(), &old, new.as_str(), &mut write).unwrap();
    });
}

/// A script of 64 KiB that holds it in each line.
#[divan::bench]
fn prefix_patch_text(bencher: Bencher) {
    let (old, new) = (placeholder(), Prefix::of_packages());
    let content = format!("#!{old}/bin/python\n{}", format!("path = '{old}/lib'\n").repeat(240)).into_bytes();
    bencher
        .counter(BytesCount::new(content.len()))
        .bench(|| replace_text(&content, &old, new.as_str(), Subdir::Linux64));
}

/// One block of a file, as both formats carry it: deflate and the checksums of both frames.
#[divan::bench(args = [0, 25, 100])]
fn deflate_block(bencher: Bencher, percent_of_zeros: usize) {
    let mut block = library(BLOCK_SIZE);
    block[..BLOCK_SIZE * percent_of_zeros / 100].fill(0);
    let compressors = Compressors::start(NonZeroUsize::MIN);
    bencher
        .counter(BytesCount::new(BLOCK_SIZE))
        .with_inputs(|| block.clone())
        .bench_local_values(|block| compressors.submit(block, Use::Both, LEVEL).wait().unwrap());
}

/// The tables around the data of so many files: inodes, directories, fragments, export and ids.
#[divan::bench(args = [1_000, 47_000])]
fn squashfs_tables(bencher: Bencher, files: usize) {
    let mut tree = Tree::new(Mode::EXECUTABLE, 0);
    let mut fragments = Vec::new();
    for at in 0..files {
        if at % 12 == 0 {
            fragments.push(Fragment { start: SUPERBLOCK_SIZE + 40_000 * fragments.len() as u64, size: 40_000 });
        }
        let fragment = FragmentRef { index: fragments.len() as u32 - 1, offset: (at % 12) as u32 * 9_000 };
        let data = FileData { size: 9_000, start: 0, blocks: Vec::new(), fragment: Some(fragment), sparse: 0 };
        let path = ImagePath::new(format!("app/.pixi/environment/lib/part{}/module{at}.py", at / 40)).unwrap();
        tree.insert_file(&path, Mode::FILE, 1_700_000_000, data).unwrap();
    }
    let end = SUPERBLOCK_SIZE + 40_000 * fragments.len() as u64;
    bencher.counter(ItemsCount::new(files)).bench(|| squashfs::tables(&tree, &fragments, end, 1_700_000_000).unwrap());
}
