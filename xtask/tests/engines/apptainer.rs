//! Real Apptainer, always as an ordinary user.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::command::{Outcome, command, on_path, read, run, run_with_input, shell, wrap};
use super::rehearsal::{SCRIPT, SCRIPT_SAYS};
use super::user::User;

/// The variable that names a program `WRAPPER UID [DIR...] -- COMMAND [ARG...]`, which runs COMMAND as UID where there
/// is an `apptainer` on PATH: .ci/apptainer, on a machine whose distribution has none.
const WRAPPER: &str = "XTASK_APPTAINER";

pub fn works() -> bool {
    std::env::var_os(WRAPPER).is_some() || on_path("apptainer")
}

/// `program` as `user` starts it where there is an `apptainer` on PATH; of this machine it sees at least `directories`.
pub fn as_user(user: &User, directories: &[&Path], program: &Command) -> Command {
    let Some(wrapper) = std::env::var_os(WRAPPER) else {
        let mut command = user.command(program);
        command.env("HOME", &user.home);
        return command;
    };
    let mut command = command!(wrapper, user.id.to_string());
    command.args(directories).arg("--");
    wrap(command, program)
}

/// A SIF, and who runs it.
pub struct Apptainer<'a> {
    pub user: &'a User,
    pub sif: &'a Path,
}

impl Apptainer<'_> {
    /// `apptainer BEFORE SIF AFTER`.
    pub fn command(&self, before: &[&str], after: &[&str]) -> Command {
        let mut apptainer = command!("apptainer");
        apptainer.args(before).arg(self.sif).args(after);
        self.wrapped(apptainer)
    }

    /// The program as the user runs it where there is an `apptainer` on PATH, with the images' directory in sight.
    fn wrapped(&self, mut program: Command) -> Command {
        // A directory that every machine has: what is bound into the container shall not depend on where cargo runs.
        program.current_dir("/");
        as_user(self.user, self.sif.parent().as_slice(), &program)
    }

    /// Unpacks the archive through both of Apptainer's transports, as `apptainer pull` and `build` do before they pack a
    /// SIF of their own, and runs the script in it.
    pub fn reads(&self, archive: &Path) -> anyhow::Result<()> {
        const READ: &str = r#"
            place=$(mktemp -d) && trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT
            apptainer build --sandbox "$place/box" "$1:$2" && apptainer exec "$place/box" python "$3""#;
        for transport in ["oci-archive", "docker-archive"] {
            let script = shell(READ, [transport.as_ref(), archive.as_os_str(), SCRIPT.as_ref()]);
            run(self.wrapped(script))?.exits(0)?.says(SCRIPT_SAYS)?;
        }
        Ok(())
    }

    fn run(&self, before: &[&str], after: &[&str]) -> anyhow::Result<Outcome> {
        run(self.command(before, after))
    }

    /// Uses the image in the ways that a learner would and some that go wrong with the lesson's recipe.
    pub fn check(&self) -> anyhow::Result<()> {
        self.run(&["run"], &["python", SCRIPT])?.exits(0)?.says(SCRIPT_SAYS)?;
        // T05: neither of these passes through the runscript.
        self.run(&["exec"], &["python", SCRIPT])?.exits(0)?.says(SCRIPT_SAYS)?;
        self.run(&["exec"], &["sh", "-c", &format!("python {SCRIPT}")])?.exits(0)?.says(SCRIPT_SAYS)?;
        let typed = format!("python {SCRIPT}\n");
        run_with_input(self.command(&["shell"], &[]), &typed)?.exits(0)?.says(SCRIPT_SAYS)?;
        self.run(&["exec", "--cleanenv", "--containall"], &["python", SCRIPT])?.exits(0)?.says(SCRIPT_SAYS)?;
        self.run(&["run"], &["sh", "-c", "exit 7"])?.exits(7)?;
        self.run(&["exec"], &["sh", "-c", "exit 7"])?.exits(7)?;
        // T04: without a command and without a terminal.
        self.run(&["run"], &[])?.exits(64)?;
        self.run(&["test"], &[])?.exits(0)?;
        self.run(&["inspect", "--labels"], &[])?.exits(0)?.says("rehearsal")?;
        for part in ["--runscript", "--test", "--environment", "--deffile"] {
            let said = self.run(&["inspect", part], &[])?.exits(0)?;
            ensure!(!said.stdout.trim().is_empty(), "`apptainer inspect {part}` prints nothing");
        }
        self.run(&["run-help"], &[])?.exits(0)?;
        Ok(())
    }

    /// Where the file system begins in the image, by `apptainer sif list`.
    pub fn file_system_offset(&self) -> anyhow::Result<u64> {
        let list = self.run(&["sif", "list"], &[])?.exits(0)?.stdout;
        let row = list.lines().find(|row| row.contains("FS (Squashfs"));
        let range = row.and_then(|row| row.split('|').nth(3)).with_context(|| format!("a file system in\n{list}"))?;
        let start = range.trim().split('-').next().unwrap_or_default();
        start.parse().with_context(|| format!("`{range}` is a range of bytes"))
    }

    /// What differs between `rootfs` and the kernel's view of the image, one line for each difference: `< TYPE MODE MTIME
    /// PATH` for what only `rootfs` has, `>` for what only the image has, diff's own words for file contents.
    ///
    /// # Errors
    /// When the image cannot be mounted at `mount_point`, which is made.
    pub fn differences(&self, rootfs: &Path, mount_point: &Path) -> anyhow::Result<Vec<String>> {
        // The mount lives in a namespace of its own and goes with the script. Directories and links are not compared by
        // time: what mounts and unpackers make of it says nothing about the image.
        const COMPARE: &str = r#"
            mount -t squashfs -o "ro,loop,offset=$1" "$2" "$3"
            list() {
                (cd "$1" && find . -mindepth 1 \( -type f -printf '%y %m %Ts %P\n' \) -o -printf '%y %m - %P -> %l\n') |
                    LC_ALL=C sort --key=4
            }
            list "$4" >"$3.expected"
            list "$3" >"$3.found"
            diff "$3.expected" "$3.found" | grep '^[<>]' || :
            LC_ALL=C diff --recursive --no-dereference --brief "$4" "$3" | grep -v '^Only in' || :"#;
        std::fs::create_dir(mount_point).with_context(|| format!("make {}", mount_point.display()))?;
        let offset = PathBuf::from(self.file_system_offset()?.to_string());
        let compare = shell(COMPARE, [&offset, self.sif, mount_point, rootfs].map(|path: &Path| path.as_os_str()));
        let mut unshared = command!("unshare", "--mount", "--propagation", "private", "--");
        unshared.arg(compare.get_program()).args(compare.get_args());
        Ok(read(unshared)?.lines().map(str::to_owned).collect())
    }
}
