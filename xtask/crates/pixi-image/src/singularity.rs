//! What Apptainer and SingularityCE look for in an image: `/.singularity.d`, its links, and the SIF's metadata.
//!
//! The texts are our own; what must exist and what reads it is measured with Apptainer 1.4.5, whose action scripts are
//! built in. The ones written here serve older runtimes, which start the image's.

#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::BTreeMap;

use serde_json::json;

use crate::activation::{Activation, ENTRYPOINT_PATH, HAND_BACK_PATH, Shell};
use crate::entry::{Entry, EntryKind, ImagePath, Mode};
use crate::model::{Environment, WHEEL_INSTALLER};

/// The environment file that carries the activation.
const ENVIRONMENT_FILE: &str = "/.singularity.d/env/90-environment.sh";
/// Root's home is root's alone.
const PRIVATE: Mode = Mode(0o700);
/// Directories where everyone may write and only remove what is theirs.
const STICKY: Mode = Mode(0o1777);

/// What the metadata of a SIF is made from.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    /// The environment in the image.
    pub environment: &'a Environment,
    /// Its activation.
    pub activation: &'a Activation,
    /// Labels of the image, the same as in the OCI configuration.
    pub labels: &'a BTreeMap<String, String>,
    /// The base image as a pinned reference; none for an image from scratch.
    pub base: Option<&'a str>,
}

/// An entry and, for a file, its content.
pub type Item = (Entry, Vec<u8>);

impl Metadata<'_> {
    /// `/.singularity.d` and the links in the root that point into it, parents first.
    pub fn entries(&self, mtime: u32) -> Vec<Item> {
        let mut tree = Tree { items: Vec::new(), mtime };
        for directory in [".singularity.d", ".singularity.d/actions", ".singularity.d/env", ".singularity.d/libs"] {
            tree.directory(directory, Mode::EXECUTABLE);
        }
        tree.file(".singularity.d/Singularity", Mode::FILE, self.definition());
        tree.file(".singularity.d/labels.json", Mode::FILE, pretty(&json!(self.labels)));
        tree.file(".singularity.d/runscript.help", Mode::FILE, self.help());
        tree.file(relative(ENVIRONMENT_FILE), Mode::EXECUTABLE, self.activation.singularity_environment());
        tree.file(".singularity.d/env/99-base.sh", Mode::EXECUTABLE, include_str!("singularity/99-base.sh"));
        if let Some(text) = self.activation.hand_back() {
            tree.file(relative(HAND_BACK_PATH), Mode::FILE, text);
        }
        // Without a shell none of these could start; Apptainer itself says so when they are absent.
        if let Some(scripts) = Scripts::of(self) {
            tree.file(".singularity.d/runscript", Mode::EXECUTABLE, scripts.run);
            tree.file(".singularity.d/startscript", Mode::EXECUTABLE, scripts.start);
            tree.file(".singularity.d/test", Mode::EXECUTABLE, scripts.test);
            for (name, last) in scripts.actions {
                tree.file(&format!(".singularity.d/actions/{name}"), Mode::EXECUTABLE, last);
            }
            for name in ["exec", "run", "shell", "test"] {
                tree.symlink(&format!(".{name}"), &format!(".singularity.d/actions/{name}"));
            }
            tree.symlink("singularity", ".singularity.d/runscript");
        }
        tree.symlink("environment", relative(ENVIRONMENT_FILE));
        tree.sorted()
    }

    /// The JSON object of the SIF that `apptainer inspect` reads instead of the file system.
    pub fn inspect_metadata(&self) -> Vec<u8> {
        let scripts = Scripts::of(self).unwrap_or_default();
        let attributes = json!({
            "deffile": self.definition(),
            "environment": { ENVIRONMENT_FILE: self.activation.singularity_environment() },
            "helpfile": self.help(),
            "labels": self.labels,
            "runscript": scripts.run,
            "startscript": scripts.start,
            "test": scripts.test,
        });
        json!({ "data": { "attributes": attributes }, "type": "container" }).to_string().into_bytes()
    }

    /// The definition file: what this image would be in those terms, and how it was made.
    pub fn definition(&self) -> String {
        let mut text = format!(
            "# Written by pixi-image {} from the packages that pixi.lock names; no definition file was built.\n",
            env!("CARGO_PKG_VERSION")
        );
        text += &match self.base {
            Some(base) => format!("Bootstrap: docker\nFrom: {}\n", one_line(base)),
            None => "Bootstrap: scratch\n".to_owned(),
        };
        let labels: String =
            self.labels.iter().map(|(name, value)| format!("{} {}\n", one_line(name), one_line(value))).collect();
        let scripts = Scripts::of(self).unwrap_or_default();
        let files = "/app/pixi.toml /app/pixi.lock /app/src\n".to_owned() + self.activation.prefix() + "\n";
        let sections = [
            ("files", files),
            ("environment", self.activation.singularity_environment()),
            ("labels", labels),
            ("runscript", scripts.run),
            ("startscript", scripts.start),
            ("test", scripts.test),
            ("help", self.help()),
        ];
        for (name, content) in sections {
            if !content.is_empty() {
                text += &format!("\n%{name}\n");
                content.lines().for_each(|line| text += &format!("    {line}\n"));
            }
        }
        text
    }

    fn help(&self) -> String {
        let environment = self.environment;
        format!(
            "The pixi environment {name} for {subdir}: {count} packages in {prefix}.\n\n\
             \x20 apptainer run IMAGE.sif COMMAND [ARGUMENT...]    runs a command in the environment\n\
             \x20 apptainer exec --nv IMAGE.sif COMMAND            with the host's NVIDIA driver\n\
             \x20 apptainer test IMAGE.sif                         checks that the environment is complete\n",
            name = environment.name,
            subdir = environment.subdir,
            count = environment.packages.len(),
            prefix = self.activation.prefix(),
        )
    }
}

/// Directories and files that runtimes mount over, with the content that an image without a base needs. The caller
/// adds those that the base lacks.
pub fn skeleton(mtime: u32) -> Vec<Item> {
    let mut tree = Tree { items: Vec::new(), mtime };
    for directory in ["dev", "etc", "home", "proc", "run", "sys", "var"] {
        tree.directory(directory, Mode::EXECUTABLE);
    }
    tree.directory("root", PRIVATE);
    tree.directory("tmp", STICKY);
    tree.directory("var/tmp", STICKY);
    tree.file("etc/passwd", Mode::FILE, "root:x:0:0:root:/root:/bin/sh\n");
    tree.file("etc/group", Mode::FILE, "root:x:0:\n");
    for file in ["etc/hosts", "etc/localtime", "etc/resolv.conf"] {
        tree.file(file, Mode::FILE, "");
    }
    tree.sorted()
}

/// The scripts of an image that has a shell.
#[derive(Default)]
struct Scripts {
    run: String,
    start: String,
    test: String,
    actions: Vec<(&'static str, String)>,
}

impl Scripts {
    fn of(metadata: &Metadata<'_>) -> Option<Self> {
        let shell = metadata.activation.shell()?;
        let first = format!("#!{}\n", shell.path());
        let interactive = match shell {
            Shell::Bash(path) => format!("{path} --norc"),
            Shell::Posix(path) => path.clone(),
        };
        let action = |last: &str| {
            let read = "for file in /.singularity.d/env/*.sh; do\n\t. \"$file\"\ndone\nunset file\n";
            format!("{first}{read}{last}\n")
        };
        Some(Self {
            // The environment is active by then: the entrypoint only says what to do where there is no command.
            run: format!("{first}exec {ENTRYPOINT_PATH} \"$@\"\n"),
            start: format!("{first}[ \"$#\" -eq 0 ] || exec {ENTRYPOINT_PATH} \"$@\"\n"),
            test: first.clone() + &test(metadata),
            actions: vec![
                ("exec", action("exec \"$@\"")),
                ("run", action("exec /.singularity.d/runscript \"$@\"")),
                ("shell", action(&format!("exec {interactive} \"$@\""))),
                ("start", action("exec /.singularity.d/startscript \"$@\"")),
                ("test", action("exec /.singularity.d/test \"$@\"")),
            ],
        })
    }
}

/// The checks of `apptainer test`: active, every package's record there, python at home. Silent when all is well.
fn test(metadata: &Metadata<'_>) -> String {
    let prefix = crate::activation::quote(metadata.activation.prefix());
    let environment = metadata.environment;
    let wheels = environment.wheels().count();
    let mut text = include_str!("singularity/test.sh")
        .replace("{prefix}", &prefix)
        .replace("{records}", &(environment.packages.len() - wheels).to_string());
    if environment.python().is_some() {
        text += include_str!("singularity/test-python.sh");
    }
    if wheels > 0 {
        text += &include_str!("singularity/test-wheels.sh")
            .replace("{installer}", WHEEL_INSTALLER)
            .replace("{wheels}", &wheels.to_string());
    }
    text
}

struct Tree {
    items: Vec<Item>,
    mtime: u32,
}

impl Tree {
    fn push(&mut self, path: &str, kind: EntryKind, mode: Mode, content: Vec<u8>) {
        // Every path here is written in this file.
        let path = ImagePath::new(path).expect("a path of this module is relative and short");
        self.items.push((Entry { path, kind, mode, mtime: self.mtime }, content));
    }

    fn directory(&mut self, path: &str, mode: Mode) {
        self.push(path, EntryKind::Directory, mode, Vec::new());
    }

    fn file(&mut self, path: &str, mode: Mode, content: impl Into<Vec<u8>>) {
        let content = content.into();
        self.push(path, EntryKind::File { size: content.len() as u64 }, mode, content);
    }

    fn symlink(&mut self, path: &str, target: &str) {
        self.push(path, EntryKind::Symlink { target: target.into() }, Mode::SYMLINK, Vec::new());
    }

    fn sorted(mut self) -> Vec<Item> {
        self.items.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        self.items
    }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// A definition file has one value a line.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" ")
}
