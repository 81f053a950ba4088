//! What differs between two builds.

use crate::built::File;
use crate::plan::Package;

/// What an image is built from.
pub struct Side {
    /// The packages of its environment.
    pub packages: Vec<Package>,
    /// The application's files.
    pub files: Vec<File>,
}

/// One thing before and after; none where it is not there.
pub type Change<T> = (Option<T>, Option<T>);

/// What is there before and after, of all that is not the same; in the order of the names.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// Packages that are added, removed or other ones.
    pub packages: Vec<Change<Package>>,
    /// Files that are added, removed or have another content.
    pub files: Vec<Change<File>>,
}

impl Side {
    /// What changes from this one to the other.
    pub fn to(&self, other: &Self) -> Difference {
        let package = |one: &Package| (one.name.clone(), one.from_pypi);
        let same = |one: &Package, other: &Package| one.version == other.version && one.build == other.build;
        Difference {
            packages: changed(&self.packages, &other.packages, package, same),
            files: changed(&self.files, &other.files, |one| one.path.clone(), |one, other| one == other),
        }
    }
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.files.is_empty()
    }

    /// How many bytes of package archives come and go, as far as the locks know.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |side: fn(&Change<Package>) -> &Option<Package>| {
            self.packages.iter().filter_map(|change| side(change).as_ref()?.bytes).sum()
        };
        (sum(|change| &change.1), sum(|change| &change.0))
    }
}

fn changed<T: Clone, K: Ord>(
    before: &[T],
    after: &[T],
    key: impl Fn(&T) -> K,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<Change<T>> {
    let find = |side: &[T], wanted: &K| side.iter().find(|one| key(one) == *wanted).cloned();
    let mut keys: Vec<K> = before.iter().chain(after).map(&key).collect();
    keys.sort_unstable();
    keys.dedup();
    let sides = keys.iter().map(|key| (find(before, key), find(after, key)));
    let differs = |sides: &Change<T>| !matches!(sides, (Some(one), Some(other)) if same(one, other));
    sides.filter(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, bytes: u64) -> Package {
        let [name, version] = [name, version].map(str::to_owned);
        Package { name, version, build: "0".into(), from_pypi: false, bytes: Some(bytes), layer: "1".into() }
    }

    fn file(path: &str, content: &str) -> File {
        File { path: path.into(), bytes: 1, content: content.into() }
    }

    #[test]
    fn what_comes_goes_and_changes_is_told_and_nothing_else() {
        let before = Side {
            packages: vec![package("a", "1", 10), package("b", "1", 20), package("c", "1", 30)],
            files: vec![file("x", "1"), file("y", "1")],
        };
        let after = Side {
            packages: vec![package("d", "1", 5), package("c", "2", 40), package("a", "1", 10)],
            files: vec![file("x", "2"), file("y", "1")],
        };
        let difference = before.to(&after);
        let told = |change: &Change<Package>| {
            let version = |side: &Option<Package>| side.as_ref().map(|one| format!("{} {}", one.name, one.version));
            (version(&change.0), version(&change.1))
        };
        assert_eq!(
            difference.packages.iter().map(told).collect::<Vec<_>>(),
            [
                (Some("b 1".to_owned()), None),
                (Some("c 1".to_owned()), Some("c 2".to_owned())),
                (None, Some("d 1".to_owned()))
            ]
        );
        assert_eq!(difference.files, [(Some(file("x", "1")), Some(file("x", "2")))]);
        assert_eq!(difference.bytes(), (45, 50));
        assert!(before.to(&before).is_empty());
    }
}
