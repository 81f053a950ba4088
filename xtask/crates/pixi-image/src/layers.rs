//! Which packages share a layer: a pure rule, the same for the same packages.

use crate::model::Digest;

/// Images stay at or below this many layers: docker stops at 125, and users build on top of ours.
pub const MAX_LAYERS: usize = 100;
/// The most layers of packages. It leaves room for what bases have, so that the grouping hangs on the lock alone: another
/// base moves no package, and a plan needs none.
pub const PACKAGE_LAYERS: usize = 80;

/// How the history names what a layer of ours holds.
const BY: &str = "pixi-image: ";
/// What the history says of the layer above the packages.
pub const APPLICATION: &str = "pixi-image: application files, manifest, lock, activation";

/// What the history says of a layer of packages.
pub fn created_by(packages: &[&str]) -> String {
    format!("{BY}{}", packages.join(" "))
}

/// The packages of a layer, as its history has them; none of a layer that is another's, or the application's.
pub fn packages_of(created_by: &str) -> Vec<&str> {
    match created_by.strip_prefix(BY) {
        Some(names) if created_by != APPLICATION => names.split(' ').filter(|name| !name.is_empty()).collect(),
        _ => Vec::new(),
    }
}

/// Groups packages, given by name and the size of their archive in bytes, into at most `budget` layers, in the order in
/// which they are stacked. A size that the lock does not know counts as 0, here as wherever layers are planned.
///
/// While there is room every package has a layer of its own, the largest first. Beyond that the largest keep theirs and the
/// others are grouped by a hash of their names alone, so that a new version of one changes the group of no other.
pub fn group(packages: &[(&str, u64)], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(packages[*at].1), packages[*at].0));
    if order.len() <= budget {
        return order.into_iter().map(|at| vec![at]).collect();
    }
    let buckets = budget.div_ceil(3).max(1);
    let mut rest = order.split_off(budget.saturating_sub(buckets));
    rest.sort_by_key(|at| packages[*at].0);
    let mut groups = vec![Vec::new(); buckets];
    for at in rest {
        let hash = Digest::of(packages[at].0.as_bytes()).0;
        groups[usize::from(u16::from_le_bytes([hash[0], hash[1]])) % buckets].push(at);
    }
    order.into_iter().map(|at| vec![at]).chain(groups).filter(|group| !group.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Vec<(String, u64)> {
        (0..count).map(|n| (format!("p{n}"), 1000 - n as u64)).collect()
    }

    fn grouped(packages: &[(String, u64)], budget: usize) -> Vec<Vec<usize>> {
        group(&packages.iter().map(|(name, size)| (name.as_str(), *size)).collect::<Vec<_>>(), budget)
    }

    #[test]
    fn every_package_is_in_one_layer_and_the_budget_holds() {
        for count in [0, 1, 5, 98, 99, 240, 1000] {
            let groups = grouped(&named(count), 98);
            assert!(groups.len() <= 98);
            let mut all: Vec<_> = groups.into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(grouped(&named(7), 1).len(), 1);
    }

    #[test]
    fn what_a_layer_holds_is_read_from_its_history() {
        assert_eq!(packages_of(&created_by(&["numpy", "python"])), ["numpy", "python"]);
        assert_eq!([packages_of(APPLICATION), packages_of("RUN apt-get update")], [[""; 0]; 2]);
    }

    #[test]
    fn a_small_package_that_grows_a_little_moves_no_other() {
        let mut packages = named(240);
        let before = grouped(&packages, 98);
        packages[200].1 += 1;
        assert_eq!(grouped(&packages, 98), before);
    }
}
