//! `RECORD`: the files of a wheel with their digests, before and after it is installed (PyPA, "Recording installed
//! projects").

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::entry::{BadPath, ImagePath};

/// A digest as `RECORD` writes it, of a kind that can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

const ALGORITHMS: [(&str, Algorithm); 3] =
    [("sha256", Algorithm::Sha256), ("sha384", Algorithm::Sha384), ("sha512", Algorithm::Sha512)];

impl Checksum {
    /// `sha256=<base64url without padding>`; what is wrong with it otherwise. The specification forbids md5 and sha1.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, digest) = text.split_once('=').ok_or("there is none")?;
        let algorithm = ALGORITHMS.into_iter().find(|(known, _)| *known == name);
        let (_, algorithm) = algorithm.ok_or_else(|| format!("`{name}` is none of sha256, sha384 and sha512"))?;
        let digest = URL_SAFE_NO_PAD.decode(digest.trim_end_matches('=')).map_err(|error| error.to_string())?;
        Ok(Self { algorithm, digest })
    }

    pub(super) fn of(content: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, digest: sha2::Sha256::digest(content).to_vec() }
    }

    pub(super) fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = ALGORITHMS.iter().find(|(_, known)| *known == self.algorithm).map_or("", |(name, _)| name);
        write!(f, "{name}={}", URL_SAFE_NO_PAD.encode(&self.digest))
    }
}

/// Computes a [`Checksum`] of what passes.
pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// The kind that is taken where the wheel gives none.
    pub fn usual() -> Self {
        Self::new(Algorithm::Sha256)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Checksum {
        match self {
            Self::Sha256(hasher) => Checksum { algorithm: Algorithm::Sha256, digest: hasher.finalize().to_vec() },
            Self::Sha384(hasher) => Checksum { algorithm: Algorithm::Sha384, digest: hasher.finalize().to_vec() },
            Self::Sha512(hasher) => Checksum { algorithm: Algorithm::Sha512, digest: hasher.finalize().to_vec() },
        }
    }
}

/// A line of `RECORD`, its fields in the order of the format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Row {
    pub path: String,
    pub digest: Option<String>,
    /// The length in bytes.
    pub size: Option<u64>,
}

/// Reads the lines of a `RECORD`.
fn rows(text: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let row = |row: Result<csv::StringRecord, csv::Error>| {
        let row = row.map_err(|error| error.to_string())?;
        let column = |at: usize| row.get(at).map(str::trim).filter(|text| !text.is_empty());
        let size = column(2).map(|size| size.parse().map_err(|_| format!("`{size}` is no length")));
        let path = column(0).ok_or("a line without a path")?.to_owned();
        Ok(Row { path, digest: column(1).map(str::to_owned), size: size.transpose()? })
    };
    reader.records().map(row).collect()
}

/// What the `RECORD` of an archive says of each path. A path that comes twice with different digests is refused.
pub(super) fn listed(text: &[u8]) -> Result<BTreeMap<ImagePath, Row>, String> {
    let mut listed = BTreeMap::new();
    for row in rows(text)? {
        let path = ImagePath::new(&row.path).map_err(|error| error.to_string())?;
        let said = (row.digest.clone(), row.size);
        if listed.insert(path.clone(), row).is_some_and(|before: Row| (before.digest, before.size) != said) {
            return Err(format!("it lists `{path}` twice"));
        }
    }
    Ok(listed)
}

/// The `RECORD` of what was installed: sorted, so that it is the same each time.
pub(super) fn write(mut rows: Vec<Row>) -> Result<Vec<u8>, csv::Error> {
    rows.sort();
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// The files that an installed `RECORD` lists, relative to the environment; `site_packages` is where its paths begin.
pub fn installed_files(text: &[u8], site_packages: &ImagePath) -> Result<Vec<ImagePath>, String> {
    let place = |row: Row| resolved(site_packages, &row.path).map_err(|error| error.to_string());
    rows(text)?.into_iter().map(place).collect()
}

/// The place, relative to the environment, that is written as a path relative to `directory` in it.
fn resolved(directory: &ImagePath, path: &str) -> Result<ImagePath, BadPath> {
    let mut parts: Vec<&[u8]> = directory.parts().collect();
    let mut rest = path.as_bytes();
    while let Some(above) = rest.strip_prefix(b"../") {
        rest = above;
        if parts.pop().is_none() {
            return ImagePath::new(path); // refuses it
        }
    }
    let rest = ImagePath::new(rest)?;
    if parts.is_empty() {
        return Ok(rest);
    }
    ImagePath::new([parts.join(&b'/').as_slice(), b"/", rest.as_bytes()].concat())
}

/// How a place in the environment is written relative to `directory` in it.
pub(super) fn relative(directory: &ImagePath, place: &ImagePath) -> String {
    let common = directory.parts().zip(place.parts()).take_while(|(a, b)| a == b).count();
    let up = directory.parts().skip(common).map(|_| "..".to_owned());
    let down = place.parts().skip(common).map(|part| String::from_utf8_lossy(part).into_owned()); // names were UTF-8
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        ImagePath::new(text).unwrap()
    }

    #[test]
    fn a_place_is_written_and_found_again_from_site_packages() {
        let site = path("lib/python3.12/site-packages");
        for (place, text) in [
            ("lib/python3.12/site-packages/a/b.py", "a/b.py"),
            ("bin/run", "../../../bin/run"),
            ("lib/python3.12/other", "../other"),
            ("lib/x", "../../x"),
        ] {
            assert_eq!(relative(&site, &path(place)), text);
            assert_eq!(resolved(&site, text).unwrap(), path(place));
        }
        for bad in ["../../../../x", "/x", "a/../b", "../../../"] {
            assert!(resolved(&site, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_checksum_is_written_as_it_was_read_and_weak_ones_are_refused() {
        for text in ["sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", &format!("sha512={}", "A".repeat(86))] {
            assert_eq!(Checksum::parse(text).unwrap().to_string(), *text);
        }
        assert_eq!(Checksum::of(b""), Checksum::parse("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=").unwrap());
        for bad in ["", "md5=1B2M2Y8AsgTpgAmY7PhCfg", "sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk", "sha256=\u{e4}", "sha256"] {
            assert!(Checksum::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_with_commas_and_quotes_survive() {
        let row = |path: &str, digest: Option<&str>, size| Row {
            path: path.to_owned(),
            digest: digest.map(str::to_owned),
            size,
        };
        let rows = vec![row("a \"b\", c.py", Some("sha256=x"), Some(3)), row("R", None, None)];
        let text = write(rows).unwrap();
        assert_eq!(String::from_utf8_lossy(&text), "R,,\n\"a \"\"b\"\", c.py\",sha256=x,3\n");
        let found = &listed(&text).unwrap()[&path("a \"b\", c.py")];
        assert_eq!((found.digest.as_deref(), found.size), (Some("sha256=x"), Some(3)));
        assert!(listed(b"./a,sha256=x,1\na,sha256=y,1\n").is_err());
        assert_eq!(listed(b"./a,sha256=x,1\na,sha256=x,1\n").unwrap().len(), 1);
    }
}
