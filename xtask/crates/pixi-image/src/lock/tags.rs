//! The tags of a wheel's file name: which python, ABI and platform it runs on (PyPA, "Platform compatibility tags").

use rattler_conda_types::{PackageRecord, Subdir};

/// The glibc that pixi assumes where nothing else is said.
const ASSUMED_GLIBC: (u64, u64) = (2, 28);
/// Older names for what a platform has of glibc.
const ALIASES: [(&str, (u64, u64)); 3] =
    [("manylinux1", (2, 5)), ("manylinux2010", (2, 12)), ("manylinux2014", (2, 17))];

/// What the wheels of an environment must run on.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The locked python, with its version as PEP 440 has it.
    pub version: pep440_rs::Version,
    python: (u64, u64),
    free_threaded: bool,
    subdir: Subdir,
    /// None where a lock does not say, as those before version 7 do not.
    glibc: Option<(u64, u64)>,
}

impl Target {
    /// The target of a locked python; none where its version cannot be read.
    pub fn new(python: &PackageRecord, subdir: Subdir, virtual_packages: &[String], lock_version: u64) -> Option<Self> {
        let (major, minor) = python.version.version().as_major_minor()?;
        let parsed = python.version.to_string().parse().ok();
        let version = parsed.unwrap_or_else(|| pep440_rs::Version::new([major, minor]));
        let said = virtual_packages.iter().find_map(|text| glibc_of_row(text));
        let build = format!("cp{major}{minor}t");
        Some(Self {
            version,
            python: (major, minor),
            free_threaded: python.depends.iter().any(|text| text.starts_with("python_abi ") && text.contains(&build)),
            subdir,
            glibc: said.or((lock_version >= 7).then_some(ASSUMED_GLIBC)),
        })
    }

    /// Whether a wheel of this file name runs here: some combination of its tags must fit. None where it is no name of a
    /// wheel: `name-version[-build]-python-abi-platform.whl`.
    pub fn fits(&self, file_name: &str) -> Option<bool> {
        let parts: Vec<&str> = file_name.strip_suffix(".whl")?.split('-').collect();
        let ([_, _, python, abi, platform] | [_, _, _, python, abi, platform]) = parts.as_slice() else { return None };
        let platforms = || platform.split('.').filter(|platform| self.fits_platform(platform));
        let fits = python.split('.').any(|python| {
            abi.split('.').any(|abi| {
                self.fits_python(python, abi) && platforms().any(|platform| platform != "any" || abi == "none")
            })
        });
        Some(fits)
    }

    fn fits_python(&self, python: &str, abi: &str) -> bool {
        let (major, minor) = self.python;
        let Some((implementation, digits)) = python.split_at_checked(2) else { return false };
        let found_major = digits.get(..1).and_then(|digit| digit.parse::<u64>().ok());
        let found_minor = digits.get(1..).filter(|rest| !rest.is_empty()).map(str::parse::<u64>);
        let (Some(found_major), Ok(found_minor)) = (found_major, found_minor.transpose()) else { return false };
        if found_major != major || !digits.is_ascii() {
            return false;
        }
        let threads = if self.free_threaded { "t" } else { "" };
        // The m of pythons up to 3.7 says how they allocate; it never differed in practice.
        let own_abi = [format!("cp{major}{minor}{threads}"), format!("cp{major}{minor}m")];
        let stable_abi = if self.free_threaded { "abi3t" } else { "abi3" };
        match (implementation, found_minor) {
            ("cp", Some(found)) if abi == stable_abi => (2..=minor).contains(&found),
            ("cp", Some(found)) if abi == "none" => found == minor,
            ("cp", Some(found)) => found == minor && (abi == own_abi[0] || minor <= 7 && abi == own_abi[1]),
            ("py", found) => abi == "none" && found.is_none_or(|found| found <= minor),
            _ => false,
        }
    }

    fn fits_platform(&self, platform: &str) -> bool {
        // Images hold Linux alone; of other platforms nothing is installed, and so nothing refused.
        if platform == "any" || !self.subdir.is_linux() {
            return true;
        }
        let machine = match self.subdir.as_str().trim_start_matches("linux-") {
            "64" => "x86_64",
            "32" => "i686",
            other => other,
        };
        let Some(system) = platform.strip_suffix(machine).and_then(|rest| rest.strip_suffix('_')) else { return false };
        let needed = match system.strip_prefix("manylinux_") {
            Some(version) => version.split_once('_').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))),
            None if system == "linux" => return true,
            None => ALIASES.into_iter().find(|(name, _)| *name == system).map(|(_, version)| version),
        };
        needed.is_some_and(|needed: (u64, u64)| self.glibc.is_none_or(|glibc| needed.0 == glibc.0 && needed <= glibc))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.python;
        let threads = if self.free_threaded { " without GIL" } else { "" };
        write!(f, "python {major}.{minor}{threads} on {}", self.subdir)?;
        match self.glibc {
            Some((major, minor)) if self.subdir.is_linux() => write!(f, " with glibc {major}.{minor}"),
            _ => Ok(()),
        }
    }
}

/// `__glibc=2.28` or `__glibc=2.28=0`.
fn glibc_of_row(virtual_package: &str) -> Option<(u64, u64)> {
    let version = virtual_package.strip_prefix("__glibc=")?.split('=').next()?;
    let (major, rest) = version.split_once('.')?;
    Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(version: &str, depends: &[&str], subdir: Subdir, rows: &[&str], lock: u64) -> Target {
        let mut record = PackageRecord::new(
            "python".parse().unwrap(),
            version.parse::<rattler_conda_types::Version>().unwrap(),
            "0".parse().unwrap(),
        );
        record.depends = depends.iter().map(|text| (*text).to_owned()).collect();
        let rows: Vec<_> = rows.iter().map(|text| (*text).to_owned()).collect();
        Target::new(&record, subdir, &rows, lock).unwrap()
    }

    fn usual() -> Target {
        target("3.12.1", &["python_abi 3.12.* *_cp312"], Subdir::Linux64, &["__unix=0=0", "__glibc=2.28=0"], 7)
    }

    #[track_caller]
    fn check(target: &Target, fitting: &[&str], others: &[&str]) {
        for tags in fitting {
            assert_eq!(target.fits(&format!("a-1-{tags}.whl")), Some(true), "{tags}");
        }
        for tags in others {
            assert_eq!(target.fits(&format!("a-1-{tags}.whl")), Some(false), "{tags}");
        }
    }

    #[test]
    fn wheels_for_this_python_and_platform_fit_and_no_others() {
        check(
            &usual(),
            &[
                "py3-none-any",
                "py2.py3-none-any",
                "py312-none-any",
                "py38-none-any",
                "cp312-none-any",
                "1build-py3-none-any",
                "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
                "cp312-cp312-manylinux_2_28_x86_64",
                "cp312-cp312-manylinux1_x86_64",
                "cp312-cp312-manylinux2010_x86_64",
                "cp39-abi3-manylinux_2_5_x86_64",
                "cp311.cp312-cp311.cp312-linux_x86_64",
                "py3-none-manylinux_2_12_x86_64",
            ],
            &[
                "py2-none-any",
                "py313-none-any",
                "cp311-none-any",
                "cp312-cp312-any",
                "cp311-cp311-linux_x86_64",
                "cp312-cp311-linux_x86_64",
                "cp313-abi3-linux_x86_64",
                "cp312-cp312t-linux_x86_64",
                "cp312-cp312m-linux_x86_64",
                "cp312-cp312-manylinux_2_31_x86_64",
                "cp312-cp312-manylinux_2_17_aarch64",
                "cp312-cp312-musllinux_1_2_x86_64",
                "cp312-cp312-win_amd64",
                "cp312-cp312-macosx_11_0_arm64",
                "pp310-pypy310_pp73-manylinux_2_17_x86_64",
                "cp\u{e9}12-cp312-linux_x86_64",
                "c\u{e9}312-cp312-linux_x86_64",
                "c-none-any",
            ],
        );
    }

    #[test]
    fn a_file_without_tags_is_no_wheel() {
        for name in ["a-1.tar.gz", "a-1-py3-none.whl", "a-1-2-3-py3-none-any.whl", "", ".whl"] {
            assert_eq!(usual().fits(name), None, "{name}");
        }
    }

    #[test]
    fn a_free_threaded_python_has_an_abi_of_its_own() {
        let target = target("3.13.0", &["python_abi 3.13.* *_cp313t"], Subdir::Linux64, &[], 7);
        check(
            &target,
            &["cp313-cp313t-linux_x86_64", "py3-none-any", "cp313-none-any"],
            &["cp313-cp313-linux_x86_64", "cp39-abi3-linux_x86_64"],
        );
    }

    #[test]
    fn glibc_is_what_the_row_says_else_what_pixi_assumes_and_old_locks_do_not_tell() {
        let with = |rows: &[&str], lock| target("3.12.1", &[], Subdir::LinuxAarch64, rows, lock);
        let new = ["cp312-cp312-manylinux_2_34_aarch64"];
        check(&with(&["__glibc=2.34"], 7), &new, &[]);
        check(&with(&[], 7), &["cp312-cp312-manylinux_2_28_aarch64"], &new);
        check(&with(&[], 6), &new, &["cp312-cp312-musllinux_1_1_aarch64"]);
    }
}
