//! One file with all that a class needs where there is no network, and the way back out of it.
//!
//! It is a plain tar, for what it holds is compressed already. The first member is a list of the others in their order,
//! each with size and sha256, and nothing may stand in the archive but what the list says: so the archive's own length
//! bounds what comes out of it, a cut-off or changed member is told by its name, and the list's digest names the whole.

mod pack;
mod unpack;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::entry::ImagePath;
use crate::fetch::FetchError;
use crate::lock::LockError;
use crate::model::Digest;
use crate::publish::PublishError;
use crate::registry::RegistryError;

pub use pack::{Contents, Packed, pack};
pub use unpack::{Opened, look, open};

/// The name of the list.
pub const LIST: &str = "bundle.json";
/// The name of the lock that the packages are of.
pub const LOCK: &str = "pixi.lock";
/// Where archives of packages stand.
const PACKAGES: &str = "packages";
/// Where the base image's layout stands.
const BASE: &str = "base";
/// Where programs stand, which are taken out by other means and only verified here.
pub const PROGRAMS: &str = "programs";
/// The digests of the programs beside it, as sha256sum reads them.
const SUMS: &str = "SHA256SUMS";
/// What may stand in a bundle: the first parts of paths.
const KINDS: &[&str] = &["app", BASE, PACKAGES, LOCK, PROGRAMS, "rehearsal"];
/// Raised when an older program could not read it.
const FORMAT: u32 = 1;
/// A list larger than this is refused as hostile, in bytes.
const LIST_LIMIT: u64 = 16 << 20;
/// More members than any class needs.
const MEMBER_LIMIT: usize = 100_000;
/// The block of a tar.
const BLOCK: u64 = 512;
/// The block that ends a tar, twice.
const END: u64 = 2 * BLOCK;

/// What the list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// Where packages and base come from, in the words of whoever made it.
    pub source: String,
    /// The environments whose packages are here.
    pub environments: Vec<String>,
    /// The base image, where one is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseImage>,
    /// The members after the list, in order.
    pub members: Vec<Member>,
}

/// A base image as it is known to the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// The reference that means it.
    pub reference: String,
    /// What the reference resolved to.
    pub digest: Digest,
    /// Go's name of the architecture.
    pub architecture: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its path within the bundle.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its content.
    pub sha256: Digest,
}

/// Why a bundle cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}{}", hint(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be part of a bundle.
    #[error("{path} cannot be put into a bundle: {reason}\n  hint: {hint}")]
    Unfit {
        /// The file, or its place in the bundle.
        path: PathBuf,
        /// Why.
        reason: String,
        /// The way out.
        hint: &'static str,
    },
    /// It is no bundle, or none of this version.
    #[error("{path} is not a bundle that can be used here: {reason}\n  hint: `cargo xtask bundle` makes one")]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A member is not what the list says.
    #[error("{path} was cut off or changed: {member} {reason}\n  hint: copy the bundle again; nothing of it was kept")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lock cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Packages cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The base image cannot be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A result cannot be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "\n  hint: name a file that is there",
        std::io::ErrorKind::PermissionDenied => "\n  hint: make it readable (chmod u+r)",
        _ => "",
    }
}

/// Where a bundle's architecture has which base.
fn architecture(platform: &str) -> &'static str {
    if platform.contains("aarch64") { "arm64" } else { "amd64" }
}

/// A path that may stand in a bundle: relative, of a known kind, in plain letters.
fn check_path(path: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=!@/~".contains(c);
    let parts: Vec<&[u8]> = match ImagePath::new(path) {
        Ok(parsed) if parsed.as_bytes() == path.as_bytes() => path.split('/').map(str::as_bytes).collect(),
        _ => return Err("it is no relative path in its shortest form".to_owned()),
    };
    let kind = parts.first().copied().unwrap_or_default();
    let is_file = kind == LOCK.as_bytes();
    if !KINDS.iter().any(|known| known.as_bytes() == kind) || is_file != (parts.len() == 1) {
        return Err("nothing of that kind belongs into a bundle".to_owned());
    }
    if path.len() > 250 || !path.chars().all(plain) {
        return Err("its name is too long, or not in plain letters".to_owned());
    }
    Ok(())
}

impl Manifest {
    /// What must hold of any list before a path of it is used.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has format {}, and only {FORMAT} is known here", self.format));
        }
        if self.members.len() > MEMBER_LIMIT {
            return Err(format!("it lists {} members", self.members.len()));
        }
        let mut before: Option<&str> = None;
        for member in &self.members {
            check_path(&member.path).map_err(|reason| format!("it lists `{}`: {reason}", member.path))?;
            // In order, so that none comes twice, and a directory's name is nowhere a file's.
            let follows = before
                .is_none_or(|before| before < member.path.as_str() && !member.path.starts_with(&format!("{before}/")));
            if !follows {
                return Err(format!("it lists `{}` at the wrong place", member.path));
            }
            before = Some(&member.path);
        }
        let words = self.environments.iter().chain([&self.source]);
        if words.into_iter().any(|word| word.is_empty() || word.contains(|c: char| c.is_control())) {
            return Err("its list holds control characters".to_owned());
        }
        if let Some(base) = &self.base {
            let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !is_name(&base.architecture) || base.reference.contains(|c: char| c.is_control()) {
                return Err("its base image has no proper name".to_owned());
            }
        }
        Ok(())
    }

    /// How long the archive is whose list has so many bytes; none where no number holds it.
    fn length(&self, list: u64) -> Option<u64> {
        let of = |size: u64| size.checked_next_multiple_of(BLOCK)?.checked_add(BLOCK);
        let members = self.members.iter().try_fold(0u64, |sum, member| sum.checked_add(of(member.size)?))?;
        members.checked_add(of(list)?)?.checked_add(END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_of_known_kinds_are_members() {
        for good in ["pixi.lock", "packages/ab.conda", "rehearsal/channel/noarch/repodata.json", "app/a.py"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/pixi.lock",
            "../x",
            "app/../x",
            "app/./x",
            "app//x",
            "app/",
            "app",
            "pixi.lock/x",
            "bundle.json",
            ".bashrc",
            "app/a b",
            "app/a\nb",
            "cache/x",
            "app\\x",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_path(&format!("app/{}", "x".repeat(300))).is_err());
    }

    #[test]
    fn a_list_with_a_path_twice_or_a_file_that_is_a_directory_is_refused() {
        let list = |paths: &[&str]| Manifest {
            format: FORMAT,
            source: "test".to_owned(),
            environments: Vec::new(),
            base: None,
            members: paths
                .iter()
                .map(|path| Member { path: (*path).to_owned(), size: 1, sha256: Digest::of(b"") })
                .collect(),
        };
        assert_eq!(list(&["app/a", "app/b", "pixi.lock"]).check(), Ok(()));
        for bad in [&["app/b", "app/a"], &["app/a", "app/a"], &["app/a", "app/a/b"]] {
            assert!(list(bad).check().is_err(), "{bad:?}");
        }
        let huge = Manifest {
            members: vec![Member { path: "app/a".to_owned(), size: u64::MAX - 3, sha256: Digest::of(b"") }],
            ..list(&[])
        };
        assert_eq!(huge.length(10), None);
        assert_eq!(list(&["app/a"]).length(600), Some(512 + 1024 + 512 + 512 + 1024));
    }
}
