//! A terminal with somebody at it: script(1) makes it, the test reads and types.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A program that runs on a terminal.
pub struct Terminal {
    process: Child,
    /// Everything that it showed, as text.
    seen: String,
    /// Up to where it was looked at.
    at: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of so many columns; none without script(1).
    pub fn start(command: &Command, columns: u16) -> Option<Self> {
        if !Path::new("/usr/bin/script").exists() {
            eprintln!("SKIPPED: needs script(1)");
            return None;
        }
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        // `script` has a shell start it, which would wait and get Ctrl-C too, were it not for `exec`.
        let line = format!("/bin/stty rows 24 cols {columns}; exec {}", words.join(" "));
        let mut script = Command::new("/usr/bin/script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
        script.env("SHELL", "/bin/sh").env("TERM", "xterm");
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.current_dir(command.get_current_dir().unwrap());
        let process = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Some(Self { process, seen: String::new(), at: 0 })
    }

    /// Reads until the program showed this, behind what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        while !self.seen[self.at..].contains(text) {
            assert!(self.read_more(), "it ended without {text:?}:\n{}", self.seen);
        }
        self.at += self.seen[self.at..].find(text).unwrap() + text.len();
    }

    /// Types this.
    pub fn type_in(&mut self, keys: &str) {
        self.process.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end: all that was seen, with the line ends of a file, and the exit code.
    pub fn end(mut self) -> (String, i32) {
        while self.read_more() {}
        let code = self.process.wait().unwrap().code().unwrap();
        (self.seen.replace("\r\n", "\n"), code)
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = self.process.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
        self.seen += std::str::from_utf8(&buffer[..count]).unwrap();
        count > 0
    }
}
