//! What one of the formats cannot hold: said, and not written otherwise.

use std::fs;

use anyhow::ensure;

use crate::image;
use crate::packages::{Content, Format, Member, Package, conda, tar_of};
use crate::workspace::{Shelf, Workspace, succeeds};

pub fn run() -> anyhow::Result<()> {
    let file = |path: &str| Package::new("odd", [Member::file(path, "x")]).by_hand();
    let long = "d/".repeat(2020);
    let link = Member::new("link", Content::Symlink("t".repeat(4096)));
    for (package, reasons) in [
        // A layer would say that `name` is to be removed.
        (file("lib/.wh.name"), ["`app/.pixi/environment/lib/.wh.name`", "begins with `.wh.`"]),
        (file("lib/.wh..wh..opq"), ["lib/.wh..wh..opq`", "begins with `.wh.`"]),
        (file("lib/.wh.directory/file"), ["lib/.wh.directory/file`", "begins with `.wh.`"]),
        (file(&format!("{long}{}", "f".repeat(50))), ["/d/d/", "is longer than 4095 bytes"]),
        (Package::new("odd", [link]).by_hand(), ["`link`", "more than 4095"]),
    ] {
        Workspace::new(&[package]).fails_to_build(&reasons);
    }
    not_utf8();
    sparse_in_the_base();
    in_the_application()?;
    Ok(())
}

/// The list of a package is JSON, which holds text alone.
fn not_utf8() {
    let package = Package::new("odd", [Member::file("share/N", "x")]).by_hand();
    let mut info = package.info();
    for member in &mut info {
        if let Content::File(content) = &mut member.content {
            let text = String::from_utf8(content.clone()).unwrap();
            if let Some((before, after)) = text.split_once("share/N") {
                *content = [before.as_bytes(), b"share/\xff", after.as_bytes()].concat();
            }
        }
    }
    let mut shelf = Shelf::default();
    shelf.add_bytes(&package, Format::Conda, conda(&[("info", tar_of(&info)), ("pkg", tar_of(&package.members))]));
    Workspace::of(shelf).fails_to_build(&["odd", "`info/paths.json` cannot be understood"]);
}

/// Readers of layers differ in whether they know it: those that do not take the map of the holes for content.
fn sparse_in_the_base() {
    let mut layer = tar::Builder::new(Vec::new());
    let map = b"1\n999999\n1\n";
    let records = [("major", "1"), ("minor", "0"), ("name", "opt/hole"), ("realsize", "1000000")];
    let records = records.map(|(key, value)| (format!("GNU.sparse.{key}"), value));
    layer.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_bytes()))).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("opt/GNUSparseFile.0/hole").unwrap();
    header.set_mode(0o644);
    header.set_size(513);
    header.set_cksum();
    layer.append(&header, [map.as_slice(), &vec![0; 512 - map.len()], b"x"].concat().as_slice()).unwrap();
    let workspace = Workspace::new(&[Package::new("plain", [Member::file("share/file", "x")])]);
    image::layout(&workspace.work("base"), &[layer.into_inner().unwrap()], serde_json::json!({}));
    workspace.fails(&mut workspace.build_on("./base"), &["the base image", "opt/hole", "sparse"]);
}

fn in_the_application() -> anyhow::Result<()> {
    let workspace = Workspace::new(&[Package::new("plain", [Member::file("share/file", "x")])]);
    fs::create_dir(workspace.work("app/deep"))?;
    succeeds(&mut workspace.build());
    workspace.write("app/deep/.wh.main.py", b"");
    workspace.fails_to_build(&["app/deep/.wh.main.py", "begins with `.wh.`"]);
    fs::rename(workspace.work("app/deep/.wh.main.py"), workspace.work("app/deep/wh.main.py"))?;
    succeeds(&mut workspace.build());
    ensure!(workspace.work("out/image.sif").exists());
    Ok(())
}

impl Workspace {
    fn fails_to_build(&self, reasons: &[&str]) {
        self.fails(&mut self.build(), reasons);
    }
}
