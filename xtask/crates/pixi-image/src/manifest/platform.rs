//! Platforms of a workspace: a conda platform and the virtual packages that solving may rely on.

use std::collections::BTreeMap;
use std::fmt;

use rattler_conda_types::{GenericVirtualPackage, PackageName, Subdir, Version};

use super::ManifestError;
use super::document::{Keys, Node, Table};

/// A virtual package as the manifest promises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualPackage {
    /// For example `__cuda`.
    pub name: &'static str,
    /// Its version.
    pub version: Version,
    /// Its build string; empty where it has none.
    pub build: String,
}

impl VirtualPackage {
    fn new(name: &'static str, version: Version) -> Self {
        Self { name, version, build: String::new() }
    }

    /// As the solver takes it.
    pub fn generic(&self) -> GenericVirtualPackage {
        let build = if self.build.is_empty() { "0" } else { &self.build };
        GenericVirtualPackage {
            name: PackageName::new_unchecked(self.name),
            version: self.version.clone(),
            build_string: rattler_conda_types::package::BuildString::new_unchecked(build),
        }
    }
}

/// Pixi compares these as strings, and leaves an empty build away where rattler writes `=0`.
impl fmt::Display for VirtualPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)?;
        if self.build.is_empty() { Ok(()) } else { write!(f, "={}", self.build) }
    }
}

/// A row of the lock's platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name: the conda platform, or one that says what else is promised, for example `linux-64-cuda-12`.
    pub name: String,
    /// The conda platform.
    pub subdir: Subdir,
    /// What solving may rely on: first what the manifest says, then the defaults of the conda platform.
    pub virtual_packages: Vec<VirtualPackage>,
}

impl Platform {
    fn new(name: Option<String>, subdir: Subdir, declared: Vec<VirtualPackage>) -> Self {
        let name = name.unwrap_or_else(|| derived_name(subdir, &declared));
        let mut virtual_packages = declared;
        for default in defaults(subdir) {
            if virtual_packages.iter().all(|package| package.name != default.name) {
                virtual_packages.push(default);
            }
        }
        Self { name, subdir, virtual_packages }
    }

    /// Whether it is nothing but a conda platform.
    pub fn is_plain(&self) -> bool {
        self.name == self.subdir.as_str()
    }

    /// What makes it differ from the plain conda platform, as pixi compares it: sorted strings.
    pub fn declared(&self) -> Vec<String> {
        let defaults = defaults(self.subdir);
        let mut declared: Vec<_> = self
            .virtual_packages
            .iter()
            .filter(|package| !defaults.contains(package))
            .map(ToString::to_string)
            .collect();
        declared.sort();
        declared
    }
}

/// Whether a locked virtual package is one that the conda platform has anyway.
pub fn is_default(subdir: Subdir, locked: &str) -> bool {
    // rattler writes `__linux=4.18=0`, pixi `__linux=4.18`.
    defaults(subdir).iter().any(|default| {
        let text = default.to_string();
        locked == text || (default.build.is_empty() && locked == format!("{text}=0"))
    })
}

/// What pixi takes for granted on a conda platform.
fn defaults(subdir: Subdir) -> Vec<VirtualPackage> {
    let version = |text: &str| text.parse::<Version>().expect("a literal below is a version");
    let mut defaults = Vec::new();
    if subdir.is_unix() {
        defaults.push(VirtualPackage { build: "0".to_owned(), ..VirtualPackage::new("__unix", Version::major(0)) });
    }
    if subdir.is_linux() {
        defaults.push(VirtualPackage::new("__linux", version("4.18")));
        let glibc = if subdir == Subdir::LinuxRiscv64 { "2.39" } else { "2.28" };
        defaults.push(VirtualPackage::new("__glibc", version(glibc)));
    }
    if subdir.is_windows() {
        defaults.push(VirtualPackage::new("__win", version("10.0")));
    }
    if subdir.is_osx() {
        defaults.push(VirtualPackage::new("__osx", version("13.0")));
    }
    if let Some(build) = microarchitecture(subdir) {
        defaults
            .push(VirtualPackage { build: build.to_owned(), ..VirtualPackage::new("__archspec", Version::major(0)) });
    }
    defaults
}

/// The least that every machine of a conda platform has, in the words of archspec.
fn microarchitecture(subdir: Subdir) -> Option<&'static str> {
    match subdir {
        Subdir::Linux64 | Subdir::Osx64 | Subdir::Win64 => Some("x86_64"),
        Subdir::LinuxAarch64 | Subdir::WinArm64 => Some("aarch64"),
        Subdir::OsxArm64 => Some("m1"),
        Subdir::LinuxPpc64le => Some("ppc64le"),
        Subdir::LinuxS390X => Some("s390x"),
        Subdir::LinuxRiscv64 => Some("riscv64"),
        Subdir::Linux32 | Subdir::Win32 => Some("x86"),
        _ => None,
    }
}

/// The keys of platforms and system requirements, in the order in which they make up a derived name.
const KEYS: [(&str, &str); 6] = [
    ("cuda", "__cuda"),
    ("archspec", "__archspec"),
    ("glibc", "__glibc"),
    ("linux", "__linux"),
    ("macos", "__osx"),
    ("windows", "__win"),
];

/// `linux-64-cuda-12`: the name that pixi gives to a platform that has none.
fn derived_name(subdir: Subdir, declared: &[VirtualPackage]) -> String {
    let defaults = defaults(subdir);
    let mut name = subdir.as_str().to_owned();
    for (key, package) in KEYS {
        let Some(declared) = declared.iter().find(|declared| declared.name == package) else { continue };
        if defaults.contains(declared) {
            continue;
        }
        let value = if package == "__archspec" { declared.build.clone() } else { declared.version.to_string() };
        let parts: Vec<_> = value.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
        name.push_str(&format!("-{key}-{}", parts.join("-")));
    }
    name
}

const PLATFORM_KEYS: Keys = Keys {
    used: &["name", "platform", "cuda", "archspec", "glibc", "linux", "macos", "osx", "windows"],
    harmless: &[],
    refused: &[],
};

/// An entry of `workspace.platforms`: a conda platform, or a table that promises more.
pub fn platform(node: &Node<'_>) -> Result<Platform, ManifestError> {
    if node.as_str().is_some() {
        return Ok(Platform::new(None, node.parse()?, Vec::new()));
    }
    let table = node.table()?;
    table.check(&PLATFORM_KEYS)?;
    let name = table.get("name").map(|name| platform_name(&name)).transpose()?;
    let subdir = match (table.get("platform"), table.get("name")) {
        (Some(platform), _) => platform.parse()?,
        (None, Some(name)) => {
            name.parse().map_err(|_| name.invalid("is no conda platform, so `platform` must say which it is"))?
        }
        (None, None) => return Err(node.invalid("needs a `platform`, for example \"linux-64\"")),
    };
    let mut declared = Vec::new();
    for (key, package) in KEYS {
        let Some(value) = table.get(key).or_else(|| table.get("osx").filter(|_| key == "macos")) else { continue };
        declared.push(match package {
            "__archspec" => {
                VirtualPackage { build: value.str()?.to_owned(), ..VirtualPackage::new(package, Version::major(0)) }
            }
            _ if value.as_table().is_some() => return Err(value.refused("only a version can be read here")),
            _ => VirtualPackage::new(package, value.parse()?),
        });
    }
    let platform = Platform::new(name, subdir, declared);
    if platform.is_plain() && !platform.declared().is_empty() {
        return Err(node.invalid("promises more than its conda platform, so it needs a name of its own"));
    }
    Ok(platform)
}

fn platform_name(node: &Node<'_>) -> Result<String, ManifestError> {
    let name = node.str()?;
    let valid =
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if valid { Ok(name.to_owned()) } else { Err(node.invalid("may hold letters, digits and `-` only, 64 at most")) }
}

const SYSTEM_KEYS: Keys = Keys {
    used: &["cuda", "linux", "macos", "libc"],
    harmless: &["archspec"], // deprecated, and pixi does not use it either
    refused: &[],
};

/// A `system-requirements` table.
pub fn system_requirements(node: &Node<'_>) -> Result<Vec<VirtualPackage>, ManifestError> {
    let table = node.table()?;
    table.check(&SYSTEM_KEYS)?;
    let mut declared = Vec::new();
    for (key, package) in [("linux", "__linux"), ("cuda", "__cuda"), ("macos", "__osx"), ("libc", "__glibc")] {
        let Some(value) = table.get(key) else { continue };
        let version = match value.as_table() {
            Some(libc) if key == "libc" => glibc(&value, &libc)?,
            _ => value.parse()?,
        };
        declared.push(VirtualPackage::new(package, version));
    }
    Ok(declared)
}

fn glibc(node: &Node<'_>, libc: &Table<'_>) -> Result<Version, ManifestError> {
    libc.check(&Keys { used: &["family", "version"], harmless: &[], refused: &[] })?;
    if let Some(family) = libc.get("family")
        && family.str()? != "glibc"
    {
        return Err(family.refused("only glibc is known here"));
    }
    libc.get("version").ok_or_else(|| node.invalid("needs a `version`"))?.parse()
}

/// The platform that features with these system requirements make of a plain conda platform: of each virtual package the
/// highest version.
pub fn composed<'a>(subdir: Subdir, requirements: impl Iterator<Item = &'a VirtualPackage>) -> Platform {
    let defaults = defaults(subdir);
    let mut union: BTreeMap<&str, VirtualPackage> = BTreeMap::new();
    let here = requirements.filter(|package| applies(package.name, subdir) && !defaults.contains(package));
    for package in here {
        let highest = union.entry(package.name).or_insert_with(|| package.clone());
        if package.version > highest.version {
            *highest = package.clone();
        }
    }
    Platform::new(None, subdir, union.into_values().collect())
}

fn applies(package: &str, subdir: Subdir) -> bool {
    match package {
        "__linux" | "__glibc" => subdir.is_linux(),
        "__osx" => subdir.is_osx(),
        "__cuda" => !subdir.is_osx(), // there has been no CUDA for macOS since 2019
        _ => true,
    }
}
