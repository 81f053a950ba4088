//! `pixi-image test`: what it finds complete, and what it says when something lacks.

use serde_json::json;

use crate::image::Tree;
use crate::sandbox::{Ended, Sandbox};

const PREFIX: &str = "app/.pixi/envs/gpu";
const SHA: &str = "fe51de6107f9edc7aa4f786a70f4a883943bc9d39b3bb7307c04c41410990726";

/// A lock of two packages.
fn lock() -> String {
    let files = ["linux-64/python-3.12.1-0.conda", "noarch/tiny-1.0-h_0.conda"];
    let list = |before: &str, after: &str| {
        files.map(|file| format!("{before}- conda: https://example.org/c/{file}\n{after}")).concat()
    };
    format!(
        "version: 6\nenvironments:\n  gpu:\n    channels:\n    - url: https://example.org/c/\n    packages:\n      \
         linux-64:\n{}packages:\n{}",
        list("      ", ""),
        list("", &format!("  sha256: {SHA}\n"))
    )
}

/// An environment with a python that tells what the checks ask it for.
fn complete() -> Tree {
    let python = format!("#!/bin/sh\nprintf '%s\\n' \"$CONDA_PREFIX\" \"$PATH\" /{PREFIX}\n");
    let record = |files: &[&str]| json!({"name": "x", "files": files}).to_string();
    Tree::with_programs()
        .file(&format!("{PREFIX}/bin/python"), &python, 0o755)
        .file(&format!("{PREFIX}/share/tiny"), "", 0o644)
        .file(&format!("{PREFIX}/conda-meta/python-3.12.1-0.json"), &record(&["bin/python"]), 0o644)
        .file(&format!("{PREFIX}/conda-meta/tiny-1.0-h_0.json"), &record(&["share/tiny"]), 0o644)
}

fn activated() -> serde_json::Value {
    json!({"Env": [format!("CONDA_PREFIX=/{PREFIX}"), format!("PATH=/{PREFIX}/bin:/bin")]})
}

fn test(sandbox: &Sandbox, name: &str, tree: &Tree, config: serde_json::Value, command: &[&str]) -> Ended {
    let image = tree.oci(&sandbox.path(name), config);
    let (lock_path, cache) = (sandbox.path("pixi.lock"), sandbox.path("cache"));
    std::fs::write(&lock_path, lock()).unwrap();
    let options = ["--lock", lock_path.to_str().unwrap(), "--environment", "gpu", "--cache", cache.to_str().unwrap()];
    let start = [sandbox.program(), "test", image.to_str().unwrap(), "--no-gpu"];
    Ended::of(&mut sandbox.as_user(&[&start[..], &options, command].concat()))
}

#[test]
fn a_complete_image_passes_with_a_line_for_each_check() {
    let Some(sandbox) = Sandbox::new() else { return };
    let ended = test(&sandbox, "image", &complete(), activated(), &["--", "sh", "-c", "echo \"out put\""]);
    for line in [
        "ok: 2 packages with 2 files are in /app/.pixi/envs/gpu\n",
        "ok: /app/.pixi/envs/gpu is activated, and `python` is its own\n",
        "ok: `sh -c echo \"out put\"` succeeded\n",
    ] {
        assert!(ended.stderr.contains(line), "{ended:?}");
    }
    assert_eq!(ended.ok(), "out put\n");
}

#[test]
fn everything_that_lacks_is_said() {
    let Some(sandbox) = Sandbox::new() else { return };
    let many: Vec<_> = (0..20).map(|number| format!("lost/{number}")).collect();
    let tree = complete().file(
        &format!("{PREFIX}/conda-meta/python-3.12.1-0.json"),
        &json!({"files": many}).to_string(),
        0o644,
    );
    let ended = test(&sandbox, "lost", &tree, activated(), &["--", "sh", "-c", "exit 3"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let words = ["python-3.12.1-0: /app/.pixi/envs/gpu/lost/9", "and 10 more", "hint", "failed: `sh -c exit 3`", "3"];
    assert!(words.iter().all(|word| ended.stderr.contains(word)), "{ended:?}");
    assert!(ended.stderr.contains("ok: /app/.pixi/envs/gpu is activated"), "{ended:?}");

    let empty = test(&sandbox, "empty", &Tree::with_programs(), activated(), &[]);
    assert_eq!(empty.code, Some(1), "{empty:?}");
    assert!(empty.stderr.contains("no record /app/.pixi/envs/gpu/conda-meta/tiny-1.0-h_0.json"), "{empty:?}");
}

#[test]
fn an_environment_that_is_not_activated_is_found() {
    let Some(sandbox) = Sandbox::new() else { return };
    let bin = format!("/{PREFIX}/bin");
    for (name, env, words) in [
        ("bare", vec![format!("PATH={bin}:/bin")], "CONDA_PREFIX is ``, expected `/app/.pixi/envs/gpu`"),
        (
            "late",
            vec![format!("CONDA_PREFIX=/{PREFIX}"), format!("PATH=/bin:{bin}")],
            "first directory of PATH is `/bin`",
        ),
    ] {
        let ended = test(&sandbox, name, &complete(), json!({"Env": env}), &[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}
