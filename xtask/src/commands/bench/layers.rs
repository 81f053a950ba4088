//! What two images have in common, by the layers that they list.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

/// Digest and bytes of each layer, as `pixi-image bench layers` prints them.
pub type Layers = Vec<(String, u64)>;

/// A package of a plan: what identifies it, its archive's bytes, and its layer, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// `name version build`.
    pub identity: String,
    /// The size of its archive.
    pub bytes: u64,
    /// Its layer among those of packages.
    pub layer: usize,
}

/// Reads what `pixi-image bench layers` printed.
pub fn layers(text: &str) -> Result<Layers> {
    let layer = |line: &str| {
        let (digest, bytes) = line.split_once('\t')?;
        Some((digest.to_owned(), bytes.parse().ok()?))
    };
    text.lines().map(|line| layer(line).with_context(|| format!("this is no layer: {line:?}"))).collect()
}

/// Reads what `pixi-image plan` printed.
pub fn plan(text: &str) -> Vec<Planned> {
    let package = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [name, version, build, bytes, _kind, "layer", layer] = columns.as_slice() else { return None };
        let identity = format!("{name} {version} {build}");
        Some(Planned { identity, bytes: bytes.parse().unwrap_or(0), layer: layer.parse().ok()? })
    };
    text.lines().skip(1).filter_map(package).collect()
}

/// What a change of one package led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct New {
    /// How many layers are new.
    pub layers: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the changed package in its layer; its share, by archives, if others are in it.
    pub package: u64,
}

/// What is new in `after`. Layers are those of the base, those of `plan`, and one of the application.
pub fn new(before: &Layers, after: &Layers, plan: &[Planned], name: &str) -> Option<New> {
    let known: BTreeSet<&str> = before.iter().map(|(digest, _)| digest.as_str()).collect();
    let new: Vec<_> = after.iter().filter(|(digest, _)| !known.contains(digest.as_str())).collect();
    let is_it = |planned: &&Planned| planned.identity.split(' ').next() == Some(name);
    let package = plan.iter().find(is_it)?;
    let package = bytes_of(package, after, plan)?;
    Some(New { layers: new.len(), bytes: new.iter().map(|(_, bytes)| bytes).sum(), package })
}

/// How many layers stand below those of packages.
fn below(layers: &Layers, plan: &[Planned]) -> Option<usize> {
    let of_packages = plan.iter().map(|planned| planned.layer).max()?;
    layers.len().checked_sub(of_packages + 1)
}

fn bytes_of(package: &Planned, layers: &Layers, plan: &[Planned]) -> Option<u64> {
    let (_, bytes) = layers.get(below(layers, plan)? + package.layer - 1)?;
    let together: u64 = plan.iter().filter(|other| other.layer == package.layer).map(|other| other.bytes).sum();
    Some((u128::from(*bytes) * u128::from(package.bytes) / u128::from(together.max(1))) as u64)
}

/// Which share of what two images could have in common, the base and the packages of both, is in layers of both.
pub fn shared(one: (&Layers, &[Planned]), other: (&Layers, &[Planned])) -> Option<f64> {
    let known: BTreeSet<&str> = other.0.iter().map(|(digest, _)| digest.as_str()).collect();
    // The last layer is the application's own.
    let layers = one.0.iter().take(one.0.len().saturating_sub(1));
    let shared: u64 = layers.filter(|(digest, _)| known.contains(digest.as_str())).map(|(_, bytes)| bytes).sum();
    let base: u64 = one.0.iter().take(below(one.0, one.1)?).map(|(_, bytes)| bytes).sum();
    let both = one.1.iter().filter(|package| other.1.iter().any(|there| there.identity == package.identity));
    let packages: Option<u64> = both.map(|package| bytes_of(package, one.0, one.1)).sum();
    Some(shared as f64 / (base + packages?).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "environment gpu for linux-64: 3 packages, 160 bytes to download, 2 layers\n\
        numpy   2.0  h0_0  100  conda  layer 1\nsmall   1.0  h0_0   20  conda  layer 2\nsmaller  1.0  h0_0   40  conda  layer 2\n";

    fn image(layers: &[(&str, u64)]) -> Layers {
        layers.iter().map(|(digest, bytes)| ((*digest).to_owned(), *bytes)).collect()
    }

    #[test]
    fn reports_are_read() {
        assert_eq!(layers("sha256:a\t12\nsha256:b\t3\n").unwrap(), image(&[("sha256:a", 12), ("sha256:b", 3)]));
        assert!(layers("hello\n").is_err());
        let plan = plan(PLAN);
        assert_eq!(plan[1], Planned { identity: "small 1.0 h0_0".to_owned(), bytes: 20, layer: 2 });
        assert_eq!(plan.len(), 3);
    }

    #[test]
    fn what_a_change_adds_is_compared_with_the_package_itself() {
        let before = image(&[("base", 50), ("numpy", 110), ("rest", 66), ("app", 5)]);
        let after = image(&[("base", 50), ("numpy'", 111), ("rest", 66), ("app'", 6)]);
        assert_eq!(new(&before, &after, &plan(PLAN), "numpy"), Some(New { layers: 2, bytes: 117, package: 111 }));
        // One of two that share a layer counts by its share of the archives.
        let after = image(&[("base", 50), ("numpy", 110), ("rest'", 66), ("app'", 6)]);
        assert_eq!(new(&before, &after, &plan(PLAN), "small"), Some(New { layers: 2, bytes: 72, package: 22 }));
        assert_eq!(new(&before, &after, &plan(PLAN), "absent"), None);
    }

    #[test]
    fn what_is_shared_is_a_share_of_what_could_be() {
        let plan = plan(PLAN);
        let gpu = image(&[("base", 50), ("numpy", 100), ("rest", 60), ("app", 5)]);
        assert_eq!(shared((&gpu, &plan), (&gpu, &plan)), Some(1.0));
        let cpu = image(&[("base", 50), ("numpy of cpu", 100), ("rest of cpu", 60), ("app of cpu", 5)]);
        assert_eq!(shared((&gpu, &plan), (&cpu, &plan)), Some(50.0 / 210.0), "the base alone");
    }
}
