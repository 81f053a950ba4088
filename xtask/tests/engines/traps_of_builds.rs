//! The traps that show while an image is built. They are looked at in a small workspace, with Python alone, so that a
//! build takes seconds.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::command::{Outcome, command, read, run, shell, wrap};
use super::lesson::{Lesson, PORT, Recipe};
use super::traps::{compare, judge, write};

/// The name of the base image that the recipes of the rehearsal name.
const SERVED: &str = "rehearsal/pixi:trixie";

/// A workspace beside the exercise, in the lesson's clone. No other build goes on there while this value lives.
struct Small<'a> {
    lesson: &'a Lesson,
    /// Its directory, and what its images are called: a name of this run.
    name: String,
    _building: MutexGuard<'a, ()>,
}

impl<'a> Small<'a> {
    /// Everything up to the recipes of `format`.
    fn prepare(lesson: &'a Lesson, name: &str, format: &str) -> anyhow::Result<Self> {
        const ENVIRONMENTS: &str = r#"
            [feature.gpu.system-requirements]
            cuda = "12"
            [feature.gpu.dependencies]
            python = "*"
            [feature.cpu.dependencies]
            python = "*"
            [environments]
            gpu = ["gpu"]
            cpu = ["cpu"]
        "#;
        let small = Self { lesson, name: format!("{name}-{}", std::process::id()), _building: lesson.building() };
        let workspace = small.workspace();
        let head = format!("[workspace]\nname = \"small\"\nchannels = [\"http://127.0.0.1:{PORT}\"]\n");
        let manifest = write(&workspace, "pixi.toml", &format!("{head}platforms = [\"linux-64\"]\n{ENVIRONMENTS}"))?;
        write(&workspace, "app/torch_detect_GPU.py", "print('small')\n")?;
        write(&workspace, ".gitignore", ".pixi/*\n")?;
        // The learner's own, of which that is a copy.
        write(&lesson.checkout().path(&small.name), "pixi.toml", &std::fs::read_to_string(&manifest)?)?;
        let server = lesson.serve()?;
        read(command!(lesson.checkout().program("pixi-image"), "lock", "--manifest", manifest))?;
        drop(server);
        for exact in [None, Recipe::Exact.option()] {
            let mut recipe = small.xtask(&["recipe", format]);
            recipe.args(exact);
            run(recipe)?.exits(0)?;
        }
        let checkout = lesson.checkout();
        std::fs::create_dir_all(checkout.path("target/containers")).context("make the directory of the images")?;
        checkout.user.own(&checkout.path("target"))?;
        Ok(small)
    }

    fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = self.lesson.xtask(arguments);
        command.args(["--workspace", &self.name]);
        command
    }

    /// `cargo xtask build FORMAT --engine ENGINE`, with our recipe or the one as printed.
    fn build(&self, format: &str, recipe: Recipe) -> Command {
        let mut command = self.xtask(&["build", format, "--engine", format]);
        command.args(recipe.option());
        command
    }

    /// The same with Apptainer, by an ordinary user. Nobody reads these images: packing them is not worth the time.
    fn apptainer(&self, recipe: Recipe) -> Command {
        let mut command = self.build("apptainer", recipe);
        command.env("APPTAINER_MKSQUASHFS_ARGS", "-noD -noF");
        self.lesson.with_apptainer(&command)
    }

    fn workspace(&self) -> PathBuf {
        self.lesson.checkout().path("target/rehearsal").join(&self.name)
    }

    /// The Dockerfile.
    fn dockerfile(&self, recipe: Recipe) -> PathBuf {
        match recipe {
            Recipe::Ours => self.workspace().join("Dockerfile"),
            Recipe::Exact => {
                self.lesson.checkout().path(&format!("target/xtask/rehearsal/{}/exact/Dockerfile", self.name))
            }
        }
    }

    /// Docker's name of the image.
    fn reference(&self, recipe: Recipe) -> String {
        format!("{}:gpu{}", self.name, recipe.suffix())
    }

    /// Replaces the base image by another.
    fn with_base(&self, recipe: Recipe, base: &str) -> anyhow::Result<()> {
        let path = self.dockerfile(recipe);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let served = format!("127.0.0.1:{PORT}/{SERVED}");
        ensure!(text.contains(&served), "{} does not name {served}:\n{text}", path.display());
        std::fs::write(&path, text.replace(&served, base)).with_context(|| format!("write {}", path.display()))
    }

    /// Lets the base image's pixi do `after` behind each of its commands, in a stage of the Dockerfile's own.
    fn with_pixi_that(&self, recipe: Recipe, after: &str) -> anyhow::Result<()> {
        self.with_base(recipe, "another-pixi")?;
        let path = self.dockerfile(recipe);
        let text = std::fs::read_to_string(&path)?;
        let (arguments, stages) = text.split_once("\nFROM ").context("the Dockerfile has a stage")?;
        let stage = format!(
            "\nFROM 127.0.0.1:{PORT}/{SERVED} AS another-pixi\n\
             RUN real=$(command -v pixi) && mkdir /opt/real && mv \"$real\" /opt/real/pixi && \\\n    \
             printf '%s\\n' '#!/bin/sh' '/opt/real/pixi \"$@\"; code=$?' '{after}' 'exit \"$code\"' >\"$real\" && \\\n    \
             chmod 0755 \"$real\"\n"
        );
        std::fs::write(&path, format!("{arguments}{stage}\nFROM {stages}"))?;
        Ok(())
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Images that stay behind cost disk, not correctness.
        let remove =
            r#"docker image ls --quiet "$1" | sort --unique | xargs --no-run-if-empty docker image rm --force"#;
        if super::oci::DOCKER.works() {
            let _ = run(shell(remove, [&self.name]));
        }
    }
}

/// The text gives the environment under the name of no argument.
pub fn t01(lesson: &Lesson) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t01", "apptainer")?;
    compare(|recipe| {
        let mut build = small.apptainer(recipe);
        build.args(["--env", "cpu"]);
        let said = run(build)?;
        let unused = said.code != Some(0) && said.both().contains("unused build args: ENVIRONMENT_NAME");
        judge(&said, unused, said.code == Some(0))
    })
}

/// The installed environments of the host are sent to the builder.
pub fn t02(lesson: &Lesson) -> anyhow::Result<()> {
    const JUNK: u64 = 20_000_000;
    let small = Small::prepare(lesson, "t02", "docker")?;
    let junk = write(&small.workspace(), ".pixi/envs/gpu/junk", "")?;
    std::fs::File::options().write(true).open(junk)?.set_len(JUNK)?;
    let _server = lesson.serve()?;
    compare(|recipe| {
        // The context is sent before pixi finds out that there is no such environment.
        let mut build = command!("docker", "buildx", "build", "--progress", "plain", "--network", "host");
        build.args(["--build-arg", "ENVIRONMENT=none", "--file"]).arg(small.dockerfile(recipe)).arg(small.workspace());
        let said = run(build)?;
        let sent = transferred(&said)?;
        judge(&said, sent > JUNK as f64 / 1.1, sent < JUNK as f64 / 10.0)
    })
}

/// The most that BuildKit says it transferred: `transferring context: 20.97MB`.
fn transferred(said: &Outcome) -> anyhow::Result<f64> {
    let both = said.both();
    let sizes = both.lines().filter_map(|line| {
        let size = line.split_once("transferring context: ")?.1.split(' ').next()?;
        let number = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &size[number.len()..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            _ => 1e9,
        };
        Some(number.parse::<f64>().ok()? * unit)
    });
    sizes.reduce(f64::max).with_context(|| format!("BuildKit says what it transfers{}", said.transcript()))
}

/// A pixi that does not write `.condapackageignore`, as those before 0.48.
pub fn t03(lesson: &Lesson) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t03", "docker")?;
    compare(|recipe| {
        small.with_pixi_that(recipe, "rm -f .pixi/.condapackageignore")?;
        let said = run(small.build("docker", recipe))?;
        let misses = said.both().contains(".condapackageignore") && said.both().contains("not found");
        judge(&said, said.code != Some(0) && misses, said.code == Some(0))
    })
}

/// An environment without packages becomes an image all the same, and takes the name of the one that worked.
pub fn t06(lesson: &Lesson) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t06", "docker")?;
    compare(|recipe| {
        let reference = small.reference(recipe);
        read(shell("tar --create --files-from /dev/null | docker import - \"$1\"", [&reference]))?;
        let id = || read(command!("docker", "image", "inspect", "--format", "{{.Id}}", &reference));
        let (before, file) = (id()?, small.name.clone() + "-gpu" + recipe.suffix());
        small.with_pixi_that(recipe, "rm -rf .pixi/envs/*/[!c]* .pixi/envs/*/conda-meta/*")?;
        let said = run(small.build("docker", recipe))?;
        let (named, listing) = (id()? != before, small.lesson.checkout().path("target/containers"));
        let written = std::fs::read_dir(listing)?.flatten().any(|it| it.file_name().to_string_lossy().contains(&file));
        let told = said.both().contains("1 are missing:\n  python-");
        let refused = said.code == Some(1) && told && !named && !written;
        judge(&said, said.code == Some(0) && named && written, refused)
    })
}

/// The base image's tag is another image the next time.
pub fn t07(lesson: &Lesson, scratch: &Path) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t07", "docker")?;
    let registry = Registry::start(scratch)?;
    let base = format!("127.0.0.1:{}/prefix-dev/pixi:noble", registry.port);
    let archive = format!("oci-archive:{}", lesson.checkout().path("target/rehearsal/source/pixi.oci.tar").display());
    let moved = format!("FROM {base}\nRUN touch /etc/moved\n");
    let moved = write(&scratch.join("moved"), "Dockerfile", &moved)?;
    compare(|recipe| {
        let place_tag = command!("skopeo", "copy", "--dest-tls-verify=false", &archive, format!("docker://{base}"));
        read(place_tag)?;
        let build = || {
            let mut build = small.build("docker", recipe);
            match recipe {
                Recipe::Ours => build.args(["--base", &base]),
                Recipe::Exact => &mut build,
            };
            run(build)?.exits(0)
        };
        if recipe == Recipe::Exact {
            small.with_base(recipe, &base)?;
        }
        build()?;
        let has_moved = || {
            let look = command!("docker", "run", "--rm", "--entrypoint", "ls", small.reference(recipe), "/etc/moved");
            anyhow::Ok(run(look)?.code == Some(0))
        };
        ensure!(!has_moved()?, "the first build already has the second base");
        let mut move_tag = command!("docker", "buildx", "build", "--quiet", "--load", "--tag", &base, "--file", &moved);
        move_tag.arg(scratch.join("moved"));
        read(move_tag)?;
        let pushed = run(command!("docker", "push", &base));
        // Docker would take its own image of that name for the registry's.
        read(command!("docker", "image", "rm", &base))?;
        pushed?.exits(0)?;
        // Something else than the base changes as well, as time goes on.
        write(&small.workspace(), "app/later.py", "print('later')\n")?;
        let said = build()?;
        let moved = has_moved()?;
        judge(&said, moved, !moved)
    })
}

/// `apptainer build` fails in the recipe's own `%test`, where no GPU is.
pub fn t08(lesson: &Lesson) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t08", "apptainer")?;
    compare(|recipe| {
        let said = run(small.apptainer(recipe))?;
        let fails = said.both().contains("__cuda") && said.both().contains("failed to execute %test");
        judge(&said, said.code != Some(0) && fails, said.code == Some(0))
    })
}

/// A second stage needs the room for a second copy of the environment.
pub fn t13(lesson: &Lesson) -> anyhow::Result<()> {
    let small = Small::prepare(lesson, "t13", "apptainer")?;
    // As printed it ends in its own `%test` (T08), which comes after all that needs room but the packing.
    let (plenty, used) = in_room(&small, Recipe::Exact, 8 << 30)?;
    plenty.says("failed to execute %test")?;
    let room = used / 10 * 9;
    compare(|recipe| {
        let (said, _) = in_room(&small, recipe, room)?;
        let full = said.both().to_lowercase().contains("no space left on device");
        judge(&said, said.code != Some(0) && full, said.code == Some(0))
    })?;
    // Ours looks before it begins. What it built stands there; with another file in it, it is to be built again.
    write(&small.workspace(), "app/later.py", "print('later')\n")?;
    let (said, used) = in_room(&small, Recipe::Ours, 32 << 20)?;
    let said = said.exits(1)?.says("APPTAINER_TMPDIR=DIR")?;
    ensure!(used == 0 && !said.both().contains("Starting build"), "it began{}", said.transcript());
    Ok(())
}

/// The build with `room` bytes for temporary files, and the most that it took of them.
fn in_room(small: &Small<'_>, recipe: Recipe, room: u64) -> anyhow::Result<(Outcome, u64)> {
    const SCRIPT: &str = r#"
        place=$2 used=$3
        mount -t tmpfs -o "size=$1,mode=1777" tmpfs "$place"
        shift 3
        while df -k --output=used "$place"; do sleep 0.02; done >"$used" & watcher=$!
        code=0
        "$@" || code=$?
        kill "$watcher"
        exit "$code""#;
    let place = small.lesson.checkout().path("target").join(format!("{}-room", small.name));
    std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    let used = place.with_extension("used");
    let mut build = small.build("apptainer", recipe);
    build.env("APPTAINER_TMPDIR", &place);
    let script = shell(SCRIPT, [room.to_string().as_ref(), place.as_os_str(), used.as_os_str()]);
    let outer = wrap(command!("unshare", "--mount", "--propagation", "private", "--"), &script);
    let said = run(wrap(outer, &small.lesson.with_apptainer(&build)))?;
    let samples = std::fs::read_to_string(&used).with_context(|| format!("read {}", used.display()))?;
    let most = samples.lines().filter_map(|line| line.trim().parse::<u64>().ok()).max();
    Ok((said, most.context("df says what is used")? * 1024))
}

/// Docker's classic builder does all the work before it finds that it cannot do the last of it.
pub fn t18(lesson: &Lesson) -> anyhow::Result<()> {
    // A machine on which nobody installed BuildKit's client.
    const WITHOUT_PLUGINS: &str = r#"
        for place in "$HOME/.docker" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
            [ ! -d "$place/cli-plugins" ] || mount -t tmpfs tmpfs "$place/cli-plugins"
        done
        exec "$@""#;
    let small = Small::prepare(lesson, "t18", "docker")?;
    compare(|recipe| {
        let server = match recipe {
            Recipe::Exact => Some(lesson.serve()?),
            Recipe::Ours => None,
        };
        let build = match recipe {
            Recipe::Exact => {
                let mut build = command!("docker", "build", "--network", "host", "--tag", small.reference(recipe));
                build.arg("--file").arg(small.dockerfile(recipe)).arg(small.workspace());
                build
            }
            Recipe::Ours => small.build("docker", recipe),
        };
        let outer = command!("unshare", "--mount", "--propagation", "private", "--");
        let mut build = wrap(wrap(outer, &shell(WITHOUT_PLUGINS, [""; 0])), &build);
        build.env("DOCKER_BUILDKIT", "0");
        let said = run(build)?;
        drop(server);
        forget_steps(&said);
        let both = said.both();
        let (worked, failed) = (both.contains("has been installed"), said.code != Some(0));
        let late = failed && worked && both.contains("--chmod");
        judge(&said, late, failed && !worked && both.contains("no BuildKit") && both.contains("docker-buildx"))
    })
}

/// The classic builder keeps each step as an image, and the base image under its name: BuildKit would take that one for
/// the registry's ever after.
fn forget_steps(said: &Outcome) {
    let steps = said.stdout.lines().rev().filter_map(|line| line.strip_prefix(" ---> "));
    for image in steps.filter(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        let _ = run(command!("docker", "image", "rm", "--force", image));
    }
    let _ = run(command!("docker", "image", "rm", format!("127.0.0.1:{PORT}/{SERVED}")));
}

/// A registry on this machine, empty at first.
struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    fn start(scratch: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?.port();
        let storage = scratch.join("registry");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            storage.display()
        );
        let configuration = write(scratch, "registry.yml", &configuration)?;
        let mut serve = command!("docker-registry", "serve", configuration);
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Self { process: serve.spawn().context("start docker-registry")?, port };
        for _ in 0..600 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(registry);
            }
            if let Some(status) = registry.process.try_wait()? {
                bail!("docker-registry ended at once: {status}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("docker-registry does not answer at port {port}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
