//! What this machine offers to environments: its conda platform and virtual packages.

use anyhow::Context;
use pixi_image::manifest::Target;
use rattler_conda_types::{GenericVirtualPackage, MatchSpec, Matches, ParseStrictness, Subdir};
use rattler_virtual_packages::{VirtualPackageOverrides, VirtualPackages};

/// This machine, as `CONDA_OVERRIDE_*` lets it appear (CEP 30).
pub struct Machine {
    /// Its conda platform.
    pub subdir: Subdir,
    /// Its virtual packages.
    pub virtual_packages: Vec<GenericVirtualPackage>,
}

impl Machine {
    /// Looks at the machine.
    pub fn detect() -> anyhow::Result<Self> {
        let subdir = Subdir::current().context("conda has no platform for this machine")?;
        let found = VirtualPackages::detect(&VirtualPackageOverrides::from_env(), None)
            .context("cannot find out what this machine offers (virtual packages)")?;
        Ok(Self { subdir, virtual_packages: found.into_generic_virtual_packages().collect() })
    }

    /// What a platform promises and this machine does not keep. What every machine of the conda platform has is not asked
    /// for.
    pub fn lacks(&self, target: &Target) -> Vec<GenericVirtualPackage> {
        let declared = target.platform.declared();
        let wanted = target.platform.virtual_packages.iter().filter(|package| declared.contains(&package.to_string()));
        let provides = |wanted: &GenericVirtualPackage| {
            self.virtual_packages.iter().any(|found| found.name == wanted.name && found.version >= wanted.version)
        };
        wanted.map(|package| package.generic()).filter(|wanted| !provides(wanted)).collect()
    }

    /// Whether the machine meets a package's dependency on a virtual package.
    pub fn meets(&self, depends: &str) -> bool {
        let spec = MatchSpec::from_str(depends, ParseStrictness::Lenient);
        spec.is_ok_and(|spec| self.virtual_packages.iter().any(|package| spec.matches(package)))
    }
}
