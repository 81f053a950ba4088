//! The members of a tar stream, with bounded names.
//!
//! The extension headers (GNU long names, pax records) are read here and not by the tar crate, which would keep a name
//! of any length in memory.

use std::io::{self, Read};
use std::ops::ControlFlow;

use tar::EntryType;

use super::{MAX_MEMBERS, Problem};
use crate::entry::ImagePath;

/// The longest extension header: pax records may carry extended attributes besides names.
const MAX_EXTENSION: u64 = 1 << 20;
/// The longest target that Linux lets a symbolic link have.
const MAX_TARGET: usize = 4095;

/// One member of a tar stream.
pub(super) struct Member {
    pub path: ImagePath,
    pub kind: MemberKind,
    /// The length of its content.
    pub size: u64,
    /// The permission bits as archived.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// What a member is.
pub(super) enum MemberKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    Hardlink(ImagePath),
}

/// Calls `visit` with each member and its content, in order, until it breaks or the archive ends.
pub(super) fn each(
    stream: impl Read,
    mut visit: impl FnMut(Member, &mut dyn Read) -> Result<ControlFlow<()>, Problem>,
) -> Result<(), Problem> {
    let mut archive = tar::Archive::new(stream);
    if walk(&mut archive, &mut visit)?.is_continue() {
        // What is behind the end of the tar stream is padding, but only at its end do decoders check their sums.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Problem::Read)?;
    }
    Ok(())
}

type Visit<'a> = dyn FnMut(Member, &mut dyn Read) -> Result<ControlFlow<()>, Problem> + 'a;

fn walk(archive: &mut tar::Archive<impl Read>, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, Problem> {
    let mut extensions = Extensions::default();
    let mut count = 0;
    for entry in archive.entries().map_err(Problem::Read)?.raw(true) {
        let mut entry = entry.map_err(Problem::Read)?;
        count += 1;
        if count > MAX_MEMBERS {
            return Err(Problem::TooLarge { what: "the number of its files".to_owned(), limit: MAX_MEMBERS });
        }
        if extensions.take(&mut entry)? {
            continue;
        }
        let extensions = std::mem::take(&mut extensions);
        let Some(member) = member(entry.header(), extensions)? else { continue };
        let mut content = Exact { left: member.size, content: &mut entry };
        if visit(member, &mut content)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Extensions {
    /// Whether `entry` is an extension header; if so it is read.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Problem> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => return Ok(true),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {}
            _ => return Ok(false),
        }
        let size = entry.header().entry_size().map_err(Problem::Read)?;
        if size > MAX_EXTENSION {
            return Err(Problem::TooLarge { what: "a tar extension header".to_owned(), limit: MAX_EXTENSION });
        }
        let mut content = Vec::new();
        Exact { left: size, content: entry }.read_to_end(&mut content).map_err(Problem::Read)?;
        if kind == EntryType::XHeader {
            self.take_pax(&content)?;
            return Ok(true);
        }
        content.truncate(content.iter().position(|byte| *byte == 0).unwrap_or(content.len()));
        match kind {
            EntryType::GNULongName => self.path = Some(content),
            _ => self.link = Some(content),
        }
        Ok(true)
    }

    /// POSIX pax, "pax Extended Header": `<length> <key>=<value>\n` records.
    fn take_pax(&mut self, records: &[u8]) -> Result<(), Problem> {
        for record in tar::PaxExtensions::new(records) {
            let record = record.map_err(Problem::Read)?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_owned()),
                b"linkpath" => self.link = Some(record.value_bytes().to_owned()),
                b"size" => {
                    let size = record.value().ok().and_then(|size| size.parse().ok());
                    let bad = || Problem::Read(io::Error::new(io::ErrorKind::InvalidData, "a pax size is no number"));
                    self.size = Some(size.ok_or_else(bad)?);
                }
                key if key.starts_with(b"GNU.sparse") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The member that a header describes; none for the root directory and for comments.
fn member(header: &tar::Header, extensions: Extensions) -> Result<Option<Member>, Problem> {
    let raw = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let is_directory = header.entry_type().is_dir() || raw.ends_with(b"/");
    if is_directory && raw.iter().all(|byte| matches!(byte, b'.' | b'/')) && !raw.windows(2).any(|pair| pair == b"..") {
        return Ok(None);
    }
    let path = ImagePath::new(&raw)?;
    let size = header.entry_size().map_err(Problem::Read)?;
    if extensions.size.is_some_and(|pax| pax != size) {
        // Which of the two counts differs from reader to reader.
        return Err(Problem::Unsupported { path, kind: "a file with two sizes" });
    }
    let target = || extensions.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
    let kind = match header.entry_type() {
        _ if extensions.sparse => return Err(Problem::Unsupported { path, kind: "a sparse file" }),
        EntryType::GNUSparse => return Err(Problem::Unsupported { path, kind: "a sparse file" }),
        EntryType::Char | EntryType::Block => return Err(Problem::Unsupported { path, kind: "a device" }),
        EntryType::Fifo => return Err(Problem::Unsupported { path, kind: "a named pipe" }),
        EntryType::Directory => MemberKind::Directory,
        EntryType::Regular | EntryType::Continuous if is_directory => MemberKind::Directory,
        EntryType::Regular | EntryType::Continuous => MemberKind::File,
        EntryType::Symlink => match target().unwrap_or_default() {
            target if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
                return Err(Problem::BadSymlink(path));
            }
            target => MemberKind::Symlink(target),
        },
        EntryType::Link => MemberKind::Hardlink(ImagePath::new(target().unwrap_or_default())?),
        _ => return Err(Problem::Unsupported { path, kind: "of an unknown kind" }),
    };
    let mode = header.mode().map_err(Problem::Read)?;
    let mtime = header.mtime().map_err(Problem::Read)?;
    Ok(Some(Member { path, kind, size, mode, mtime: u32::try_from(mtime).unwrap_or(u32::MAX) }))
}

/// Fails where the content of a member ends early, which a tar stream that was cut off does silently.
struct Exact<'a, R> {
    left: u64,
    content: &'a mut R,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a file"));
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
