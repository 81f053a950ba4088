//! What a container needs of the host's NVIDIA driver: devices, libraries, programs.
//!
//! A CDI specification says it exactly where there is one; else the host's library cache is asked, as `apptainer --nv`
//! does. Libraries go into a directory of their own, which leads `LD_LIBRARY_PATH`: the image's own files stay as they
//! are, and no cache of its dynamic linker has to be rebuilt.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cdi;
use super::mounts::{Bind, Need};
use crate::progress::Progress;

/// Where the driver's libraries stand in the container, as under Apptainer.
pub const LIBRARIES: &str = "/.singularity.d/libs";

/// Which libraries of the host belong to the driver, by how their names begin. Those that only dispatch to it (libGL,
/// libOpenCL) are the image's business.
const DRIVER_LIBRARIES: [&str; 10] = [
    "libcuda.so",
    "libcudadebugger.so",
    "libnvcuvid.so",
    "libnvidia-",
    "libnvoptix.so",
    "libEGL_nvidia.so",
    "libGLESv1_CM_nvidia.so",
    "libGLESv2_nvidia.so",
    "libGLX_nvidia.so",
    "libvdpau_nvidia.so",
];
/// Tools of the container toolkit, which look like the driver's.
const NOT_DRIVER: &str = "libnvidia-container";
const PROGRAMS: [&str; 3] = ["nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control"];
/// The second-to-last is where drivers of cloud machines are mounted, the last is Windows' subsystem for Linux.
const PROGRAM_PLACES: [&str; 5] =
    ["/usr/bin", "/usr/local/bin", "/opt/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib"];

/// What is brought into a container for its GPUs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Who said so: the CDI specification or the host's library cache.
    pub origin: String,
    /// Variables for the command.
    pub env: Vec<(OsString, OsString)>,
    /// Libraries: the name in [`LIBRARIES`] and the file on the host.
    pub libraries: Vec<(OsString, PathBuf)>,
    /// Files and directories with a place of their own.
    pub binds: Vec<Bind>,
    /// Symbolic links: where, and to what.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Devices: the place in the container and the node on the host.
    pub devices: Vec<(PathBuf, PathBuf)>,
}

/// Finds the GPUs of this machine: by a CDI specification in one of `cdi_directories`, else by what the driver
/// installed. None when there is no NVIDIA device.
pub fn find(cdi_directories: &[PathBuf], progress: &dyn Progress) -> Option<Gpu> {
    if let Some((path, spec)) = cdi::find(cdi_directories, progress) {
        match spec.gpu(&path) {
            Ok(gpu) => return Some(gpu),
            Err(stale) => progress.warn(&stale.to_string()),
        }
    }
    if !Path::new("/dev/nvidiactl").exists() {
        return None;
    }
    let listing = ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .iter()
        .find_map(|ldconfig| Command::new(ldconfig).arg("-p").stdin(Stdio::null()).stderr(Stdio::null()).output().ok());
    let listing = listing.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let libraries = driver_libraries(&listing, std::env::consts::ARCH);
    if !libraries.iter().any(|(name, _)| name == "libcuda.so.1") {
        progress.warn(
            "there is an NVIDIA device, but the host's library cache has no libcuda.so.1: CUDA will not work\n  \
             hint: install the driver's libraries, or write a CDI specification with `sudo nvidia-ctk cdi generate \
             --output=/etc/cdi/nvidia.yaml`",
        );
    }
    let binds = PROGRAMS.iter().filter_map(|program| {
        let source = PROGRAM_PLACES.iter().map(|place| Path::new(place).join(program)).find(|path| is_elf(path))?;
        let destination = Path::new("/usr/bin").join(program);
        Some(Bind { source, destination, read_only: true, need: Need::Wanted })
    });
    let origin = "the host's library cache".to_owned();
    Some(Gpu { origin, libraries, binds: binds.collect(), ..Gpu::default() })
}

/// Whether it is a program itself: a script in its place starts what only the host has.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Picks the driver's libraries for `architecture` out of what `ldconfig -p` prints; the first of each name counts.
fn driver_libraries(listing: &str, architecture: &str) -> Vec<(OsString, PathBuf)> {
    let abi = match architecture {
        "x86_64" => "x86-64",
        "aarch64" => "AArch64",
        "powerpc64" => "64bit",
        _ => "",
    };
    let mut libraries: Vec<(OsString, PathBuf)> = Vec::new();
    for line in listing.lines() {
        let Some((left, path)) = line.split_once(" => ") else { continue };
        let Some((name, flags)) = left.trim().split_once(" (") else { continue };
        let is_driver = DRIVER_LIBRARIES.iter().any(|known| name.starts_with(known)) && !name.starts_with(NOT_DRIVER);
        if is_driver && flags.contains(abi) && !libraries.iter().any(|(known, _)| known == name) {
            libraries.push((name.into(), path.trim().into()));
        }
    }
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_driver_is_no_script() {
        assert!(is_elf(&std::env::current_exe().unwrap()));
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\nexec /usr/local/nvidia/bin/nvidia-smi \"$@\"\n").unwrap();
        assert!(!is_elf(script.path()));
        assert!(!is_elf(Path::new("/nonexistent/nvidia-smi")));
    }

    #[test]
    fn the_drivers_libraries_are_picked_for_the_architecture() {
        let listing = "1234 libs found in cache `/etc/ld.so.cache'\n\
            \tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n\
            \tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1\n\
            \tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1\n\
            \tlibcuda.so.1 (libc6,x86-64) => /usr/local/cuda/compat/libcuda.so.1\n\
            \tlibnvidia-ml.so.1 (libc6,x86-64, OS ABI: Linux 2.3.99) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n\
            \tlibnvidia-container.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-container.so.1\n\
            \tlibGL.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libGL.so.1\n\
            \tlibcudart.so.12 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcudart.so.12\n";
        let found = driver_libraries(listing, "x86_64");
        let expected = [("libcuda.so.1", "libcuda.so.1"), ("libnvidia-ml.so.1", "libnvidia-ml.so.1")];
        let expected = expected.map(|(name, file)| (name.into(), Path::new("/usr/lib/x86_64-linux-gnu").join(file)));
        assert_eq!(found, expected);
    }
}
