//! How much an environment of a lock downloads, as the lock itself says it: no program has to be compiled for that.

use crate::pins;
use crate::traps::yaml::{self, Node};

/// The bytes of the packages' archives; none where the lock does not hold the environment or does not tell.
pub fn download_bytes(lock: &str, environment: &str) -> Option<u64> {
    let root = yaml::parse(lock);
    let packages = root.get("environments")?.get(environment)?.get("packages")?;
    let subdir = |platform: &str| {
        let rows = root.get("platforms").map_or(&[] as &[_], Node::items);
        let row = rows.iter().find(|row| row.get("name").is_some_and(|name| name.text() == platform));
        row.and_then(|row| row.get("subdir")).map_or(platform.to_owned(), Node::text)
    };
    let of_image = packages.entries().iter().find(|(_, platform, _)| subdir(platform) == pins::IMAGE_PLATFORM);
    let (_, _, wanted) = of_image?;
    let address = |item: &Node| item.get("conda").or_else(|| item.get("pypi")).map(Node::text);
    let mut sizes = std::collections::BTreeMap::new();
    for item in root.get("packages")?.items() {
        let size = item.get("size").and_then(|size| size.text().parse::<u64>().ok());
        if let (Some(address), Some(size)) = (address(item), size) {
            sizes.insert(address, size);
        }
    }
    let found: Vec<u64> = wanted.items().iter().filter_map(|item| sizes.get(&address(item)?).copied()).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_one_environment_and_platform_are_added_up() {
        let lock = "version: 7\nplatforms:\n- name: p1\n  subdir: linux-64\n- name: p2\n  subdir: win-64\nenvironments:\n  cpu:\n    packages:\n      linux-64:\n      - conda: h/a\n  gpu:\n    channels:\n    - url: h\n    packages:\n      p2:\n      - conda: h/b\n      p1:\n      - conda: h/a\n      - conda: h/c\n\
                    packages:\n- conda: h/a\n  size: 1\n- conda: h/b\n  size: 20\n- conda: h/c\n  sha256: x\n  size: 300\n";
        assert_eq!((download_bytes(lock, "gpu"), download_bytes(lock, "cpu")), (Some(301), Some(1)));
        assert_eq!((download_bytes(lock, "x"), download_bytes("", "gpu")), (None, None));
    }
}
