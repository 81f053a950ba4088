//! The zip archive of a wheel: its members, and the content of each.

use std::io::{self, BufReader, Read};

use zip::CompressionMethod;
use zip::result::ZipError;

use super::{MAX_IN_MEMORY, MAX_MEMBERS, MAX_UNPACKED, Problem};
use crate::entry::ImagePath;
use crate::publish::{Positioned, Readable};
use crate::source::placement::GENERATED_MTIME;

/// What is read from the archive at a time, in bytes.
const BUFFER: usize = 32 << 10;
/// The bits of a unix mode that say what a file is.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An open archive.
pub(super) struct Archive {
    zip: zip::ZipArchive<BufReader<Positioned>>,
}

/// A member as the archive's directory describes it.
pub(super) struct Member {
    /// Its number in the directory.
    pub number: usize,
    pub path: ImagePath,
    pub directory: bool,
    /// The length that it unpacks to, in bytes.
    pub size: u64,
    pub executable: bool,
    /// Seconds since 1970 of its time, taken for UTC.
    pub mtime: u32,
}

fn unreadable(error: ZipError) -> Problem {
    Problem::Read(match error {
        ZipError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

impl Archive {
    pub fn open(archive: &Readable) -> Result<Self, Problem> {
        let fail = |error| Problem::Open { path: archive.place().to_owned(), error };
        let file = archive.open().map_err(fail)?;
        let zip = zip::ZipArchive::new(BufReader::with_capacity(BUFFER, file)).map_err(unreadable)?;
        Ok(Self { zip })
    }

    /// Every member, in the order of the archive's directory, which is a list that anybody may have written: what could
    /// mean two things is refused.
    pub fn members(&mut self) -> Result<Vec<Member>, Problem> {
        if self.zip.len() > MAX_MEMBERS {
            return Err(Problem::TooLarge { what: "its number of members".into(), limit: MAX_MEMBERS as u64 });
        }
        if self.zip.has_duplicate_names() {
            return Err(Problem::Twice(None));
        }
        if self.zip.has_overlapping_entries().map_err(unreadable)? {
            return Err(Problem::Overlap);
        }
        let mut unpacked = 0_u64;
        let mut members = Vec::with_capacity(self.zip.len());
        for number in 0..self.zip.len() {
            let member = self.member(number)?;
            unpacked = unpacked.saturating_add(member.size);
            members.push(member);
        }
        if unpacked > MAX_UNPACKED {
            return Err(Problem::TooLarge { what: "what it unpacks to".into(), limit: MAX_UNPACKED });
        }
        Ok(members)
    }

    fn member(&mut self, number: usize) -> Result<Member, Problem> {
        let raw = self.zip.by_index_raw(number).map_err(unreadable)?;
        let name = raw.name().map_err(unreadable)?;
        let path = ImagePath::new(name.as_bytes())?;
        let mode = raw.unix_mode().unwrap_or(0);
        let unsupported = |kind| Err(Problem::Unsupported { path: path.clone(), kind });
        match (raw.is_dir(), mode & KIND) {
            (true, _) => {}
            (false, 0 | REGULAR) => {}
            (false, SYMLINK) => return unsupported("a symbolic link"),
            (false, _) => return unsupported("neither a file nor a directory"),
        }
        if raw.encrypted() {
            return unsupported("encrypted");
        }
        if !matches!(raw.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return unsupported("compressed in another way than deflate");
        }
        Ok(Member {
            number,
            directory: raw.is_dir(),
            size: if raw.is_dir() { 0 } else { raw.size() },
            executable: mode & 0o111 != 0,
            mtime: raw.last_modified().and_then(seconds).unwrap_or(GENERATED_MTIME),
            path,
        })
    }

    /// The content of a member.
    pub fn content(&mut self, number: usize) -> Result<impl Read, Problem> {
        self.zip.by_index(number).map_err(unreadable)
    }

    /// The content of a small member as a whole.
    pub fn read(&mut self, member: &Member) -> Result<Vec<u8>, Problem> {
        if member.size > MAX_IN_MEMORY {
            return Err(Problem::TooLarge { what: format!("`{}`", member.path), limit: MAX_IN_MEMORY });
        }
        let mut content = Vec::new();
        // One more than it announces: that it is longer is then seen.
        let mut limited = self.content(member.number)?.take(member.size + 1);
        limited.read_to_end(&mut content).map_err(Problem::Read)?;
        if content.len() as u64 != member.size {
            return Err(Problem::OtherContent(member.path.clone()));
        }
        Ok(content)
    }
}

/// A time of the archive as seconds since 1970; none where it names no day or hour that there is.
fn seconds(time: zip::DateTime) -> Option<u32> {
    let day = chrono::NaiveDate::from_ymd_opt(time.year().into(), time.month().into(), time.day().into())?;
    let time = day.and_hms_opt(time.hour().into(), time.minute().into(), time.second().into())?;
    u32::try_from(time.and_utc().timestamp()).ok()
}
