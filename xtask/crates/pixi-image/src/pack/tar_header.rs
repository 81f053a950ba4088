//! Tar headers of layers: ustar with GNU long names, which every runtime reads (GNU tar manual, "Basic Tar Format").

use tar::{EntryType, Header};

use crate::entry::{Entry, EntryKind};

/// Names up to this length fit in the header itself.
const NAME_FIELD: usize = 100;

/// The headers of an entry, padding included: one block, or more where a name is long.
pub fn headers(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    let (kind, size, link): (_, _, &[u8]) = match &entry.kind {
        EntryKind::File { size } => (EntryType::Regular, *size, b""),
        EntryKind::Directory => {
            name.push(b'/');
            (EntryType::Directory, 0, b"")
        }
        EntryKind::Symlink { target } => (EntryType::Symlink, 0, target),
        EntryKind::Hardlink { target } => (EntryType::Link, 0, target.as_bytes()),
    };
    let mut out = Vec::with_capacity(512);
    if link.len() > NAME_FIELD {
        long_name(&mut out, EntryType::GNULongLink, link);
    }
    if name.len() > NAME_FIELD {
        long_name(&mut out, EntryType::GNULongName, &name);
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(u32::from(entry.mode.0));
    header.set_mtime(u64::from(entry.mtime));
    header.set_uid(0);
    header.set_gid(0);
    let fields = header.as_old_mut();
    copy(&mut fields.name, &name);
    copy(&mut fields.linkname, link);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out
}

/// How many zero bytes follow `size` bytes of content.
pub fn padding(size: u64) -> usize {
    ((512 - size % 512) % 512) as usize
}

fn long_name(out: &mut Vec<u8>, kind: EntryType, name: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(name.len() as u64 + 1);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    copy(&mut header.as_old_mut().name, b"././@LongLink");
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(name);
    out.push(0);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn copy(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}
