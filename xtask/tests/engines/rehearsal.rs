//! The images that are tested: the rehearsal images of the exercise, made by the native engine for an ordinary user.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::command::{command, read, run, shell};
use super::user::User;

/// The name that the images are loaded under.
pub const TAG: &str = "cuda-exercise:gpu-rehearsal";
/// The exercise's own script, inside the image.
pub const SCRIPT: &str = "/app/src/torch_detect_GPU.py";
/// What the script says with the CPU build of PyTorch that a rehearsal has.
pub const SCRIPT_SAYS: &str = "no active GPU";

/// The directory with images to test instead of making them, if one was given.
pub fn given() -> Option<OsString> {
    std::env::var_os("XTASK_IMAGES")
}

/// Both images of one environment.
pub struct Images {
    pub oci: PathBuf,
    pub sif: PathBuf,
}

impl Images {
    /// The images in `directory`, which holds one of each format.
    ///
    /// # Errors
    /// When there is none, or the directory cannot be read.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let entries = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
        let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        let find = |suffix: &str| {
            let found = paths.iter().find(|path| path.to_string_lossy().ends_with(suffix));
            found.cloned().with_context(|| format!("{} holds no *{suffix}", directory.display()))
        };
        Ok(Self { oci: find(".oci.tar")?, sif: find(".sif")? })
    }

    fn below(target: &Path) -> Self {
        let containers = target.join("containers");
        let file = |suffix| containers.join(format!("cuda-exercise-gpu-rehearsal.{suffix}"));
        Self { oci: file("oci.tar"), sif: file("sif") }
    }
}

/// The programs under test, in a directory where every user can start them: a clone may lie in somebody's closed home directory.
#[derive(Clone)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Builds what `cargo test` may not have built and copies it to `directory`, which is made.
    ///
    /// # Errors
    /// When cargo fails or a program cannot be copied.
    pub fn install(directory: PathBuf) -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // The whole workspace, so that the features of the dependencies are those that `cargo test --workspace` built.
        read(command!(cargo, "build", "--quiet", "--workspace", "--bins", "--manifest-path", manifest()))?;
        std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let built = Path::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["xtask", "pixi-image", "rehearsal"] {
            let from = built.with_file_name(name);
            std::fs::copy(&from, directory.join(name)).with_context(|| format!("copy {}", from.display()))?;
        }
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
}

/// What differs between two machines that make the same images.
pub struct Habits {
    pub umask: &'static str,
    pub time_zone: &'static str,
}

/// A clone of the project in a directory of its user, who has an empty PATH: nothing but our own programs is started.
pub struct Checkout {
    programs: Programs,
    pub user: User,
    directory: PathBuf,
    habits: Habits,
}

impl Checkout {
    /// A copy of the exercise in `directory`, which is made, as `user` would have cloned it.
    pub fn create(programs: Programs, user: User, directory: PathBuf, habits: Habits) -> anyhow::Result<Self> {
        let project = manifest().parent().and_then(Path::parent).context("xtask lies in a project")?.to_owned();
        std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        for file in tracked_files(&project)? {
            let copy = directory.join(&file);
            if let Some(parent) = copy.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            }
            std::fs::copy(project.join(&file), &copy).with_context(|| format!("copy {}", file.display()))?;
        }
        std::fs::create_dir(directory.join("no-programs")).context("make an empty directory for PATH")?;
        user.own(&directory)?;
        Ok(Self { programs, user, directory, habits })
    }

    /// `xtask` with `arguments`, started by root or whoever runs these tests: see [`User::command`].
    pub fn xtask<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut words: Vec<OsString> = vec![self.habits.umask.into(), self.programs.path("xtask").into()];
        words.extend(arguments.map(OsString::from));
        words.extend(["--source", "rehearsal", "--engine", "native", "--plain"].map(OsString::from));
        let with_umask = shell("umask \"$1\"; shift; exec \"$@\"", words);
        let mut command = command!("env", "--ignore-environment");
        command.args(self.variables().map(|(name, value)| {
            let mut assignment = OsString::from(name);
            assignment.push("=");
            assignment.push(value);
            assignment
        }));
        command.arg(with_umask.get_program()).args(with_umask.get_args()).current_dir(&self.directory);
        command
    }

    /// `xtask` with `arguments`, started by whoever has container engines: with their own PATH and home, which hold the
    /// programs and the images.
    pub fn xtask_with_engines(&self, arguments: &[&str]) -> Command {
        let mut command = command!(self.programs.path("xtask"));
        command.args(arguments).args(["--source", "rehearsal", "--plain"]).current_dir(&self.directory);
        let project = self.variables().filter(|(name, _)| name.starts_with("XTASK_") || name.starts_with("CARGO_"));
        command.env_remove("CARGO_TARGET_DIR").envs(project);
        command
    }

    /// One of the programs under test.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// The place of a file of the clone.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// What a command of [`Checkout::user`] needs to see where little else is to be seen: clone and programs.
    pub fn directories(&self) -> [&Path; 2] {
        [&self.directory, &self.programs.directory]
    }

    /// Takes the rehearsal's channel, base image and copy of the workspace over from another clone.
    pub fn take_rehearsal(&self, other: &Self) -> anyhow::Result<()> {
        let target = self.path("target");
        std::fs::create_dir(&target).with_context(|| format!("make {}", target.display()))?;
        read(command!("cp", "--archive", other.path("target/rehearsal"), &target))?;
        self.user.own(&target)
    }

    /// Everything that the programs find in their environment.
    fn variables(&self) -> impl Iterator<Item = (String, OsString)> {
        let own = [
            ("PATH", self.directory.join("no-programs").into_os_string()),
            ("HOME", self.user.home.clone().into_os_string()),
            ("TZ", self.habits.time_zone.into()),
            // Where the project lies; as built, xtask knows the clone that it was compiled in.
            ("CARGO_MANIFEST_DIR", self.directory.join("xtask").into_os_string()),
            ("XTASK_PIXI_IMAGE", self.programs.path("pixi-image").into_os_string()),
            ("XTASK_REHEARSAL", self.programs.path("rehearsal").into_os_string()),
        ];
        let network = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            (name.to_lowercase().ends_with("_proxy") || name.starts_with("SSL_CERT_")).then_some((name, value))
        });
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(network)
    }

    /// Runs the whole exercise and returns the images, and what it printed as its result.
    ///
    /// # Errors
    /// When a step fails or leaves no image.
    pub fn run_all(&self) -> anyhow::Result<(Images, String)> {
        let said = run(self.user.command(&self.xtask(["all"])))?.exits(0)?.says(SCRIPT_SAYS)?;
        Ok((self.images()?, said.stdout.clone()))
    }

    /// The images as they lie on the disk.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn images(&self) -> anyhow::Result<Images> {
        let images = Images::below(&self.directory.join("target"));
        for image in [&images.oci, &images.sif] {
            ensure!(image.is_file(), "{} was not made", image.display());
        }
        Ok(images)
    }

    /// Removes the images, but not what they are made of.
    pub fn remove_images(&self) -> anyhow::Result<()> {
        let containers = self.directory.join("target/containers");
        std::fs::remove_dir_all(&containers).with_context(|| format!("remove {}", containers.display()))
    }
}

/// The files that a clone of `project` has, and those that are about to be committed.
fn tracked_files(project: &Path) -> anyhow::Result<Vec<PathBuf>> {
    // The clone may belong to somebody else, which git does not like by itself.
    let mut git = command!("git", "-c", "safe.directory=*", "-C", project, "ls-files", "-z");
    git.args(["--cached", "--others", "--exclude-standard"]);
    let list = read(git)?;
    let files = list.split_terminator('\0').map(PathBuf::from);
    // A file that was removed but is still in the index is not there to be copied.
    Ok(files.filter(|file| project.join(file).is_file()).collect())
}

/// A temporary directory that other users may enter.
pub fn open_directory() -> anyhow::Result<TempDir> {
    let directory =
        tempfile::Builder::new().prefix("xtask-interop-").tempdir().context("make a temporary directory")?;
    read(command!("chmod", "755", directory.path()))?;
    Ok(directory)
}
