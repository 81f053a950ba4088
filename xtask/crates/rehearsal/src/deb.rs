//! Reading a .deb: an ar archive whose member `data.tar.*` holds the files (deb(5)).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use pixi_image::entry::{Entry, EntryKind, ImagePath, Mode};

/// Files of one package that unpack to more than this are refused as hostile, in bytes (the largest has 390 MB).
const DATA_LIMIT: u64 = 8 << 30;

/// Why a .deb cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the Debian package {package} cannot be read: {reason}")]
pub struct DebError {
    /// The package's name.
    pub package: String,
    /// What is wrong with its file, or what failed while its content was used.
    pub reason: String,
}

/// Calls `visit` for each file, directory and link of a .deb in the order of the archive; the reader gives the content
/// of a file. Paths have passed [`ImagePath`].
pub fn read(
    package: &str,
    file: &Path,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<()>,
) -> Result<(), DebError> {
    let mut inner = || {
        let (name, data) = find_data(File::open(file)?)?;
        let data = BufReader::with_capacity(64 << 10, data);
        let stream: Box<dyn Read> = match name.as_str() {
            "data.tar.xz" => Box::new(xz2::bufread::XzDecoder::new_multi_decoder(data)),
            "data.tar.zst" => Box::new(zstd::Decoder::with_buffer(data)?),
            "data.tar.gz" => Box::new(flate2::bufread::MultiGzDecoder::new(data)),
            "data.tar" => Box::new(data),
            other => return Err(bad(format!("its member `{other}` has a compression that is not known"))),
        };
        read_tar(stream, visit)
    };
    inner().map_err(|error| DebError { package: package.to_owned(), reason: error.to_string() })
}

fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Finds the member that holds the files and returns its name and a reader of just its bytes.
fn find_data<R: Read + Seek>(mut archive: R) -> io::Result<(String, io::Take<R>)> {
    let length = archive.seek(SeekFrom::End(0))?;
    archive.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 8];
    archive.read_exact(&mut magic).map_err(|_| bad("it is cut short"))?;
    if &magic != b"!<arch>\n" {
        return Err(bad("it is not an ar archive"));
    }
    let mut at = 8_u64;
    while at < length {
        let mut header = [0; 60];
        archive.read_exact(&mut header).map_err(|_| bad("it is cut short in a member's header"))?;
        let (name, size) = member(&header)?;
        let end = (at + 60).checked_add(size).filter(|end| *end <= length);
        let end = end.ok_or_else(|| bad(format!("its member `{name}` is longer than the file")))?;
        if at == 8 && name != "debian-binary" {
            return Err(bad(format!("its first member is `{name}`, not `debian-binary`")));
        }
        if name.starts_with("data.tar") {
            return Ok((name, archive.take(size)));
        }
        at = end + (end & 1); // members begin at even offsets
        archive.seek(SeekFrom::Start(at))?;
    }
    Err(bad("it has no member data.tar"))
}

/// The name and size in the header of an ar member (ar(5)): name 16 bytes, size 10 at offset 48, an end mark of 2.
fn member(header: &[u8; 60]) -> io::Result<(String, u64)> {
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).ok().map(str::trim_end);
    if &header[58..] != b"`\n" {
        return Err(bad("a member's header does not end as it must"));
    }
    let name = text(0..16).ok_or_else(|| bad("a member's name is not text"))?.trim_end_matches('/').to_owned();
    let digits = text(48..58).filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let size = digits.and_then(|digits| digits.parse().ok());
    Ok((name.clone(), size.ok_or_else(|| bad(format!("the size of its member `{name}` is not a number")))?))
}

fn read_tar(stream: impl Read, visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let mut archive = tar::Archive::new(stream.take(DATA_LIMIT));
    for member in archive.entries()? {
        let mut member = member?;
        let raw = member.path_bytes().into_owned();
        if matches!(raw.as_slice(), b"." | b"./") {
            continue;
        }
        let path = ImagePath::new(&raw).map_err(bad_path)?;
        let kind = member.header().entry_type();
        let link = || member.link_name_bytes().ok_or_else(|| bad(format!("the link {path} has no target")));
        let kind = match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => EntryKind::File { size: member.size() },
            tar::EntryType::Directory => EntryKind::Directory,
            tar::EntryType::Symlink => EntryKind::Symlink { target: link()?.into_owned() },
            tar::EntryType::Link => EntryKind::Hardlink { target: ImagePath::new(link()?).map_err(bad_path)? },
            other => return Err(bad(format!("{path} is of a kind that is not taken over ({other:?})"))),
        };
        let mode = Mode((member.header().mode()? & 0o7777) as u16);
        let mtime = u32::try_from(member.header().mtime()?).map_err(|_| bad(format!("the time of {path} is wrong")))?;
        visit(&Entry { path, kind, mode, mtime }, &mut member)?;
    }
    Ok(())
}

fn bad_path(error: pixi_image::entry::BadPath) -> io::Error {
    bad(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn header(name: &str, size: &str) -> Vec<u8> {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes()
    }

    pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            bytes.extend(header(name, &content.len().to_string()));
            bytes.extend(*content);
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(7);
            // By hand: the crate refuses to write the hostile paths that are tested here.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn files(deb: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DebError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(deb).unwrap();
        let mut found = Vec::new();
        read("hello", file.path(), &mut |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            found.push((entry.path.to_string(), bytes));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn each_compression_of_the_data_is_read() {
        let plain = tar_of(&[("./usr/bin/hello", b"hi")]);
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        for (name, data) in [
            ("data.tar", plain.clone()),
            ("data.tar.xz", xz.finish().unwrap()),
            ("data.tar.gz", gz.finish().unwrap()),
            ("data.tar.zst", zstd::encode_all(&plain[..], 1).unwrap()),
        ] {
            let deb = ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, &data)]);
            assert_eq!(files(&deb).unwrap(), [("usr/bin/hello".to_owned(), b"hi".to_vec())], "{name}");
        }
    }

    #[test]
    fn hostile_sizes_and_broken_archives_are_refused_by_name() {
        let with_size = |size: &str| [b"!<arch>\n".to_vec(), header("debian-binary", size)].concat();
        for (deb, reason) in [
            (b"".to_vec(), "cut short"),
            (b"!<arch>\n".to_vec(), "no member data.tar"),
            (b"PK\x03\x04....".to_vec(), "not an ar archive"),
            (with_size("9999999999"), "longer than the file"),
            (with_size("-1"), "not a number"),
            (with_size("+1"), "not a number"),
            (with_size(""), "not a number"),
            (ar(&[("data.tar", b"")]), "first member"),
            (ar(&[("debian-binary", b"2.0\n"), ("data.tar.lz", b"")]), "compression"),
            (ar(&[("debian-binary", b"2.0\n")])[..40].to_vec(), "header"),
        ] {
            let message = files(&deb).unwrap_err().to_string();
            assert!(message.contains("hello") && message.contains(reason), "{message}");
        }
        let mut unmarked = with_size("0");
        unmarked[66] = b'x';
        assert!(find_data(Cursor::new(unmarked)).is_err());
    }

    #[test]
    fn a_path_that_leaves_the_package_is_refused() {
        for path in ["../evil", "/etc/passwd", "./usr/../../evil"] {
            let deb = ar(&[("debian-binary", b"2.0\n"), ("data.tar", &tar_of(&[(path, b"x")]))]);
            assert!(files(&deb).is_err(), "{path}");
        }
    }

    #[test]
    fn data_that_is_cut_short_is_an_error_and_not_a_short_file() {
        let plain = tar_of(&[("./usr/bin/hello", &[b'x'; 2000])]);
        let deb = ar(&[("debian-binary", b"2.0\n"), ("data.tar", &plain[..1024])]);
        assert!(files(&deb).is_err());
    }
}
