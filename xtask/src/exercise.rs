//! A workspace of the exercise: its name and the places of its files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::pins;

/// A directory with a `pixi.toml`: the learner's, or the rehearsal's copy of it.
#[derive(Clone, Debug)]
pub struct Workspace {
    directory: PathBuf,
    name: String,
}

impl Workspace {
    /// The workspace in `directory`; the directory's name becomes the image's name.
    pub fn new(directory: PathBuf) -> Result<Self> {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ends = |c: char| c.is_ascii_alphanumeric();
        if !name.chars().all(fits) || !name.starts_with(ends) || !name.ends_with(ends) || name.contains("--") {
            bail!(
                "the workspace {} cannot name an image\n  hint: name its directory with letters, digits and single dashes",
                directory.display()
            );
        }
        Ok(Self { directory, name })
    }

    /// The same workspace at another place.
    pub fn copied_to(&self, parent: &Path) -> Self {
        Self { directory: parent.join(&self.name), name: self.name.clone() }
    }

    /// The name of the workspace and of its images.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `pixi.toml`.
    pub fn manifest(&self) -> PathBuf {
        self.directory.join("pixi.toml")
    }

    /// `.gitignore`, which `pixi init` writes.
    pub fn ignored(&self) -> PathBuf {
        self.directory.join(".gitignore")
    }

    /// `pixi.lock`.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("pixi.lock")
    }

    /// `base.lock`: the digests of base images.
    pub fn base_lock(&self) -> PathBuf {
        self.directory.join("base.lock")
    }

    /// `app`: what the image holds at /app/src.
    pub fn app(&self) -> PathBuf {
        self.directory.join("app")
    }

    /// The lesson's script.
    pub fn script(&self) -> PathBuf {
        self.app().join(pins::SCRIPT_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_image_can_have_is_refused() {
        assert_eq!(Workspace::new("a/CUDA-Exercise".into()).unwrap().name(), "cuda-exercise");
        for bad in ["a b", "..", "/", "x--y", "-x", "ä"] {
            assert!(Workspace::new(bad.into()).is_err(), "{bad}");
        }
    }
}
