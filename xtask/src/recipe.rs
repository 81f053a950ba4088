//! The recipes of the lesson's tools: Dockerfile, .dockerignore and apptainer.def.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::engine::Format;
use crate::lesson;
use crate::pins;

/// A recipe file: its name in the workspace, and its text.
pub struct Recipe {
    /// The file's name.
    pub name: &'static str,
    /// What it holds.
    pub text: &'static str,
}

/// The files of a format's recipe in the workspace, the recipe itself first.
pub fn files(format: Format) -> Result<Vec<Recipe>> {
    let names: &[&'static str] = match format {
        Format::Docker => &["Dockerfile", ".dockerignore"],
        Format::Apptainer => &["apptainer.def"],
    };
    names.iter().map(|name| Ok(Recipe { name, text: text("recipes", name)? })).collect()
}

/// The lesson's recipe as printed, and what must stand beside it: BuildKit takes the ignore file of this name instead of
/// the workspace's, so that nothing is ignored.
pub fn exact_files(format: Format) -> Result<Vec<Recipe>> {
    let recipe = Recipe { name: format.recipe(), text: text("exact", format.recipe())? };
    Ok(match format {
        Format::Docker => vec![recipe, Recipe { name: "Dockerfile.dockerignore", text: "" }],
        Format::Apptainer => vec![recipe],
    })
}

fn text(directory: &str, name: &str) -> Result<&'static str> {
    let path = format!("{directory}/{name}");
    lesson::text(&path).with_context(|| format!("xtask was built without its lesson/{path}"))
}

/// The text with every mention of the lesson's base image, whatever its tag or digest, replaced by another reference.
pub fn with_base(text: &str, base: &str) -> String {
    let mut parts = text.split(pins::BASE_REPOSITORY);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let of_reference = |c: char| c.is_ascii_alphanumeric() || ":@._-".contains(c);
        result += base;
        result += part.trim_start_matches(of_reference);
    }
    result
}

/// Where the exact recipe's files stand: not in the workspace, which holds ours.
pub fn exact_directory(cx: &Context, source: &str, workspace: &str) -> PathBuf {
    cx.target().join("xtask").join(source).join(workspace).join("exact")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_replaced_wherever_it_stands() {
        let text = "FROM ghcr.io/prefix-dev/pixi:noble AS build\nFrom: ghcr.io/prefix-dev/pixi@sha256:0f\nARG BASE=\"ghcr.io/prefix-dev/pixi:0.77.0-noble\"\n";
        assert_eq!(with_base(text, "h/b:t"), "FROM h/b:t AS build\nFrom: h/b:t\nARG BASE=\"h/b:t\"\n");
    }

    #[test]
    fn all_recipes_name_the_pinned_base_or_the_lessons() {
        for format in Format::ALL {
            assert!(files(format).unwrap()[0].text.contains(pins::BASE));
            assert!(exact_files(format).unwrap()[0].text.contains("ghcr.io/prefix-dev/pixi:noble"));
        }
    }
}
