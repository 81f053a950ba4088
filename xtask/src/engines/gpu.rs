//! Whether this machine has an NVIDIA GPU that a container could be given.

use std::path::{Path, PathBuf};

use crate::context::Context;

/// A directory to look into instead of `/`: a made-up device tree, for tests and for planning on another machine.
const TREE: &str = "XTASK_DEVICE_TREE";

/// What the machine has.
pub struct Gpu {
    root: PathBuf,
}

impl Gpu {
    /// Looks into the device tree; none where there is no NVIDIA device, which one line says.
    pub fn find(cx: &Context) -> Option<Self> {
        let root = cx.env(TREE).unwrap_or_else(|| PathBuf::from("/"));
        if has_device(&root.join("dev")) {
            return Some(Self { root });
        }
        cx.ui.note("No NVIDIA device here: the command runs on the CPU.");
        None
    }

    /// Whether a description of the device by the Container Device Interface is there, which `nvidia-ctk cdi generate`
    /// writes.
    pub fn has_cdi(&self) -> bool {
        let describes = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.contains("nvidia") && (name.ends_with(".yaml") || name.ends_with(".json"))
        };
        ["etc/cdi", "var/run/cdi", "run/cdi"].iter().any(|place| entries(&self.root.join(place)).any(|p| describes(&p)))
    }

    /// Whether Docker's hook of the NVIDIA Container Toolkit is installed.
    pub fn has_toolkit(&self) -> bool {
        let programs = ["nvidia-container-runtime-hook", "nvidia-container-toolkit"];
        ["usr/bin", "usr/local/bin", "usr/local/nvidia/toolkit"]
            .iter()
            .any(|place| programs.iter().any(|program| self.root.join(place).join(program).exists()))
    }
}

/// `/dev/nvidia0` and so on; `/dev/dxg` is what Windows' Linux subsystem has in their place.
fn has_device(dev: &Path) -> bool {
    entries(dev).any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        name == "dxg" || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_device_alone_is_no_gpu() {
        let place = std::env::temp_dir().join(format!("xtask-gpu-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("nvidiactl"), "").unwrap();
        std::fs::write(place.join("nvidia-uvm"), "").unwrap();
        let control = has_device(&place);
        std::fs::write(place.join("nvidia0"), "").unwrap();
        let device = has_device(&place);
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!((control, device, has_device(&place)), (false, true, false));
    }
}
