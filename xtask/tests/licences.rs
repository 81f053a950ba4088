//! What the project is built from: licences that go with its own, and packages of the registry alone.

use std::path::Path;
use std::process::Command;

/// Licences that allow our binaries under MIT. MPL-2.0 binds the files that carry it, which we do not change.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_a_licence_that_we_may_use() {
    let refused: Vec<String> = dependencies("{l}\t{p}")
        .into_iter()
        .filter(|line| !line.split_once('\t').is_some_and(|(licence, _)| accepted(licence)))
        .collect();
    assert!(refused.is_empty(), "neither known nor accepted (licence, package):\n{}", refused.join("\n"));
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project");
    let own = format!("({}", project.display());
    // Cargo names the source in parentheses, unless it is the default registry.
    let foreign: Vec<String> = dependencies("{p}")
        .into_iter()
        .filter(|package| package.replace("(proc-macro)", "").replace(&own, "").contains('('))
        .collect();
    assert!(foreign.is_empty(), "not from the registry:\n{}", foreign.join("\n"));
}

#[test]
fn licence_expressions_are_understood() {
    for fine in ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND ISC", "ISC AND (GPL-3.0 OR (MIT))"] {
        assert!(accepted(fine), "{fine}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT AND GPL-3.0) OR GPL-3.0", "Apache-2.0 WITH other", "(MIT"] {
        assert!(!accepted(bad), "{bad}");
    }
}

/// One line for each package of the workspace's tree, on every platform and in tests too.
fn dependencies(format: &str) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--workspace", "--locked", "--target", "all", "--edges", "normal,build,dev"]);
    cargo.args(["--prefix", "none", "--format", format]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let tree = cargo.output().expect("cargo starts");
    assert!(tree.status.success(), "cargo tree failed:\n{}", String::from_utf8_lossy(&tree.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect();
    lines.sort();
    lines.dedup();
    assert!(lines.len() > 100, "the tree has {} packages: was it read right?", lines.len());
    lines
}

/// Whether an SPDX expression leaves us a choice of [`ACCEPTED`] licences. Older packages write `/` for OR.
fn accepted(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words) == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `all (OR all)*`; nothing if it is no expression.
fn any_of(words: &mut Words) -> Option<bool> {
    let mut accepted = all_of(words)?;
    while words.next_if_eq(&"OR").is_some() {
        accepted |= all_of(words)?;
    }
    Some(accepted)
}

/// `one (AND one)*`.
fn all_of(words: &mut Words) -> Option<bool> {
    let mut accepted = one_of(words)?;
    while words.next_if_eq(&"AND").is_some() {
        accepted &= one_of(words)?;
    }
    Some(accepted)
}

/// A licence, with or without an exception, or an expression in parentheses.
fn one_of(words: &mut Words) -> Option<bool> {
    if words.next_if_eq(&"(").is_some() {
        let accepted = any_of(words)?;
        return words.next_if_eq(&")").map(|_| accepted);
    }
    let mut licence = words.next()?.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next()?);
    }
    Some(ACCEPTED.contains(&licence.as_str()))
}
