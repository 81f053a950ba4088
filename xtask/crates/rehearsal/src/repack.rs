//! From .deb files to one conda package: which path becomes which, and what is added.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pixi_image::entry::{Entry, EntryKind, ImagePath, Mode};

use crate::conda::{CondaWriter, placeholder};
use crate::deb::{self, DebError};
use crate::recipes::{CONDA_LEAVES_OUT, Kind, Recipe, TORCH_KEEPS, TORCH_PROGRAMS};

/// Scripts larger than this are not looked into for the path of their interpreter, in bytes.
const SCRIPT_LIMIT: u64 = 1 << 20;
/// Where Debian's packages of Python modules lie below `/usr`.
const DIST_PACKAGES: &str = "lib/python3/dist-packages/";

/// Writes the files of a recipe's .deb packages, and what the recipe adds to them.
///
/// `debs` holds the name and file of each package, in the order of the recipe.
pub fn files(recipe: &Recipe, debs: &[(&str, PathBuf)], writer: &mut CondaWriter) -> Result<(), DebError> {
    for (name, file) in debs {
        deb_files(recipe.kind, name, file, writer)?;
    }
    let added = match recipe.name {
        "python" => python_additions(writer),
        _ => Ok(()),
    };
    added.map_err(|error| DebError { package: recipe.name.to_owned(), reason: error.to_string() })
}

fn deb_files(kind: Kind, name: &str, file: &Path, writer: &mut CondaWriter) -> Result<(), DebError> {
    deb::read(name, file, &mut |entry, content| {
        let Some(path) = conda_path(kind, &entry.path) else { return Ok(()) };
        match &entry.kind {
            EntryKind::Directory => Ok(()),
            EntryKind::File { size } => file_entry(writer, &path, entry, *size, content),
            EntryKind::Symlink { target } => match link_target(kind, &path, target) {
                Some(target) => writer.symlink(&path, target.as_bytes()),
                None => Ok(()),
            },
            // Not every installer links within an archive; a link by path is the same to whoever reads it.
            EntryKind::Hardlink { target } => match conda_path(kind, target) {
                Some(target) => writer.symlink(&path, relative(&path, &target).as_bytes()),
                None => Err(io::Error::other(format!("{path} is a hard link to a file that is left out"))),
            },
        }
    })
}

fn file_entry(
    writer: &mut CondaWriter,
    path: &ImagePath,
    entry: &Entry,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    if !path.as_bytes().starts_with(b"bin/") || size > SCRIPT_LIMIT {
        return writer.file(path, entry.mode, size, content);
    }
    let mut bytes = Vec::new();
    content.take(SCRIPT_LIMIT).read_to_end(&mut bytes)?;
    match interpreter_of_prefix(&bytes) {
        Some(script) => writer.text_with_prefix(path, entry.mode, &script),
        None => writer.file(path, entry.mode, size, &mut bytes.as_slice()),
    }
}

/// A script that runs the environment's Python and not the system's; none if it runs neither. Bytes, as not every
/// script is UTF-8.
fn interpreter_of_prefix(script: &[u8]) -> Option<Vec<u8>> {
    let system = b"/usr/bin/python3".as_slice();
    let mut rest = script.strip_prefix(b"#!")?.trim_ascii_start();
    let mut changed = b"#!".to_vec();
    while let Some(at) = rest.windows(system.len()).position(|window| window == system) {
        changed.extend_from_slice(&rest[..at]);
        changed.extend_from_slice(format!("{}/bin/python3", placeholder()).as_bytes());
        rest = &rest[at + system.len()..];
    }
    let found = changed.len() > 2;
    changed.extend_from_slice(rest);
    found.then_some(changed)
}

/// Where a file of Debian stands in a conda package; none if it is left out.
fn conda_path(kind: Kind, path: &ImagePath) -> Option<ImagePath> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?;
    // The directories of the root are links into /usr; some packages still ship files by the short way.
    let below_usr = match text.split('/').next()? {
        "bin" | "lib" | "lib64" | "sbin" => text,
        "usr" => text.strip_prefix("usr/")?,
        _ => return None,
    };
    let taken = ["bin/", "lib/"].iter().any(|directory| below_usr.starts_with(directory));
    if !taken || below_usr.split('/').any(|part| part == "__pycache__") || is_left_out(below_usr) {
        return None;
    }
    if !matches!(kind, Kind::NoarchPython(_)) {
        return ImagePath::new(below_usr).ok();
    }
    let module = below_usr.strip_prefix(DIST_PACKAGES)?;
    // A quarter of sympy is its own tests.
    let own_tests = module.split('/').any(|part| part == "tests");
    if own_tests { None } else { ImagePath::new(format!("site-packages/{module}")).ok() }
}

fn is_left_out(below_usr: &str) -> bool {
    let below = |directory: &str| {
        below_usr.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let torch_program = below(TORCH_PROGRAMS) && !below_usr.ends_with(TORCH_KEEPS) && below_usr != TORCH_PROGRAMS;
    torch_program || CONDA_LEAVES_OUT.iter().any(|directory| below(directory))
}

/// The target of a link in the package: relative, so that it holds wherever the package is installed. None if the link
/// leads to what is left out or to the system (`/etc/alternatives`).
fn link_target(kind: Kind, path: &ImagePath, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    if let Some(absolute) = target.strip_prefix('/') {
        let target = conda_path(kind, &ImagePath::new(absolute).ok()?)?;
        return Some(relative(path, &target));
    }
    let mut parts: Vec<&str> = std::str::from_utf8(path.as_bytes()).ok()?.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!is_left_out(&parts.join("/"))).then(|| target.to_owned())
}

/// The way from the directory of `link` to `target`.
fn relative(link: &ImagePath, target: &ImagePath) -> String {
    let (link, target) = (link.lossy().into_owned(), target.lossy().into_owned());
    let from: Vec<&str> = link.split('/').collect();
    let to: Vec<&str> = target.split('/').collect();
    let from = &from[..from.len() - 1];
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| "..");
    up.chain(to[shared..].iter().copied()).collect::<Vec<_>>().join("/")
}

/// What makes Debian's Python an environment of its own.
fn python_additions(writer: &mut CondaWriter) -> io::Result<()> {
    let path = |text: &str| ImagePath::new(text).map_err(io::Error::other);
    // bin/python3 comes with python3-minimal.
    writer.symlink(&path("bin/python")?, b"python3.13")?;
    // Debian's Python looks only into dist-packages; conda's installers put modules into site-packages.
    let site_packages: &[u8] = b"../../python3.13/site-packages\n";
    let pth = path(&format!("{DIST_PACKAGES}site-packages.pth"))?;
    writer.file(&pth, Mode::FILE, site_packages.len() as u64, &mut &site_packages[..])?;
    // Debian's programs hold no search path; libblas and liblapack lie in directories that only its alternatives
    // system links to.
    let libraries = ["lib/x86_64-linux-gnu", "lib", "lib/x86_64-linux-gnu/blas", "lib/x86_64-linux-gnu/lapack"];
    let libraries = libraries.map(|directory| format!("{}/{directory}", placeholder())).join(":");
    let variables = format!("{{\"LD_LIBRARY_PATH\": \"{libraries}\"}}\n");
    writer.text_with_prefix(&path("etc/conda/env_vars.d/rehearsal.json")?, Mode::FILE, variables.as_bytes())?;
    // Shows in a running image that activation scripts were run; it prints nothing, as a script may not.
    let script: &[u8] = b"REHEARSAL_ACTIVATED=1\nexport REHEARSAL_ACTIVATED\n";
    writer.file(&path("etc/conda/activate.d/rehearsal.sh")?, Mode::FILE, script.len() as u64, &mut &script[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(kind: Kind, path: &str) -> Option<String> {
        conda_path(kind, &ImagePath::new(path).unwrap()).map(|path| path.to_string())
    }

    #[test]
    fn paths_lose_usr_and_what_no_environment_needs_is_left_out() {
        for (debian, conda) in [
            ("usr/bin/python3.13", Some("bin/python3.13")),
            ("lib/x86_64-linux-gnu/libz.so.1", Some("lib/x86_64-linux-gnu/libz.so.1")),
            ("usr/lib/libgloo.so.0", Some("lib/libgloo.so.0")),
            ("usr/lib/python3/dist-packages/torch/testing/x.py", Some("lib/python3/dist-packages/torch/testing/x.py")),
            ("usr/lib/python3/dist-packages/torch/test/x.py", None),
            ("usr/lib/python3/dist-packages/torch/bin/protoc", None),
            (
                "usr/lib/python3/dist-packages/torch/bin/torch_shm_manager",
                Some("lib/python3/dist-packages/torch/bin/torch_shm_manager"),
            ),
            ("usr/lib/python3.13/__pycache__/os.pyc", None),
            ("usr/share/doc/x", None),
            ("usr/include/x.h", None),
            ("etc/python3.13/sitecustomize.py", None),
            ("var/lib/x", None),
            ("usr", None),
        ] {
            assert_eq!(mapped(Kind::Platform, debian).as_deref(), conda, "{debian}");
        }
    }

    #[test]
    fn pure_python_goes_to_site_packages_without_its_tests() {
        let kind = Kind::NoarchPython(&[]);
        let module = "usr/lib/python3/dist-packages/sympy/core/add.py";
        assert_eq!(mapped(kind, module).as_deref(), Some("site-packages/sympy/core/add.py"));
        assert_eq!(mapped(kind, "usr/lib/python3/dist-packages/sympy/core/tests/t.py"), None);
        assert_eq!(mapped(kind, "usr/bin/isympy3"), None);
    }

    #[test]
    fn links_are_relative_and_those_out_of_the_package_are_dropped() {
        let target =
            |link: &str, target: &str| link_target(Kind::Platform, &ImagePath::new(link).unwrap(), target.as_bytes());
        let torch = "lib/python3/dist-packages/torch/lib/libc10.so";
        assert_eq!(
            target(torch, "/usr/lib/x86_64-linux-gnu/libc10.so.2.6").as_deref(),
            Some("../../../../x86_64-linux-gnu/libc10.so.2.6")
        );
        assert_eq!(target("lib/libz.so.1", "libz.so.1.3.1").as_deref(), Some("libz.so.1.3.1"));
        assert_eq!(target("lib/python3.13/sitecustomize.py", "/etc/python3.13/sitecustomize.py"), None);
        assert_eq!(target("bin/x", "../../../etc/passwd"), None);
        let development = "../../../../x86_64-linux-gnu/python3-numpy/numpy/_core/lib";
        assert_eq!(target("lib/python3/dist-packages/numpy/_core/lib", development), None);
    }

    #[test]
    fn scripts_run_the_python_of_the_environment() {
        let here = placeholder();
        for (debian, conda) in [
            ("#!/usr/bin/python3\nx\n", format!("#!{here}/bin/python3\nx\n")),
            ("#! /usr/bin/python3.13\nx\n", format!("#!{here}/bin/python3.13\nx\n")),
            ("#!/bin/sh\nexec /usr/bin/python3.13 x\n", format!("#!/bin/sh\nexec {here}/bin/python3.13 x\n")),
        ] {
            assert_eq!(interpreter_of_prefix(debian.as_bytes()), Some(conda.into_bytes()));
        }
        let latin1 = interpreter_of_prefix(b"#!/usr/bin/python3\n\xe9").unwrap();
        assert_eq!(latin1, [format!("#!{here}/bin/python3\n").as_bytes(), b"\xe9"].concat());
        assert_eq!(interpreter_of_prefix(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter_of_prefix(b"\x7fELF /usr/bin/python3"), None);
    }
}
