//! What shows on a machine.

use crate::traps::Spot;

/// What probes know of a machine.
#[derive(Default)]
pub struct Machine {
    /// Whether it has an NVIDIA GPU.
    pub has_gpu: bool,
    /// Why Docker would build without BuildKit.
    pub without_buildkit: Option<String>,
    /// Where Apptainer unpacks what it builds; none where it does not build.
    pub room: Option<Room>,
    /// An environment of pixi beside the manifest in the directory that one stands in.
    pub local_environment: Option<String>,
    /// Packages that belong to the user, not to an environment.
    pub user_site: Option<String>,
}

/// Space in a directory.
pub struct Room {
    /// The directory.
    pub place: String,
    /// What is free there, in bytes.
    pub free: u64,
    /// What is needed, in bytes.
    pub needed: u64,
    /// Both in words.
    pub said: String,
    /// The variable that names another directory.
    pub variable: String,
}

/// T08: nothing answers for the GPU.
pub fn no_gpu(machine: &Machine, in_files: bool) -> Option<Spot> {
    let what = "there is no GPU, so pixi in the image of that recipe finds no CUDA and stops";
    (in_files && !machine.has_gpu).then(|| Spot::new("this machine", 0, what).mend("mend the recipe, as said there"))
}

/// T13: each unpacked stage lies there.
pub fn no_room(machine: &Machine, _: bool) -> Option<Spot> {
    let room = machine.room.as_ref().filter(|room| room.free < room.needed)?;
    Some(
        Spot::new(&room.place, 0, &room.said).mend(format!("export {}=DIR, a directory with more room", room.variable)),
    )
}

/// T14: what was installed with `pip install --user` comes before what an image holds.
pub fn user_site(machine: &Machine, in_files: bool) -> Option<Spot> {
    let place = machine.user_site.as_ref().filter(|_| in_files)?;
    let what = "packages there slip into every python of that version, those of images under Apptainer included";
    Some(Spot::new(place, 0, what).mend("export PYTHONNOUSERSITE=1"))
}

/// T18: the recipe needs BuildKit.
pub fn old_builder(machine: &Machine, _: bool) -> Option<Spot> {
    let why = machine.without_buildkit.as_ref()?;
    let (what, mend) = why.split_once("\n  hint: ").unwrap_or((why, "unset DOCKER_BUILDKIT"));
    Some(Spot::new("docker", 0, what).mend(mend))
}

/// T20: pixi in a container that is started there takes that project.
pub fn local_project(machine: &Machine, _: bool) -> Option<Spot> {
    let place = machine.local_environment.as_ref()?;
    let what = "pixi in a container that is started in this directory takes this environment, not the image's";
    Some(Spot::new(place, 0, what).mend("cd .. before you start containers"))
}
