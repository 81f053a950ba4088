//! Base images that are not there, damaged, hostile, or for another machine.

use std::fs;
use std::io::Write;

use oci_spec::image::{Arch, ImageConfiguration, MediaType, Os};
use pixi_image::archive::{ArchiveWriter, Layer, descriptor, history};
use pixi_image::model::Digest;
use pixi_image::pack::CopyError;

use crate::packages::{Member, tar_of};
use crate::workspace::{OCI, Workspace, base, succeeds};
use crate::{hardlink, noise, small, symlink};

/// An OCI archive with one layer of these members, whose configuration names `diff_id`.
fn hostile(workspace: &Workspace, members: &[Member], diff_id: Option<Digest>) {
    let tar = tar_of(members);
    let mut archive = ArchiveWriter::create(&workspace.work("base.tar")).unwrap();
    let (digest, size) = archive.blob(|out: &mut dyn Write| out.write_all(&tar).map_err(CopyError::Write)).unwrap();
    let layer = Layer {
        descriptor: descriptor(MediaType::ImageLayer, digest, size).unwrap(),
        diff_id: diff_id.unwrap_or(digest).to_string(),
        history: history(0, "test").unwrap(),
    };
    let mut config = ImageConfiguration::default();
    config.set_architecture(Arch::Amd64).set_os(Os::Linux);
    archive.finish(config, &[layer], "base:test").unwrap();
}

#[test]
fn a_base_that_is_not_there_is_named() {
    let workspace = Workspace::new(&small());
    workspace.fails(&mut workspace.build_on("./no/base.tar"), &["./no/base.tar"]);
    workspace.fails(workspace.build_on("images/base.tar").arg("--offline"), &["images/base.tar", "No such file"]);
    workspace.fails(&mut workspace.build_on("not a/reference:"), &["not a/reference:"]);
}

#[test]
fn a_base_that_is_no_image_is_said_to_be_none() {
    let workspace = Workspace::new(&small());
    fs::create_dir(workspace.work("layout")).unwrap();
    workspace.write("text", b"not an image");
    workspace.write("empty", b"");
    workspace.write("other.tar", &tar_of(&[Member::file("etc/passwd", "root")]));
    for base in ["./layout", "./text", "./empty", "./other.tar"] {
        workspace.fails(&mut workspace.build_on(base), &[base, "is not an OCI image"]);
    }
}

#[test]
fn a_base_that_was_cut_or_changed_anywhere_is_never_used() {
    let workspace = Workspace::new(&small());
    let noise: String = noise(40_000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    base(&workspace.work("base.tar"), "amd64", &[("bin/sh", &noise), ("etc/motd", "hello")]);
    let whole = workspace.read("base.tar");
    succeeds(&mut workspace.build_on("./base.tar"));
    let right = workspace.digests();
    // The cache holds the packs of its layers: the archive must be looked at all the same.
    for cold in [true, false] {
        for part in [1, 3, 5, 7, 9] {
            let at = whole.len() * part / 10;
            workspace.forget_results();
            if cold {
                fs::remove_dir_all(workspace.path("cache/packs")).unwrap();
            }
            let mut changed = whole.clone();
            changed[at] ^= 4;
            for damaged in [&whole[..at], &changed] {
                workspace.write("base.tar", damaged);
                let output = workspace.build_on("./base.tar").output().unwrap();
                match output.status.success() {
                    true => assert_eq!(workspace.digests(), right, "damaged at {at}"), // padding or a copy for docker
                    false => drop(workspace.fails(&mut workspace.build_on("./base.tar"), &["base"])),
                }
            }
        }
    }
}

#[test]
fn a_base_for_another_machine_says_which() {
    let workspace = Workspace::new(&small());
    base(&workspace.work("base.tar"), "arm64", &[("bin/sh", "")]);
    workspace.fails(&mut workspace.build_on("./base.tar"), &["base.tar", "linux/amd64", "linux/arm64"]);
}

#[test]
fn a_layer_that_reaches_out_of_the_image_is_refused() {
    let workspace = Workspace::new(&small());
    for members in [
        vec![Member::file("a/../../evil", "evil")],
        vec![Member::file("../evil", "evil")],
        vec![Member::file("etc/passwd", "root"), hardlink("x", "../../etc/passwd")],
    ] {
        hostile(&workspace, &members, None);
        workspace.fails(&mut workspace.build_on("./base.tar"), &["layer", "..", "hostile"]);
    }
}

#[test]
fn a_base_in_which_the_environment_would_be_written_through_a_link_is_refused() {
    let workspace = Workspace::new(&small());
    for link in ["app", "app/.pixi", "app/.pixi/envs"] {
        hostile(&workspace, &[symlink(link, "/etc")], None);
        workspace.fails(&mut workspace.build_on("./base.tar"), &[&format!("/{link}"), "no plain directory"]);
    }
}

#[test]
fn a_base_that_has_an_environment_already_is_refused_and_an_empty_place_for_one_is_not() {
    let workspace = Workspace::new(&small());
    for place in ["app/.pixi/environment", "app/.pixi/envs/default"] {
        for member in
            [Member::file(&format!("{place}/lib/old"), "old"), Member::file(place, ""), symlink(place, "/etc")]
        {
            hostile(&workspace, &[member], None);
            let parts = [&format!("an environment already, at /{place}"), "would be mixed", "that it was made from"];
            workspace.fails(&mut workspace.build_on("./base.tar"), &parts);
        }
    }
    hostile(&workspace, &[Member::file("app/.pixi/envs/other/lib/old", "of another")], None);
    succeeds(&mut workspace.build_on("./base.tar"));
    base(&workspace.work("base.tar"), "amd64", &[("bin/sh", "")]);
    succeeds(&mut workspace.build_on("./base.tar"));
    fs::copy(workspace.work(OCI), workspace.work("base.tar")).unwrap();
    workspace.forget_results();
    workspace.fails(&mut workspace.build_on("./base.tar"), &["at /app/.pixi/environment"]);
}

#[test]
fn a_base_that_lies_about_its_content_cannot_stand_in_for_another() {
    let workspace = Workspace::new(&small());
    let honest = [Member::file("etc/motd", "honest")];
    hostile(&workspace, &honest, None);
    succeeds(&mut workspace.build_on("./base.tar"));
    let right = workspace.digests();
    workspace.forget_results();
    fs::remove_dir_all(workspace.path("cache/packs")).unwrap();
    hostile(&workspace, &[Member::file("etc/motd", "poison")], Some(Digest::of(&tar_of(&honest))));
    workspace.fails(&mut workspace.build_on("./base.tar"), &["layer", "configuration says"]);
    hostile(&workspace, &honest, None);
    succeeds(&mut workspace.build_on("./base.tar"));
    assert_eq!(workspace.digests(), right);
}
