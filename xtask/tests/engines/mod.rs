//! Programs that we did not write, and what the tests need to drive them.
//!
//! An engine that is not there skips its tests, as on a laptop; with `XTASK_REQUIRE_ENGINES=1`, as in CI, they fail.

pub mod activation;
pub mod apptainer;
pub mod command;
pub mod lesson;
pub mod oci;
pub mod probe;
pub mod rehearsal;
pub mod terminal;
pub mod traps;
pub mod traps_of_builds;
pub mod trouble;
pub mod user;

use std::sync::OnceLock;

use command::on_path;

/// Something of the machine that a test cannot do without.
pub enum Need {
    Linux,
    Root,
    Docker,
    Podman,
    Apptainer,
    /// A checkout that the images were made in, which images from elsewhere do not have.
    Checkout,
    Program(&'static str),
}

impl Need {
    /// Why the test cannot run here, if so.
    pub fn missing(&self) -> Option<String> {
        let (there, what) = match self {
            Self::Linux => (cfg!(target_os = "linux"), "no Linux"),
            Self::Root => (user::is_root().unwrap_or(false), "not root"),
            Self::Docker => (oci::DOCKER.works(), "no docker"),
            Self::Podman => (oci::PODMAN.works(), "no podman"),
            Self::Apptainer => (apptainer::works(), "no apptainer"),
            Self::Checkout => (rehearsal::given().is_none(), "XTASK_IMAGES is set"),
            Self::Program(name) => return (!on_path(name)).then(|| format!("skipped: no {name}")),
        };
        (!there).then(|| format!("skipped: {what}"))
    }
}

/// Whether an engine that is not there is a failure.
pub fn required() -> bool {
    std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1")
}

/// The value of `cell`, made by whoever comes first; a failure is told to everyone.
pub fn shared<T>(cell: &OnceLock<Result<T, String>>, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
    let value = cell.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    value.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}
