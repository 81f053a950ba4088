//! What a container sees: the image's root file system, writable for the time of one run, and parts of the host.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};

use super::forbidden::Step;
use super::gpu::{Gpu, LIBRARIES};
use super::namespaces::Forbidden;
use super::root::{Root, by_descriptor};
use crate::progress::Progress;

/// A file or directory of the host that is shown in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is shown: an absolute path in the container.
    pub destination: PathBuf,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// What happens when it cannot be shown.
    pub need: Need,
}

/// What happens when something cannot be shown in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing is run.
    Required,
    /// A warning is given.
    Wanted,
    /// The same, but it need not exist on the host.
    IfThere,
}

impl Bind {
    fn same(path: &Path, need: Need) -> Self {
        Self { source: path.to_owned(), destination: path.to_owned(), read_only: false, need }
    }
}

/// A bind as people write it that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no bind: {reason}\n  hint: write SRC, SRC:DST or SRC:DST:ro, with an absolute DST")]
pub struct BadBind {
    text: String,
    reason: &'static str,
}

impl std::str::FromStr for Bind {
    type Err = BadBind;

    /// Reads `SRC[:DST[:ro]]`; without DST it is shown where it is on the host.
    fn from_str(text: &str) -> Result<Self, BadBind> {
        let bad = |reason| BadBind { text: text.to_owned(), reason };
        let mut parts = text.split(':');
        let source = parts.next().filter(|source| !source.is_empty()).ok_or_else(|| bad("it names nothing"))?;
        let source = std::path::absolute(source).map_err(|_| bad("its source is no path"))?;
        let destination = parts.next().filter(|destination| !destination.is_empty()).map(PathBuf::from);
        let destination = destination.unwrap_or_else(|| source.clone());
        if !destination.is_absolute() || destination.components().any(|part| part.as_os_str() == "..") {
            return Err(bad("its destination is not absolute"));
        }
        if destination == Path::new("/") {
            return Err(bad("its destination is the root of the image"));
        }
        let read_only = match parts.next() {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(_) => return Err(bad("its last part is neither `ro` nor `rw`")),
        };
        if parts.next().is_some() {
            return Err(bad("it has more than three parts"));
        }
        Ok(Self { source, destination, read_only, need: Need::Required })
    }
}

/// One step of making the container's view of files; steps are taken in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// An empty file system in memory.
    Memory(PathBuf),
    /// A part of the host.
    Bind(Bind),
    /// A symbolic link: where, and to what.
    Link(PathBuf, PathBuf),
}

/// A mount that failed and that the run cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The system forbids mounts here.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Something that was asked for cannot be shown.
    #[error("cannot show {source_path} at {destination} in the container: {error}")]
    Bind {
        /// The path on the host.
        source_path: PathBuf,
        /// The path in the container.
        destination: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A step that does not depend on what was asked for.
    #[error("cannot {what}: {error}")]
    Step {
        /// What was done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Directories of the image that the working or home directory of the host must not cover, nor anything below them.
const IMAGE_OWN: [&str; 14] = [
    "/.singularity.d",
    "/app",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
];
/// Directories that must not be covered themselves, but have room for others below.
const SHARED: [&str; 6] = ["/", "/mnt", "/opt", "/run", "/srv", "/var"];
/// The host's own in every container.
const ALWAYS: [&str; 2] = ["/sys", "/tmp"];
/// Files that let the container find its way in the host's network and know its users.
const ETC: [&str; 5] = ["/etc/resolv.conf", "/etc/hosts", "/etc/localtime", "/etc/passwd", "/etc/group"];

/// Everything that is shown: the host's /dev, /sys, /tmp, network and user files, the home and the working directory,
/// what a GPU needs, and last, so that it wins, what the caller asked for.
pub fn plan(working: &Path, home: Option<&Path>, gpu: Option<&Gpu>, asked: &[Bind]) -> Vec<Mount> {
    let mut mounts = devices(gpu);
    mounts.extend(ALWAYS.map(|path| Mount::Bind(Bind::same(Path::new(path), Need::IfThere))));
    for path in ETC {
        mounts.push(Mount::Bind(Bind { read_only: true, ..Bind::same(Path::new(path), Need::IfThere) }));
    }
    let reachable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let callers = callers_directories(home, working, reachable);
    mounts.extend(callers.into_iter().map(|path| Mount::Bind(Bind::same(path, Need::IfThere))));
    if let Some(gpu) = gpu {
        mounts.push(Mount::Memory(LIBRARIES.into()));
        mounts.extend(gpu.libraries.iter().map(|(name, source)| {
            let destination = Path::new(LIBRARIES).join(name);
            Mount::Bind(Bind { source: source.clone(), destination, read_only: true, need: Need::Wanted })
        }));
        mounts.extend(gpu.binds.iter().cloned().map(Mount::Bind));
        mounts.extend(gpu.links.iter().map(|(at, target)| Mount::Link(at.clone(), target.clone())));
    }
    mounts.extend(asked.iter().cloned().map(Mount::Bind));
    mounts
}

/// Home and working directory, where they are reachable, not shown already, and cover nothing of the image.
fn callers_directories<'p>(
    home: Option<&'p Path>,
    working: &'p Path,
    reachable: impl Fn(&Path) -> bool,
) -> Vec<&'p Path> {
    let mut shown: Vec<&Path> = ALWAYS.map(Path::new).to_vec();
    for path in home.into_iter().chain([working]) {
        let free = !SHARED.iter().any(|known| path == Path::new(known))
            && !IMAGE_OWN.iter().any(|known| path.starts_with(known))
            && !shown.iter().any(|known| path.starts_with(known));
        if free && reachable(path) {
            shown.push(path);
        }
    }
    shown.split_off(ALWAYS.len())
}

/// The host's /dev, whole; or, when a GPU's node must get another name in it, one entry after the other.
fn devices(gpu: Option<&Gpu>) -> Vec<Mount> {
    let dev = Path::new("/dev");
    let named = gpu.map_or(&[][..], |gpu| &gpu.devices);
    let renamed: Vec<_> = named.iter().filter(|(at, source)| at != source || !at.starts_with(dev)).collect();
    if renamed.is_empty() {
        return vec![Mount::Bind(Bind::same(dev, Need::IfThere))];
    }
    let mut mounts = vec![Mount::Memory(dev.to_owned())];
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dev).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| !renamed.iter().any(|(at, _)| at == path)) {
        mounts.push(match std::fs::read_link(&path) {
            Ok(target) => Mount::Link(path, target),
            Err(_) => Mount::Bind(Bind::same(&path, Need::IfThere)),
        });
    }
    mounts.extend(renamed.into_iter().map(|(at, source)| {
        Mount::Bind(Bind { source: source.clone(), destination: at.clone(), read_only: false, need: Need::Wanted })
    }));
    mounts
}

/// Makes `lower` the root of this process and its children, with all that is planned in its place.
///
/// The process must be the init of new mount and pid namespaces. What the container writes outside of binds goes to
/// memory and is gone with it.
pub fn enter_root(lower: &Path, mounts: &[Mount], progress: &dyn Progress) -> Result<(), MountError> {
    let step = |what| move |errno: Errno| MountError::Step { what, error: errno.into() };
    // Everything is opened before the first mount, which may hide it.
    let lower_fd = fs::open(lower, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open the root file system in the cache"))?;
    let sources = mounts.iter().map(|mount| open_source(mount, progress)).collect::<Result<Vec<_>, _>>()?;
    enter_scratch(lower.parent().unwrap_or(Path::new("/")))?;
    let writable = mount_image(&lower_fd, progress).map_err(step("mount the image's files"))?;
    // Else the binds of the home directory or of /tmp, in which the cache may lie, would show the work area to the
    // container. The overlay must come first: it makes a bind of its own.
    mount_change(".", MountPropagationFlags::UNBINDABLE).map_err(step("keep the work area hidden"))?;
    let mut root = Root::open(Path::new("root")).map_err(|error| MountError::Step { what: "open the root", error })?;
    mount_proc(&root).map_err(|error| MountError::Step { what: "mount /proc", error })?;
    for (mount, source) in mounts.iter().zip(sources) {
        let shown = show(&mut root, mount, source.as_ref(), writable);
        shown.or_else(|error| tolerate(mount, error, progress))?;
    }
    if !writable {
        remount_read_only(Path::new("root")).map_err(step("make the image's files read-only"))?;
    }
    rustix::process::chdir("root").map_err(step("enter the root"))?;
    rustix::process::pivot_root(".", ".").map_err(|errno| Forbidden::new(Step::Root, errno))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("leave the old root"))?;
    rustix::process::chdir("/").map_err(step("enter the root"))
}

fn open_source(mount: &Mount, progress: &dyn Progress) -> Result<Option<OwnedFd>, MountError> {
    let Mount::Bind(bind) = mount else { return Ok(None) };
    match fs::open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(_) if bind.need == Need::IfThere => Ok(None),
        Err(errno) => tolerate(mount, errno.into(), progress).map(|()| None),
    }
}

/// Turns a failure into an error or a warning, as the mount's need says.
fn tolerate(mount: &Mount, error: io::Error, progress: &dyn Progress) -> Result<(), MountError> {
    match mount {
        Mount::Bind(bind) => {
            let (source_path, destination) = (bind.source.clone(), bind.destination.clone());
            let failed = MountError::Bind { source_path, destination, error };
            if bind.need == Need::Required {
                return Err(failed);
            }
            progress.warn(&failed.to_string());
        }
        Mount::Memory(path) => progress.warn(&format!("cannot make {} in the container: {error}", path.display())),
        Mount::Link(at, _) => progress.warn(&format!("cannot make the link {}: {error}", at.display())),
    }
    Ok(())
}

/// Mounts a file system in memory over `place`, in this namespace only, and makes it the working directory.
fn enter_scratch(place: &Path) -> Result<(), MountError> {
    let step = |what| move |errno: Errno| MountError::Step { what, error: errno.into() };
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")
        .map_err(|errno| Forbidden::new(Step::Mount, errno))?;
    rustix::process::chdir(place).map_err(step("enter the work area"))?;
    for name in ["upper", "work", "root"] {
        fs::mkdir(name, Mode::RWXU).map_err(step("fill the work area"))?;
        fs::chmod(name, Mode::from_raw_mode(0o755)).map_err(step("fill the work area"))?; // whatever the umask is
    }
    Ok(())
}

/// Mounts the image at `root`, writable through a layer in memory; read-only where the kernel cannot do that. Gives
/// whether it is writable.
fn mount_image(lower: &OwnedFd, progress: &dyn Progress) -> Result<bool, Errno> {
    let lower = by_descriptor(lower);
    let mut refused = Errno::INVAL;
    // Linux before 5.11 does not know `userxattr`, and those after need it in a user namespace.
    for option in [",userxattr", ""] {
        let options = CString::new(format!("lowerdir={},upperdir=upper,workdir=work{option}", lower.display()));
        let options = options.map_err(|_| Errno::INVAL)?;
        match mount("overlay", "root", "overlay", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()) {
            Ok(()) => return Ok(true),
            Err(errno) => refused = errno,
        }
    }
    progress.warn(&format!("the kernel has no overlay here ({refused}): the image's files are read-only"));
    mount_bind_recursive(&lower, "root").map(|()| false)
}

fn mount_proc(root: &Root) -> io::Result<()> {
    let place = root.make_directory("proc")?;
    let place = by_descriptor(&place);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("proc", &place, "proc", flags, None) {
        // Inside of other containers parts of /proc are hidden, and the kernel refuses one that would show them.
        Err(Errno::PERM) => Ok(mount_bind_recursive("/proc", &place)?),
        mounted => Ok(mounted?),
    }
}

fn show(root: &mut Root, mount_: &Mount, source: Option<&OwnedFd>, writable: bool) -> io::Result<()> {
    match mount_ {
        Mount::Link(at, target) => root.make_link(at.as_os_str().as_bytes(), target.as_os_str().as_bytes()),
        Mount::Memory(path) => {
            let path = path.as_os_str().as_bytes();
            let place = root.make_directory(path)?;
            mount("tmpfs", by_descriptor(&place), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")?;
            root.adopt(path)
        }
        Mount::Bind(bind) => {
            let Some(source) = source else { return Ok(()) };
            let destination = bind.destination.as_os_str().as_bytes();
            let place = match FileType::from_raw_mode(fs::fstat(source)?.st_mode) {
                FileType::Directory => root.make_directory(destination)?,
                _ => root.make_file(destination, writable)?,
            };
            mount_bind_recursive(by_descriptor(source), by_descriptor(&place))?;
            if bind.read_only {
                // Resolved anew: the descriptor above is of what is covered now.
                let shown = root.resolve(destination)?;
                let shown = fs::readlink(by_descriptor(&shown), Vec::new())?;
                for point in mount_points_below(&OsString::from_vec(shown.into_bytes()))? {
                    remount_read_only(&point)?;
                }
            }
            Ok(())
        }
    }
}

/// Makes one mount read-only; what it forbids already must be said again, or an ordinary user is refused.
fn remount_read_only(point: &Path) -> Result<(), Errno> {
    let present = fs::statvfs(point)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (known, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if present.contains(known) {
            flags |= flag;
        }
    }
    mount_remount(point, flags, "")
}

/// The mount points at and below a path, as this process sees them.
fn mount_points_below(path: &OsString) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|escaped| PathBuf::from(OsString::from_vec(unescape(escaped))));
    let mut points: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    points.dedup();
    Ok(points)
}

/// Undoes the octal escapes of `/proc/*/mountinfo`: space, tab, newline and backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    bytes
}

/// Goes to the caller's directory; to `/` if the container does not have it.
pub fn enter_directory(working: &Path, progress: &dyn Progress) -> io::Result<PathBuf> {
    match rustix::process::chdir(working) {
        Ok(()) => Ok(working.to_owned()),
        Err(errno) => {
            progress.warn(&format!("{} cannot be entered in the container ({errno}): working in /", working.display()));
            rustix::process::chdir("/")?;
            Ok(PathBuf::from("/"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_source_destination_and_mode() {
        let bind = |text: &str| text.parse::<Bind>();
        let here = std::env::current_dir().unwrap();
        let same = bind("data").unwrap();
        assert_eq!((same.source, same.destination), (here.join("data"), here.join("data")));
        let full = bind("/a:/b:ro").unwrap();
        assert_eq!((full.source.as_path(), full.destination.as_path()), (Path::new("/a"), Path::new("/b")));
        assert!(full.read_only && !bind("/a:/b").unwrap().read_only && !bind("/a:/b:rw").unwrap().read_only);
        for bad in ["", ":/b", "/a:b", "/a:/b/../c", "/a:/", "/a:/b:rx", "/a:/b:ro:x"] {
            let error = bind(bad).unwrap_err().to_string();
            assert!(error.contains("hint"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_image_is_not_covered_by_the_directories_of_the_caller() {
        let shown = |working, home: Option<&'static str>| {
            let there = |path: &Path| !path.starts_with("/no");
            callers_directories(home.map(Path::new), Path::new(working), there)
        };
        assert_eq!(shown("/data/here", None), [Path::new("/data/here")]);
        let home = "/home/me";
        assert_eq!(shown("/home/me/here", Some(home)), [Path::new(home)], "home shows what is below it");
        assert_eq!(shown("/data", Some(home)), [Path::new(home), Path::new("/data")]);
        for covers in ["/", "/usr/lib", "/etc", "/dev/shm", "/var", "/tmp", "/tmp/below", "/no/such/directory"] {
            assert_eq!(shown(covers, Some("/")), Vec::<&Path>::new(), "{covers}");
        }
    }

    #[test]
    fn what_the_caller_asks_for_comes_last() {
        let asked: Bind = "/data:/tmp/data".parse().unwrap();
        assert_eq!(plan(Path::new("/"), None, None, std::slice::from_ref(&asked)).pop(), Some(Mount::Bind(asked)));
    }

    #[test]
    fn a_device_with_another_name_gets_a_dev_of_its_own() {
        let gpu = Gpu { devices: vec![("/dev/nvidia0".into(), "/dev/zero".into())], ..Gpu::default() };
        let mounts = devices(Some(&gpu));
        assert_eq!(mounts[0], Mount::Memory("/dev".into()));
        assert!(
            mounts.iter().any(|mount| matches!(mount, Mount::Bind(bind) if bind.destination == Path::new("/dev/null")))
        );
        let Some(Mount::Bind(last)) = mounts.last() else { panic!() };
        assert_eq!(
            (last.source.as_path(), last.destination.as_path()),
            (Path::new("/dev/zero"), Path::new("/dev/nvidia0"))
        );
    }

    #[test]
    fn mount_points_with_spaces_are_read_right() {
        assert_eq!(unescape(br"/a\040b\134c\x"), br"/a b\c\x");
    }
}
