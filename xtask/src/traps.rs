//! The traps of the lesson's recipes, as they show in files and on the machine: one entry for each in this table.
//!
//! A probe reads what it is about (`recipe`, `workflow`) and says nothing where it cannot tell: a false alarm is worse than
//! none. What a trap is in full, `cargo xtask explain traps` says.

mod definition;
mod dockerfile;
mod files;
mod machine;
mod manifest;
mod recipe;
mod recipes;
mod shell;
mod workflow;
mod workflows;
pub mod yaml;

pub use files::{File, Files, Tree};
pub use machine::{Machine, Room};
pub use workflows::is_looked_at;

use files::View;

/// A trap.
pub struct Trap {
    /// `T07`.
    pub id: &'static str,
    /// What it is, in a few words: the title of its text.
    pub title: &'static str,
    /// What to do about it, where a finding says nothing closer.
    pub mend: &'static str,
    /// Finds it in files.
    in_files: &'static [fn(&View<'_>) -> Vec<Spot>],
    /// Finds it on a machine, given whether the files are in it.
    on_machine: fn(&Machine, bool) -> Option<Spot>,
}

/// What a probe found, and where. Line 0 is the file as a whole.
pub struct Spot {
    place: String,
    line: usize,
    what: String,
    mend: Option<String>,
}

impl Spot {
    fn new(place: &str, line: usize, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, what: what.into(), mend: None }
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// A trap that the workspace or the machine is in.
pub struct Finding {
    /// Which one.
    pub trap: &'static Trap,
    /// The file as it is typed, or what else it is about.
    pub place: String,
    /// The line, counted from 1; 0 where it is the whole.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// In the order of their ids.
pub const TRAPS: &[Trap] = &[
    Trap {
        id: "T01",
        title: "a build argument that is not there",
        mend: "give the argument the name that the recipe has for it, ENVIRONMENT",
        in_files: &[recipes::arguments, workflows::arguments],
        on_machine: nowhere,
    },
    Trap {
        id: "T02",
        title: "the build context holds the installed environment",
        mend: "cargo xtask recipe docker",
        in_files: &[files::ignored],
        on_machine: nowhere,
    },
    Trap {
        id: "T03",
        title: "a file that only newer versions of pixi write",
        mend: "copy the whole directory /app/.pixi in place of single files in it",
        in_files: &[recipes::newer_file],
        on_machine: nowhere,
    },
    Trap {
        id: "T04",
        title: "a container without a command",
        mend: "put `if [ \"$#\" -eq 0 ]; then echo 'usage: COMMAND' >&2; exit 64; fi` before the `exec`",
        in_files: &[recipes::silent],
        on_machine: nowhere,
    },
    Trap {
        id: "T05",
        title: "only `run` activates the environment",
        mend: "set PATH and CONDA_PREFIX for every command",
        in_files: &[recipes::only_run],
        on_machine: nowhere,
    },
    Trap {
        id: "T06",
        title: "nobody looks whether the environment works",
        mend: "run the script in the image before it ships",
        in_files: &[recipes::untested, workflows::untested],
        on_machine: nowhere,
    },
    Trap {
        id: "T07",
        title: "the base image moves",
        mend: "name a version: ghcr.io/prefix-dev/pixi:0.77.0-noble",
        in_files: &[recipes::moving_base],
        on_machine: nowhere,
    },
    Trap {
        id: "T08",
        title: "the CUDA version is known during the build only",
        mend: "set CONDA_OVERRIDE_CUDA in the finished image, too",
        in_files: &[recipes::cuda_of_build],
        on_machine: machine::no_gpu,
    },
    Trap {
        id: "T09",
        title: "a section of pixi.toml that is going away",
        mend: "call it [feature.gpu.system-requirements], then `cargo xtask edit --platform-style rich`",
        in_files: &[manifest::old_section],
        on_machine: nowhere,
    },
    Trap {
        id: "T10",
        title: "capital letters in the owner's name",
        mend: "write ${GITHUB_REPOSITORY,,} there, which bash makes lower-case",
        in_files: &[workflows::capitals],
        on_machine: nowhere,
    },
    Trap {
        id: "T11",
        title: "two names for one place",
        mend: "keep code in app/, which becomes /app/src in the image",
        in_files: &[files::two_names],
        on_machine: nowhere,
    },
    Trap {
        id: "T12",
        title: "tags that promise something else",
        mend: "take the tags from `cargo xtask tags docker`, which reads pixi.lock",
        in_files: &[workflows::tags],
        on_machine: nowhere,
    },
    Trap {
        id: "T13",
        title: "the environment is copied twice",
        mend: "do all in one stage, as `cargo xtask diff apptainer.def` shows",
        in_files: &[recipes::two_stages],
        on_machine: machine::no_room,
    },
    Trap {
        id: "T14",
        title: "not everybody may write to /app",
        mend: "set PYTHONNOUSERSITE=1 in the image",
        in_files: &[recipes::user_site],
        on_machine: machine::user_site,
    },
    Trap {
        id: "T15",
        title: "the entrypoint needs bash",
        mend: "take a base image that has bash",
        in_files: &[recipes::needs_bash],
        on_machine: nowhere,
    },
    Trap {
        id: "T16",
        title: "an emulator that nobody uses",
        mend: "leave this step out",
        in_files: &[workflows::emulator],
        on_machine: nowhere,
    },
    Trap {
        id: "T17",
        title: "the builder's PATH in the image",
        mend: "take its line `export PATH=...` out, and put the environment before the PATH of run time",
        in_files: &[recipes::frozen_path],
        on_machine: nowhere,
    },
    Trap {
        id: "T18",
        title: "the old builder of Docker",
        mend: "build with `docker buildx build`",
        in_files: &[workflows::old_builder],
        on_machine: machine::old_builder,
    },
    Trap {
        id: "T19",
        title: "records that only root can read",
        mend: "run `chmod -R a+rX .pixi` behind `pixi install`",
        in_files: &[recipes::private_records],
        on_machine: nowhere,
    },
    Trap {
        id: "T20",
        title: "a project in the current directory",
        mend: "set PIXI_PROJECT_MANIFEST=/app/pixi.toml in the image",
        in_files: &[recipes::local_project],
        on_machine: machine::local_project,
    },
    Trap {
        id: "T21",
        title: "Apptainer's own shell",
        mend: "let bash run the activation and hand back `export` lines, as `cargo xtask diff apptainer.def` shows",
        in_files: &[recipes::own_shell],
        on_machine: nowhere,
    },
];

fn nowhere(_: &Machine, _: bool) -> Option<Spot> {
    None
}

/// The traps that a file with this text is in; `name` is the file's name without its directory. What shows only beside
/// other files is not found.
pub fn in_file(name: &str, text: &str) -> Vec<Finding> {
    let file = File { path: name.to_owned(), text: text.to_owned() };
    in_files(&Files { files: vec![file], tree: None })
}

/// The traps that the files are in, in the order of the ids, then of the files.
pub fn in_files(files: &Files) -> Vec<Finding> {
    let view = View::new(files);
    let found = |trap: &'static Trap| {
        let spots = trap.in_files.iter().flat_map(|probe| probe(&view));
        let mut findings: Vec<_> = spots.map(|spot| Finding::new(trap, spot)).collect();
        findings.sort_by_key(|finding| {
            let rank = files.files.iter().position(|file| file.path == finding.place);
            (rank, finding.line)
        });
        findings.dedup_by(|one, other| one.place == other.place && one.line == other.line);
        findings
    };
    TRAPS.iter().flat_map(found).collect()
}

/// The traps that the machine is in; some are none with files that avoid them.
pub fn on_machine(machine: &Machine, in_files: &[Finding]) -> Vec<Finding> {
    let found = |trap: &'static Trap| {
        let is_in_files = in_files.iter().any(|finding| finding.trap.id == trap.id);
        (trap.on_machine)(machine, is_in_files).map(|spot| Finding::new(trap, spot))
    };
    TRAPS.iter().filter_map(found).collect()
}

impl Finding {
    fn new(trap: &'static Trap, spot: Spot) -> Self {
        let mend = spot.mend.unwrap_or_else(|| trap.mend.to_owned());
        Self { trap, place: spot.place, line: spot.line, what: spot.what, mend }
    }
}

#[cfg(test)]
mod tests;
