//! Listings of directories: runs of up to 256 entries, each run behind a header.

use super::SquashfsError;
use super::metadata::{METADATA_SIZE, MetadataWriter, Position};

/// How many entries may stand behind one header.
const RUN_LENGTH: u32 = 256;

/// An entry of a directory.
pub(super) struct Child<'a> {
    pub name: &'a [u8],
    /// The basic kind of its inode, also where the inode is an extended one.
    pub kind: u16,
    pub number: u32,
    /// Where its inode lies.
    pub reference: u64,
}

/// Where a directory's listing lies in the directory table.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub start: Position,
    /// Its length in bytes.
    pub size: u32,
    pub subdirectories: u32,
    /// Names and places of later headers, by which a lookup leaps through a long listing. At most 65535.
    pub index_count: u16,
    /// The encoded index.
    pub index: Vec<u8>,
}

/// The entries that will stand behind the next header.
struct Run {
    /// The inode table's block in which all of their inodes begin.
    block: u32,
    /// The inode number from which theirs are counted.
    base: u32,
    count: u32,
    entries: Vec<u8>,
}

impl Run {
    /// The entry's inode number as it can be written in this run, if it can be.
    fn delta(&self, child: &Child<'_>) -> Option<i16> {
        let delta = i64::from(child.number) - i64::from(self.base);
        let joins = self.count < RUN_LENGTH && self.block == Position::from_reference(child.reference).block;
        if joins { i16::try_from(delta).ok() } else { None }
    }

    fn push(&mut self, child: &Child<'_>, delta: i16) {
        let offset = Position::from_reference(child.reference).offset;
        self.entries.extend_from_slice(&offset.to_le_bytes());
        self.entries.extend_from_slice(&delta.to_le_bytes());
        self.entries.extend_from_slice(&child.kind.to_le_bytes());
        self.entries.extend_from_slice(&(child.name.len() as u16 - 1).to_le_bytes()); // a name has 1 to 255 bytes
        self.entries.extend_from_slice(child.name);
        self.count += 1;
    }
}

/// Writes the listing of one directory, whose children must come in byte order.
pub(super) fn write<'a>(
    table: &mut MetadataWriter,
    children: impl Iterator<Item = Child<'a>>,
) -> Result<Listing, SquashfsError> {
    let mut listing = Listing { start: table.position()?, ..Listing::default() };
    let mut run: Option<Run> = None;
    let mut indexed = 0; // the length of the listing at the last header that a lookup can leap to
    for child in children {
        let open = run.as_ref().map_or(0, |run| run.entries.len() as u32 + 12);
        let end = listing.size + open + 8 + child.name.len() as u32;
        let leap = end - indexed > METADATA_SIZE as u32 && listing.index_count < u16::MAX;
        let delta = run.as_ref().and_then(|run| run.delta(&child));
        match (&mut run, delta) {
            (Some(run), Some(delta)) if !leap => run.push(&child, delta),
            _ => {
                if let Some(full) = run.take() {
                    write_run(table, &mut listing, &full)?;
                }
                if leap {
                    indexed = listing.size;
                    add_to_index(&mut listing, table.position()?.block, child.name);
                }
                let Position { block, .. } = Position::from_reference(child.reference);
                let begun = Run { block, base: child.number, count: 0, entries: Vec::new() };
                run.insert(begun).push(&child, 0);
            }
        }
        listing.subdirectories += u32::from(child.kind == super::inode::DIRECTORY);
    }
    if let Some(last) = run {
        write_run(table, &mut listing, &last)?;
    }
    Ok(listing)
}

fn write_run(table: &mut MetadataWriter, listing: &mut Listing, run: &Run) -> Result<(), SquashfsError> {
    table.put(&(run.count - 1).to_le_bytes())?;
    table.put(&run.block.to_le_bytes())?;
    table.put(&run.base.to_le_bytes())?;
    table.put(&run.entries)?;
    listing.size += 12 + run.entries.len() as u32;
    // Some room is kept below 4 GiB for the run that comes next (68 KB at most) and the 3 bytes that inodes add.
    if listing.size > u32::MAX - (1 << 20) {
        return Err(SquashfsError::TooLarge("largest directory"));
    }
    Ok(())
}

fn add_to_index(listing: &mut Listing, block: u32, name: &[u8]) {
    listing.index.extend_from_slice(&listing.size.to_le_bytes());
    listing.index.extend_from_slice(&block.to_le_bytes());
    listing.index.extend_from_slice(&(name.len() as u32 - 1).to_le_bytes());
    listing.index.extend_from_slice(name);
    listing.index_count += 1;
}
