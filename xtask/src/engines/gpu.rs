//! Whether this machine has an NVIDIA GPU that a container could be given.

use std::path::PathBuf;

use crate::context::Context;

/// A directory to look into instead of `/`: a made-up device tree, for tests and for planning on another machine.
const TREE: &str = "XTASK_DEVICE_TREE";

/// What the machine has.
pub struct Gpu<'a> {
    cx: &'a Context,
    root: PathBuf,
}

impl<'a> Gpu<'a> {
    /// Looks into the device tree; none where there is no NVIDIA device, which one line says.
    pub fn find(cx: &'a Context) -> Option<Self> {
        let gpu = Self::look(cx);
        if gpu.is_none() {
            cx.ui.aside("No NVIDIA device here: the command runs on the CPU.");
        }
        gpu
    }

    /// The same without a word.
    pub fn look(cx: &'a Context) -> Option<Self> {
        let root = tree(cx);
        cx.names(&root.join("dev")).iter().any(|name| is_gpu(name)).then_some(Self { cx, root })
    }

    /// The version of the driver, where the kernel tells it.
    pub fn driver(&self) -> Option<String> {
        let text = self.cx.read_file(&self.root.join("proc/driver/nvidia/version")).ok()?;
        let is_version =
            |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// Whether a description of the device by the Container Device Interface is there, which `nvidia-ctk cdi generate`
    /// writes.
    pub fn has_cdi(&self) -> bool {
        let describes = |name: &String| name.contains("nvidia") && (name.ends_with(".yaml") || name.ends_with(".json"));
        ["etc/cdi", "var/run/cdi", "run/cdi"]
            .iter()
            .any(|place| self.cx.names(&self.root.join(place)).iter().any(describes))
    }

    /// Whether Docker's hook of the NVIDIA Container Toolkit is installed.
    pub fn has_toolkit(&self) -> bool {
        let programs = ["nvidia-container-runtime-hook", "nvidia-container-toolkit"];
        let places = ["usr/bin", "usr/local/bin", "usr/local/nvidia/toolkit"];
        places.iter().any(|place| programs.iter().any(|program| self.root.join(place).join(program).exists()))
    }
}

/// Where devices, `/proc` and `/etc` are.
pub fn tree(cx: &Context) -> PathBuf {
    cx.env(TREE).unwrap_or_else(|| PathBuf::from("/"))
}

/// `/dev/nvidia0` and so on; `/dev/dxg` is what Windows' Linux subsystem has in their place. A control device alone is
/// no GPU.
fn is_gpu(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    name == "dxg" || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_device_alone_is_no_gpu() {
        assert_eq!(["nvidia0", "nvidia12", "dxg"].map(is_gpu), [true; 3]);
        assert_eq!(["nvidiactl", "nvidia-uvm", "nvidia", "null"].map(is_gpu), [false; 4]);
    }
}
