//! Tests of the merged tree against the rules by which container runtimes apply layers.

use super::*;

fn path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

fn sized(size: u64) -> FileData {
    FileData { size, ..FileData::default() }
}

fn tree() -> Tree {
    Tree::new(Mode::EXECUTABLE, 0)
}

fn put(tree: &mut Tree, at: &str, size: u64) {
    tree.insert_file(&path(at), Mode::FILE, 7, sized(size)).unwrap();
}

fn size_at(tree: &Tree, at: &str) -> Option<u64> {
    match &tree.get(&path(at))?.1.kind {
        NodeKind::File(data) => Some(data.size),
        _ => None,
    }
}

fn names(tree: &Tree) -> Vec<String> {
    tree.walk().map(|(path, ..)| path.to_string()).collect()
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_any_kind() {
    let mut tree = tree();
    put(&mut tree, "a", 1);
    put(&mut tree, "a", 2);
    assert_eq!(size_at(&tree, "a"), Some(2));
    tree.insert_symlink(&path("a"), "b", 0).unwrap();
    assert!(matches!(&tree.get(&path("a")).unwrap().1.kind, NodeKind::Symlink(target) if target == b"b"));
    tree.insert_directory(&path("a"), Mode(0o700), 3).unwrap();
    put(&mut tree, "a/inside", 1);
    put(&mut tree, "a", 4);
    assert_eq!(names(&tree), ["a"]);
    assert_eq!(size_at(&tree, "a"), Some(4));
}

#[test]
fn a_directory_over_a_directory_keeps_what_it_holds_and_takes_the_new_mode_and_time() {
    let mut tree = tree();
    put(&mut tree, "d/file", 1);
    let (id, made) = tree.get(&path("d")).unwrap();
    assert_eq!((made.mode, made.mtime), (Mode::EXECUTABLE, 0));
    tree.insert_directory(&path("d"), Mode(0o1777), 9).unwrap();
    let (same, node) = tree.get(&path("d")).unwrap();
    assert_eq!((same, node.mode, node.mtime), (id, Mode(0o1777), 9));
    assert_eq!(names(&tree), ["d", "d/file"]);
}

#[test]
fn a_directory_over_a_symbolic_link_replaces_the_link_and_leaves_its_target() {
    let mut tree = tree();
    put(&mut tree, "usr/bin/sh", 1);
    tree.insert_symlink(&path("bin"), "usr/bin", 0).unwrap();
    tree.insert_directory(&path("bin"), Mode::EXECUTABLE, 0).unwrap();
    assert_eq!(names(&tree), ["bin", "usr", "usr/bin", "usr/bin/sh"]);
}

#[test]
fn parents_that_are_symbolic_links_are_followed_inside_the_root() {
    for target in ["usr/bin", "/usr/bin", "./usr//bin/", "../../usr/lib/../bin", "/usr/indirect"] {
        let mut tree = tree();
        tree.insert_directory(&path("usr/lib"), Mode::EXECUTABLE, 0).unwrap();
        tree.insert_directory(&path("usr/bin"), Mode::EXECUTABLE, 0).unwrap();
        tree.insert_symlink(&path("usr/indirect"), "bin", 0).unwrap();
        tree.insert_symlink(&path("bin"), target, 0).unwrap();
        put(&mut tree, "bin/sh", 5);
        assert_eq!(size_at(&tree, "usr/bin/sh"), Some(5), "{target}");
        assert_eq!(size_at(&tree, "bin/sh"), Some(5), "{target}");
        assert_eq!(tree.resolve(&path("bin/sh")), Some(path("usr/bin/sh")), "{target}");
        assert!(tree.remove(&path("bin/sh")), "{target}");
        assert_eq!(size_at(&tree, "usr/bin/sh"), None, "{target}");
    }
}

#[test]
fn what_a_dangling_parent_link_points_to_is_made_inside_the_root() {
    let mut tree = tree();
    tree.insert_symlink(&path("var/run"), "../../run/lock", 0).unwrap();
    put(&mut tree, "var/run/pid", 1);
    assert_eq!(names(&tree), ["run", "run/lock", "run/lock/pid", "var", "var/run"]);
}

#[test]
fn resolve_follows_the_last_part_too_and_get_does_not() {
    let mut tree = tree();
    put(&mut tree, "lib/libz.so.1.3", 3);
    tree.insert_symlink(&path("lib/libz.so"), "libz.so.1", 0).unwrap();
    tree.insert_symlink(&path("lib/libz.so.1"), "../lib/libz.so.1.3", 0).unwrap();
    assert_eq!(tree.resolve(&path("lib/libz.so")), Some(path("lib/libz.so.1.3")));
    assert!(matches!(tree.get(&path("lib/libz.so")).unwrap().1.kind, NodeKind::Symlink(_)));
    assert_eq!(tree.resolve(&path("lib/libz.so.1.3/below")), None);
    assert_eq!(tree.resolve(&path("lib/nothing")), None);
    tree.insert_symlink(&path("rootward"), "lib/../..", 0).unwrap();
    assert_eq!(tree.resolve(&path("rootward")), None, "the root has no image path");
    assert_eq!(tree.resolve(&path("rootward/lib")), Some(path("lib")));
}

#[test]
fn a_loop_of_links_ends_in_an_error_that_names_the_path() {
    let mut tree = tree();
    tree.insert_symlink(&path("a"), "b", 0).unwrap();
    tree.insert_symlink(&path("b"), "a", 0).unwrap();
    tree.insert_symlink(&path("grows"), "grows/x", 0).unwrap();
    for looped in ["a/file", "grows/file"] {
        let error = tree.insert_file(&path(looped), Mode::FILE, 0, sized(0)).unwrap_err();
        assert!(matches!(&error, TreeError::TooManyLinks(at) if at == &path(looped)), "{error}");
        assert!(error.to_string().contains(looped), "{error}");
        assert!(tree.get(&path(looped)).is_none() && !tree.remove(&path(looped)));
    }
    assert_eq!(tree.resolve(&path("a")), None);
}

#[test]
fn links_that_multiply_a_long_rest_are_refused() {
    let mut tree = tree();
    let target = format!("{}x", "./".repeat(2000));
    tree.insert_symlink(&path("x"), target, 0).unwrap();
    let long = format!("x/{}", "y/".repeat(2000));
    assert!(matches!(tree.insert_file(&path(&long), Mode::FILE, 0, sized(0)), Err(TreeError::TooManyLinks(_))));
}

#[test]
fn a_file_among_the_parents_is_an_error_that_names_it() {
    let mut tree = tree();
    put(&mut tree, "usr/lib", 1);
    tree.insert_symlink(&path("lib"), "usr/lib", 0).unwrap();
    for below in ["usr/lib/x", "usr/lib/x/y", "lib/x"] {
        let error = tree.insert_directory(&path(below), Mode::EXECUTABLE, 0).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot place `{below}` in the image: `usr/lib` is not a directory"));
    }
    assert_eq!(names(&tree), ["lib", "usr", "usr/lib"]);
}

#[test]
fn hard_links_share_a_node_until_one_name_is_replaced() {
    let mut tree = tree();
    put(&mut tree, "bin/perl", 1);
    tree.insert_hardlink(&path("bin/perl5"), &path("bin/perl")).unwrap();
    assert_eq!(tree.get(&path("bin/perl")).unwrap().0, tree.get(&path("bin/perl5")).unwrap().0);
    put(&mut tree, "bin/perl", 2);
    assert_eq!((size_at(&tree, "bin/perl"), size_at(&tree, "bin/perl5")), (Some(2), Some(1)));
    tree.insert_hardlink(&path("bin/perl5"), &path("bin/perl5")).unwrap();
    assert_eq!(size_at(&tree, "bin/perl5"), Some(1));
    tree.remove(&path("bin/perl"));
    assert_eq!(size_at(&tree, "bin/perl5"), Some(1));
}

#[test]
fn a_hard_link_to_nothing_or_to_a_directory_is_an_error_that_names_both() {
    let mut tree = tree();
    put(&mut tree, "d/x", 1);
    let error = tree.insert_hardlink(&path("new"), &path("gone")).unwrap_err().to_string();
    assert!(error.contains("`new`") && error.contains("`gone`"), "{error}");
    assert!(matches!(tree.insert_hardlink(&path("new"), &path("d")), Err(TreeError::TargetIsDirectory { .. })));
    tree.insert_hardlink(&path("d"), &path("d/x")).unwrap();
    assert_eq!(names(&tree), ["d"]);
    assert_eq!(size_at(&tree, "d"), Some(1));
}

#[test]
fn whiteouts_take_away_a_subtree_or_what_a_directory_holds() {
    let mut tree = tree();
    for file in ["a/b/c", "a/b/d", "a/e", "f"] {
        put(&mut tree, file, 1);
    }
    assert!(tree.remove(&path("a/b")));
    assert!(!tree.remove(&path("a/b")));
    assert!(!tree.remove(&path("f/below/a/file")));
    assert_eq!(names(&tree), ["a", "a/e", "f"]);
    tree.clear(Some(&path("a")));
    tree.clear(Some(&path("f")));
    tree.clear(Some(&path("missing")));
    assert_eq!(names(&tree), ["a", "f"]);
    tree.clear(None);
    assert!(names(&tree).is_empty());
}

#[test]
fn the_walk_goes_through_each_directory_in_byte_order() {
    let mut tree = tree();
    for name in [b"b/x".as_slice(), b"b-", b"B", b"\xff", b"b.d/y", b"\xc3\xa9"] {
        tree.insert_file(&ImagePath::new(name).unwrap(), Mode::FILE, 0, sized(0)).unwrap();
    }
    let walked: Vec<Vec<u8>> = tree.walk().map(|(path, ..)| path.as_bytes().to_vec()).collect();
    let expected: [&[u8]; 8] = [b"B", b"b", b"b/x", b"b-", b"b.d", b"b.d/y", b"\xc3\xa9", b"\xff"];
    assert_eq!(walked, expected);
}

#[test]
fn a_path_that_grows_too_long_behind_a_link_is_refused() {
    let mut tree = tree();
    let deep = vec!["d".repeat(255); 15].join("/");
    tree.insert_directory(&path(&deep), Mode::EXECUTABLE, 0).unwrap();
    tree.insert_symlink(&path("short"), deep.as_str(), 0).unwrap();
    put(&mut tree, &format!("short/{}", "f".repeat(255)), 1);
    for long in [format!("short/{}/g", "e".repeat(255)), format!("short/{}", "e/".repeat(200))] {
        let error = tree.insert_file(&path(&long), Mode::FILE, 0, sized(0)).unwrap_err();
        assert!(matches!(error, TreeError::TooLong(_)), "{error}");
    }
    assert!(tree.walk().all(|(path, ..)| path.as_bytes().len() <= MAX_PATH));
}

#[test]
fn a_part_of_a_link_target_that_is_too_long_for_a_name_is_not_made() {
    let mut tree = tree();
    tree.insert_symlink(&path("link"), "n".repeat(256), 0).unwrap();
    assert!(tree.insert_file(&path("link/file"), Mode::FILE, 0, sized(0)).is_err());
    assert_eq!(names(&tree), ["link"]);
}

#[test]
fn symbolic_links_that_no_file_system_holds_are_refused() {
    let mut tree = tree();
    for bad in [Vec::new(), b"a\0b".to_vec(), vec![b'x'; 4096]] {
        assert!(matches!(tree.insert_symlink(&path("l"), bad, 0), Err(TreeError::BadSymlink { .. })));
    }
    tree.insert_symlink(&path("l"), vec![b'x'; 4095], 0).unwrap();
}

#[test]
fn a_node_is_small_enough_for_hundreds_of_thousands_of_files() {
    assert!(size_of::<Node>() <= 80, "{}", size_of::<Node>());
}

#[test]
fn what_is_renamed_takes_along_all_below_it_unless_a_path_grows_too_long() {
    let mut tree = tree();
    put(&mut tree, "from/below/file", 1);
    tree.insert_symlink(&path("place/to"), "../from", 0).unwrap();
    assert!(tree.rename(&path("from"), &path("place/to")).unwrap());
    assert_eq!(names(&tree), ["place", "place/to", "place/to/below", "place/to/below/file"]);
    assert!(!tree.rename(&path("from"), &path("place/to")).unwrap(), "nothing is there any more");

    let deep = format!("a/{}", vec!["x".repeat(200); 20].join("/"));
    put(&mut tree, &deep, 2);
    let longer = format!("b/{}", "y".repeat(MAX_PATH - deep.len()));
    assert!(matches!(tree.rename(&path("a"), &path(&longer)), Err(TreeError::TooLong(_))));
    assert_eq!(size_at(&tree, &deep), Some(2), "it stays where it was");
}
