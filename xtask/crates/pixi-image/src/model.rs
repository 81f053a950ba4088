//! Plain data shared by every module: digests, the environment to install, and where it lives in the image.

use std::fmt;
use std::str::FromStr;

use rattler_conda_types::{RepoDataRecord, Subdir};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// The pixi whose files an environment carries.
pub const PIXI_VERSION: &str = "0.77.0";
/// What pixi calls itself in the `INSTALLER` of what it installs from PyPI.
pub const WHEEL_INSTALLER: &str = "uv-pixi";

/// The sha256 of some bytes, written `sha256:<64 lower-case hex digits>` (OCI image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Text that is not a sha256 digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
pub struct BadDigest(pub String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hex digits, without the algorithm: the name of a blob in an OCI layout.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
            text
        })
    }

    /// Reads the 64 hex digits without the algorithm in front.
    pub fn from_hex(hex: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(hex.to_owned());
        let digits = hex.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d)) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| BadDigest(text.to_owned()))?;
        Self::from_hex(hex).map_err(|_| BadDigest(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One conda package of a locked environment.
#[derive(Clone, Debug)]
pub struct CondaPackage {
    /// Everything the lock says about it, as it will stand in `conda-meta`.
    pub record: RepoDataRecord,
    /// The sha256 of the archive; a package without one is refused while the lock is read.
    pub sha256: Digest,
}

impl CondaPackage {
    /// The normalized name, for example `python`.
    pub fn name(&self) -> &str {
        self.record.package_record.name.as_normalized()
    }

    /// `name-version-build`, as people write it.
    pub fn identity(&self) -> String {
        let package = &self.record.package_record;
        format!("{}-{}-{}", self.name(), package.version, package.build)
    }
}

/// One package from PyPI: always a wheel, for nothing else can be installed without running it.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The normalized name, for example `ruamel-yaml` (PyPA, "Names and normalization").
    pub name: String,
    /// The version as the lock writes it.
    pub version: String,
    /// The name of the archive, which carries the tags of what it runs on.
    pub file_name: String,
    /// Where it comes from.
    pub url: Url,
    /// The index that the lock names.
    pub index: Option<Url>,
    /// Whether the manifest names the URL itself, not an index.
    pub direct: bool,
    /// The sha256 of the archive; a wheel without one is refused while the lock is read.
    pub sha256: Digest,
}

impl Wheel {
    /// Where it comes from, as it may be written down.
    pub fn public_url(&self) -> Url {
        without_credentials(&self.url)
    }
}

/// A URL without user and password.
pub fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// One package of a locked environment. All are fetched, packed and laid into the image alike; only what reads the
/// archives and the records tells the kinds apart.
#[derive(Clone, Debug)]
pub enum LockedPackage {
    /// From a conda channel.
    Conda(Box<CondaPackage>),
    /// From PyPI.
    Pypi(Box<Wheel>),
}

impl LockedPackage {
    /// The normalized name, for example `python`.
    pub fn name(&self) -> &str {
        match self {
            Self::Conda(package) => package.name(),
            Self::Pypi(wheel) => &wheel.name,
        }
    }

    /// The version as the lock writes it.
    pub fn version(&self) -> String {
        match self {
            Self::Conda(package) => package.record.package_record.version.to_string(),
            Self::Pypi(wheel) => wheel.version.clone(),
        }
    }

    /// As people write it: `name-version-build`, or `name-version` of a wheel.
    pub fn identity(&self) -> String {
        match self {
            Self::Conda(package) => package.identity(),
            Self::Pypi(wheel) => format!("{}-{}", wheel.name, wheel.version),
        }
    }

    /// The size of the archive in bytes, where the lock knows it; it never does of wheels.
    pub fn size(&self) -> Option<u64> {
        self.conda().and_then(|package| package.record.package_record.size)
    }

    /// The sha256 of the archive.
    pub fn sha256(&self) -> Digest {
        match self {
            Self::Conda(package) => package.sha256,
            Self::Pypi(wheel) => wheel.sha256,
        }
    }

    /// Where the archive comes from.
    pub fn url(&self) -> &Url {
        match self {
            Self::Conda(package) => &package.record.url,
            Self::Pypi(wheel) => &wheel.url,
        }
    }

    /// What pixi calls the kind: `conda` or `pypi`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conda(_) => "conda",
            Self::Pypi(_) => "pypi",
        }
    }

    /// The conda package, if it is one.
    pub fn conda(&self) -> Option<&CondaPackage> {
        match self {
            Self::Conda(package) => Some(package),
            Self::Pypi(_) => None,
        }
    }

    /// The wheel, if it is one.
    pub fn wheel(&self) -> Option<&Wheel> {
        match self {
            Self::Conda(_) => None,
            Self::Pypi(wheel) => Some(wheel),
        }
    }
}

impl From<CondaPackage> for LockedPackage {
    fn from(package: CondaPackage) -> Self {
        Self::Conda(Box::new(package))
    }
}

impl From<Wheel> for LockedPackage {
    fn from(wheel: Wheel) -> Self {
        Self::Pypi(Box::new(wheel))
    }
}

/// One environment of the lock for one platform: what goes into the image.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The environment's name in the manifest, for example `gpu`.
    pub name: String,
    /// The conda platform, for example `linux-64`.
    pub subdir: Subdir,
    /// The name of the lock's platform row, for example `linux-64-cuda-12`.
    pub platform: String,
    /// The `__cuda` version that the row promises, for example `12`.
    pub cuda: Option<String>,
    /// All that the row promises, as the lock writes it; nothing in locks before version 7.
    pub virtual_packages: Vec<String>,
    /// The hash by which pixi knows this environment again, where it can be told.
    pub lock_hash: Option<String>,
    /// The packages: those of conda, each after everything that it depends on, then the wheels by name.
    pub packages: Vec<LockedPackage>,
}

impl Environment {
    /// The conda package that brings the interpreter, if there is one.
    pub fn python(&self) -> Option<&CondaPackage> {
        self.packages.iter().filter_map(LockedPackage::conda).find(|package| package.name() == "python")
    }

    /// The wheels.
    pub fn wheels(&self) -> impl Iterator<Item = &Wheel> {
        self.packages.iter().filter_map(LockedPackage::wheel)
    }
}

/// The place of an environment: absolute, `/`-separated, without `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// What the link at [`Self::of_environment`] holds, in an OCI image.
    pub const LINK: &str = "../environment";

    /// What the link at [`Self::of_packages`] holds, in a SIF.
    pub fn link_in_sif(name: &str) -> String {
        format!("envs/{name}")
    }

    /// The place that packages name: a package's layer and pack, in which each header and each patched file names it, are
    /// the same bytes for all environments of a lock. In an OCI image they are there, in a SIF a link leads to them.
    pub fn of_packages() -> Self {
        Self("/app/.pixi/environment".to_owned())
    }

    /// Where an image shows its environment, as the lesson's recipe does: `/app/.pixi/envs/<environment>`. Variables name
    /// this place, and so does whoever looks for a file. In a SIF the packages are here: where FUSE mounts it, a link may be
    /// asked for again with every path below it. In an OCI image it is a link to [`Self::of_packages`].
    pub fn of_environment(name: &str) -> Self {
        Self(format!("/app/.pixi/envs/{name}"))
    }

    /// The place at an absolute path; none if it is not written as such a place must be.
    pub fn at(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        parts.all(|part| !matches!(part, "" | "." | "..")).then(|| Self(path.to_owned()))
    }

    /// The absolute path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without the leading `/`, as image paths are written.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_64_lower_case_hex_digits() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for bad in ["", "sha256:", "sha512:00", &digest.hex(), &digest.to_string().to_uppercase(), "sha256:+1"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
