//! The signed index of a suite: which .deb files there are, with their sizes and digests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};

use pixi_image::entry::ImagePath;
use pixi_image::model::Digest;

/// The only architecture of the rehearsal, in Debian's terms.
pub const ARCHITECTURE: &str = "amd64";
/// A line of an index longer than this is refused as hostile, in bytes.
const LINE_LIMIT: u64 = 1 << 20;
/// An index that unpacks to more than this is refused as hostile, in bytes (trixie's has 57 MB).
const INDEX_LIMIT: u64 = 1 << 30;
/// A .deb larger than this is refused as hostile, in bytes (the largest that is used has 58 MB).
const DEB_LIMIT: u64 = 1 << 30;

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The text is not what Debian's archive writes.
    #[error("Debian's {file} is not understood: {reason}")]
    Malformed {
        /// `InRelease` or `Packages`.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Packages that the rehearsal is made of are not in the suite.
    #[error(
        "the suite {suite} of this mirror lacks {names}\n  hint: the mirror may be incomplete: name another one with \
         `--debian-mirror URL`"
    )]
    Missing {
        /// The suite that was read.
        suite: &'static str,
        /// The missing names, with commas between.
        names: String,
    },
}

fn malformed(file: &'static str, reason: impl Into<String>) -> IndexError {
    IndexError::Malformed { file, reason: reason.into() }
}

/// A file of the mirror with what the signed index says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The path below the mirror's root; a second one where the file may stand too.
    pub paths: Vec<String>,
    /// The digest it must have.
    pub digest: Digest,
    /// The size it must have, in bytes.
    pub size: u64,
}

/// What the signed Release text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The time of the release as the archive writes it.
    pub date: String,
    /// The point release, for example `13.2`.
    pub version: String,
    /// The package index of the architecture and of the component `main`.
    pub packages: Remote,
}

impl Release {
    /// Reads the signed text of `suite`'s InRelease.
    pub fn parse(text: &str, suite: &str) -> Result<Self, IndexError> {
        let bad = |reason: String| malformed("InRelease", reason);
        let mut release = None;
        stanzas("InRelease", text.as_bytes(), &mut |stanza| {
            release.get_or_insert_with(|| stanza.clone());
            Ok(())
        })?;
        let release = release.ok_or_else(|| bad("it is empty".to_owned()))?;
        let field = |name: &str| release.get(name).cloned().unwrap_or_default();
        for (name, wanted) in [("Origin", "Debian"), ("Codename", suite)] {
            if field(name) != wanted {
                return Err(bad(format!("its {name} is `{}`, not `{wanted}`", field(name))));
            }
        }
        let index = format!("main/binary-{ARCHITECTURE}/Packages.xz");
        let sums = field("SHA256");
        let listed = sums.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (hex, size, path) = (words.next()?, words.next()?, words.next()?);
            (path == index).then_some((hex, size))
        });
        let (hex, size) = listed.ok_or_else(|| bad(format!("it lists no {index}")))?;
        let digest = Digest::from_hex(hex).map_err(|error| bad(error.to_string()))?;
        let plain = format!("dists/{suite}/{index}");
        // By hash first: it cannot be half of the old and half of the new index while the mirror is updated.
        let by_hash = format!("dists/{suite}/main/binary-{ARCHITECTURE}/by-hash/SHA256/{}", digest.hex());
        let paths = if field("Acquire-By-Hash") == "yes" { vec![by_hash, plain] } else { vec![plain] };
        let size = size.parse().map_err(|_| bad(format!("`{size}` is not a size")))?;
        Ok(Self { date: field("Date"), version: field("Version"), packages: Remote { paths, digest, size } })
    }
}

/// A binary package of Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version in Debian, for example `1:2.2.4+ds-1`.
    pub version: String,
    /// Its file.
    pub deb: Remote,
}

impl Package {
    /// The version of the software itself: without Debian's epoch, revision and marks (`1:2.2.4+ds-1` is `2.2.4`).
    pub fn upstream_version(&self) -> &str {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        let version = version.rsplit_once('-').map_or(version, |(upstream, _)| upstream);
        version.split(['+', '~']).next().unwrap_or(version)
    }

    fn from_stanza(stanza: &Stanza) -> Result<Self, IndexError> {
        let field = |name: &str| {
            let value = stanza.get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| malformed("Packages", format!("a package lacks the field {name}")))
        };
        let name = field("Package")?.clone();
        let bad = |reason: String| malformed("Packages", format!("{name}: {reason}"));
        let path = ImagePath::new(field("Filename")?).map_err(|error| bad(error.to_string()))?.lossy().into_owned();
        let digest = Digest::from_hex(field("SHA256")?).map_err(|error| bad(error.to_string()))?;
        let size: u64 = field("Size")?.parse().map_err(|_| bad("its size is not a number".to_owned()))?;
        if size > DEB_LIMIT {
            return Err(bad(format!("its size of {size} bytes is beyond all reason")));
        }
        let version = field("Version")?.clone();
        Ok(Self { deb: Remote { paths: vec![path], digest, size }, version, name: name.clone() })
    }
}

/// The packages of the suite that the rehearsal is made of, by name.
#[derive(Clone, Debug, Default)]
pub struct Index(BTreeMap<String, Package>);

impl Index {
    /// Reads the packages called `names` from an uncompressed index; the other stanzas are skipped.
    pub fn read(packages: impl Read, names: &BTreeSet<&str>, suite: &'static str) -> Result<Self, IndexError> {
        let mut found = BTreeMap::new();
        stanzas("Packages", packages.take(INDEX_LIMIT), &mut |stanza| {
            if stanza.get("Package").is_some_and(|name| names.contains(name.as_str())) {
                let package = Package::from_stanza(stanza)?;
                found.entry(package.name.clone()).or_insert(package);
            }
            Ok(())
        })?;
        let missing: Vec<&str> = names.iter().filter(|name| !found.contains_key(**name)).copied().collect();
        if missing.is_empty() { Ok(Self(found)) } else { Err(IndexError::Missing { suite, names: missing.join(", ") }) }
    }

    /// The package of that name; every name that was asked for is there.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.0.get(name)
    }

    /// All packages in the order of their names.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.0.values()
    }
}

/// The fields of one paragraph; lines of a multi-line field are joined with `\n` (deb822(5)).
type Stanza = BTreeMap<String, String>;

fn stanzas(
    file: &'static str,
    text: impl Read,
    visit: &mut dyn FnMut(&Stanza) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut reader = BufReader::new(text);
    let mut stanza = Stanza::new();
    let mut last = String::new();
    while let Some(line) = line(&mut reader).map_err(|error| malformed(file, error.to_string()))? {
        if line.is_empty() {
            if !stanza.is_empty() {
                visit(&stanza)?;
                stanza.clear();
            }
        } else if line.starts_with([' ', '\t']) {
            let value = stanza
                .get_mut(&last)
                .ok_or_else(|| malformed(file, format!("`{}` continues nothing", line.escape_debug())))?;
            value.push('\n');
            value.push_str(line.trim());
        } else {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| malformed(file, format!("`{}` is not a field", line.escape_debug())))?;
            name.clone_into(&mut last);
            stanza.insert(last.clone(), value.trim().to_owned());
        }
    }
    if stanza.is_empty() { Ok(()) } else { visit(&stanza) }
}

fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut bytes)?;
    if bytes.len() as u64 == LINE_LIMIT {
        return Err(io::Error::other("a line is too long"));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("a line is not UTF-8"))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn package(extra: &str) -> String {
        format!("Package: bash\nVersion: 5.2-1\nDescription: a shell\n more\n .\n{extra}SHA256: {HEX}\n")
    }

    fn read(text: &str, names: &[&str]) -> Result<Index, IndexError> {
        Index::read(text.as_bytes(), &names.iter().copied().collect(), "trixie")
    }

    #[test]
    fn wanted_packages_are_read_and_the_others_are_skipped() {
        let text = format!("Package: other\nbroken only: here\n\n\n{}", package("Filename: pool/b.deb\nSize: 7\n"));
        let index = read(&text, &["bash"]).unwrap();
        let bash = index.get("bash").unwrap();
        assert_eq!((bash.deb.size, bash.deb.paths[0].as_str()), (7, "pool/b.deb"));
        assert_eq!(index.packages().count(), 1);
    }

    #[test]
    fn missing_names_are_all_named() {
        let message = read("", &["a", "b"]).unwrap_err().to_string();
        assert!(message.contains("lacks a, b"), "{message}");
    }

    #[test]
    fn hostile_packages_are_refused() {
        for bad in [
            "Filename: ../../etc/passwd\nSize: 7\n",
            "Filename: /etc/passwd\nSize: 7\n",
            "Filename: pool/b.deb\nSize: -1\n",
            "Filename: pool/b.deb\nSize: 99999999999999\n",
            "Filename: pool/b.deb\n",
            "no field at all\n",
        ] {
            assert!(matches!(read(&package(bad), &["bash"]), Err(IndexError::Malformed { .. })), "{bad}");
        }
        assert!(read(" continues nothing\n", &[]).is_err());
        let endless = "x".repeat(LINE_LIMIT as usize + 1);
        assert!(read(&endless, &[]).is_err());
    }

    #[test]
    fn the_upstream_version_is_what_is_left_of_debians() {
        for (debian, upstream) in [
            ("1:2.2.4+ds-1", "2.2.4"),
            ("3.13.5-2+deb13u5", "3.13.5"),
            ("2.6.0+dfsg-7", "2.6.0"),
            ("0.0~git20231202.5354032-3+b2", "0.0"),
            ("4.13.2-1", "4.13.2"),
        ] {
            let deb = Remote { paths: vec![], digest: Digest::of(b""), size: 0 };
            let package = Package { name: "x".into(), version: debian.into(), deb };
            assert_eq!(package.upstream_version(), upstream);
        }
    }

    #[test]
    fn the_release_names_its_index_by_hash_where_the_archive_allows_it() {
        let text = |codename: &str, by_hash: &str| {
            format!(
                "Origin: Debian\nVersion: 13.2\nCodename: {codename}\nDate: x\nAcquire-By-Hash: {by_hash}\nSHA256:\n \
                 {HEX} 5 main/binary-arm64/Packages.xz\n {HEX}  9 main/binary-amd64/Packages.xz\n"
            )
        };
        let release = Release::parse(&text("trixie", "yes"), "trixie").unwrap();
        assert_eq!(release.packages.size, 9);
        assert_eq!(release.packages.paths[0], format!("dists/trixie/main/binary-amd64/by-hash/SHA256/{HEX}"));
        let release = Release::parse(&text("trixie", "no"), "trixie").unwrap();
        assert_eq!(release.packages.paths, ["dists/trixie/main/binary-amd64/Packages.xz"]);
        let message = Release::parse(&text("bookworm", "yes"), "trixie").unwrap_err().to_string();
        assert!(message.contains("`bookworm`, not `trixie`"), "{message}");
        assert!(Release::parse("Origin: Debian\nCodename: trixie\n", "trixie").is_err());
    }
}
