//! What this machine has, in words.

use std::env;
use std::path::Path;

use crate::commands::doctor::questions::{self, Answers, Reached};
use crate::commands::doctor::{Line, StepLine, lock};
use crate::context::Context;
use crate::engines::gpu::{self, Gpu};
use crate::engines::{BASE_BYTES, ENGINES, UNPACKED_RATIO};
use crate::exercise::Workspace;
use crate::external::{Program, Programs};
use crate::options::SourceChoice;
use crate::rehearsal::Rehearsal;
use crate::source::{self, Source};
use crate::traps::{self, Files, Finding, Machine, Room};
use crate::ui::{self, Mark};

/// What a build without a lock is taken to need where it unpacks: the smallest environments do.
const ROUGHLY: u64 = 2 << 30;
/// The first Docker whose `docker build` asks for BuildKit.
const BUILDKIT_BY_DEFAULT: u64 = 23;

/// What was found out.
pub struct Facts {
    /// Where packages and the base come from.
    pub source: Source,
    /// What the packages of the environment download, where the lock tells.
    pub download: Option<u64>,
    /// What is free below the target directory.
    pub free: Option<u64>,
    /// Where Apptainer unpacks.
    pub room: Option<Room>,
    /// Whether the heavy programs are there, or why they cannot be.
    pub heavy: Result<bool, String>,
    /// Why images cannot be run by the native engine.
    pub no_containers: Option<String>,
    forbidden: Option<String>,
    has_gpu: bool,
    without_buildkit: Option<String>,
}

impl Facts {
    /// Draws them from the answers.
    pub fn new(cx: &Context, files: &Files, answers: &Answers) -> Self {
        let source = source(cx, answers);
        let lock = lock_of(cx, files, source);
        let download = lock.and_then(|text| lock::download_bytes(&text, &cx.options.environment));
        let (variable, place) = questions::temporary(cx);
        let needed = download.map_or(ROUGHLY, |bytes| bytes.saturating_mul(UNPACKED_RATIO)).saturating_add(BASE_BYTES);
        let room = answers.free[1].map(|free| {
            let said = format!(
                "{} free, but Apptainer unpacks about {} there while it builds",
                ui::size(free),
                ui::size(needed)
            );
            Room { place: place.display().to_string(), free, needed, said, variable }
        });
        let forbidden = answers.forbidden.as_ref();
        let forbidden = forbidden.map(|forbidden| format!("{}\n  hint: {}", forbidden.why, forbidden.mend));
        Self {
            source,
            download,
            free: answers.free[0],
            room,
            heavy: heavy(cx),
            no_containers: no_containers(forbidden.as_deref()),
            forbidden,
            has_gpu: Gpu::look(cx).is_some(),
            without_buildkit: without_buildkit(cx, answers),
        }
    }

    /// The section about the machine.
    pub fn machine(&self, cx: &Context) -> Vec<Line> {
        let root = gpu::tree(cx);
        let read = |path: &str| cx.read_file(&root.join(path)).unwrap_or_default();
        let release = read("etc/os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let name = name.map_or(env::consts::OS, |name| name.trim_matches('"'));
        let processors = read("proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        let processors = match processors {
            0 => String::new(),
            1 => ", 1 processor".to_owned(),
            count => format!(", {count} processors"),
        };
        let mut lines = vec![Line::new(Mark::Ok, "system", format!("{name}, {}{processors}", env::consts::ARCH))];
        let kernel = read("proc/sys/kernel/osrelease");
        if !kernel.trim().is_empty() {
            lines.push(Line::new(Mark::Ok, "kernel", kernel.trim()));
        }
        if env::consts::OS == "linux" {
            lines.push(match &self.forbidden {
                Some(reason) => Line::because(Mark::Note, "user namespaces", &format!("forbidden: {reason}")),
                None if !cx.on_path("unshare") => {
                    Line::new(Mark::Note, "user namespaces", "not tried: there is no `unshare`")
                }
                None => Line::new(Mark::Ok, "user namespaces", "allowed"),
            });
        }
        lines.push(gpu_line(cx));
        let target = cx.typed(cx.target());
        lines.push(space(&format!("{target}/"), self.free, self.needed_below_target()));
        if let Some(room) = &self.room {
            lines.push(space(&room.place, Some(room.free), None));
        }
        lines
    }

    /// The section about programs.
    pub fn programs(&self, answers: &Answers) -> Vec<Line> {
        let version = |name: &str| answers.versions.iter().find(|(own, _)| *own == name).map(|(_, answer)| answer);
        let mut lines = Vec::new();
        lines.push(match (version("cargo"), version("rustc")) {
            (Some(Ok(cargo)), Some(Ok(rustc))) => Line::new(Mark::Ok, "cargo, rustc", format!("{cargo}, {rustc}")),
            (Some(Ok(cargo)), _) => Line::new(Mark::Ok, "cargo", cargo),
            (Some(Err(reason)), _) => Line::because(Mark::Missing, "cargo", reason),
            (None, _) => Line::new(Mark::Missing, "cargo", "it is not installed"),
        });
        lines.push(match &self.heavy {
            Ok(true) => Line::new(Mark::Ok, "pixi-image", "compiled"),
            Ok(false) => Line::new(
                Mark::Note,
                "pixi-image",
                "not compiled yet: the first step that needs it does, in about 5 minutes on two cores",
            ),
            Err(reason) => Line::because(Mark::Fails, "pixi-image", reason),
        });
        for (name, answer) in answers.engines.iter().filter(|(name, _)| is_program(name)) {
            let mut line = match answer {
                Ok(version) => Line::new(Mark::Ok, *name, version),
                Err(reason) => Line::because(Mark::Missing, *name, reason),
            };
            if *name == "docker" && is_old_docker(answers) {
                line.mend = Some(
                    "type `docker buildx build` by hand, too: its `docker build` takes the old builder".to_owned(),
                );
            }
            lines.push(line);
        }
        lines.push(match version("pixi") {
            Some(Ok(version)) => Line::new(Mark::Ok, "pixi", version),
            Some(Err(reason)) => Line::because(Mark::Missing, "pixi", reason),
            None => Line::new(Mark::Missing, "pixi", "it is not installed"),
        });
        lines
    }

    /// The section about the network.
    pub fn network(&self, cx: &Context, answers: &Answers) -> Vec<Line> {
        let mut lines = Vec::new();
        match &answers.network {
            None => lines.push(Line::new(Mark::Note, "hosts", "not asked (--offline)")),
            Some(hosts) => lines.extend(hosts.iter().map(|reach| match &reach.state {
                Reached::Answers => Line::new(Mark::Ok, &reach.host, "it answers"),
                Reached::Silent(reason) => Line::new(Mark::Missing, &reach.host, reason),
                Reached::Unknown(reason) => Line::new(Mark::Note, &reach.host, reason),
            })),
        }
        let text = match self.source {
            Source::CondaForge => "conda-forge and the registry of the base image".to_owned(),
            Source::Rehearsal => {
                format!("rehearsal: packages of Debian, on a copy below {}", cx.typed(Rehearsal::new(cx).directory()))
            }
        };
        lines.push(Line::new(Mark::Ok, "source", text));
        lines
    }

    /// What the images of both formats take, where the lock tells.
    pub fn needed_below_target(&self) -> Option<u64> {
        self.download.map(|bytes| bytes.saturating_mul(2).saturating_add(BASE_BYTES))
    }

    /// The traps that the files and the machine are in.
    pub fn traps(&self, cx: &Context, files: &Files, steps: &[StepLine]) -> Vec<Finding> {
        let in_files = traps::in_files(files);
        let unpacks = steps.iter().any(|step| ["apptainer", "singularity"].contains(&step.engine.as_str()));
        let room = self.room.as_ref().filter(|_| unpacks).map(|room| Room {
            place: room.place.clone(),
            free: room.free,
            needed: room.needed,
            said: room.said.clone(),
            variable: room.variable.clone(),
        });
        let machine = Machine {
            has_gpu: self.has_gpu,
            without_buildkit: self.without_buildkit.clone(),
            room,
            local_environment: local_environment(cx),
            user_site: user_site(cx),
        };
        let on_machine = traps::on_machine(&machine, &in_files);
        in_files.into_iter().chain(on_machine).collect()
    }
}

/// The lock that is built from: a rehearsal has its own.
fn lock_of(cx: &Context, files: &Files, source: Source) -> Option<String> {
    if source == Source::CondaForge {
        return files.files.iter().find(|file| file.path.ends_with("pixi.lock")).map(|file| file.text.clone());
    }
    let learner = Workspace::new(cx.resolve(&cx.options.workspace)).ok()?;
    cx.read_file(&learner.copied_to(Rehearsal::new(cx).directory()).lock()).ok()
}

/// The engine of ours is no program that somebody installs.
fn is_program(name: &str) -> bool {
    ENGINES.iter().any(|engine| engine.name() == name && engine.follows_recipe())
}

fn source(cx: &Context, answers: &Answers) -> Source {
    match cx.options.source {
        SourceChoice::CondaForge => Source::CondaForge,
        SourceChoice::Rehearsal => Source::Rehearsal,
        SourceChoice::Auto => match &answers.network {
            None => source::without_network(cx),
            Some(hosts) if hosts.iter().all(|reach| reach.failed().is_none()) => Source::CondaForge,
            Some(_) => Source::Rehearsal,
        },
    }
}

/// Whether both programs are there already.
fn heavy(cx: &Context) -> Result<bool, String> {
    let programs = Programs::new(cx);
    let mut are_there = true;
    for program in [Program::PixiImage, Program::Rehearsal] {
        let path = programs.path(program);
        let variable = program.variable();
        if !path.is_file() && cx.env(variable).is_some() {
            return Err(format!("{variable} names {}, which is not there\n  hint: unset {variable}", cx.typed(&path)));
        }
        are_there &= path.is_file();
    }
    let compilers = ["cc", "gcc", "clang"];
    // A bundle may bring them.
    let are_compiled = !are_there && cx.options.bundle.is_none();
    if are_compiled && cx.env("CC").is_none() && !compilers.iter().any(|name| cx.on_path(name)) {
        return Err("it is not compiled yet, and there is no C compiler\n  hint: install one: `sudo apt-get install gcc libc6-dev` on Debian and Ubuntu".to_owned());
    }
    Ok(are_there)
}

/// The native engine runs images of one platform, in namespaces of its own.
fn no_containers(forbidden: Option<&str>) -> Option<String> {
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        let mend = "install docker or podman, which can run images of another platform";
        return Some(format!("the images are for linux-64, and this is {os} on {arch}\n  hint: {mend}"));
    }
    forbidden.map(|reason| format!("user namespaces are forbidden here: {reason}"))
}

fn gpu_line(cx: &Context) -> Line {
    let Some(gpu) = Gpu::look(cx) else {
        return Line::new(Mark::Missing, "GPU", "no NVIDIA device: images run on the CPU");
    };
    let driver = gpu.driver().map_or("NVIDIA".to_owned(), |version| format!("NVIDIA, driver {version}"));
    if (cx.on_path("docker") || cx.on_path("podman")) && !gpu.has_toolkit() && !gpu.has_cdi() {
        let reason = format!(
            "{driver}; docker and podman cannot hand it on\n  hint: install nvidia-container-toolkit and restart Docker"
        );
        return Line::because(Mark::Note, "GPU", &reason);
    }
    Line::new(Mark::Ok, "GPU", driver)
}

fn space(place: &str, free: Option<u64>, needed: Option<u64>) -> Line {
    match (free, needed) {
        (None, _) => Line::new(Mark::Note, "disk", format!("{place}: how much is free is not known")),
        (Some(free), Some(needed)) if free < needed => Line::new(
            Mark::Fails,
            "disk",
            format!("{place}: {} free, the images take {}", ui::size(free), ui::size(needed)),
        ),
        (Some(free), _) => Line::new(Mark::Ok, "disk", format!("{place}: {} free", ui::size(free))),
    }
}

/// Why `docker build` would be the old builder.
fn without_buildkit(cx: &Context, answers: &Answers) -> Option<String> {
    let (_, docker) = answers.engines.iter().find(|(name, _)| *name == "docker")?;
    match docker {
        Err(reason) if reason.contains("BuildKit") => Some(reason.clone()),
        Ok(_) if cx.env("DOCKER_BUILDKIT").is_some_and(|value| value == Path::new("0")) => Some(
            "DOCKER_BUILDKIT is 0, so `docker build` takes the old builder\n  hint: unset DOCKER_BUILDKIT".to_owned(),
        ),
        Ok(version) if cx.options.exact && is_old_docker(answers) => Some(format!(
            "{version}: `docker build`, which --exact types, takes the old builder\n  hint: export DOCKER_BUILDKIT=1"
        )),
        _ => None,
    }
}

fn is_old_docker(answers: &Answers) -> bool {
    let version =
        answers.engines.iter().find(|(name, _)| *name == "docker").and_then(|(_, answer)| answer.as_ref().ok());
    let major = version.and_then(|version| version.split('.').next()?.parse::<u64>().ok());
    major.is_some_and(|major| major < BUILDKIT_BY_DEFAULT)
}

/// An installed environment beside a manifest, where one stands.
fn local_environment(cx: &Context) -> Option<String> {
    let here = cx.standing_in()?;
    let environments = here.join(".pixi").join("envs");
    let is_installed = here.join("pixi.toml").is_file() && !cx.names(&environments).is_empty();
    is_installed.then(|| cx.typed(&environments))
}

/// Packages of `pip install --user`.
fn user_site(cx: &Context) -> Option<String> {
    let library = cx.env("HOME")?.join(".local").join("lib");
    let mut versions = cx.names(&library);
    versions.sort();
    let sites =
        versions.iter().filter(|name| name.starts_with("python")).map(|name| library.join(name).join("site-packages"));
    let mut filled = sites.filter(|site| cx.names(site).iter().any(|name| !name.starts_with('_')));
    filled.next().map(|site| site.display().to_string())
}
