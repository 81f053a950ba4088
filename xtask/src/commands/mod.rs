//! The commands that go over all steps and know none by name.

use anyhow::Result;

use crate::context::Context;

mod all;
mod status;

/// A command that is no step.
pub struct Generic {
    /// What is typed after `cargo xtask`.
    pub name: &'static str,
    /// What it does, in at most 60 characters.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Context) -> Result<()>,
}

/// In the order of the help.
pub const COMMANDS: &[Generic] = &[
    Generic { name: "all", about: "Do every step that is not done yet, and sum up", run: all::run },
    Generic { name: "status", about: "Show which steps are done", run: status::run },
];
