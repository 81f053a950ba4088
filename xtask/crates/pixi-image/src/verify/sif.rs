//! Where two SIF files differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::facts::{Facts, printable};
use super::{Difference, Outcome, bytes, field, first_difference, json, section, some_of, streams};
use crate::sif::{self, DATA_AT, DEFINITION, DESCRIPTOR_SIZE, DESCRIPTORS_AT, HEADER_SIZE, JSON, PARTITION};
use crate::squashfs::reader::{self, Data, FileSystem, Found, Kind, SUPERBLOCK_FIELDS, Unreadable};
use crate::squashfs::{BLOCK_SIZE, Fragment, STORED_RAW, SUPERBLOCK_SIZE};

/// A text of a SIF larger than this is refused as hostile, in bytes.
const TEXT_LIMIT: u64 = 64 << 20;
/// Where the header's uuid lies: it is made of the content, so it tells another image from damage.
const UUID: std::ops::Range<u64> = 48..64;

/// A SIF with its parts.
struct Sif {
    file: File,
    definition: sif::Descriptor,
    metadata: sif::Descriptor,
    squashfs: sif::Descriptor,
}

impl Sif {
    fn read(file: &mut File) -> Result<Self, String> {
        let descriptors = sif::descriptors(file).map_err(|error| error.to_string())?;
        let one = |data_type, name: &str| {
            let found = descriptors.iter().find(|descriptor| descriptor.data_type == data_type).cloned();
            found.ok_or_else(|| format!("it has no {name}"))
        };
        Ok(Self {
            file: file.try_clone().map_err(|error| error.to_string())?,
            definition: one(DEFINITION, "definition file")?,
            metadata: one(JSON, "metadata")?,
            squashfs: one(PARTITION, "file system")?,
        })
    }

    fn bytes(&self, of: &sif::Descriptor) -> io::Result<Vec<u8>> {
        bytes(&self.file, of.offset, of.size, TEXT_LIMIT)
    }

    fn files(&self) -> Result<FileSystem<File>, Unreadable> {
        let file = self
            .file
            .try_clone()
            .map_err(|error| Unreadable { part: "the squashfs".into(), reason: error.to_string() })?;
        FileSystem::read(file, self.squashfs.offset, self.squashfs.size)
    }

    fn facts(&self, files: &mut FileSystem<File>) -> Facts {
        let definition = self.bytes(&self.definition).unwrap_or_default();
        let definition = String::from_utf8_lossy(&definition);
        let written = definition.lines().next().and_then(|line| line.strip_prefix("# Written by "));
        let maker = written.and_then(|line| line.split(" from ").next()).map(printable);
        let metadata: serde_json::Value =
            serde_json::from_slice(&self.bytes(&self.metadata).unwrap_or_default()).unwrap_or_default();
        let labels = metadata["data"]["attributes"]["labels"].as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let mut content = |path: &str| files.content(path.as_bytes(), TEXT_LIMIT);
        Facts { maker, labels, lock: content("app/pixi.lock"), manifest: content("app/pixi.toml") }
    }
}

/// Says where a SIF differs from ours, which is whole; `byte` is the first that does.
pub fn explain(theirs: &mut File, ours: &mut File, byte: u64) -> io::Result<Difference> {
    let has_same_uuid = !UUID.contains(&byte) && bytes(theirs, UUID.start, 16, 16)? == bytes(ours, UUID.start, 16, 16)?;
    let only_uuid = UUID.contains(&byte) && first_difference(theirs, ours, UUID.end)?.is_none();
    let ours = Sif::read(ours).map_err(io::Error::other)?;
    let mut our_files = ours.files().map_err(io::Error::other)?;
    if has_same_uuid || only_uuid {
        return damage(theirs, &ours, &mut our_files, byte);
    }
    match Sif::read(theirs) {
        Ok(another_one) if !has_same_squashfs(&another_one, &ours)? || texts(&another_one, &ours)?.is_some() => {
            another(&another_one, &ours, &mut our_files)
        }
        _ => damage(theirs, &ours, &mut our_files, byte),
    }
}

fn has_same_squashfs(theirs: &Sif, ours: &Sif) -> io::Result<bool> {
    let read = |sif: &Sif| section(&sif.file, sif.squashfs.offset, sif.squashfs.size);
    Ok(matches!(streams(read(theirs)?, read(ours)?)?, Outcome::Same))
}

/// A SIF that says of itself that it holds something else.
fn another(theirs: &Sif, ours: &Sif, our_files: &mut FileSystem<File>) -> io::Result<Difference> {
    let mut files = match theirs.files() {
        Ok(files) => files,
        Err(Unreadable { part, reason }) => return Ok(Difference::new(part, reason)),
    };
    let causes = theirs.facts(&mut files).causes(&ours.facts(our_files));
    let mut difference = match trees(&mut files, our_files) {
        Some((path, what)) => Difference::new(path, what),
        None => match texts(theirs, ours)? {
            Some(difference) => difference,
            None => Difference::new("the squashfs", "it holds the same files, laid out or compressed otherwise"),
        },
    };
    difference.causes = causes;
    if difference.causes.is_empty() {
        difference.causes.push("its uuid is another: something else that goes into it was another".into());
    }
    Ok(difference)
}

fn texts(theirs: &Sif, ours: &Sif) -> io::Result<Option<Difference>> {
    let what = definition(&theirs.bytes(&theirs.definition)?, &ours.bytes(&ours.definition)?);
    if let Some(what) = what {
        return Ok(Some(Difference::new("the definition file", what)));
    }
    let what = json::difference(&theirs.bytes(&theirs.metadata)?, &ours.bytes(&ours.metadata)?);
    Ok(what.map(|what| Difference::new("the metadata for `apptainer inspect`", what)))
}

fn definition(theirs: &[u8], ours: &[u8]) -> Option<String> {
    let (theirs, ours) = (String::from_utf8_lossy(theirs), String::from_utf8_lossy(ours));
    let (mut left, mut right, mut number) = (theirs.lines(), ours.lines(), 0);
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return (theirs != ours).then(|| "its line ends differ".into()),
            (one, other) if one == other => {}
            (one, other) => {
                let show = |line: Option<&str>| line.map_or("nothing".into(), |line| format!("`{}`", printable(line)));
                return Some(format!("line {number} is {}, expected {}", show(one), show(other)));
            }
        }
    }
}

/// The first path in which two file systems differ, and what of it.
fn trees(theirs: &mut FileSystem<File>, ours: &mut FileSystem<File>) -> Option<(String, String)> {
    let (left, right) = (std::mem::take(&mut theirs.found), std::mem::take(&mut ours.found));
    let by_path: BTreeMap<&[u8], &Found> = left.iter().map(|found| (found.path.as_slice(), found)).collect();
    let mut contents = Contents { theirs, ours, fragments: None };
    let different = right.iter().find_map(|own| {
        let what = match by_path.get(own.path.as_slice()) {
            None => Some("it is missing".to_owned()),
            Some(found) => head(found, own).or_else(|| contents.difference(found, own)),
        };
        what.map(|what| (printable(&own.shown()), what))
    });
    let extra = || {
        let expected: std::collections::BTreeSet<&[u8]> = right.iter().map(|found| found.path.as_slice()).collect();
        let extra = left.iter().find(|found| !expected.contains(found.path.as_slice()))?;
        Some((printable(&extra.shown()), "it should not be there".to_owned()))
    };
    let found = different.or_else(extra);
    ours.found = right;
    found
}

/// How what stands in two inodes differs.
fn head(theirs: &Found, ours: &Found) -> Option<String> {
    match (&theirs.kind, &ours.kind) {
        (Kind::Symlink(left), Kind::Symlink(right)) if left != right => {
            let show = |target: &[u8]| printable(&String::from_utf8_lossy(target));
            return Some(format!("it links to {}, expected {}", show(left), show(right)));
        }
        (Kind::File(left), Kind::File(right)) if left.size != right.size => {
            return Some(format!("its content differs: {} bytes, expected {}", left.size, right.size));
        }
        (left, right) if std::mem::discriminant(left) != std::mem::discriminant(right) => {
            return Some("it is of another kind".into());
        }
        _ => {}
    }
    if theirs.mode != ours.mode {
        return Some(format!("its mode is {:04o}, expected {:04o}", theirs.mode, ours.mode));
    }
    (theirs.mtime != ours.mtime).then(|| format!("its time is {}, expected {}", theirs.mtime, ours.mtime))
}

/// What a block holds, or why it cannot be read.
type Block = Result<Vec<u8>, String>;
/// A fragment's number, and what it holds.
type Inflated = (u32, Block);

/// Compares the contents of files of one size.
struct Contents<'a> {
    theirs: &'a mut FileSystem<File>,
    ours: &'a mut FileSystem<File>,
    /// Those that were read last: files of one fragment come together.
    fragments: Option<(Inflated, Inflated)>,
}

impl Contents<'_> {
    fn difference(&mut self, theirs: &Found, ours: &Found) -> Option<String> {
        let (Kind::File(left), Kind::File(right)) = (&theirs.kind, &ours.kind) else { return None };
        let (mut left_at, mut right_at) = (left.start, right.start);
        for (index, (one, other)) in left.blocks.iter().zip(&right.blocks).enumerate() {
            let read = |files: &mut FileSystem<File>, start, size| match size {
                0 => Ok(vec![0; BLOCK_SIZE]),
                size => files.block(Fragment { start, size }),
            };
            let before = (index * BLOCK_SIZE) as u64;
            match (read(self.theirs, left_at, *one), read(self.ours, right_at, *other)) {
                (Err(reason), _) => return Some(format!("its content from byte {before} on cannot be read: {reason}")),
                (Ok(one), Ok(other)) => {
                    let length = one.len().min(other.len()).min((left.size - before) as usize);
                    let same = one[..length].iter().zip(&other[..length]).take_while(|(a, b)| a == b).count();
                    if same < length {
                        return Some(content_differs(before + same as u64, left.size));
                    }
                }
                (Ok(_), Err(_)) => {}
            }
            left_at = left_at.saturating_add(u64::from(one & !STORED_RAW));
            right_at = right_at.saturating_add(u64::from(other & !STORED_RAW));
        }
        let before = left.blocks.len().min(right.blocks.len()) * BLOCK_SIZE;
        match (left.fragment, right.fragment) {
            (Some(one), Some(other)) => {
                let tail = (left.size % BLOCK_SIZE as u64) as usize;
                let (theirs, ours) = self.fragments(one.index, other.index);
                let theirs = match theirs {
                    Ok(content) => content.get(one.offset as usize..).and_then(|rest| rest.get(..tail)),
                    Err(reason) => return Some(format!("its content cannot be read: {reason}")),
                };
                let ours = ours.as_ref().ok()?.get(other.offset as usize..)?.get(..tail)?;
                let Some(theirs) = theirs else { return Some("its content lies beyond its fragment".into()) };
                let same = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
                (same < tail).then(|| content_differs((before + same) as u64, left.size))
            }
            (None, None) => None,
            _ => Some("its content is laid out otherwise".into()),
        }
    }

    fn fragments(&mut self, one: u32, other: u32) -> (&Block, &Block) {
        let read = |files: &mut FileSystem<File>, index: u32| {
            let fragment = files.fragments.get(index as usize).copied();
            (index, fragment.ok_or("its fragment is not there".to_owned()).and_then(|place| files.block(place)))
        };
        let pair = match self.fragments.take() {
            Some(pair) if pair.0.0 == one && pair.1.0 == other => pair,
            _ => (read(self.theirs, one), read(self.ours, other)),
        };
        let ((_, left), (_, right)) = self.fragments.insert(pair);
        (left, right)
    }
}

fn content_differs(at: u64, size: u64) -> String {
    format!("its content differs, at byte {at} of {size}")
}

/// Names what the byte `at` belongs to in front of the objects, and what a change there changes.
fn part_at(at: u64) -> Option<(String, String)> {
    let of = |fields, at| format!("its {} differs", field(fields, at).unwrap_or("unused rest"));
    if at < HEADER_SIZE as u64 {
        return Some(("the header of the SIF".into(), of(&sif::HEADER_FIELDS, at)));
    }
    let Some(descriptors) = at.checked_sub(DESCRIPTORS_AT as u64) else {
        return Some(("the padding behind the header of the SIF".into(), "it should be zeros".into()));
    };
    if at >= DATA_AT as u64 {
        return None;
    }
    let size = DESCRIPTOR_SIZE as u64;
    let place = match descriptors / size {
        0 => "the descriptor of the definition file".into(),
        1 => "the descriptor of the metadata".into(),
        2 => "the descriptor of the squashfs".into(),
        number => format!("the free descriptor {}", number + 1),
    };
    Some((place, of(&sif::DESCRIPTOR_FIELDS, descriptors % size)))
}

/// A SIF that says of itself that it is the same.
fn damage(theirs: &mut File, ours: &Sif, files: &mut FileSystem<File>, byte: u64) -> io::Result<Difference> {
    if let Some((place, what)) = part_at(byte) {
        return Ok(Difference::new(place, what));
    }
    let inside = |of: &sif::Descriptor| (of.offset..of.offset + of.size).contains(&byte);
    if inside(&ours.definition) {
        let text = |file: &File| bytes(file, ours.definition.offset, ours.definition.size, TEXT_LIMIT);
        let what = definition(&text(theirs)?, &text(&ours.file)?);
        return Ok(Difference::new("the definition file", what.unwrap_or_else(|| "it differs".into())));
    }
    if inside(&ours.metadata) {
        let text = |file: &File| bytes(file, ours.metadata.offset, ours.metadata.size, TEXT_LIMIT);
        let what = json::difference(&text(theirs)?, &text(&ours.file)?);
        let place = "the metadata for `apptainer inspect`";
        return Ok(Difference::new(place, what.unwrap_or_else(|| "it is written otherwise".into())));
    }
    if inside(&ours.squashfs) {
        return Ok(in_squashfs(theirs, ours.squashfs.offset, files, byte - ours.squashfs.offset));
    }
    let end = ours.squashfs.offset + ours.squashfs.size;
    let place = if byte < end { "the padding before an object" } else { "the padding behind the squashfs" };
    Ok(Difference::new(place, "it should be zeros"))
}

/// Names what the byte `at` of a squashfs belongs to, by our own, whose tables are whole.
fn in_squashfs(theirs: &mut File, start: u64, files: &mut FileSystem<File>, at: u64) -> Difference {
    if at < SUPERBLOCK_SIZE {
        let field = field(&SUPERBLOCK_FIELDS, at).unwrap_or("rest");
        return Difference::new("the superblock of the squashfs", format!("its {field} differs"));
    }
    let shown = |found: &[&Found]| some_of(&found.iter().map(|one| printable(&one.shown())).collect::<Vec<_>>());
    if let Some(area) = files.areas.iter().find(|area| (area.start..area.end).contains(&at)) {
        let what = match area.name {
            "the inode table" => format!("the block that holds the inodes of {}", shown(&files.inodes_around(at))),
            "the directory table" => {
                format!("the block that holds the listings of {}", shown(&files.listings_around(at)))
            }
            _ => "one of its entries".into(),
        };
        return Difference::new(format!("{} of the squashfs", area.name), format!("{what} differs"));
    }
    if at >= files.bytes_used {
        return Difference::new("the padding behind the squashfs", "it should be zeros");
    }
    let (place, block, candidates) = match files.data_at(at) {
        Some(Data::Block { found, index, block }) => {
            let place = format!("{}, block {} of its content", printable(&found.shown()), index + 1);
            (place, block, None)
        }
        Some(Data::Fragment { found, fragment }) => {
            let places: Vec<(u32, String)> =
                found.iter().map(|one| (reader::place_in_fragment(one), printable(&one.shown()))).collect();
            (format!("a fragment of the squashfs, with the content of {}", shown(&found)), fragment, Some(places))
        }
        None => return Difference::new("the data of the squashfs", "bytes differ that no file uses"),
    };
    let read = reader::read_block(theirs, start, block);
    let whole = files.block(block);
    match (read, whole, candidates) {
        (Err(reason), ..) => Difference::new(place, format!("its compressed data is damaged: {reason}")),
        (Ok(theirs), Ok(ours), Some(candidates)) if theirs != ours => {
            let same = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
            let before = candidates.iter().rev().find(|(place, _)| *place as usize <= same);
            Difference::new(before.map_or(place, |(_, path)| path.clone()), "its content differs")
        }
        (Ok(theirs), Ok(ours), _) if theirs == ours => {
            Difference::new(place, "its compressed form is another, though what it holds is the same")
        }
        _ => Difference::new(place, "its content differs"),
    }
}
