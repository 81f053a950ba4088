//! How each program is made to show what it reads.

use std::fs;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::lab::{Lab, TOPS};
use crate::listing::{Kind, Listing, Seen, digest};
use crate::workspace::OCI;

/// Something of the machine that a test cannot do without.
pub enum Need {
    Root,
    /// A container engine that works.
    Engine(&'static str),
    Apptainer,
    Program(&'static str),
    /// A machine that is there for tests: they take room and time.
    Ci,
}

/// The program that runs Apptainer where the distribution has none: see .ci/apptainer.
const APPTAINER: &str = "XTASK_APPTAINER";
/// An ordinary user.
const NOBODY: u32 = 65534;

impl Need {
    /// Why the test cannot run here, if so.
    pub fn missing(&self) -> Option<String> {
        let (there, what) = match self {
            Self::Root => (rustix::process::geteuid().is_root(), "root".to_owned()),
            Self::Engine(name) => (said(Command::new(name).arg("info")).is_ok(), format!("{name} that works")),
            Self::Apptainer => (std::env::var_os(APPTAINER).is_some() || on_path("apptainer"), "apptainer".to_owned()),
            Self::Program(name) => (on_path(name), (*name).to_owned()),
            Self::Ci => (required(), "XTASK_REQUIRE_ENGINES=1, which asks for the large tests".to_owned()),
        };
        (!there).then(|| format!("no {what}"))
    }
}

/// Whether a program that is not there is a failure.
pub fn required() -> bool {
    std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1")
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(program).is_file())
}

/// What a program prints that ends well.
pub fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}\n{error}", output.status);
    Ok(out.into_owned())
}

/// The command that mounts the squashfs in a file at `$3`, changes there and goes on with what follows. The mount lives in
/// a namespace of its own and goes with it.
pub fn mounted(file: &Path, offset: u64, mount_point: &Path) -> Command {
    const MOUNT: &str = r#"mount -t squashfs -o "ro,loop,offset=$1" "$2" "$3"; cd "$3"; shift 3; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-euc", MOUNT, "sh"]);
    command.arg(offset.to_string()).arg(file).arg(mount_point);
    command
}

pub fn kernel(lab: &Lab) -> anyhow::Result<()> {
    let scratch = lab.scratch()?;
    let mut command = mounted(&lab.sif(), lab.squashfs()?.0, scratch.path());
    command.arg(std::env::current_exe()?).arg("--list").args(TOPS);
    lab.compare_sif(Listing::from_lister(command)?, TOPS)
}

pub fn unsquashfs(lab: &Lab) -> anyhow::Result<()> {
    let (scratch, offset) = (lab.scratch()?, lab.squashfs()?.0.to_string());
    let (root, sif) = (scratch.path().join("root"), lab.sif());
    let unsquashfs = || {
        let mut command = Command::new("unsquashfs");
        command.args(["-no-progress", "-strict-errors", "-o", &offset]);
        command
    };
    let text = said(unsquashfs().arg("-d").arg(&root).arg(&sif))?;
    ensure!(!text.to_lowercase().contains("corrupt"), "{text}");
    let extracted = Listing::of(&root, TOPS)?;
    let count = walk_count(&root)?;
    lab.compare_sif(extracted, TOPS)?;
    // Its other views come from other code.
    let listed = said(unsquashfs().arg("-lls").arg(&sif))?;
    ensure!(
        listed.lines().filter(|line| line.contains(" squashfs-root")).count() == count,
        "-lls lists other than {count}"
    );
    let described = said(unsquashfs().arg("-stat").arg(&sif))?;
    for line in ["Compression gzip", "Block size 131072", "Filesystem is exportable via NFS", "Number of ids 1"] {
        ensure!(described.contains(line), "no `{line}` in\n{described}");
    }
    Ok(())
}

/// How many entries there are, the root among them. New lines in names make lines of a listing.
fn walk_count(root: &Path) -> anyhow::Result<usize> {
    Ok(said(Command::new("find").arg(root).args(["-printf", "x"]))?.len())
}

pub fn backhand(lab: &Lab) -> anyhow::Result<()> {
    let file = BufReader::new(fs::File::open(lab.sif())?);
    let filesystem = backhand::FilesystemReader::from_reader_with_offset(file, lab.squashfs()?.0)?;
    let mut listing = Listing::default();
    for node in filesystem.files() {
        let path = node.fullpath.as_os_str().as_bytes()[1..].to_vec();
        if !TOPS.iter().any(|top| super::listing::path(&path).starts_with(top)) {
            continue;
        }
        let kind = match &node.inner {
            backhand::InnerNode::Dir(_) => Kind::Directory,
            backhand::InnerNode::Symlink(link) => Kind::Symlink(link.link.as_os_str().as_bytes().to_vec()),
            backhand::InnerNode::File(file) => {
                let (size, digest) = digest(&mut filesystem.file(file).reader())?;
                Kind::File(size, digest)
            }
            _ => Kind::Other,
        };
        let header = node.header;
        let mode = (!matches!(kind, Kind::Symlink(_))).then_some(header.permissions.into());
        let seen =
            Seen { kind, mode, mtime: Some(header.mtime.into()), owner: Some((header.uid, header.gid)), names: None };
        listing.0.insert(path, seen);
    }
    lab.compare_sif(listing, TOPS)
}

pub fn apptainer(lab: &Lab) -> anyhow::Result<()> {
    // What is closed to all but root is closed here.
    let tops = ["app", "opt/bytes"];
    let (scratch, sif) = (lab.scratch()?, lab.sif());
    let lister = scratch.path().join("lister");
    fs::copy(std::env::current_exe()?, &lister)?;
    let mut command = match std::env::var_os(APPTAINER) {
        Some(wrapper) => {
            let mut command = Command::new(wrapper);
            command.arg(NOBODY.to_string()).arg(lab.workspace.directory.path()).args(["--", "apptainer"]);
            command
        }
        None => Command::new("apptainer"),
    };
    command.args(["exec", "--pwd", "/", "--bind"]).arg(scratch.path()).arg(&sif).arg(&lister).arg("--list").args(tops);
    let mut found = Listing::from_lister(command)?;
    // In the namespace of an ordinary user nobody but that user has a name.
    found.0.values_mut().for_each(|seen| seen.owner = None);
    lab.compare_sif(found, &tops)
}

/// The beginning of a command by which GNU tar unpacks all that an archive says.
pub fn tar() -> Command {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--delay-directory-restore", "-xpf"]);
    command
}

pub fn gnu_tar(lab: &Lab) -> anyhow::Result<()> {
    lab.compare_oci(each_layer(lab, |layer, root| said(tar().arg(layer).arg("-C").arg(root)))?)
}

pub fn bsdtar(lab: &Lab) -> anyhow::Result<()> {
    let bsdtar = || {
        let mut command = Command::new("bsdtar");
        command.args(["--numeric-owner", "-xpf"]);
        command
    };
    let mut found = each_layer(lab, |layer, root| said(bsdtar().arg(layer).arg("-C").arg(root)))?;
    // It leaves directories that are there already as they are, with the time of what comes into them.
    found.0.values_mut().filter(|seen| seen.kind == Kind::Directory).for_each(|seen| seen.mtime = None);
    lab.compare_oci(found)
}

pub fn python(lab: &Lab) -> anyhow::Result<()> {
    const UNPACK: &str = "
import sys, tarfile
with tarfile.open(sys.argv[1], errorlevel=2) as layer:
    trust = {'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else {}
    layer.extractall(sys.argv[2], numeric_owner=True, **trust)
";
    let mut found =
        each_layer(lab, |layer, root| said(Command::new("python3").args(["-c", UNPACK]).arg(layer).arg(root)))?;
    // It sets no times of symbolic links.
    found.0.values_mut().filter(|seen| matches!(seen.kind, Kind::Symlink(_))).for_each(|seen| seen.mtime = None);
    lab.compare_oci(found)
}

/// Unpacks the layers over one another.
fn each_layer(lab: &Lab, unpack: impl Fn(&Path, &Path) -> anyhow::Result<String>) -> anyhow::Result<Listing> {
    let scratch = lab.scratch()?;
    for layer in &lab.layout()?.layers {
        over(layer, scratch.path(), &unpack)?;
    }
    Listing::of(scratch.path(), TOPS)
}

/// Unpacks a layer over those below it: what its whiteouts name goes before, and they themselves after.
pub fn over(layer: &Path, root: &Path, unpack: impl Fn(&Path, &Path) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let remove = |path: &Path| if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    let listed = said(Command::new("tar").arg("-tf").arg(layer))?;
    let whiteouts = || listed.lines().filter_map(|line| Some((line, line.rsplit_once("/.wh.")?)));
    for (_, (above, name)) in whiteouts() {
        match name {
            ".wh..opq" => {
                for entry in fs::read_dir(root.join(above))? {
                    remove(&entry?.path())?;
                }
            }
            name => remove(&root.join(above).join(name))?,
        }
    }
    unpack(layer, root)?;
    for (line, (above, _)) in whiteouts() {
        let above = fs::File::open(root.join(above))?;
        let modified = above.metadata()?.modified()?;
        fs::remove_file(root.join(line))?;
        above.set_modified(modified)?;
    }
    Ok(())
}

pub fn umoci(lab: &Lab) -> anyhow::Result<()> {
    let scratch = lab.scratch()?;
    let bundle = scratch.path().join("bundle");
    let image = format!("{}:test", lab.layout()?.directory.display());
    said(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle))?;
    lab.compare_oci(Listing::of(&bundle.join("rootfs"), TOPS)?)
}

pub fn docker(lab: &Lab) -> anyhow::Result<()> {
    export(lab, "docker")
}

pub fn podman(lab: &Lab) -> anyhow::Result<()> {
    export(lab, "podman")
}

/// Loads the archive, and has the root of a container of it exported.
fn export(lab: &Lab, engine: &str) -> anyhow::Result<()> {
    let scratch = lab.scratch()?;
    let name = crate::lab::name();
    let (tar_file, root) = (scratch.path().join("export.tar"), scratch.path().join("root"));
    fs::create_dir(&root)?;
    said(Command::new(engine).args(["load", "--input"]).arg(lab.workspace.work(OCI)))?;
    let exported = (|| {
        let container = said(Command::new(engine).args(["create", &name, "/no-program"]))?;
        let exported = said(Command::new(engine).args(["export", "--output"]).arg(&tar_file).arg(container.trim()));
        said(Command::new(engine).args(["rm", "--force", container.trim()]))?;
        exported
    })();
    said(Command::new(engine).args(["rmi", "--force", &name]))?;
    exported?;
    said(tar().arg(&tar_file).arg("-C").arg(&root))?;
    lab.compare_oci(Listing::of(&root, TOPS)?)
}

/// Reads all of `content` that a command prints.
pub fn digest_of_output(command: &mut Command) -> anyhow::Result<(u64, pixi_image::model::Digest)> {
    let mut child =
        command.stdout(std::process::Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    let mut content: Box<dyn Read> = Box::new(child.stdout.take().context("a pipe")?);
    let found = digest(&mut content)?;
    ensure!(child.wait()?.success(), "{command:?} fails");
    Ok(found)
}
