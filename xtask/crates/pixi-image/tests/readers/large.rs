//! Very many files, and a very large one: what readers must not be made to store.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use pixi_image::layout::ImageSource;
use pixi_image::model::Digest;
use serde_json::json;

use crate::cases::noise;
use crate::lab::{PREFIX, PREFIX_IN_SIF};
use crate::listing::{Kind, Listing, digest};
use crate::packages::{Content, Format, Member, Package, tar_of};
use crate::programs::{Need, digest_of_output, mounted, said};
use crate::workspace::{OCI, SIF, Shelf, Workspace, succeeds};

pub const CROWD_NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("losetup"),
    Need::Program("unsquashfs"),
    Need::Program("tar"),
    Need::Program("bsdtar"),
    Need::Program("python3"),
];

/// More inodes than fit into 16 bits, a directory that needs an index, and many directories.
pub fn crowd() -> anyhow::Result<()> {
    let mut members = Vec::new();
    for number in 0..100_000 {
        let content = if number % 50 == 0 { format!("{number}\n").into_bytes() } else { Vec::new() };
        members.push(Member::file(&format!("crowd/file-{number:06}-{}", "x".repeat(number % 40)), content));
    }
    for number in 0..1000 {
        members.push(Member::file(&format!("crowd/below/{number}/{}/file", number % 7), ""));
    }
    let package = Package::new("crowd", members).by_hand();
    let mut shelf = Shelf::default();
    shelf.add(&package, Format::Conda);
    let images = Images::build(shelf)?;

    let expected: BTreeMap<Vec<u8>, Kind> = package
        .members
        .iter()
        .map(|member| {
            let Content::File(content) = &member.content else { panic!("a file") };
            (
                format!("{PREFIX_IN_SIF}/{}", member.path).into_bytes(),
                Kind::File(content.len() as u64, Digest::of(content)),
            )
        })
        .collect();
    let found = Listing::from_lister(images.mounted_lister(&[&format!("{PREFIX_IN_SIF}/crowd")])?)?;
    let files: BTreeMap<_, _> = found
        .0
        .iter()
        .filter(|(_, seen)| seen.kind != Kind::Directory)
        .map(|(path, seen)| (path, &seen.kind))
        .collect();
    ensure!(files.into_iter().eq(&expected), "the kernel shows other files");
    ensure!(found.0.len() == expected.len() + 2002, "the kernel shows {} entries", found.0.len());

    let mut lists = images.unsquashfs();
    lists.arg("-ls").arg(images.sif()).arg(format!("{PREFIX_IN_SIF}/crowd"));
    let python = "import sys, tarfile; [print(member.name) for member in tarfile.open(sys.argv[1])]";
    let of_layer = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&images.layer);
        command
    };
    for mut command in
        [lists, of_layer(&["tar", "-tf"]), of_layer(&["bsdtar", "-tf"]), of_layer(&["python3", "-c", python])]
    {
        let text = said(&mut command)?;
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("/crowd/").map(|(_, path)| path)).collect();
        let files: std::collections::BTreeSet<&str> = names.into_iter().filter(|name| name.contains("file")).collect();
        ensure!(files.len() == expected.len(), "{command:?} lists {} files", files.len());
    }
    Ok(())
}

pub const GIANT_NEEDS: &[Need] = &[
    Need::Ci,
    Need::Root,
    Need::Program("losetup"),
    Need::Program("unsquashfs"),
    Need::Program("tar"),
    Need::Program("bsdtar"),
    Need::Program("python3"),
];

/// Mostly a hole, with content at both ends of it.
pub fn giant() -> anyhow::Result<()> {
    let content = || -> Box<dyn Read> {
        let text = b"all work and no play\n".repeat(1 << 20);
        let ends = [noise(300_000), noise(131_077)].map(Cursor::new);
        let [first, last] = ends;
        Box::new(first.chain(io::repeat(0).take(4 << 30)).chain(Cursor::new(text)).chain(last))
    };
    let (size, right) = digest(&mut content())?;
    ensure!(size > 1 << 32);
    let path = "giant/file";
    let package = Package::new("giant", [Member::file(path, "")]).by_hand();
    let mut shelf = Shelf::default();
    shelf.add_bytes(&package, Format::Conda, giant_package(&package, path, size, right, content())?);
    let images = Images::build(shelf)?;

    let [inside, in_sif] = [PREFIX, PREFIX_IN_SIF].map(|prefix| format!("{prefix}/{path}"));
    let seen = Listing::from_lister(images.mounted_lister(&[&in_sif])?)?;
    let kind = &seen.0.get(in_sif.as_bytes()).context("the kernel shows the file")?.kind;
    ensure!(*kind == Kind::File(size, right), "the kernel reads {kind:?}");

    let mut cat = images.unsquashfs();
    cat.arg("-cat").arg(images.sif()).arg(&in_sif);
    let tar = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-xOf").arg(&images.layer).arg(&inside);
        command
    };
    const PYTHON: &str = "
import shutil, sys, tarfile
with tarfile.open(sys.argv[1]) as layer:
    shutil.copyfileobj(layer.extractfile(sys.argv[2]), sys.stdout.buffer, 1 << 20)
";
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).arg(&images.layer).arg(&inside);
    for mut command in [cat, tar("tar"), tar("bsdtar"), python] {
        ensure!(digest_of_output(&mut command)? == (size, right), "{command:?} prints something else");
    }

    let file = BufReader::new(fs::File::open(images.sif())?);
    let filesystem = backhand::FilesystemReader::from_reader_with_offset(file, images.offset)?;
    let node = filesystem.files().find(|node| node.fullpath.ends_with(path)).context("backhand finds the file")?;
    let backhand::InnerNode::File(file) = &node.inner else { anyhow::bail!("backhand shows no file") };
    ensure!(digest(&mut filesystem.file(file).reader())? == (size, right), "backhand reads something else");
    Ok(())
}

/// The package as it cannot be made in memory.
fn giant_package(
    package: &Package,
    path: &str,
    size: u64,
    digest: Digest,
    mut content: Box<dyn Read>,
) -> anyhow::Result<Vec<u8>> {
    let mut pkg = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1)?);
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    pkg.append(&header, &mut content)?;
    let pkg = pkg.into_inner()?.finish()?;
    let entry = json!({"_path": path, "path_type": "hardlink", "sha256": digest.hex(), "size_in_bytes": size});
    let paths = json!({"paths": [entry], "paths_version": 1}).to_string();
    let info: Vec<Member> = package
        .info()
        .into_iter()
        .map(|member| if member.path == "info/paths.json" { Member::file(&member.path, paths.clone()) } else { member })
        .collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in
        [("info-giant.tar.zst", zstd::encode_all(tar_of(&info).as_slice(), 1)?), ("pkg-giant.tar.zst", pkg)]
    {
        zip.start_file(name, stored)?;
        zip.write_all(&bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// An image of one package and no base, in both formats.
struct Images {
    workspace: Workspace,
    /// Where the squashfs begins in the SIF.
    offset: u64,
    /// The package's layer in the archive.
    layer: PathBuf,
}

impl Images {
    fn build(shelf: Shelf) -> anyhow::Result<Self> {
        let workspace = Workspace::of(shelf);
        succeeds(&mut workspace.build());
        let (offset, _) = pixi_image::sif::find_squashfs(&mut fs::File::open(workspace.work(SIF))?)?;
        let layout = workspace.path("layout");
        fs::create_dir(&layout)?;
        said(Command::new("tar").arg("-xf").arg(workspace.work(OCI)).arg("-C").arg(&layout))?;
        let image = ImageSource::open(&layout)?.image("amd64")?;
        let first = image.manifest.layers().first().context("a layer")?;
        let layer = layout.join("blobs/sha256").join(first.digest().digest());
        Ok(Self { workspace, offset, layer })
    }

    fn sif(&self) -> PathBuf {
        self.workspace.work(SIF)
    }

    fn mounted_lister(&self, tops: &[&str]) -> anyhow::Result<Command> {
        let place = self.workspace.path("mounted");
        fs::create_dir(&place)?;
        let mut command = mounted(&self.sif(), self.offset, &place);
        command.arg(std::env::current_exe()?).arg("--list").args(tops);
        Ok(command)
    }

    fn unsquashfs(&self) -> Command {
        let mut command = Command::new("unsquashfs");
        command.args(["-no-progress", "-strict-errors", "-o", &self.offset.to_string()]);
        command
    }
}
