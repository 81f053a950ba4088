//! A command as a value: built purely, shown as the learner could type it, and run in one place, `Context`.

use std::fmt;
use std::path::{Path, PathBuf};

/// One external command. Its `Display` is what a learner can type in the repository's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    program: String,
    executable: PathBuf,
    arguments: Vec<String>,
    directory: Option<String>,
}

impl CommandLine {
    /// A program that is found on `PATH`.
    pub fn new(program: &str) -> Self {
        Self { program: program.to_owned(), executable: PathBuf::from(program), arguments: Vec::new(), directory: None }
    }

    /// A program that is typed as `program` and started as `executable`.
    pub fn with_executable(program: &str, executable: &Path) -> Self {
        Self { program: program.to_owned(), executable: executable.to_owned(), arguments: Vec::new(), directory: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    pub fn args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds `--name value`.
    pub fn option(self, name: &str, value: impl Into<String>) -> Self {
        self.arg(name).arg(value)
    }

    /// Runs it in a directory, as typed, instead of the repository's root.
    pub fn in_directory(mut self, directory: impl Into<String>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Where it runs, if not in the repository's root.
    pub fn directory(&self) -> Option<&str> {
        self.directory.as_deref()
    }

    /// What is started.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// What it is started with.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The program and its subcommand, to name it in a sentence.
    pub fn short(&self) -> String {
        let subcommand = self.arguments.first().filter(|first| !first.starts_with('-') && !first.contains('/'));
        [Some(&self.program), subcommand].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.directory {
            write!(f, "(cd {} && ", quoted(directory))?;
        }
        f.write_str(&quoted(&self.program))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))?;
        if self.directory.is_some() { f.write_str(")") } else { Ok(()) }
    }
}

/// Quotes a word for a POSIX shell where it needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let line = CommandLine::new("pixi").args(["add", "pytorch-cpu=*", "it's", "", "a b"]).option("--env", "gpu");
        assert_eq!(line.to_string(), r"pixi add 'pytorch-cpu=*' 'it'\''s' '' 'a b' --env gpu");
        assert_eq!(line.short(), "pixi add");
        assert_eq!(CommandLine::new("ls").arg("x").in_directory("a b").to_string(), "(cd 'a b' && ls x)");
    }
}
