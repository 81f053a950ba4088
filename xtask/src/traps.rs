//! The traps of the lesson's recipes, as they show in files: one entry for each in this table.

/// A trap. What it is in full, `cargo xtask explain traps` says.
pub struct Trap {
    /// `T07`.
    pub id: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What to do about it.
    pub mend: &'static str,
    /// Finds it in a file of that name: the lines, counted from 1, and what is wrong there.
    in_file: fn(&str, &str) -> Vec<(usize, String)>,
}

/// A trap that a file is in.
pub struct Finding {
    /// Which one.
    pub trap: &'static Trap,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// In the order of their ids.
pub const TRAPS: &[Trap] = &[Trap {
    id: "T07",
    title: "a base image that floats",
    mend: "name a version of the base, best by digest",
    in_file: floating_base,
}];

/// The traps that a file with this text is in; `name` is the file's name without its directory.
pub fn in_file(name: &str, text: &str) -> Vec<Finding> {
    let found = |trap: &'static Trap| {
        (trap.in_file)(name, text).into_iter().map(move |(line, what)| Finding { trap, line, what })
    };
    TRAPS.iter().flat_map(found).collect()
}

fn floating_base(name: &str, text: &str) -> Vec<(usize, String)> {
    if !["Dockerfile", "apptainer.def"].contains(&name) {
        return Vec::new();
    }
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains("prefix-dev/pixi:noble"));
    lines
        .map(|(index, _)| (index + 1, "ghcr.io/prefix-dev/pixi:noble means another image each month".to_owned()))
        .collect()
}
