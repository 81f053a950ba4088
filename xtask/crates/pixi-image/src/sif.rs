//! The Singularity Image Format (SIF), as Apptainer and SingularityCE read it: a header, descriptors, and the objects.
//!
//! ```text
//! offset 0      header, 128 bytes: launch script, magic, version, architecture, uuid, times, counts and places
//! offset 4096   48 descriptors of 585 bytes; free ones are left for signatures and overlays
//! offset 32176  definition file | inspect metadata (JSON), each at a multiple of 4096
//! offset 131072 squashfs
//! ```
//!
//! All numbers are little endian and nothing is padded inside header and descriptors. The squashfs lies at the same place in
//! every SIF of ours: it is begun before the texts in front of it are known.

use std::io::{self, Read, Seek, SeekFrom};

#[cfg(test)]
mod tests;

/// The fields of the header in their order: name and size in bytes.
pub const HEADER_FIELDS: [(&str, u64); 13] = [
    ("launch script", 32),
    ("magic", 10),
    ("version", 3),
    ("architecture", 3),
    ("uuid", 16),
    ("time", 8),
    ("time of change", 8),
    ("number of free descriptors", 8),
    ("number of descriptors", 8),
    ("place of the descriptors", 8),
    ("size of the descriptors", 8),
    ("place of the data", 8),
    ("size of the data", 8),
];
/// The fields of a descriptor in their order.
pub const DESCRIPTOR_FIELDS: [(&str, u64); 16] = [
    ("type", 4),
    ("mark of use", 1),
    ("number", 4),
    ("group", 4),
    ("link", 4),
    ("place", 8),
    ("size", 8),
    ("size with padding", 8),
    ("time", 8),
    ("time of change", 8),
    ("owner", 8),
    ("owning group", 8),
    ("name", 128),
    ("file system", 4),
    ("role", 4),
    ("architecture", 3),
];

/// The first line of every SIF: with it and mode 0755 the file itself can be run.
const LAUNCH_SCRIPT: &[u8] = b"#!/usr/bin/env run-singularity\n";
const MAGIC: &[u8; 10] = b"SIF_MAGIC\0";
const VERSION: &[u8; 3] = b"01\0";
/// The size of the header in bytes.
pub const HEADER_SIZE: usize = 128;
/// The size of a descriptor in bytes.
pub const DESCRIPTOR_SIZE: usize = 585;
/// Where the descriptors begin.
pub const DESCRIPTORS_AT: usize = 4096;
const DESCRIPTORS: usize = 48;
/// Where the objects begin.
pub const DATA_AT: usize = DESCRIPTORS_AT + DESCRIPTORS * DESCRIPTOR_SIZE;
/// Where the squashfs begins. Before it there is room for ten times the texts that an image commonly has.
pub const SQUASHFS_AT: usize = 128 << 10;
const ALIGNMENT: usize = 4096;
/// Objects are signed by group; all of ours are in the first.
const FIRST_GROUP: u32 = 0xf000_0001;
/// More descriptors than this are taken for damage. Apptainer itself makes 48.
const MAX_DESCRIPTORS: u64 = 4096;

/// The data type of a definition file.
pub const DEFINITION: u32 = 0x4001;
/// The data type of a file system.
pub const PARTITION: u32 = 0x4004;
/// The data type of a signature.
pub const SIGNATURE: u32 = 0x4005;
/// The data type of a JSON document, such as the inspect metadata.
pub const JSON: u32 = 0x4006;
/// The name of the JSON object from which `apptainer inspect` answers without mounting the image.
pub const INSPECT_METADATA: &str = "inspect-metadata.json";

const SQUASHFS: u32 = 1;
const ENCRYPTED_SQUASHFS: u32 = 5;
const PRIMARY_SYSTEM: u32 = 2;
/// Where the size of its blocks and its compression stand in the superblock of a squashfs.
const SUPERBLOCK_BLOCK_SIZE: usize = 12;
const SUPERBLOCK_COMPRESSION: usize = 20;

/// The processor that an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SifArchitecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 64-bit POWER, little endian.
    Ppc64le,
    /// IBM Z.
    S390x,
    /// 64-bit RISC-V.
    Riscv64,
}

impl SifArchitecture {
    /// By the name that OCI images give it, such as `amd64`.
    pub fn from_oci(name: &str) -> Option<Self> {
        Some(match name {
            "amd64" => Self::Amd64,
            "arm64" => Self::Arm64,
            "ppc64le" => Self::Ppc64le,
            "s390x" => Self::S390x,
            "riscv64" => Self::Riscv64,
            _ => return None,
        })
    }

    /// By the code that stands in the file.
    pub fn from_code(code: &str) -> Option<&'static str> {
        let of = |name: &&&str| Self::from_oci(name).is_some_and(|one| text(one.code()) == code);
        ["amd64", "arm64", "ppc64le", "s390x", "riscv64"].iter().find(of).copied()
    }

    fn code(self) -> &'static [u8; 3] {
        match self {
            Self::Amd64 => b"02\0",
            Self::Arm64 => b"04\0",
            Self::Ppc64le => b"06\0",
            Self::S390x => b"11\0",
            Self::Riscv64 => b"12\0",
        }
    }
}

/// What a SIF is made of.
#[derive(Clone, Copy, Debug)]
pub struct SifSpec<'a> {
    /// The processor that the files are for.
    pub architecture: SifArchitecture,
    /// The time of the image and of its objects, in seconds since 1970-01-01 UTC.
    pub created: i64,
    /// The definition file that `inspect --deffile` shows.
    pub definition: &'a [u8],
    /// The JSON from which `inspect` answers.
    pub inspect_metadata: &'a [u8],
    /// A digest of the content; the image's uuid is made from it, so that equal content has an equal uuid.
    pub content_id: [u8; 32],
    /// The size of the squashfs file in bytes, with its padding.
    pub squashfs_size: u64,
}

/// Every byte of the SIF before its squashfs, [`SQUASHFS_AT`] in all: the SIF is this, then the squashfs. Fails if the texts
/// take more.
pub fn prefix(spec: &SifSpec<'_>) -> Result<Vec<u8>, TextsTooLarge> {
    let mut bytes = vec![0; DATA_AT];
    let mut descriptors = Vec::with_capacity(3 * DESCRIPTOR_SIZE);
    let mut describe = |bytes: &mut Vec<u8>, at: Option<usize>, data_type, name, size, extra: &[u8]| {
        let before = bytes.len();
        bytes.resize(at.unwrap_or(before.next_multiple_of(ALIGNMENT)), 0);
        let padding = (bytes.len() - before) as u64;
        let id = (descriptors.len() / DESCRIPTOR_SIZE + 1) as u32;
        let place = Place { offset: bytes.len() as u64, size, size_with_padding: size.saturating_add(padding) };
        descriptors.extend_from_slice(&descriptor(id, data_type, name, &place, spec.created, extra));
    };
    describe(&mut bytes, None, DEFINITION, "", spec.definition.len() as u64, &[]);
    bytes.extend_from_slice(spec.definition);
    describe(&mut bytes, None, JSON, INSPECT_METADATA, spec.inspect_metadata.len() as u64, &[]);
    bytes.extend_from_slice(spec.inspect_metadata);
    if bytes.len() > SQUASHFS_AT {
        return Err(TextsTooLarge { bytes: spec.definition.len() + spec.inspect_metadata.len() });
    }
    let mut partition = [0; 11];
    partition[..4].copy_from_slice(&SQUASHFS.to_le_bytes());
    partition[4..8].copy_from_slice(&PRIMARY_SYSTEM.to_le_bytes());
    partition[8..].copy_from_slice(spec.architecture.code());
    describe(&mut bytes, Some(SQUASHFS_AT), PARTITION, "", spec.squashfs_size, &partition);

    let data_size = (bytes.len() as u64).saturating_add(spec.squashfs_size) - DATA_AT as u64;
    let used = descriptors.len() / DESCRIPTOR_SIZE;
    bytes[..HEADER_SIZE].copy_from_slice(&header(spec, used, data_size));
    bytes[DESCRIPTORS_AT..][..descriptors.len()].copy_from_slice(&descriptors);
    Ok(bytes)
}

fn header(spec: &SifSpec<'_>, used: usize, data_size: u64) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, LAUNCH_SCRIPT);
    put(32, MAGIC);
    put(42, VERSION);
    put(45, spec.architecture.code());
    put(48, &uuid(&spec.content_id).0);
    put(64, &spec.created.to_le_bytes());
    put(72, &spec.created.to_le_bytes()); // modified
    put(80, &((DESCRIPTORS - used) as u64).to_le_bytes());
    put(88, &(DESCRIPTORS as u64).to_le_bytes());
    put(96, &(DESCRIPTORS_AT as u64).to_le_bytes());
    put(104, &((DESCRIPTORS * DESCRIPTOR_SIZE) as u64).to_le_bytes());
    put(112, &(DATA_AT as u64).to_le_bytes());
    put(120, &data_size.to_le_bytes());
    bytes
}

/// By what a SIF is known: it stands in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group =
            |from: usize, to: usize| self.0[from..to].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let groups = [group(0, 4), group(4, 6), group(6, 8), group(8, 10), group(10, 16)];
        write!(f, "{}", groups.join("-"))
    }
}

/// A uuid of version 8, "custom" (RFC 9562, section 5.8): 122 bits of the digest.
pub fn uuid(content_id: &[u8; 32]) -> Uuid {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&content_id[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Uuid(uuid)
}

struct Place {
    offset: u64,
    size: u64,
    /// With what was skipped before it.
    size_with_padding: u64,
}

fn descriptor(id: u32, data_type: u32, name: &str, place: &Place, time: i64, extra: &[u8]) -> [u8; DESCRIPTOR_SIZE] {
    let mut bytes = [0; DESCRIPTOR_SIZE];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &data_type.to_le_bytes());
    put(4, &[1]); // used
    put(5, &id.to_le_bytes());
    put(9, &FIRST_GROUP.to_le_bytes());
    put(17, &place.offset.to_le_bytes()); // 13: no link to another object
    put(25, &place.size.to_le_bytes());
    put(33, &place.size_with_padding.to_le_bytes());
    put(41, &time.to_le_bytes()); // created
    put(49, &time.to_le_bytes()); // modified; 57 and 65: owner and group 0
    put(73, name.as_bytes());
    put(201, extra);
    bytes
}

/// An object of a SIF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is, for example [`PARTITION`].
    pub data_type: u32,
    /// Its number in the file, from 1 on.
    pub id: u32,
    /// Where it lies, in bytes from the start of the file.
    pub offset: u64,
    /// Its size in bytes; it ends within the file.
    pub size: u64,
    /// Its name, often empty.
    pub name: String,
    /// For a [`PARTITION`], what it holds.
    pub partition: Option<Partition>,
}

impl Descriptor {
    /// What it is, in words.
    pub fn kind(&self) -> String {
        let name = match self.data_type {
            DEFINITION => "definition file",
            0x4002 => "environment",
            0x4003 => "labels",
            PARTITION => "partition",
            SIGNATURE => "signature",
            JSON => "JSON",
            0x4007 => "data",
            0x4008 => "encrypted message",
            0x4009 => "bill of materials",
            0x400a => "OCI index",
            0x400b => "OCI blob",
            other => return format!("type {other:#x}"),
        };
        name.to_owned()
    }
}

impl Partition {
    /// Its sort of file system, in words.
    pub fn file_system_name(&self) -> &'static str {
        match self.file_system {
            SQUASHFS => "squashfs",
            2 => "ext3",
            3 => "archive",
            4 => "raw",
            ENCRYPTED_SQUASHFS => "encrypted squashfs",
            _ => "unknown",
        }
    }

    /// Its role, in words.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            1 => "system",
            PRIMARY_SYSTEM => "primary system",
            3 => "data",
            4 => "overlay",
            _ => "unknown",
        }
    }
}

/// How a squashfs is compressed, as its superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The algorithm.
    pub algorithm: &'static str,
    /// The size of a block before it is compressed, in bytes.
    pub block_bytes: u32,
}

/// Reads how the squashfs at that offset of the file is compressed.
pub fn compression(file: &mut (impl Read + Seek), offset: u64) -> Result<Compression, SifError> {
    let mut superblock = [0; crate::squashfs::SUPERBLOCK_SIZE as usize];
    read_at(file, offset, &mut superblock).map_err(|source| SifError::Read { what: "the squashfs", source })?;
    let algorithm = match superblock[SUPERBLOCK_COMPRESSION] {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => "unknown",
    };
    Ok(Compression { algorithm, block_bytes: u32_at(&superblock, SUPERBLOCK_BLOCK_SIZE) })
}

/// Reads an object; one of more than `limit` bytes is refused.
pub fn object(file: &mut (impl Read + Seek), descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, SifError> {
    if descriptor.size > limit {
        return Err(damaged(format!("object {} has {} bytes, which is too large", descriptor.id, descriptor.size)));
    }
    let mut bytes = vec![0; descriptor.size as usize];
    read_at(file, descriptor.offset, &mut bytes).map_err(|source| SifError::Read { what: "an object", source })?;
    Ok(bytes)
}

/// What a file system object holds, in SIF's own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The sort of file system: 1 squashfs, 2 ext3, 3 archive, 4 raw, 5 encrypted squashfs.
    pub file_system: u32,
    /// Its role: 1 system, 2 primary system, 3 data, 4 overlay.
    pub role: u32,
    /// The processor that it is for: `02` amd64, `04` arm64, and so on.
    pub architecture: String,
}

/// There is too much to be said of an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "the definition file and the metadata of the SIF, with labels and activation, have {bytes} bytes, and there is room for \
     {room}\n  hint: use shorter labels, or a base image that has shorter ones",
    room = SQUASHFS_AT - DATA_AT
)]
pub struct TextsTooLarge {
    /// What they have together.
    pub bytes: usize,
}

/// Why a file cannot be read as a SIF.
#[derive(Debug, thiserror::Error)]
pub enum SifError {
    /// It is something else.
    #[error("this is not a SIF file: it holds no SIF header")]
    NotSif,
    /// The header has a version that is not known here.
    #[error("the SIF has version `{0}`, and only version `01` is known here")]
    Version(String),
    /// Header or descriptors say what cannot be.
    #[error("the SIF is damaged: {0}\n  hint: build or download it again")]
    Damaged(String),
    /// There is no squashfs to run.
    #[error("the SIF has no squashfs as its primary system partition: {0}")]
    NoSquashfs(&'static str),
    /// The system could not read it.
    #[error("cannot read {what} of the SIF: {source}")]
    Read {
        /// The part that was being read.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn damaged(reason: impl Into<String>) -> SifError {
    SifError::Damaged(reason.into())
}

/// Reads the descriptors that are in use, in file order. The objects themselves are not read.
pub fn descriptors(file: &mut (impl Read + Seek)) -> Result<Vec<Descriptor>, SifError> {
    let at = |what| move |source| SifError::Read { what, source };
    let length = file.seek(SeekFrom::End(0)).map_err(at("the length"))?;
    let mut header = [0; HEADER_SIZE];
    if length < HEADER_SIZE as u64 {
        return Err(SifError::NotSif);
    }
    read_at(file, 0, &mut header).map_err(at("the header"))?;
    if header[32..42] != *MAGIC {
        return Err(SifError::NotSif);
    }
    if header[42..45] != *VERSION {
        return Err(SifError::Version(text(&header[42..45])));
    }
    let (count, place) = (u64_at(&header, 88), u64_at(&header, 96));
    if count > MAX_DESCRIPTORS {
        return Err(damaged(format!("its header says that it has {count} descriptors")));
    }
    let size = count as usize * DESCRIPTOR_SIZE;
    if place.checked_add(size as u64).is_none_or(|end| end > length) {
        return Err(damaged("its descriptors do not lie in the file; it may be cut short"));
    }
    let mut table = vec![0; size];
    read_at(file, place, &mut table).map_err(at("the descriptors"))?;
    let used = table.chunks_exact(DESCRIPTOR_SIZE).filter(|descriptor| descriptor[4] != 0);
    used.map(|bytes| parse_descriptor(bytes, length)).collect()
}

/// Finds the squashfs that is the image's root file system: its offset in the file and its size, both in bytes.
pub fn find_squashfs(file: &mut (impl Read + Seek)) -> Result<(u64, u64), SifError> {
    let descriptors = descriptors(file)?;
    let mut found = descriptors.iter().filter_map(|descriptor| match &descriptor.partition {
        Some(partition) if partition.role == PRIMARY_SYSTEM => Some((descriptor, partition.file_system)),
        _ => None,
    });
    let Some((descriptor, file_system)) = found.next() else {
        return Err(SifError::NoSquashfs("it has no such partition"));
    };
    if found.next().is_some() {
        return Err(damaged("it has more than one primary system partition"));
    }
    match file_system {
        SQUASHFS => {}
        ENCRYPTED_SQUASHFS => {
            return Err(SifError::NoSquashfs("it is encrypted, which only Apptainer itself can open"));
        }
        _ => return Err(SifError::NoSquashfs("it is a file system of another sort")),
    }
    let mut magic = [0; 4];
    if descriptor.size >= crate::squashfs::SUPERBLOCK_SIZE {
        let read = read_at(file, descriptor.offset, &mut magic);
        read.map_err(|source| SifError::Read { what: "the squashfs", source })?;
    }
    if magic != *b"hsqs" {
        return Err(damaged("what it calls a squashfs is none"));
    }
    Ok((descriptor.offset, descriptor.size))
}

fn parse_descriptor(bytes: &[u8], length: u64) -> Result<Descriptor, SifError> {
    let id = u32_at(bytes, 5);
    let (offset, size) = (u64_at(bytes, 17), u64_at(bytes, 25));
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(damaged(format!("object {id} does not lie in the file; it may be cut short")));
    }
    let data_type = u32_at(bytes, 0);
    let partition = (data_type == PARTITION).then(|| Partition {
        file_system: u32_at(bytes, 201),
        role: u32_at(bytes, 205),
        architecture: text(&bytes[209..212]),
    });
    Ok(Descriptor { data_type, id, offset, size, name: text(&bytes[73..201]), partition })
}

fn read_at(file: &mut (impl Read + Seek), at: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

/// The text before the first NUL.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
