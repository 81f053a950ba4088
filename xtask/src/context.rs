//! Every effect passes here: processes, files, the environment, the clock.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use xshell::Shell;

use crate::command_line::CommandLine;
use crate::interrupt::Interrupts;
use crate::options::Options;
use crate::ui::Ui;

mod exchange;
mod measure;

pub use exchange::{Entry, Exchange};
pub use measure::Usage;

/// How long a command may take that only says what there is: a daemon that hangs must not stop everything.
const GLANCE: Duration = Duration::from_secs(5);

/// The repository, the options, and the way to act on the machine.
#[derive(Clone)]
pub struct Context {
    shell: Shell,
    /// Where xtask was started.
    here: PathBuf,
    root: PathBuf,
    target: PathBuf,
    /// What was typed.
    pub options: Options,
    /// The way to speak.
    pub ui: Ui,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

/// A command ended with another exit code than 0, after it said why.
#[derive(Debug)]
pub struct Ended {
    command: String,
    /// The exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
}

impl std::error::Error for Ended {}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with exit code {}; what it said stands above", self.command, self.code)
    }
}

/// All that there is to say was said: the exit code is 1, and no error is printed.
#[derive(Debug)]
pub struct Told;

impl std::error::Error for Told {}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what there is to say was said")
    }
}

/// What a command wrote, and how it ended.
pub struct Output {
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text; empty where it went to the terminal.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

impl Context {
    /// Prepares commands to run in the repository's root.
    pub fn new(options: Options) -> Result<Self> {
        let (ui, interrupts) = (Ui::new(&options), Interrupts::watch());
        Self::with(options, ui, interrupts)
    }

    /// Another one that runs nothing: its `ui` records what would be typed.
    pub fn planning(&self) -> Result<Self> {
        let options = Options { dry_run: true, ..self.options.clone() };
        Self::with(options, Ui::recording(), self.interrupts.clone())
    }

    fn with(mut options: Options, ui: Ui, interrupts: Interrupts) -> Result<Self> {
        let root = project_root()?;
        let named = || env::var_os("XTASK_BUNDLE").filter(|value| !value.is_empty()).map(PathBuf::from);
        options.bundle = options.bundle.or_else(named);
        options.offline |= options.bundle.is_some();
        let shell = Shell::new().context("find the current directory")?;
        let here = shell.current_dir();
        shell.change_dir(&root);
        if options.plain {
            // How things look is not part of a command, so these are not shown with it.
            shell.set_var("NO_COLOR", "1");
            shell.set_var("CARGO_TERM_COLOR", "never");
            shell.set_var("CARGO_TERM_PROGRESS_WHEN", "never");
        }
        let target = root.join(env::var_os("CARGO_TARGET_DIR").map_or(PathBuf::from("target"), PathBuf::from));
        Ok(Self { shell, here, root, target, ui, interrupts, options })
    }

    /// The target directory: cargo's, and all that is made here.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A path as typed, from the repository's root.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A path as it is typed in the repository's root.
    pub fn typed(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).ok().filter(|inside| !inside.as_os_str().is_empty());
        let text = inside.unwrap_or(path).display().to_string();
        if cfg!(windows) { text.replace('\\', "/") } else { text }
    }

    /// A command of the repository's root as it can be typed where xtask was started.
    pub fn pasted(&self, line: CommandLine) -> CommandLine {
        let is_root = self.here.canonicalize().ok() == self.root.canonicalize().ok();
        if is_root { line } else { line.in_directory(self.root.display().to_string()) }
    }

    /// An environment variable that is set to something.
    pub fn env(&self, name: &str) -> Option<PathBuf> {
        env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The moment, to measure from.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Whether a program is on `PATH`.
    pub fn on_path(&self, program: &str) -> bool {
        let name = format!("{program}{}", env::consts::EXE_SUFFIX);
        env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(&name).is_file()))
    }

    /// Shows and runs a command with this process's streams; another exit code than 0 is an error. A dry run only shows it.
    pub fn execute(&self, line: &CommandLine) -> Result<()> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(());
        }
        let status = self.command(line)?.status().map_err(|error| cannot_start(line, &error))?;
        self.interrupts.check()?;
        ended(line, code(status))
    }

    /// Shows and runs a command and takes its standard output; nothing in a dry run.
    pub fn read(&self, line: &CommandLine) -> Result<Option<String>> {
        let output = self.output(line, Stdio::inherit())?;
        output.map(|output| ended(line, output.code).map(|()| output.stdout)).transpose()
    }

    /// Shows and runs a command and takes all that it wrote, however it ended; nothing in a dry run.
    pub fn ask(&self, line: &CommandLine) -> Result<Option<Output>> {
        self.output(line, Stdio::piped())
    }

    /// Runs a command that only looks, so without showing it, even in a dry run.
    pub fn look(&self, line: &CommandLine) -> Result<Output> {
        self.capture(line, Stdio::piped())
    }

    /// The same for a command that says what there is here, in a moment or not at all.
    pub fn glance(&self, line: &CommandLine) -> Result<Output> {
        self.look_within(line, GLANCE)
    }

    /// The same with a limit, at which the command is ended.
    pub fn look_within(&self, line: &CommandLine, limit: Duration) -> Result<Output> {
        let end = Instant::now() + limit;
        let started = self.command(line)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| cannot_start(line, &error))?;
        let (stdout, stderr) = (collect(process.stdout.take()), collect(process.stderr.take()));
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match process.try_wait().with_context(|| format!("wait for {}", line.short()))? {
                Some(status) => break status,
                None if Instant::now() >= end => {
                    let _ = process.kill(); // it may have ended just now
                    let _ = process.wait();
                    bail!("`{}` does not answer within {} s", line.short(), limit.as_secs());
                }
                None => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        self.interrupts.check()?;
        // What it started may hold its streams open.
        let text = |stream: mpsc::Receiver<Vec<u8>>| {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            String::from_utf8_lossy(&stream.recv_timeout(left).unwrap_or_default()).into_owned()
        };
        Ok(Output { stdout: text(stdout), stderr: text(stderr), code: code(status) })
    }

    /// Does the work on all items at the same time; what comes of it is in their order.
    pub fn at_once<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&Self, &T) -> R + Sync) -> Vec<R> {
        let work = &work;
        thread::scope(|scope| {
            let start = |item| {
                let twin = self.clone();
                scope.spawn(move || work(&twin, item))
            };
            let threads: Vec<_> = items.iter().map(start).collect();
            let end = |thread: thread::ScopedJoinHandle<'_, R>| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(end).collect()
        })
    }

    /// Whether something listens there, or why not.
    pub fn connects(&self, host: &str, port: u16, limit: Duration) -> Result<(), String> {
        let (tell, told) = mpsc::channel();
        let place = (host.to_owned(), port);
        // Names are looked up without a limit of ours.
        thread::spawn(move || {
            let connect = || {
                let addresses = place.to_socket_addrs().map_err(|error| error.to_string())?;
                let mut reason = "the name has no address".to_owned();
                for address in addresses {
                    match TcpStream::connect_timeout(&address, limit) {
                        Ok(_) => return Ok(()),
                        Err(error) => reason = error.to_string(),
                    }
                }
                Err(reason)
            };
            let _ = tell.send(connect()); // nobody waits for it any more
        });
        told.recv_timeout(limit).unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
    }

    /// The directory that the command was typed in.
    pub fn standing_in(&self) -> Option<PathBuf> {
        env::current_dir().ok()
    }

    fn output(&self, line: &CommandLine, stderr: Stdio) -> Result<Option<Output>> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(None);
        }
        self.capture(line, stderr).map(Some)
    }

    fn capture(&self, line: &CommandLine, stderr: Stdio) -> Result<Output> {
        let started = self.command(line)?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let output = started.and_then(Child::wait_with_output).map_err(|error| cannot_start(line, &error))?;
        self.interrupts.check()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { stdout: text(output.stdout), stderr: text(output.stderr), code: code(output.status) })
    }

    /// Shows a command and becomes it, so that signals, terminal and exit code are the command's own.
    pub fn replace(&self, line: &CommandLine) -> Result<()> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(());
        }
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            Err(cannot_start(line, &self.command(line)?.exec()))
        }
        #[cfg(not(unix))]
        {
            let status = self.command(line)?.status().map_err(|error| cannot_start(line, &error))?;
            std::process::exit(code(status))
        }
    }

    /// Shows and runs a command whose standard output goes on to ours as it comes, and is kept; nothing in a dry run.
    pub fn tee(&self, line: &CommandLine) -> Result<Option<Output>> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(None);
        }
        let started = self.command(line)?.stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| cannot_start(line, &error))?;
        let mut stdout = String::new();
        let mut reader = BufReader::new(process.stdout.take().context("a pipe was asked for")?);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).with_context(|| format!("read from {}", line.short()))? > 0 {
            let text = String::from_utf8_lossy(&bytes);
            self.ui.result(text.trim_end_matches('\n'));
            stdout += &text;
            bytes.clear();
        }
        let status = process.wait().with_context(|| format!("wait for {}", line.short()))?;
        self.interrupts.check()?;
        Ok(Some(Output { stdout, stderr: String::new(), code: code(status) }))
    }

    /// Ends this process as the command ended that it ran.
    pub fn end_with(&self, code: i32) -> ! {
        std::process::exit(code)
    }

    /// Shows and starts a server that prints its address as the first line and ends with its standard input.
    pub fn serve(&self, line: &CommandLine) -> Result<Option<Server>> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(None);
        }
        let started = self.command(line)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| cannot_start(line, &error))?;
        let stdin = process.stdin.take();
        let mut address = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut address).with_context(|| format!("read from {}", line.short()))?;
        }
        let mut server = Server { process, stdin, address: address.trim().to_owned() };
        if server.address.is_empty() {
            drop(server.stdin.take());
            let status = server.process.wait().with_context(|| format!("wait for {}", line.short()))?;
            self.interrupts.check()?;
            ended(line, code(status))?;
            bail!("`{}` ended without serving anything", line.short());
        }
        Ok(Some(server))
    }

    /// What is started of it, unless somebody asked for the end.
    fn command(&self, line: &CommandLine) -> Result<Command> {
        self.interrupts.check()?;
        let mut command: Command = self.shell.cmd(line.executable()).args(line.arguments()).into();
        if let Some(directory) = line.directory() {
            command.current_dir(self.resolve(directory));
        }
        Ok(command)
    }

    /// The command that was typed to start this program, without these of its options that take a value.
    pub fn own_command(&self, without: &[&str]) -> CommandLine {
        let mut line = CommandLine::new("cargo").arg("xtask");
        let mut words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let name = word.split('=').next().unwrap_or_default();
            match without.contains(&name) {
                true if name == word => drop(words.next()),
                true => {}
                false => line = line.arg(word),
            }
        }
        line
    }

    /// Asks on the terminal; only a yes is one.
    pub fn confirm(&self, question: &str) -> Result<bool> {
        let answer = self.prompt(&format!("{question} [y/N]"))?.unwrap_or_default();
        Ok(["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()))
    }

    /// Asks on the terminal, and takes one line; none when there is nothing more to come.
    pub fn prompt(&self, question: &str) -> Result<Option<String>> {
        let mut answer = Vec::new();
        let ask = || {
            self.ui.prompt(question);
            io::stdin().lock().read_until(b'\n', &mut answer)
        };
        self.interrupts.while_asking(ask)?.context("read from the terminal")?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.ends_with('\n').then(|| answer.trim().to_owned()))
    }

    /// Whether somebody types and reads.
    pub fn has_terminal(&self) -> bool {
        self.ui.has_terminal()
    }

    /// Lets `work` write the file `partial` beside the place of `path`, then makes it visible there: synced, renamed. What
    /// a failure leaves is removed. Its size in bytes; none in a dry run.
    pub fn write_beside(&self, path: &str, partial: &str, work: impl FnOnce() -> Result<()>) -> Result<Option<u64>> {
        if self.options.dry_run {
            work()?;
            self.ui.would(format_args!("renames {partial} to {path}"));
            return Ok(None);
        }
        let (from, to) = (self.resolve(partial), self.resolve(path));
        let directory = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", self.typed(directory)))?;
        self.remove(&from)?;
        let put = || -> io::Result<u64> {
            let file = fs::File::open(&from)?;
            file.sync_all()?;
            fs::rename(&from, &to)?;
            file.metadata().map(|metadata| metadata.len())
        };
        let written = work().and_then(|()| put().with_context(|| format!("cannot put {path} in its place")));
        if written.is_err() {
            self.remove(&from)?;
        }
        written.map(Some)
    }

    /// Reads a text file.
    pub fn read_file(&self, path: &Path) -> Result<String> {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", self.typed(path)))
    }

    /// The size of a file in bytes, where it is there.
    pub fn size(&self, path: &Path) -> Option<u64> {
        fs::metadata(path).ok().map(|metadata| metadata.len())
    }

    /// Makes a file visible whole: written beside its place, synced, renamed. A dry run only says so.
    pub fn publish(&self, path: &Path, content: &[u8]) -> Result<()> {
        if self.options.dry_run {
            self.ui.would(format_args!("writes {}", self.typed(path)));
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            let mut file = fs::File::create(&partial)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&partial); // nothing half-written stays, whatever stopped the write
            let hint = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "\n  hint: free some space there",
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    "\n  hint: make the place writable for you"
                }
                _ => "",
            };
            anyhow!("cannot write {}: {error}{hint}", self.typed(path))
        })
    }

    /// Makes `to` a copy of the directory `from`; no `from` makes an empty directory. A dry run only says so.
    pub fn mirror(&self, from: &Path, to: &Path) -> Result<()> {
        if self.options.dry_run {
            self.ui.would(format_args!("copies {} to {}", self.typed(from), self.typed(to)));
            return Ok(());
        }
        self.remove(to)?;
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", self.typed(to)))?;
        for file in self.files(from)? {
            let (from, to) = (from.join(&file), to.join(&file));
            let made = fs::create_dir_all(to.parent().unwrap_or(&self.root)).and_then(|()| fs::copy(&from, &to));
            made.with_context(|| format!("cannot copy {} to {}", self.typed(&from), self.typed(&to)))?;
        }
        Ok(())
    }

    /// The files below a directory, relative to it, in the order of their names; none when it is not there.
    pub fn files(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let entries = match fs::read_dir(directory.join(&below)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound && below.as_os_str().is_empty() => break,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot list {}", self.typed(&directory.join(&below))));
                }
            };
            for entry in entries {
                let entry = entry.with_context(|| format!("cannot list {}", self.typed(&directory.join(&below))))?;
                let path = below.join(entry.file_name());
                if directory.join(&path).is_dir() { pending.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        Ok(files)
    }

    /// What tells one version of a file from another without reading it, in hex; none where it is not there.
    pub fn identity(&self, path: &Path) -> Option<String> {
        let metadata = fs::metadata(path).ok()?;
        let mut hasher = DefaultHasher::new();
        (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        Some(format!("{:016x}", hasher.finish()))
    }

    /// This program.
    pub fn executable(&self) -> Result<PathBuf> {
        env::current_exe().context("cannot find the file of this program")
    }

    /// Makes the directory that a file will stand in. A dry run does not.
    pub fn directory_for(&self, path: &Path) -> Result<()> {
        let directory = path.parent().filter(|_| !self.options.dry_run);
        directory.map_or(Ok(()), |path| {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", self.typed(path)))
        })
    }

    /// Makes a directory with nothing in it.
    pub fn empty_directory(&self, path: &Path) -> Result<()> {
        self.remove(path)?;
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", self.typed(path)))
    }

    /// Gives a directory that is complete its place, in the place of what is there.
    pub fn put_directory(&self, from: &Path, to: &Path) -> Result<()> {
        self.remove(to)?;
        fs::rename(from, to).with_context(|| format!("cannot put {} in its place", self.typed(to)))
    }

    /// The names in a directory; none where it cannot be read.
    pub fn names(&self, directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Removes a file or a whole directory; nothing is there afterwards.
    pub fn remove(&self, path: &Path) -> Result<()> {
        self.shell.remove_path(path).with_context(|| format!("cannot remove {}", self.typed(path)))
    }
}

/// A server that lives as long as this value.
pub struct Server {
    process: Child,
    stdin: Option<ChildStdin>,
    /// What it printed first.
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.kill(); // it may be gone already
        let _ = self.process.wait();
    }
}

fn project_root() -> Result<PathBuf> {
    // cargo says at run time where the manifest is. Without cargo it is the checkout that we stand in, for what was compiled
    // in may name one that has moved, or is on another machine.
    let around = || env::current_dir().ok()?.ancestors().map(|place| place.join("xtask")).find(|place| is_ours(place));
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).or_else(around);
    let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let root = manifest.parent().filter(|root| root.is_dir());
    root.map(Path::to_owned)
        .ok_or_else(|| anyhow!("the repository {} is gone\n  hint: run `cargo xtask` inside of it", manifest.display()))
}

/// Other projects have a crate of that name, too.
fn is_ours(manifest: &Path) -> bool {
    manifest.join("Cargo.toml").is_file() && manifest.join("lesson/exercise/pixi.toml").is_file()
}

/// Reads a stream to its end, beside everything else.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes); // what came until it broke
        }
        let _ = tell.send(bytes);
    });
    told
}

fn ended(line: &CommandLine, code: i32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Ended { command: line.short(), code }.into()) }
}

fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal;
    }
    status.code().unwrap_or(1)
}

fn cannot_start(line: &CommandLine, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::NotFound => "\n  hint: it is not there; is it installed and on PATH?",
        ErrorKind::PermissionDenied => "\n  hint: it must be executable for you",
        _ => "",
    };
    anyhow!("cannot start {}: {error}{hint}", line.executable().display())
}
