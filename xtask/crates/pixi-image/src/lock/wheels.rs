//! Which packages from PyPI can be installed: wheels that can be verified and that fit the environment.

use std::fmt;

use rattler_lock::{PypiPackageData, UrlOrPath};
use url::Url;

use super::tags::Target;
use crate::model::{Digest, Wheel, without_credentials};

/// The prefix of schemes by which pixi marks a URL that the manifest names itself.
const DIRECT: &str = "direct+";

/// Why a package cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It would have to be built.
    Source(String),
    /// It stands somewhere on the machine that locked it.
    Local(String),
    /// It could not be verified.
    NoDigest,
    /// It runs on something else.
    Tags(String),
    /// It wants another python.
    Python(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(place) => write!(f, "it has to be built from source ({place}), and only wheels are installed"),
            Self::Local(place) => write!(f, "it is locked by a path ({place}), which no other machine has"),
            Self::NoDigest => f.write_str(
                "it has no sha256 in the lock, so it could not be verified (one that is named by its URL gets it with \
                 `#sha256=HEX` after that)",
            ),
            Self::Tags(text) | Self::Python(text) => f.write_str(text),
        }
    }
}

/// Reads a package; why it cannot be installed otherwise.
pub(super) fn wheel(data: &PypiPackageData, target: &Target) -> Result<Wheel, Refusal> {
    let (shown, url) = match data.location().inner() {
        UrlOrPath::Url(url) => (without_credentials(url).to_string(), url),
        UrlOrPath::Path(path) if data.as_wheel().is_some() && path.as_str().ends_with(".whl") => {
            return Err(Refusal::Local(path.to_string()));
        }
        UrlOrPath::Path(path) => return Err(Refusal::Source(path.to_string())),
    };
    let (direct, mut url) = match url.as_str().strip_prefix(DIRECT).map(Url::parse) {
        Some(Ok(url)) => (true, url),
        _ => (false, url.clone()),
    };
    let file_name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let file_name = decoded(file_name);
    let fits = target.fits(&file_name).filter(|_| !file_name.contains(char::is_control));
    let (Some(data), "https" | "http", Some(fits)) = (data.as_wheel(), url.scheme(), fits) else {
        return Err(Refusal::Source(shown));
    };
    if !fits {
        return Err(Refusal::Tags(format!("{file_name} does not run with {target}")));
    }
    if let Some(wanted) = data.requires_python.as_ref().filter(|wanted| !wanted.contains(&target.version)) {
        return Err(Refusal::Python(format!("it wants python {wanted}, and the environment has {}", target.version)));
    }
    let locked = data.hash.as_ref().and_then(|hash| hash.sha256()).map(|sha256| Digest((*sha256).into()));
    // Of a URL that the manifest names, pixi locks no digest but the one that stands in it.
    let named = || Digest::from_hex(url.fragment()?.strip_prefix("sha256=")?).ok();
    let sha256 = locked.or_else(named).ok_or(Refusal::NoDigest)?;
    url.set_fragment(None);
    Ok(Wheel {
        name: data.name.to_string(),
        version: data.version.to_string(),
        file_name,
        index: data.index_url.clone(),
        direct,
        sha256,
        url,
    })
}

/// A part of a URL's path as text: `+` of a local version comes as `%2B`.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
