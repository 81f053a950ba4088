//! What a wheel says about itself in its directory and `*.dist-info`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::archive::{Archive, Member};
use super::record::{self, Checksum, Row};
use super::{Problem, WheelError, metadata};
use crate::entry::ImagePath;
use crate::publish::Readable;

/// Signatures of `RECORD`, which it cannot list. They are installed like every file, and mean nothing any more.
const SIGNATURES: [&[u8]; 2] = [b"RECORD.jws", b"RECORD.p7s"];

/// What a wheel holds: enough to tell where all of it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WheelIndex {
    /// The name as the metadata write it.
    pub name: String,
    /// The version as the metadata write it.
    pub version: String,
    /// The directory of the metadata, `<name>-<version>.dist-info`.
    pub dist_info: ImagePath,
    /// The files, in the order of the archive's directory. `RECORD` is not among them: it is written anew.
    pub files: Vec<File>,
    /// The directories that hold nothing.
    pub empty_directories: Vec<ImagePath>,
    /// The text of `entry_points.txt`: which commands it means depends on the python.
    pub entry_points: String,
}

/// One file of a wheel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its number in the archive's directory.
    pub number: usize,
    /// Its path in the archive.
    pub path: ImagePath,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it can be run.
    pub executable: bool,
    /// Its time in seconds since 1970.
    pub mtime: u32,
    /// Its digest; only signatures have none.
    pub checksum: Option<Checksum>,
}

/// Reads the index of a wheel.
pub fn read_index(archive: &Readable) -> Result<WheelIndex, WheelError> {
    index(archive).map_err(|problem| WheelError {
        wheel: archive.file_name(),
        archive: Some(archive.place().to_owned()),
        problem: problem.into(),
    })
}

fn index(archive: &Readable) -> Result<WheelIndex, Problem> {
    let mut archive = Archive::open(archive)?;
    let members = archive.members()?;
    let by_path = by_path(&members)?;
    let dist_info = dist_info(&members)?;
    let mut texts = Texts { archive: &mut archive, members: &by_path, dist_info: &dist_info };
    let wheel = texts.required("WHEEL")?;
    check_version(&wheel, &texts.place("WHEEL")?)?;
    let metadata = texts.required("METADATA")?;
    let header = |name: &str| metadata::header(&metadata, name).filter(|value| !value.is_empty()).map(str::to_owned);
    let place = texts.place("METADATA")?;
    let lacks = |name: &str| Problem::BadMetadata { file: place.clone(), reason: format!("it has no {name}") };
    let (name, version) =
        (header("Name").ok_or_else(|| lacks("Name"))?, header("Version").ok_or_else(|| lacks("Version"))?);
    let record = texts.required("RECORD")?;
    let entry_points = texts.optional("entry_points.txt")?.unwrap_or_default();
    let record_place = texts.place("RECORD")?;
    let files = files(&members, &record_place, &record)?;
    Ok(WheelIndex { name, version, files, empty_directories: empty_directories(&members), entry_points, dist_info })
}

/// Refuses names that differ only in how they are written.
fn by_path(members: &[Member]) -> Result<BTreeMap<&ImagePath, &Member>, Problem> {
    let mut by_path = BTreeMap::new();
    for member in members {
        if by_path.insert(&member.path, member).is_some() {
            return Err(Problem::Twice(Some(member.path.clone())));
        }
    }
    Ok(by_path)
}

/// The one directory of metadata at the top.
fn dist_info(members: &[Member]) -> Result<ImagePath, Problem> {
    let top = members.iter().filter_map(|member| {
        let first = member.path.parts().next()?;
        (member.directory || member.path.parts().count() > 1).then_some(first)
    });
    let found: BTreeSet<&[u8]> = top.filter(|name| name.ends_with(b".dist-info")).collect();
    match found.first() {
        Some(name) if found.len() == 1 => Ok(ImagePath::new(name)?),
        _ => Err(Problem::DistInfo(found.len())),
    }
}

struct Texts<'a> {
    archive: &'a mut Archive,
    members: &'a BTreeMap<&'a ImagePath, &'a Member>,
    dist_info: &'a ImagePath,
}

impl Texts<'_> {
    fn place(&self, file: &str) -> Result<ImagePath, Problem> {
        Ok(self.dist_info.join(&ImagePath::new(file)?))
    }

    fn optional(&mut self, file: &str) -> Result<Option<String>, Problem> {
        let place = self.place(file)?;
        let Some(member) = self.members.get(&place).filter(|member| !member.directory) else { return Ok(None) };
        // What is not UTF-8 is no name, version, path or module either.
        Ok(Some(String::from_utf8_lossy(&self.archive.read(member)?).into_owned()))
    }

    fn required(&mut self, file: &str) -> Result<String, Problem> {
        let place = self.place(file)?;
        self.optional(file)?.ok_or(Problem::Missing(place))
    }
}

/// A higher minor version may say more than is known here, but what is known stays so.
fn check_version(text: &str, file: &ImagePath) -> Result<(), Problem> {
    let bad = |reason: &str| Problem::BadMetadata { file: file.clone(), reason: reason.to_owned() };
    let version = metadata::header(text, "Wheel-Version").ok_or_else(|| bad("it has no Wheel-Version"))?;
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(Problem::WheelVersion(version.to_owned())),
    }
}

/// The files with what `RECORD` says of them. What it lists and the archive lacks is no file of the wheel: repacking tools
/// leave such lines behind, and installers pass over them.
fn files(members: &[Member], record_place: &ImagePath, record: &str) -> Result<Vec<File>, Problem> {
    let listed = record::listed(record.as_bytes())
        .map_err(|reason| Problem::BadMetadata { file: record_place.clone(), reason })?;
    let files = members.iter().filter(|member| !member.directory && member.path != *record_place);
    let file = |member: &Member| {
        let is_signature =
            member.path.parent() == record_place.parent() && SIGNATURES.contains(&member.path.file_name());
        let checksum = match listed.get(&member.path) {
            None | Some(Row { digest: None, .. }) if is_signature => None,
            None => return Err(Problem::NotRecorded(member.path.clone())),
            Some(Row { size: Some(size), .. }) if *size != member.size => {
                return Err(Problem::OtherContent(member.path.clone()));
            }
            Some(Row { digest, .. }) => {
                let checksum = Checksum::parse(digest.as_deref().unwrap_or_default());
                Some(checksum.map_err(|reason| Problem::NoChecksum { path: member.path.clone(), reason })?)
            }
        };
        Ok(File {
            number: member.number,
            path: member.path.clone(),
            size: member.size,
            executable: member.executable,
            mtime: member.mtime,
            checksum,
        })
    };
    files.map(file).collect()
}

/// Directories are made for what is in them, so only those are kept that nothing is in.
fn empty_directories(members: &[Member]) -> Vec<ImagePath> {
    let mut parents = BTreeSet::new();
    for member in members {
        let mut next = member.path.parent();
        while let Some(path) = next.filter(|path| !parents.contains(path)) {
            next = path.parent();
            parents.insert(path);
        }
    }
    let directories = members.iter().filter(|member| member.directory).map(|member| member.path.clone());
    directories.filter(|path| !parents.contains(path)).collect()
}
