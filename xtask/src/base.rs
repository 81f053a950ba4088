//! The base image's digest, kept beside the lock: a tag moves, and an image must not change by itself.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::external::{Program, Programs};

/// What stands above the pins.
const HEAD: &str =
    "# The base images, each as its tag meant it when it was first used. Delete a line to look the tag up again.\n";

/// Whether `reference` names an image of a registry by something that may move: no file, no digest, and not a name without
/// a host, which may be known to an engine's own store alone.
pub fn floats(cx: &Context, reference: &str) -> bool {
    names_host(reference) && !reference.contains('@') && !cx.resolve(reference).exists()
}

/// What stands before the first slash is a host where it could not be part of a name.
fn names_host(reference: &str) -> bool {
    let host = reference.split_once('/').map(|(host, _)| host);
    host.is_some_and(|host| host == "localhost" || host.contains(['.', ':']))
}

/// The reference by digest: as `file` has it, else as the registry says now, which is written there.
pub fn pinned(cx: &Context, programs: &Programs<'_>, file: &Path, reference: &str) -> Result<String> {
    let pins = cx.read_file(file).unwrap_or_else(|_| HEAD.to_owned());
    if let Some(pinned) = find(&pins, reference) {
        return Ok(pinned.to_owned());
    }
    if cx.options.offline {
        return Ok(reference.to_owned());
    }
    let line = programs.command(Program::PixiImage)?.arg("resolve").arg(reference);
    let Some(said) = cx.read(&line)? else { return Ok(reference.to_owned()) };
    let resolved = said.trim();
    let digest = resolved.rsplit_once("@sha256:").map(|(_, digest)| digest).unwrap_or_default();
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_digest, "`pixi-image resolve {reference}` said {resolved:?}, which names no digest");
    cx.publish(file, format!("{pins}{reference} {resolved}\n").as_bytes())?;
    Ok(resolved.to_owned())
}

fn find<'t>(pins: &'t str, reference: &str) -> Option<&'t str> {
    let lines = pins.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).find(|(tag, _)| *tag == reference).map(|(_, pinned)| pinned.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_host_may_be_in_an_engines_store_alone() {
        assert_eq!(["ghcr.io/a/b:c", "localhost/a", "127.0.0.1:5000/a"].map(names_host), [true; 3]);
        assert_eq!(["ubuntu:24.04", "library/ubuntu", "scratch"].map(names_host), [false; 3]);
    }

    #[test]
    fn a_pin_is_found_by_the_whole_reference() {
        let pins = format!("{HEAD}h/b:1 h/b@sha256:01\nh/b:12 h/b@sha256:12\n");
        assert_eq!((find(&pins, "h/b:12"), find(&pins, "h/b:1")), (Some("h/b@sha256:12"), Some("h/b@sha256:01")));
        assert_eq!((find(&pins, "h/b"), find(HEAD, "#")), (None, None));
    }
}
