//! Taste and architecture, checked: see ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules of xtask, lowest first: each may use those before it. A table of rows may be used by what stands behind
/// it; rows of one table stand side by side.
const RANKS: &[&[&str]] = &[
    &["pins", "command_line", "json", "lesson"],
    &["options", "manifest_edit", "exercise"],
    &["traps"],
    &["ui"],
    &["interrupt"],
    &["context"],
    &["stamp", "external", "git"],
    &["base", "built", "bundle", "plan", "rehearsal"],
    &["source", "engine"],
    &["engines", "recipe"],
    &["session"],
    &["step"],
    &["steps"],
    &["stations"],
    &["commands"],
    &["cli"],
    &["main"],
];

/// The modules of pixi-image, lowest first. Those of one row see nothing of each other.
const PIXI_IMAGE_RANKS: &[&[&str]] = &[
    &["entry", "model", "pieces", "progress", "secrets"],
    &["activation", "config", "hashed", "layers", "layout", "manifest", "publish", "tree"],
    &["http", "lock", "singularity", "source", "squashfs", "store"],
    &["clobber", "fetch", "pack", "sif", "solve"],
    &["archive", "registry", "runner"],
    &["build", "bundle", "inspect", "install"],
    &["bars", "verify"],
    &["commands"],
    &["main", "lib"],
];

/// What only some modules may name, and which.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("println!", &[]),
    ("eprintln!", &[]),
    ("io::stdout()", &["ui"]),
    ("io::stderr()", &["ui"]),
    ("Command::new(self", &[]),
    ("std::process::Command", &[]),
    ("process::{Child", &["context"]),
    ("Instant::now", &["context"]),
    ("SystemTime::now", &[]),
    ("fs::write", &[]),
    ("fs::remove", &["context"]),
    ("env::var", &["context", "ui"]),
    ("toml_edit", &["manifest_edit"]),
    ("xshell", &["context"]),
];

fn manifest_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below a directory, tests apart.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The first part of a file's module path.
fn module(path: &Path, sources: &Path) -> String {
    let below = path.strip_prefix(sources).unwrap();
    below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn rank(ranks: &[&[&str]], module: &str) -> usize {
    let rank = ranks.iter().position(|names| names.contains(&module));
    rank.unwrap_or_else(|| panic!("the module {module} has no rank: give it one in tests/tidy.rs"))
}

/// The text of a file without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

#[test]
fn imports_only_point_down() {
    for (directory, ranks) in [("src", RANKS), ("crates/pixi-image/src", PIXI_IMAGE_RANKS)] {
        let directory = manifest_directory().join(directory);
        for path in sources(&directory) {
            if path.ends_with("tests.rs") {
                continue;
            }
            let user = module(&path, &directory);
            for line in code(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
                for (at, found) in line.match_indices("crate::") {
                    let used: String =
                        line[at + found.len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                    assert!(
                        !line[at..].starts_with("crate::{"),
                        "{}: one `use` for each module, so that this test can read it",
                        path.display()
                    );
                    assert!(
                        used.is_empty() || used == user || rank(ranks, &used) < rank(ranks, &user),
                        "{} must not use {used}, which stands above or beside it",
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn effects_pass_through_their_one_module() {
    let directory = manifest_directory().join("src");
    for path in sources(&directory) {
        let (module, code) = (module(&path, &directory), code(&path));
        for (name, allowed) in ONLY_IN {
            assert!(
                allowed.contains(&module.as_str()) || !code.contains(name),
                "{} must not name {name}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for_and_is_one_room() {
    for directory in ["src", "tests", "crates"] {
        for path in sources(&manifest_directory().join(directory)) {
            let text = fs::read_to_string(&path).unwrap();
            // `foo/tests.rs` is part of `foo`, which says it.
            let said = text.starts_with("//! ") || path.ends_with("tests.rs");
            assert!(said, "{}: the first line is no `//! ` sentence", path.display());
            assert!(text.ends_with('\n') && !text.contains("\r"), "{}: line ends", path.display());
            let spaces = text.lines().position(|line| line.ends_with([' ', '\t']));
            assert!(spaces.is_none(), "{}:{}: space at the end of the line", path.display(), spaces.unwrap_or(0) + 1);
            let in_tests = path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
            let lines = code(&path).lines().count();
            assert!(in_tests || lines <= 700, "{}: {lines} lines without its tests", path.display());
        }
    }
}

#[test]
fn the_thin_crate_stays_thin() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--package", "xtask", "--edges", "normal,build", "--prefix", "none", "--offline"])
        .current_dir(manifest_directory())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.len() <= 45, "{} crates: read the comment in Cargo.toml\n{crates:?}", crates.len());
    for heavy in ["tokio", "reqwest", "serde", "sha2", "tar", "pixi-image", "rehearsal"] {
        assert!(!crates.contains(heavy), "xtask must not depend on {heavy}");
    }
}

#[test]
fn the_top_level_is_as_the_readme_draws_it() {
    let root = manifest_directory().parent().unwrap();
    let known = ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "xtask", "cuda-exercise", "target"];
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || known.contains(&name.as_str()), "{name} does not belong at the top level");
    }
}

#[test]
fn the_exercise_is_the_start_with_every_step_done() {
    // pixi.toml is compared where `edit` is tested; the other files no step changes, or as xtask writes them.
    let root = manifest_directory().parent().unwrap();
    for (place, file) in [
        ("exercise", ".gitignore"),
        ("exercise", ".gitattributes"),
        ("recipes", "Dockerfile"),
        ("recipes", ".dockerignore"),
        ("recipes", "apptainer.def"),
    ] {
        let start = fs::read_to_string(manifest_directory().join("lesson").join(place).join(file)).unwrap();
        assert_eq!(start, fs::read_to_string(root.join("cuda-exercise").join(file)).unwrap(), "{file}");
    }
}
