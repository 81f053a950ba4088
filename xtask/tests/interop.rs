//! The rehearsal images in the hands of programs that we did not write.
//!
//! The images are made once, by the whole exercise, and every test reads them. `XTASK_IMAGES=DIR` takes those in DIR
//! (NAME.oci.tar and NAME.sif) instead, to look into one engine's trouble without building anew.
//!
//! Here images are used. Whether every reader shows the same files of them, hard cases and all, is tested in
//! crates/pixi-image/tests/readers.

mod engines;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use engines::Need;
use engines::activation;
use engines::apptainer::Apptainer;
use engines::command::{command, read, run};
use engines::lesson::{Lesson, Recipe};
use engines::oci::{self, DOCKER, Engine, Loaded, PODMAN};
use engines::rehearsal::{self, Checkout, Habits, Images, Programs, SCRIPT_SAYS, open_directory};
use engines::trouble;
use engines::user::User;
use engines::{traps, traps_of_builds as builds};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;

struct Check {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&Lab) -> anyhow::Result<()>,
}

/// What images of the lesson's recipes need: Docker's, Apptainer's, and both.
const STORED: &[Need] = &[Need::Docker, Need::Checkout];
const SIFS: &[Need] = &[Need::Apptainer, Need::Checkout];
const BOTH: &[Need] = &[Need::Docker, Need::Apptainer, Need::Checkout];

const CHECKS: &[Check] = &[
    Check { name: "docker_loads_and_runs_the_archive", needs: &[Need::Docker], run: docker },
    Check { name: "podman_loads_and_runs_the_archive", needs: &[Need::Podman], run: podman },
    Check { name: "skopeo_reads_the_archive_through_both_transports", needs: &[Need::Program("skopeo")], run: skopeo },
    Check { name: "apptainer_runs_the_sif_for_an_ordinary_user", needs: &[Need::Apptainer], run: apptainer },
    Check { name: "apptainer_reads_the_archive_through_both_transports", needs: &[Need::Apptainer], run: transports },
    Check {
        name: "the_kernel_mounts_in_the_sif_what_umoci_unpacks_from_the_archive",
        needs: &[Need::Root, Need::Apptainer, Need::Program("umoci")],
        run: same_content,
    },
    Check { name: "docker_builds_the_recipe", needs: &[Need::Docker, Need::Checkout], run: docker_builds },
    Check { name: "podman_builds_the_recipe", needs: &[Need::Podman, Need::Checkout], run: podman_builds },
    Check { name: "apptainer_builds_the_recipe", needs: &[Need::Apptainer, Need::Checkout], run: apptainer_builds },
    Check { name: "active_in_dockers_image", needs: &[Need::Docker, PYTHON, Need::Checkout], run: active_docker },
    Check { name: "active_in_podmans_image", needs: &[Need::Podman, PYTHON, Need::Checkout], run: active_podman },
    Check {
        name: "active_in_apptainers_image",
        needs: &[Need::Apptainer, PYTHON, Need::Checkout],
        run: active_apptainer,
    },
    Check { name: "active_in_our_archive_in_docker", needs: &[Need::Docker, PYTHON], run: active_native_docker },
    Check { name: "active_in_our_archive_in_podman", needs: &[Need::Podman, PYTHON], run: active_native_podman },
    Check { name: "active_in_our_sif", needs: &[Need::Apptainer, PYTHON], run: active_native_sif },
    Check { name: "a_dead_daemon_is_said", needs: &[Need::Program("docker"), Need::Checkout], run: dead_daemon },
    Check { name: "a_missing_buildx_is_said", needs: &[Need::Docker, Need::Root, Need::Checkout], run: no_buildx },
    Check { name: "forbidden_namespaces_are_said", needs: &[Need::Apptainer, Need::Checkout], run: no_namespaces },
    Check { name: "little_room_is_said", needs: &[Need::Apptainer, Need::Root, Need::Checkout], run: little_room },
    Check { name: "docker_gets_the_gpu_that_is_there", needs: &[Need::Docker, Need::Checkout], run: gpu_docker },
    Check { name: "podman_gets_the_gpu_that_is_there", needs: &[Need::Podman, Need::Checkout], run: gpu_podman },
    Check { name: "apptainer_gets_the_gpu_that_is_there", needs: &[Need::Apptainer, Need::Checkout], run: gpu_sif },
    Check { name: "trap_t01_a_build_argument_that_is_not_there", needs: SIFS, run: |lab| builds::t01(lab.lesson()?) },
    Check {
        name: "trap_t02_the_context_holds_what_is_installed",
        needs: STORED,
        run: |lab| builds::t02(lab.lesson()?),
    },
    Check { name: "trap_t03_a_file_of_newer_versions_of_pixi", needs: STORED, run: |lab| builds::t03(lab.lesson()?) },
    Check { name: "trap_t04_docker_without_a_command", needs: STORED, run: |lab| traps::t04_docker(lab.lesson()?) },
    Check { name: "trap_t04_apptainer_without_a_command", needs: SIFS, run: |lab| traps::t04_apptainer(lab.lesson()?) },
    Check { name: "trap_t05_only_run_activates", needs: SIFS, run: |lab| traps::t05(lab.lesson()?) },
    Check { name: "trap_t06_an_empty_environment", needs: STORED, run: |lab| builds::t06(lab.lesson()?) },
    Check {
        name: "trap_t07_the_base_image_moves",
        needs: &[Need::Docker, Need::Checkout, Need::Program("docker-registry"), Need::Program("skopeo")],
        run: |lab| builds::t07(lab.lesson()?, lab.bench()?.scratch()?.path()),
    },
    Check { name: "trap_t08_docker_cuda_version", needs: STORED, run: |lab| traps::t08_docker(lab.lesson()?) },
    Check { name: "trap_t08_apptainer_cuda_version", needs: SIFS, run: |lab| builds::t08(lab.lesson()?) },
    Check {
        name: "trap_t13_the_environment_twice",
        needs: &[Need::Root, Need::Apptainer, Need::Checkout],
        run: |lab| builds::t13(lab.lesson()?),
    },
    Check { name: "trap_t14_packages_of_the_home_directory", needs: BOTH, run: |lab| traps::t14(lab.lesson()?) },
    Check { name: "trap_t15_without_the_entrypoint", needs: STORED, run: |lab| traps::t15(lab.lesson()?) },
    Check { name: "trap_t17_the_path_of_the_build", needs: BOTH, run: |lab| traps::t17(lab.lesson()?) },
    Check {
        name: "trap_t18_the_classic_builder",
        needs: &[Need::Root, Need::Docker, Need::Checkout],
        run: |lab| builds::t18(lab.lesson()?),
    },
    Check { name: "trap_t19_records_for_root_alone", needs: STORED, run: |lab| traps::t19(lab.lesson()?) },
    Check { name: "trap_t20_a_project_in_the_current_directory", needs: BOTH, run: |lab| traps::t20(lab.lesson()?) },
    Check { name: "trap_t21_apptainers_own_shell", needs: SIFS, run: |lab| traps::t21(lab.lesson()?) },
    Check { name: "the_readme_shows_what_all_prints", needs: &[Need::Checkout], run: readme },
    Check { name: "a_second_run_finds_nothing_to_do", needs: &[Need::Checkout], run: second_run },
    Check {
        name: "images_are_made_and_run_without_a_network",
        needs: &[Need::Checkout, Need::Program("unshare")],
        run: offline,
    },
    Check { name: "two_machines_make_the_same_bytes", needs: &[Need::Checkout], run: reproducible },
];

/// Opens terminals.
const PYTHON: Need = Need::Program("python3");

/// What the SIF has and the archive has not: Apptainer's own files, and the mount points that it wants.
const ONLY_IN_SIF: &[&str] = &[".singularity.d", "singularity", "environment", ".run", ".exec", ".shell", ".test"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lab = Arc::new(Lab::default());
    let trials = CHECKS.iter().map(|check| trial(check, Arc::clone(&lab))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Users and temporary files go here: `lab` is the last reference.
    drop(lab);
    conclusion.exit_code()
}

fn trial(check: &'static Check, lab: Arc<Lab>) -> Trial {
    Trial::ignorable_test(check.name, move || {
        let mut needs = [Need::Linux].iter().chain(check.needs);
        match needs.find_map(Need::missing) {
            Some(reason) if engines::required() => {
                Err(Failed::from(format!("{reason}, but engines are required here")))
            }
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => (check.run)(&lab).map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
        }
    })
}

/// What the checks share, made when the first one asks for it.
#[derive(Default)]
struct Lab {
    bench: OnceLock<Result<Bench, String>>,
    second: OnceLock<Result<Mutex<Checkout>, String>>,
    lesson: OnceLock<Result<Lesson, String>>,
    loaded: [OnceLock<Result<Loaded, String>>; 2],
}

/// The images, and an ordinary user to run them.
struct Bench {
    // Dropped before the directory that holds their homes.
    owner: Owner,
    images: Images,
    /// What `cargo xtask all` printed as its result.
    printed: String,
    directory: TempDir,
}

enum Owner {
    /// Images that we made: there is a checkout to go on with.
    Checkout(Programs, Checkout),
    /// Images that were made before.
    User(User),
}

impl Lab {
    fn bench(&self) -> anyhow::Result<&Bench> {
        engines::shared(&self.bench, Bench::set_up).context("make the rehearsal images")
    }

    fn images(&self) -> anyhow::Result<&Images> {
        Ok(&self.bench()?.images)
    }

    /// Our archive in the store of Docker or Podman.
    fn loaded(&self, engine: Engine) -> anyhow::Result<&Loaded> {
        let cell = &self.loaded[usize::from(engine.0 == DOCKER.0)];
        engines::shared(cell, || engine.load(&self.images()?.oci)).context("load our archive")
    }

    /// The images that the lesson's own engines make by its recipes.
    fn lesson(&self) -> anyhow::Result<&Lesson> {
        let prepare = || {
            let bench = self.bench()?;
            let habits = Habits { umask: "022", time_zone: "UTC" };
            Lesson::prepare(bench.check_out("xtask-test-3", "lesson", habits)?, bench.checkout()?)
        };
        engines::shared(&self.lesson, prepare).context("prepare the lesson's own way")
    }

    /// A second machine that made the same images. Who holds it may remove them, and leaves them as they were.
    fn second(&self) -> anyhow::Result<MutexGuard<'_, Checkout>> {
        let second = engines::shared(&self.second, || {
            let bench = self.bench()?;
            let habits = Habits { umask: "077", time_zone: "Asia/Kathmandu" };
            let checkout = bench.check_out("xtask-test-2", "second, elsewhere é", habits)?;
            checkout.run_all()?;
            Ok(Mutex::new(checkout))
        })?;
        Ok(second.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bench {
    fn set_up() -> anyhow::Result<Self> {
        let directory = open_directory()?;
        if let Some(images) = rehearsal::given() {
            let owner = Owner::User(User::create("xtask-test-1", directory.path().join("home"))?);
            let images = Images::in_directory(Path::new(&images))?;
            return Ok(Self { owner, images, printed: String::new(), directory });
        }
        let programs = Programs::install(directory.path().join("programs"))?;
        let habits = Habits { umask: "022", time_zone: "UTC" };
        let checkout = check_out(&programs, directory.path(), "xtask-test-1", "first", habits)?;
        let (images, printed) = checkout.run_all()?;
        Ok(Self { owner: Owner::Checkout(programs, checkout), images, printed, directory })
    }

    fn user(&self) -> &User {
        match &self.owner {
            Owner::Checkout(_, checkout) => &checkout.user,
            Owner::User(user) => user,
        }
    }

    fn checkout(&self) -> anyhow::Result<&Checkout> {
        match &self.owner {
            Owner::Checkout(_, checkout) => Ok(checkout),
            Owner::User(_) => bail!("XTASK_IMAGES is set: there is no checkout to build in"),
        }
    }

    fn check_out(&self, user: &str, name: &str, habits: Habits) -> anyhow::Result<Checkout> {
        match &self.owner {
            Owner::Checkout(programs, _) => check_out(programs, self.directory.path(), user, name, habits),
            Owner::User(_) => bail!("XTASK_IMAGES is set: there are no programs to build with"),
        }
    }

    /// A new directory for what one check writes.
    fn scratch(&self) -> anyhow::Result<TempDir> {
        TempDir::new_in(self.directory.path()).context("make a temporary directory")
    }
}

fn docker(lab: &Lab) -> anyhow::Result<()> {
    lab.loaded(DOCKER)?.check()
}

fn podman(lab: &Lab) -> anyhow::Result<()> {
    lab.loaded(PODMAN)?.check()
}

fn skopeo(lab: &Lab) -> anyhow::Result<()> {
    let scratch = lab.bench()?.scratch()?;
    oci::skopeo_reads(&lab.images()?.oci, scratch.path())
}

fn apptainer(lab: &Lab) -> anyhow::Result<()> {
    let bench = lab.bench()?;
    Apptainer { user: bench.user(), sif: &bench.images.sif }.check()
}

fn transports(lab: &Lab) -> anyhow::Result<()> {
    let bench = lab.bench()?;
    Apptainer { user: bench.user(), sif: &bench.images.sif }.reads(&bench.images.oci)
}

fn same_content(lab: &Lab) -> anyhow::Result<()> {
    let bench = lab.bench()?;
    let scratch = bench.scratch()?;
    let rootfs = oci::umoci_unpack(&bench.images.oci, scratch.path())?;
    put_packages_where_a_sif_has_them(&rootfs).context("move the packages")?;
    let apptainer = Apptainer { user: bench.user(), sif: &bench.images.sif };
    let mut differences = apptainer.differences(&rootfs, &scratch.path().join("sif"))?;
    differences.retain(|difference| !only_in_sif(difference));
    ensure!(differences.is_empty(), "the SIF and the archive differ:\n{}", differences.join("\n"));
    Ok(())
}

/// An archive has them at the one place and a link at the other, a SIF the other way round.
fn put_packages_where_a_sif_has_them(rootfs: &Path) -> std::io::Result<()> {
    let [shared, shown] = ["app/.pixi/environment", "app/.pixi/envs/gpu"].map(|place| rootfs.join(place));
    fs::remove_file(&shown)?;
    fs::rename(&shared, &shown)?;
    std::os::unix::fs::symlink("envs/gpu", shared)
}

/// Whether a line of [`Apptainer::differences`] speaks of something that is known to be in the SIF alone.
fn only_in_sif(difference: &str) -> bool {
    let Some(path) = difference.strip_prefix("> ").and_then(|entry| entry.splitn(4, ' ').nth(3)) else {
        return false;
    };
    let first = path.split(['/', ' ']).next().unwrap_or_default();
    ONLY_IN_SIF.contains(&first)
}

fn docker_builds(lab: &Lab) -> anyhow::Result<()> {
    DOCKER.load(&lab.lesson()?.stored(DOCKER, Recipe::Ours)?.archive)?.check()
}

fn podman_builds(lab: &Lab) -> anyhow::Result<()> {
    PODMAN.load(&lab.lesson()?.stored(PODMAN, Recipe::Ours)?.archive)?.check()
}

fn apptainer_builds(lab: &Lab) -> anyhow::Result<()> {
    let lesson = lab.lesson()?;
    Apptainer { user: &lesson.checkout().user, sif: lesson.sif(Recipe::Ours)? }.check()
}

fn active_docker(lab: &Lab) -> anyhow::Result<()> {
    activation::oci(&lab.lesson()?.stored(DOCKER, Recipe::Ours)?.image, &lab.bench()?.scratch()?)
}

fn active_podman(lab: &Lab) -> anyhow::Result<()> {
    activation::oci(&lab.lesson()?.stored(PODMAN, Recipe::Ours)?.image, &lab.bench()?.scratch()?)
}

fn active_apptainer(lab: &Lab) -> anyhow::Result<()> {
    let lesson = lab.lesson()?;
    let apptainer = Apptainer { user: &lesson.checkout().user, sif: lesson.sif(Recipe::Ours)? };
    activation::sif(&apptainer, &lab.bench()?.scratch()?)
}

fn active_native_docker(lab: &Lab) -> anyhow::Result<()> {
    activation::oci(lab.loaded(DOCKER)?, &lab.bench()?.scratch()?)
}

fn active_native_podman(lab: &Lab) -> anyhow::Result<()> {
    activation::oci(lab.loaded(PODMAN)?, &lab.bench()?.scratch()?)
}

fn active_native_sif(lab: &Lab) -> anyhow::Result<()> {
    let bench = lab.bench()?;
    activation::sif(&Apptainer { user: bench.user(), sif: &bench.images.sif }, &bench.scratch()?)
}

fn dead_daemon(lab: &Lab) -> anyhow::Result<()> {
    trouble::dead_daemon(lab.lesson()?, &lab.bench()?.scratch()?)
}

fn no_buildx(lab: &Lab) -> anyhow::Result<()> {
    trouble::no_buildx(lab.lesson()?, &lab.bench()?.scratch()?)
}

fn no_namespaces(lab: &Lab) -> anyhow::Result<()> {
    trouble::no_namespaces(lab.lesson()?)
}

fn little_room(lab: &Lab) -> anyhow::Result<()> {
    trouble::little_room(lab.lesson()?)
}

fn gpu_docker(lab: &Lab) -> anyhow::Result<()> {
    trouble::gpu(lab.lesson()?, DOCKER, &lab.bench()?.scratch()?)
}

fn gpu_podman(lab: &Lab) -> anyhow::Result<()> {
    trouble::gpu(lab.lesson()?, PODMAN, &lab.bench()?.scratch()?)
}

fn gpu_sif(lab: &Lab) -> anyhow::Result<()> {
    trouble::gpu_in_apptainer(lab.lesson()?)
}

/// The README's table and output, but for what differs from run to run: times and sizes.
fn readme(lab: &Lab) -> anyhow::Result<()> {
    let bench = lab.bench()?;
    bench.checkout()?;
    let readme = include_str!("../../README.md");
    let shown = readme.split("```text\nstep ").nth(1).and_then(|rest| rest.split("```").next());
    let shown = format!("step {}", shown.context("the README has a block that begins with the table of `all`")?);
    let settled = |text: &str| text.lines().map(without_times).collect::<Vec<_>>();
    let printed = settled(&bench.printed);
    for line in settled(&shown) {
        ensure!(printed.contains(&line), "the README shows `{line}`, which `all` does not print:\n{}", bench.printed);
    }
    Ok(())
}

/// The columns of a line, separated by two blanks or more: the first three; of the last line of the table none.
fn without_times(line: &str) -> String {
    let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    let line = columns.iter().take(3).copied().collect::<Vec<_>>().join("  ");
    if line.starts_with("Done in ") { String::new() } else { line }
}

fn second_run(lab: &Lab) -> anyhow::Result<()> {
    let first = lab.bench()?.checkout()?;
    let before = modified(&first.images()?)?;
    run(first.user.command(&first.xtask(["all"])))?.exits(0)?.says("nothing to do")?;
    ensure!(modified(&first.images()?)? == before, "the images were written again");
    Ok(())
}

fn modified(images: &Images) -> anyhow::Result<Vec<SystemTime>> {
    let modified = |image: &Path| std::fs::metadata(image)?.modified();
    [&images.oci, &images.sif].map(|image| modified(image).context("look at an image")).into_iter().collect()
}

fn reproducible(lab: &Lab) -> anyhow::Result<()> {
    let second = lab.second()?;
    same_images(lab.images()?, &second.images()?)
}

fn offline(lab: &Lab) -> anyhow::Result<()> {
    let second = lab.second()?;
    let offline = |command| run(second.user.offline(&command));
    second.remove_images()?;
    for format in ["docker", "apptainer"] {
        offline(second.xtask(["build", format, "--offline"]))?.exits(0)?;
        offline(second.xtask(["test", format, "--offline"]))?.exits(0)?;
        offline(second.xtask(["run", format, "--offline"]))?.exits(0)?.says(SCRIPT_SAYS)?;
    }
    same_images(lab.images()?, &second.images()?)
}

fn same_images(first: &Images, second: &Images) -> anyhow::Result<()> {
    for (first, second) in [(&first.oci, &second.oci), (&first.sif, &second.sif)] {
        // cmp names the first byte that differs.
        read(command!("cmp", first, second))?;
    }
    Ok(())
}

fn check_out(programs: &Programs, parent: &Path, user: &str, name: &str, habits: Habits) -> anyhow::Result<Checkout> {
    let user = User::create(user, parent.join(user))?;
    Checkout::create(programs.clone(), user, parent.join(name), habits)
}
