//! Packages that are damaged, lie, reach out of their place or get in each other's way.

use std::collections::BTreeMap;
use std::io::Read;

use crate::packages::{Content, Format, Member, Package, bz2, conda, tar_of};
use crate::workspace::{OCI, Shelf, Workspace, succeeds};
use crate::{hardlink, small, symlink};

/// A workspace with one package whose archive is made by hand: what it lists and what it holds need not agree.
fn forged(listed: &[Member], held: &[Member], format: Format) -> Workspace {
    let package = Package::new("evil", listed).by_hand();
    let bytes = match format {
        Format::Conda => conda(&[("info", tar_of(&package.info())), ("pkg", tar_of(held))]),
        Format::TarBz2 => bz2(&tar_of(&[package.info(), held.to_vec()].concat())),
    };
    let mut shelf = Shelf::default();
    shelf.add_bytes(&package, format, bytes);
    Workspace::of(shelf)
}

#[test]
fn a_path_that_leads_out_of_the_environment_is_refused_by_name() {
    let good = Member::file("lib/good", "good");
    for format in Format::ALL {
        for (path, why) in
            [("../evil", "`..`"), ("lib/../../evil", "`..`"), ("/etc/evil", "is absolute"), ("..", "`..`")]
        {
            let evil = Member::file(path, "evil");
            let parts = ["evil-1.2.3-h0_0", path, why];
            // Listed and held, held only, and listed only.
            for (listed, held) in
                [(vec![evil.clone()], vec![evil.clone()]), (vec![good.clone()], vec![good.clone(), evil.clone()])]
            {
                let workspace = forged(&listed, &held, format);
                workspace.fails(&mut workspace.build(), &parts);
            }
            let workspace = forged(std::slice::from_ref(&evil), std::slice::from_ref(&good), format);
            workspace.fails(&mut workspace.build(), &parts);
        }
        for target in ["/etc/passwd", "../../etc/passwd"] {
            let members = [good.clone(), hardlink("lib/evil", target)];
            let workspace = forged(&members, &members, format);
            workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0", target]);
        }
        let members = [good.clone(), hardlink("lib/evil", "lib/absent")];
        let workspace = forged(&members, &members, format);
        workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0", "lib/evil", "lib/absent"]);
    }
}

#[test]
fn nothing_is_written_through_a_link_of_the_same_package() {
    for format in Format::ALL {
        for target in ["/etc", "../../..", "share"] {
            let members = [Member::file("share/x", "x"), symlink("lib", target), Member::file("lib/evil", "evil")];
            let workspace = forged(&members, &members, format);
            workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0", "`lib/evil`", "`lib`"]);
        }
        let members = [Member::file("lib", "a file"), Member::file("lib/evil", "evil")];
        let workspace = forged(&members, &members, format);
        workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0", "`lib/evil`", "`lib`"]);
    }
}

#[test]
fn nothing_is_written_through_a_link_of_another_package() {
    for above in [symlink("lib", "/etc"), symlink("lib", "share"), Member::file("lib", "a file")] {
        let first = Package::new("first", [above]);
        let second = Package::new("second", [Member::file("lib/evil", "evil")]).depends(&["first"]);
        let workspace = Workspace::new(&[first, second]);
        workspace.fails(&mut workspace.build(), &["`first`", "`second`", "`lib`", "leave one of them out"]);
    }
}

#[test]
fn links_that_point_anywhere_stay_data() {
    let workspace = Workspace::new(&[Package::new(
        "links",
        [symlink("lib/out", "/etc/passwd"), symlink("lib/up", "../../../../x")],
    )]);
    succeeds(&mut workspace.build());
    let found = oci_files(&workspace);
    assert_eq!(found["app/.pixi/environment/lib/out"], "-> /etc/passwd");
    assert_eq!(found["app/.pixi/environment/lib/up"], "-> ../../../../x");
}

#[test]
fn what_no_package_may_hold_is_refused() {
    let good = Member::file("lib/good", "good");
    let cases: [(Vec<Member>, Vec<Member>, &str); 4] = [
        (vec![good.clone()], vec![good.clone(), good.clone()], "twice"),
        (vec![good.clone(), Member::file("lib/absent", "")], vec![good.clone()], "lacks `lib/absent`"),
        (vec![good.clone()], vec![Member::file("lib/good", "longer than listed")], "bytes, but its list of files says"),
        (vec![symlink("lib/good", "x")], vec![good.clone()], "is a file, but its list of files says a symbolic link"),
    ];
    for (listed, held, part) in cases {
        let workspace = forged(&listed, &held, Format::Conda);
        workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0", "lib/", part]);
    }
}

#[test]
fn an_archive_that_is_none_is_refused_and_named() {
    let package = Package::new("evil", [Member::file("lib/good", "good".repeat(5000))]);
    for format in Format::ALL {
        let directory = tempfile::tempdir().unwrap();
        let whole = std::fs::read(package.write(directory.path(), format).archive).unwrap();
        let cases: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"<html>Log in to continue</html>".to_vec(),
            whole[..whole.len() / 2].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            whole.iter().enumerate().map(|(at, byte)| if at == whole.len() / 2 { !byte } else { *byte }).collect(),
        ];
        for bytes in cases {
            let mut shelf = Shelf::default();
            shelf.add_bytes(&package, format, bytes.clone());
            let workspace = Workspace::of(shelf);
            let output = workspace.build().output().unwrap();
            // A byte that is turned over may hit one that means nothing; whatever else is cut or no archive.
            if bytes.len() != whole.len() || !output.status.success() {
                workspace.forget_results();
                workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0"]);
            }
        }
    }
}

#[test]
fn of_two_packages_with_one_path_the_dependent_wins_and_the_user_is_told() {
    let first = Package::new("first", [Member::file("etc/both", "of the first"), Member::file("etc/own", "own")]);
    let second = Package::new("second", [Member::file("etc/both", "of the second")]).depends(&["first"]);
    let workspace = Workspace::new(&[second, first]);
    let said = succeeds(&mut workspace.build());
    assert!(said.contains("warning: etc/both is shipped by second and first"), "{said}");
    let found = oci_files(&workspace);
    assert_eq!(found["app/.pixi/environment/etc/both"], "of the second");
    assert_eq!(found["app/.pixi/environment/etc/own"], "own");
    assert_eq!(found["app/.pixi/environment/__clobbers__/first/etc/both"], "of the first");
}

#[test]
fn a_noarch_python_package_without_python_says_so() {
    let package = Package::new("pure", [Member::file("site-packages/pure.py", "")]).noarch("python");
    let workspace = Workspace::new(&[package]);
    workspace.fails(&mut workspace.build(), &["pure-1.2.3-h0_0", "python", "lock again"]);
}

#[test]
fn a_failed_build_leaves_what_is_whole_for_the_next_one() {
    let mut packages = small();
    packages.push(Package::new("evil", [Member::file("lib/good", "good")]));
    let mut shelf = Shelf::default();
    for package in &packages[..2] {
        shelf.add(package, Format::Conda);
    }
    shelf.add_bytes(&packages[2], Format::Conda, b"PK\x03\x04 no zip archive".to_vec());
    let workspace = Workspace::of(shelf);
    workspace.fails(&mut workspace.build(), &["evil-1.2.3-h0_0"]);
    assert!(workspace.cached().iter().filter(|path| path.starts_with(workspace.path("cache/packages"))).count() == 3);
}

/// Files and links of all layers of the OCI archive, as a runtime stacks them.
fn oci_files(workspace: &Workspace) -> BTreeMap<String, String> {
    let source = pixi_image::layout::ImageSource::open(&workspace.work(OCI)).unwrap();
    let image = source.image("amd64").unwrap();
    let mut found = BTreeMap::new();
    for descriptor in image.manifest.layers() {
        let mut layer = tar::Archive::new(source.layer(descriptor).unwrap());
        for entry in layer.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = String::new();
            match entry.link_name().unwrap() {
                Some(target) => content = format!("-> {}", target.display()),
                None if entry.header().entry_type().is_file() => drop(entry.read_to_string(&mut content)),
                None => continue,
            }
            found.insert(path, content);
        }
    }
    found
}

#[test]
fn a_file_that_is_neither_listed_nor_hostile_is_left_out() {
    let good = Member::file("lib/good", "good");
    let workspace =
        forged(std::slice::from_ref(&good), &[good.clone(), Member::file("lib/unlisted", "?")], Format::Conda);
    succeeds(&mut workspace.build());
    let found = oci_files(&workspace);
    assert!(found.contains_key("app/.pixi/environment/lib/good"), "{found:?}");
    assert!(!found.keys().any(|path| path.contains("unlisted")), "{found:?}");
}

#[test]
fn a_package_under_the_name_of_another_is_refused() {
    let (wanted, other) =
        (Package::new("wanted", []), Package::new("other", [Member::new("lib/x", Content::File(vec![]))]));
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(other.write(directory.path(), Format::Conda).archive).unwrap();
    let mut shelf = Shelf::default();
    shelf.add_bytes(&wanted, Format::Conda, bytes);
    let workspace = Workspace::of(shelf);
    workspace.fails(&mut workspace.build(), &["wanted-1.2.3-h0_0", "other-1.2.3-h0_0", "lock again"]);
}
