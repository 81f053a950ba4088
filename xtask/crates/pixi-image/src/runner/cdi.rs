//! Container Device Interface specifications (CDI 0.3 to 1.0) for `nvidia.com/gpu`.
//!
//! Hooks are programs that a root runtime would start; a user namespace cannot. The two that matter are done here: the
//! links of `create-symlinks`, and instead of `update-ldcache` the libraries, with the names by which programs ask for
//! them, in [`super::gpu::LIBRARIES`].

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::gpu::Gpu;
use super::mounts::{Bind, Need};
use crate::progress::Progress;

/// Where specifications lie; a later directory overrides an earlier one (CDI specification, "CDI spec directories").
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

const KIND: &str = "nvidia.com/gpu";
/// A larger specification is not read, in bytes.
const SIZE_LIMIT: u64 = 4 << 20;

/// A specification, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    kind: String,
    #[serde(default)]
    container_edits: Edits,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    /// A number is a name, too: YAML's `name: 0`.
    name: serde_yaml::Value,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    #[serde(default)]
    args: Vec<String>,
}

/// A specification that names a library which the host no longer has.
#[derive(Debug, thiserror::Error)]
#[error(
    "the CDI specification {path} is not used: it names {missing}, which does not exist\n  hint: the driver was changed \
     since; write it anew with `sudo nvidia-ctk cdi generate --output={path}`"
)]
pub struct Stale {
    path: PathBuf,
    missing: PathBuf,
}

/// The specification for `nvidia.com/gpu` that counts, with its path. One that cannot be read is warned about.
pub fn find(directories: &[PathBuf], progress: &dyn Progress) -> Option<(PathBuf, Spec)> {
    let mut found = None;
    for directory in directories {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(OsStr::to_str) {
                Some("json" | "yaml" | "yml") => {}
                _ => continue,
            }
            match read(&path) {
                Ok(spec) if spec.kind == KIND => found = Some((path, spec)),
                Ok(_) => {}
                Err(reason) => {
                    progress.warn(&format!("the CDI specification {} is not used: {reason}", path.display()))
                }
            }
        }
    }
    found
}

fn read(path: &Path) -> Result<Spec, Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SIZE_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(format!("it is larger than {SIZE_LIMIT} bytes").into());
    }
    // JSON may hold tabs where YAML must not.
    if path.extension() == Some(OsStr::new("json")) {
        Ok(serde_json::from_str(&text)?)
    } else {
        Ok(serde_yaml::from_str(&text)?)
    }
}

impl Spec {
    /// What it brings in for all devices of the machine.
    pub fn gpu(&self, path: &Path) -> Result<Gpu, Stale> {
        let mut gpu = Gpu { origin: path.display().to_string(), ..Gpu::default() };
        let all = self.devices.iter().find(|device| device.name.as_str() == Some("all"));
        let devices = all.map_or(self.devices.iter().collect(), |all| vec![all]);
        for edits in std::iter::once(&self.container_edits).chain(devices.iter().map(|device| &device.container_edits))
        {
            edits.apply(path, &mut gpu)?;
        }
        Ok(gpu)
    }
}

impl Edits {
    fn apply(&self, path: &Path, gpu: &mut Gpu) -> Result<(), Stale> {
        let pairs = self.env.iter().filter_map(|line| line.split_once('='));
        gpu.env.extend(pairs.map(|(name, value)| (name.into(), value.into())));
        for node in &self.device_nodes {
            let source = node.host_path.clone().unwrap_or_else(|| node.path.clone());
            gpu.devices.push((node.path.clone(), source));
        }
        for mount in &self.mounts {
            let Some(name) = library_name(&mount.host_path) else {
                gpu.binds.push(mount.bind());
                continue;
            };
            if !mount.host_path.exists() {
                return Err(Stale { path: path.to_owned(), missing: mount.host_path.clone() });
            }
            let names = std::iter::once(name.to_owned()).chain(aliases(&mount.host_path));
            gpu.libraries.extend(names.map(|name| (name, mount.host_path.clone())));
            gpu.binds.push(mount.bind());
        }
        gpu.links.extend(self.hooks.iter().flat_map(|hook| links(&hook.args)));
        Ok(())
    }
}

impl Mount {
    fn bind(&self) -> Bind {
        Bind {
            source: self.host_path.clone(),
            destination: self.container_path.clone(),
            read_only: !self.options.iter().any(|option| option == "rw"),
            need: Need::IfThere,
        }
    }
}

/// The file name, if it is that of a shared library.
fn library_name(path: &Path) -> Option<&OsStr> {
    let name = path.file_name()?;
    let text = name.to_str()?;
    (text.ends_with(".so") || text.contains(".so.")).then_some(name)
}

/// The links beside a library that lead to it, `libcuda.so.1` for example.
fn aliases(library: &Path) -> Vec<OsString> {
    let Some(entries) = library.parent().and_then(|directory| std::fs::read_dir(directory).ok()) else {
        return Vec::new();
    };
    let Ok(real) = library.canonicalize() else { return Vec::new() };
    let links = entries.flatten().map(|entry| entry.path()).filter(|path| path.as_path() != library);
    let mut names: Vec<OsString> = links
        .filter(|path| path.is_symlink() && path.canonicalize().is_ok_and(|target| target == real))
        .filter_map(|path| library_name(&path).map(OsStr::to_owned))
        .collect();
    names.sort();
    names
}

/// The links that a `create-symlinks` hook is asked to make: `--link target::link`.
fn links(args: &[String]) -> Vec<(PathBuf, PathBuf)> {
    if !args.iter().any(|arg| arg == "create-symlinks") {
        return Vec::new();
    }
    let separate = args.windows(2).filter(|pair| pair[0] == "--link").map(|pair| pair[1].as_str());
    let joined = args.iter().filter_map(|arg| arg.strip_prefix("--link="));
    separate.chain(joined).filter_map(|link| link.split_once("::")).map(|(to, at)| (at.into(), to.into())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Progress for Warnings {
        fn warn(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    fn place(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_specification_brings_devices_libraries_links_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path();
        let library = place(host, "libcuda.so.555.42", "");
        std::os::unix::fs::symlink("libcuda.so.555.42", host.join("libcuda.so.1")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", host.join("libother.so.1")).unwrap();
        let spec = format!(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n  \
             mounts:\n  - hostPath: {}\n    containerPath: /usr/lib/libcuda.so.555.42\n    options: [ro, nosuid, bind]\n  \
             - hostPath: /usr/bin/nvidia-smi\n    containerPath: /usr/bin/nvidia-smi\n  hooks:\n  - hookName: \
             createContainer\n    path: /usr/bin/nvidia-cdi-hook\n    args: [nvidia-cdi-hook, create-symlinks, --link, \
             libcuda.so.1::/usr/lib/libcuda.so]\n  - hookName: createContainer\n    path: x\n    args: [x, \
             update-ldcache, --folder, /usr/lib]\ndevices:\n- name: 0\n  containerEdits:\n    deviceNodes:\n    - path: \
             /dev/nvidia0\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n      hostPath: \
             /dev/zero\n",
            library.display()
        );
        place(host, "a.yaml", &spec);
        place(host, "b.json", "{\"kind\": \"vendor.com/nic\",\n\t\"devices\": []}");
        place(host, "c.yaml", "kind: [");
        let warnings = Warnings::default();
        let (path, spec) = find(&["/no/such/place".into(), host.to_owned()], &warnings).unwrap();
        assert_eq!(path, host.join("a.yaml"));
        assert!(warnings.0.lock().unwrap()[0].contains("c.yaml"));
        let gpu = spec.gpu(&path).unwrap();
        assert_eq!(gpu.env, [("NVIDIA_VISIBLE_DEVICES".into(), "void".into())]);
        assert_eq!(gpu.libraries, ["libcuda.so.555.42", "libcuda.so.1"].map(|name| (name.into(), library.clone())));
        assert_eq!(gpu.links, [("/usr/lib/libcuda.so".into(), "libcuda.so.1".into())]);
        assert_eq!(gpu.devices, [("/dev/nvidia0".into(), "/dev/zero".into())]);
        assert_eq!(gpu.binds.len(), 2);
        std::fs::remove_file(&library).unwrap();
        let stale = spec.gpu(&path).unwrap_err().to_string();
        assert!(stale.contains("libcuda.so.555.42") && stale.contains("nvidia-ctk cdi generate"), "{stale}");
    }
}
