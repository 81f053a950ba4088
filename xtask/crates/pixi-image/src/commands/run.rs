//! `pixi-image run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::store::Store;

use super::cache::CacheArgs;
#[cfg(target_os = "linux")]
use super::report::Lines;

/// Run a command in an image, as an ordinary user.
///
/// The image is an OCI archive, an OCI layout directory or a SIF. Its files are unpacked once into the cache; what the
/// command writes to them is gone when it ends. The command works in the current directory, as the current user; the
/// home directory, /tmp, /dev and /sys are the host's. Of the host's environment it gets the user, the terminal, the
/// language, proxies and what Slurm, PBS, LSF, HTCondor, MPI and NCCL set; the image's own variables win over these.
///
/// Its exit code is passed on, 128 + N if signal N ended it; 127 if there is no such command, 126 if it cannot be
/// executed.
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    container: Container,

    /// The command and its arguments (default: what the image names); for an OCI image they follow its entrypoint, for
    /// a SIF they go to its runscript
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What `run` and `test` have in common.
#[derive(clap::Args)]
pub struct Container {
    /// The image: an OCI archive or layout, or a SIF
    pub image: PathBuf,

    /// Show a file or directory of the host, at the same place or at DST; with `:ro` read-only
    #[arg(long, value_name = "SRC[:DST[:ro]]")]
    pub bind: Vec<String>,

    /// Set a variable for the command; without a value it is passed on from the host
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    #[command(flatten)]
    pub cache: CacheArgs,

    /// Leave the NVIDIA devices and driver of the host out
    #[arg(long)]
    pub no_gpu: bool,

    /// Where CDI specifications are looked for, instead of /etc/cdi and /var/run/cdi
    #[arg(long, value_name = "DIR", hide = true)]
    pub cdi_dir: Vec<PathBuf>,

    /// Say which devices are passed on
    #[arg(short, long)]
    pub verbose: bool,
}

#[cfg(target_os = "linux")]
impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        use pixi_image::runner;

        let container = self.container;
        let binds = container.bind.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let env = container.env.iter().filter_map(|text| variable(text)).collect();
        let gpu = if container.no_gpu { None } else { runner::gpu::find(&cdi_directories(container.cdi_dir), &Lines) };
        if container.verbose {
            match &gpu {
                Some(gpu) => eprintln!("NVIDIA driver: {} libraries, from {}", gpu.libraries.len(), gpu.origin),
                None => eprintln!("no NVIDIA device here: running on the CPU"),
            }
        }
        let cache = container.cache.store()?.root().to_owned();
        let options = runner::Options { cache, binds, env, gpu, progress: &Lines };
        match runner::run(&container.image, &self.command, &options) {
            Ok(code) => Ok(ExitCode::from(code)),
            Err(error) => {
                eprintln!("error: {error}");
                Ok(ExitCode::from(error.code()))
            }
        }
    }
}

#[cfg(target_os = "linux")]
impl Container {
    /// The image, the cache, and the arguments by which `run` does the same.
    pub fn into_arguments(self) -> anyhow::Result<(PathBuf, Store, Vec<OsString>)> {
        let store = self.cache.store()?;
        let mut words: Vec<OsString> = vec!["run".into(), "--cache".into(), store.root().into()];
        for (name, values) in [("--bind", self.bind), ("--env", self.env)] {
            words.extend(values.into_iter().flat_map(|value| [name.into(), value.into()]));
        }
        words.extend(self.cdi_dir.into_iter().flat_map(|directory| ["--cdi-dir".into(), directory.into()]));
        for (name, given) in [("--no-gpu", self.no_gpu), ("--verbose", self.verbose)] {
            words.extend(given.then(|| name.into()));
        }
        words.extend([self.image.clone().into(), "--".into()]);
        Ok((self.image, store, words))
    }
}

#[cfg(target_os = "linux")]
fn cdi_directories(given: Vec<PathBuf>) -> Vec<PathBuf> {
    if given.is_empty() { pixi_image::runner::cdi::DIRECTORIES.map(PathBuf::from).to_vec() } else { given }
}

/// Reads `NAME=VALUE`, or `NAME` for the host's value; none if the host has none.
#[cfg(target_os = "linux")]
fn variable(text: &str) -> Option<(OsString, OsString)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => std::env::var_os(text).map(|value| (text.into(), value)),
    }
}

#[cfg(not(target_os = "linux"))]
impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("images run on Linux only\n  hint: load the image into docker or podman")
    }
}
