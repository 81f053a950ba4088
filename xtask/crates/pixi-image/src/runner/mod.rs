//! The native runner: an image run by an ordinary user in namespaces of the kernel (Linux).
//!
//! The image's files are unpacked once into a cache and shown read-only below a layer in memory, so nothing that a
//! command writes changes the image. The host's home, working directory, /tmp, /dev and /sys are there as under
//! Apptainer, and the command works in the caller's directory, as the caller. The network is the host's.

pub mod cdi;
pub mod command;
pub mod complete;
pub mod forbidden;
pub mod gpu;
pub mod mounts;
pub mod namespaces;
pub mod root;
pub mod rootfs;
pub mod signals;
pub mod unpack;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{NoCommand, Process, Unstartable, find_program};
use gpu::{Gpu, LIBRARIES};
use mounts::{Bind, Mount};
use namespaces::{Forbidden, Privilege};
use root::Root;
use rootfs::{Kind, RootfsError};
use signals::Taken;

use crate::progress::Progress;

/// How an image is run.
pub struct Options<'o> {
    /// Where unpacked images are kept.
    pub cache: PathBuf,
    /// What is shown beside the usual.
    pub binds: Vec<Bind>,
    /// Variables that are set for the command.
    pub env: Vec<(OsString, OsString)>,
    /// The GPUs that are passed on; see [`gpu::find`].
    pub gpu: Option<Gpu>,
    /// Takes warnings and the news that an image is unpacked.
    pub progress: &'o dyn Progress,
}

/// Why a command could not be run. What the command itself does is no error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The image cannot be used.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// There is nothing to run.
    #[error(transparent)]
    NoCommand(#[from] NoCommand),
    /// Namespaces are forbidden here.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The system refused something that it usually grants.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The container could not be made, or the command not started.
    #[error("{message}")]
    Inside {
        /// What failed, why, and what to do.
        message: String,
        /// The exit code: 127 for a missing command, 126 for one that cannot be executed, else 1.
        code: u8,
    },
}

impl RunError {
    /// The exit code that says so to a caller.
    pub fn code(&self) -> u8 {
        match self {
            Self::Inside { code, .. } => *code,
            _ => 1,
        }
    }
}

/// Runs an OCI image (archive or layout) or a SIF and gives the exit code of its command, 128 + N when signal N ended it.
///
/// It moves this process into new namespaces, so it can be called once, and only while the process has a single thread.
pub fn run(image: &Path, arguments: &[OsString], options: &Options<'_>) -> Result<u8, RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let rootfs = rootfs::prepare(image, &options.cache, options.progress)?;
    let lower = rootfs.path.canonicalize().map_err(system("find the unpacked image"))?;
    let root = Root::open(&lower).map_err(system("open the unpacked image"))?;
    let has_run_action = matches!(rootfs.kind, Kind::Sif) && root.has_file(command::SIF_RUN);
    let given = options.gpu.iter().flat_map(|gpu| &gpu.env).chain(&options.env).cloned();
    let mut process = command::process(&rootfs.kind, arguments, std::env::vars_os(), given, has_run_action)?;
    if options.gpu.as_ref().is_some_and(|gpu| !gpu.libraries.is_empty()) {
        let rest = process.env.remove(OsStr::new("LD_LIBRARY_PATH")).filter(|rest| !rest.is_empty());
        let mut value = OsString::from(LIBRARIES);
        rest.iter().for_each(|rest| {
            value.push(":");
            value.push(rest);
        });
        process.env.insert("LD_LIBRARY_PATH".into(), value);
    }
    let working = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let mounts = mounts::plan(&working, home.as_deref(), options.gpu.as_ref(), &options.binds);
    let container = Container { lower, mounts, working, process, progress: options.progress };

    // With a terminal the command stays in our process group, so that the shell's job control works on it. Without one
    // it leads its own: then a signal reaches it once, through us, whether it was sent to us or to our whole group.
    let own_group = File::open("/dev/tty").is_err();
    let privilege = namespaces::enter()?;
    let ended = namespaces::in_child(|signals| container.run(privilege, own_group, signals))
        .map_err(system("run the container"))?;
    match ended {
        (code, None) => Ok(code),
        (code, Some(message)) => Err(RunError::Inside { message, code }),
    }
}

/// Everything that the init of the container needs.
struct Container<'c> {
    lower: PathBuf,
    mounts: Vec<Mount>,
    working: PathBuf,
    process: Process,
    progress: &'c dyn Progress,
}

impl Container<'_> {
    fn run(mut self, privilege: Privilege, own_group: bool, signals: &Taken) -> Result<u8, (u8, String)> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| (1, format!("cannot {what}: {error}"))
        };
        mounts::enter_root(&self.lower, &self.mounts, self.progress).map_err(|error| (1, error.to_string()))?;
        let working = mounts::enter_directory(&self.working, self.progress).map_err(failed("enter /"))?;
        self.process.env.insert("PWD".into(), working.into());
        namespaces::confine(privilege).map_err(failed("give up privileges"))?;
        let mut command = self.command()?;
        let started = namespaces::start(&mut command, own_group, signals).map_err(|error| self.unstartable(&error))?;
        started.wait().map_err(failed("wait for the command"))
    }

    fn command(&self) -> Result<Command, (u8, String)> {
        let Process { argv, env } = &self.process;
        let search = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let path = find_program(&argv[0], &search).map_err(|unstartable| {
            let name = argv[0].display();
            match unstartable {
                Unstartable::Missing if argv[0].as_encoded_bytes().contains(&b'/') => {
                    (127, format!("{name}: there is no such file in the image"))
                }
                Unstartable::Missing => {
                    (127, format!("{name}: there is no such command in the image\n  searched: {}", search.display()))
                }
                Unstartable::NotExecutable => (126, format!("{name}: it is no program that you may execute")),
            }
        })?;
        let mut command = Command::new(path);
        command.arg0(&argv[0]).args(&argv[1..]).env_clear().envs(env);
        Ok(command)
    }

    fn unstartable(&self, error: &io::Error) -> (u8, String) {
        let name = self.process.argv[0].display();
        match error.kind() {
            io::ErrorKind::NotFound => {
                (127, format!("{name}: the interpreter (`#!`) or dynamic loader that it names is not in the image"))
            }
            _ => (126, format!("{name}: it cannot be executed: {error}")),
        }
    }
}
