//! Platforms of a workspace: a conda platform and the virtual packages that solving may rely on.

use std::collections::BTreeMap;
use std::fmt;

use rattler_conda_types::package::BuildString;
use rattler_conda_types::{GenericVirtualPackage, PackageName, Subdir, Version};
use rattler_virtual_packages::Archspec;

use super::ManifestError;
use super::document::{Node, Table};

/// The virtual packages that packages can depend on; a platform may declare any other, too.
const SOLVED: [&str; 10] =
    ["__unix", "__linux", "__glibc", "__musl", "__eglibc", "__win", "__osx", "__cuda", "__cuda_arch", "__archspec"];

/// A virtual package as the manifest promises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualPackage {
    /// For example `__cuda`.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its build string; empty where it has none.
    pub build: String,
}

impl VirtualPackage {
    fn new(name: &str, version: Version) -> Self {
        Self { name: name.to_owned(), version, build: String::new() }
    }

    /// As the manifest declares it.
    pub fn generic(&self) -> GenericVirtualPackage {
        let build = if self.build.is_empty() { "0" } else { &self.build };
        GenericVirtualPackage {
            name: PackageName::new_unchecked(&self.name),
            version: self.version.clone(),
            build_string: BuildString::new_unchecked(build),
        }
    }

    /// As packages may depend on it; none if they cannot: pixi gives to its solver the names that it knows.
    pub fn for_solver(&self) -> Option<GenericVirtualPackage> {
        let generic = SOLVED.contains(&self.name.as_str()).then(|| self.generic())?;
        // Machines have version 1 of it (CEP 30), and packages ask for that; declared, and locked, it is 0.
        let is_archspec = self.name == "__archspec";
        Some(GenericVirtualPackage {
            version: if is_archspec { Version::major(1) } else { generic.version },
            ..generic
        })
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
    /// The conda platform alone.
    pub fn plain(subdir: Subdir) -> Self {
        Self::new(None, subdir, Vec::new())
    }

    fn new(name: Option<String>, subdir: Subdir, declared: Vec<VirtualPackage>) -> Self {
        let name = name.unwrap_or_else(|| derived_name(subdir, &declared));
        let mut virtual_packages = declared;
        for default in defaults(subdir) {
            // Another libc stands in the place of glibc.
            let same = |package: &VirtualPackage| {
                package.name == default.name || is_libc(&package.name) && is_libc(&default.name)
            };
            if !virtual_packages.iter().any(same) {
                virtual_packages.push(default);
            }
        }
        Self { name, subdir, virtual_packages }
    }

    /// Whether it is nothing but a conda platform.
    pub fn is_plain(&self) -> bool {
        self.name == self.subdir.as_str()
    }

    /// What packages may depend on.
    pub fn for_solver(&self) -> Vec<GenericVirtualPackage> {
        self.virtual_packages.iter().filter_map(VirtualPackage::for_solver).collect()
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

/// The keys of platforms, in the order in which they make up a derived name.
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
    let mut more: Vec<_> = declared.iter().filter(|package| !defaults.contains(package)).collect();
    more.sort_by(|a, b| a.name.cmp(&b.name));
    let mut name = subdir.as_str().to_owned();
    let mut add = |key: &str, value: &str| {
        for part in [key, value] {
            let parts = part.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
            name.extend(parts.flat_map(|part| ["-", part]));
        }
    };
    for (key, package) in KEYS {
        let is_archspec = package == "__archspec";
        let fits = |declared: &&VirtualPackage| match is_archspec {
            true => declared.version == Version::major(0) && !declared.build.is_empty(),
            false => matches!(declared.build.as_str(), "" | "0"),
        };
        let Some(at) = more.iter().position(|declared| declared.name == package && fits(declared)) else { continue };
        let declared = more.remove(at);
        add(key, &if is_archspec { declared.build.clone() } else { declared.version.to_string() });
    }
    for declared in more {
        let build = if declared.build == "0" { "" } else { &declared.build };
        add(&declared.name, &format!("{}={build}", declared.version));
    }
    name
}

/// An entry of `workspace.platforms`: a conda platform, or a table that promises more.
pub fn platform(node: &Node<'_>) -> Result<Platform, ManifestError> {
    if node.as_str().is_some() {
        return Ok(Platform::plain(node.parse()?));
    }
    let table = node.table()?;
    let given = table.get("name").map(|name| platform_name(&name)).transpose()?;
    let subdir = match (table.get("platform"), table.get("name")) {
        (Some(platform), _) => platform.parse()?,
        (None, Some(name)) => {
            name.parse().map_err(|_| name.invalid("is no conda platform, so `platform` must say which it is"))?
        }
        (None, None) => return Err(node.invalid("needs a `platform`, for example \"linux-64\"")),
    };
    let platform = Platform::new(given.clone(), subdir, declared(&table)?);
    if platform.is_plain() && !platform.declared().is_empty() {
        return Err(node.invalid("promises more than its conda platform, so it needs a name of its own"));
    }
    if given.is_none() && platform.name.len() > NAME_LIMIT {
        return Err(node.invalid(format!("would be called `{}`, which is too long: it needs a `name`", platform.name)));
    }
    let promises = |name: &str| platform.virtual_packages.iter().any(|package| package.name == name);
    if promises("__cuda_arch") && !promises("__cuda") {
        return Err(node.invalid("has `__cuda_arch`, which means nothing without `cuda`"));
    }
    Ok(platform)
}

/// The virtual packages that a platform's table declares.
fn declared(table: &Table<'_>) -> Result<Vec<VirtualPackage>, ManifestError> {
    let mut declared: Vec<VirtualPackage> = Vec::new();
    for (key, node) in table.entries() {
        let new = match key.as_str() {
            "name" | "platform" => continue,
            "cuda" if node.as_table().is_some() => cuda(&node)?,
            "archspec" => vec![archspec(&node, Version::major(0), node.str()?)?],
            "osx" => vec![VirtualPackage::new("__osx", node.parse()?)],
            raw if raw.starts_with("__") => vec![raw_package(raw, &node)?],
            key => match KEYS.iter().find(|(known, _)| *known == key) {
                Some((_, package)) => vec![VirtualPackage::new(package, node.parse()?)],
                None => return Err(node.refused("this key is not known here")),
            },
        };
        for package in new {
            if declared.iter().any(|other| other.name == package.name) {
                return Err(node.invalid(format!("declares `{}` once more", package.name)));
            }
            declared.push(package);
        }
    }
    Ok(declared)
}

/// `cuda = { driver = "12", arch = "8.6" }`.
fn cuda(node: &Node<'_>) -> Result<Vec<VirtualPackage>, ManifestError> {
    let table = node.table()?;
    table.only(&["driver", "arch"])?;
    let driver = table.get("driver").ok_or_else(|| node.invalid("needs a `driver`"))?.parse()?;
    let mut packages = vec![VirtualPackage::new("__cuda", driver)];
    if let Some(arch) = table.get("arch") {
        packages.push(VirtualPackage::new("__cuda_arch", arch.parse()?));
    }
    Ok(packages)
}

/// `__name = "version"` or `__name = "version=build"`.
fn raw_package(name: &str, node: &Node<'_>) -> Result<VirtualPackage, ManifestError> {
    name.parse::<PackageName>().map_err(|error| node.invalid(format!("is no name of a package: {error}")))?;
    let text = node.str()?;
    let (version, build) = text.split_once('=').unwrap_or((text, ""));
    let version = version.parse().map_err(|error| node.invalid(format!("`{text}`: {error}")))?;
    if name == "__archspec" && !matches!(build, "" | "0") {
        return archspec(node, version, build);
    }
    Ok(VirtualPackage { build: build.to_owned(), ..VirtualPackage::new(name, version) })
}

fn archspec(node: &Node<'_>, version: Version, name: &str) -> Result<VirtualPackage, ManifestError> {
    if name != "0" && Archspec::from_known_name(name).is_none() {
        return Err(node.invalid(format!("`{name}` is no microarchitecture that archspec knows, like x86_64_v3")));
    }
    Ok(VirtualPackage { build: name.to_owned(), ..VirtualPackage::new("__archspec", version) })
}

/// What pixi allows, in bytes.
const NAME_LIMIT: usize = 64;
/// What pixi calls families of conda platforms.
pub const FAMILIES: [&str; 5] = ["unix", "linux", "osx", "macos", "win"];

fn platform_name(node: &Node<'_>) -> Result<String, ManifestError> {
    let name = node.str()?;
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let ends = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.ends_with('-');
    if FAMILIES.contains(&name) {
        return Err(node.invalid(format!("may not be `{name}`, which means all platforms of that family")));
    }
    if inner && ends && name.len() <= NAME_LIMIT {
        return Ok(name.to_owned());
    }
    Err(node.invalid("may hold letters, digits and `-` only, a letter first and no `-` last, 64 at most"))
}

/// The keys of `system-requirements`; `archspec` is deprecated, and pixi does not use it either.
pub const SYSTEM_KEYS: &[&str] = &["cuda", "linux", "macos", "libc", "archspec"];
/// The families of libc that packages can depend on.
const LIBCS: [(&str, &str); 3] = [("glibc", "__glibc"), ("musl", "__musl"), ("eglibc", "__eglibc")];

/// A `system-requirements` table.
pub fn system_requirements(node: &Node<'_>) -> Result<Vec<VirtualPackage>, ManifestError> {
    let table = node.table()?;
    table.only(SYSTEM_KEYS)?;
    let mut declared = Vec::new();
    for (key, package) in [("linux", "__linux"), ("cuda", "__cuda"), ("macos", "__osx"), ("libc", "__glibc")] {
        let Some(value) = table.get(key) else { continue };
        declared.push(match value.as_table() {
            Some(table) if key == "libc" => libc(&value, &table)?,
            _ => VirtualPackage::new(package, value.parse()?),
        });
    }
    Ok(declared)
}

fn libc(node: &Node<'_>, table: &Table<'_>) -> Result<VirtualPackage, ManifestError> {
    table.only(&["family", "version"])?;
    let version = table.get("version").ok_or_else(|| node.invalid("needs a `version`"))?.parse()?;
    let Some(family) = table.get("family") else { return Ok(VirtualPackage::new("__glibc", version)) };
    let name = family.str()?;
    match LIBCS.iter().find(|(known, _)| *known == name) {
        Some((_, package)) => Ok(VirtualPackage::new(package, version)),
        None => Err(family.refused("only glibc, musl and eglibc are known here")),
    }
}

/// Whether a virtual package is a libc: an environment can have one only.
pub fn is_libc(name: &str) -> bool {
    LIBCS.iter().any(|(_, package)| *package == name)
}

/// The platform that features with these system requirements make of a plain conda platform: of each virtual package the
/// highest version.
pub fn composed<'a>(subdir: Subdir, requirements: impl Iterator<Item = &'a VirtualPackage>) -> Platform {
    let defaults = defaults(subdir);
    let mut union: BTreeMap<&str, VirtualPackage> = BTreeMap::new();
    let here = requirements.filter(|package| applies(&package.name, subdir) && !defaults.contains(package));
    for package in here {
        let highest = union.entry(&package.name).or_insert_with(|| package.clone());
        if package.version > highest.version {
            *highest = package.clone();
        }
    }
    Platform::new(None, subdir, union.into_values().collect())
}

fn applies(package: &str, subdir: Subdir) -> bool {
    match package {
        "__linux" => subdir.is_linux(),
        "__osx" => subdir.is_osx(),
        "__cuda" => !subdir.is_osx(), // there has been no CUDA for macOS since 2019
        libc => !is_libc(libc) || subdir.is_linux(),
    }
}
