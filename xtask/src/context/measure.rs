//! Measures a command while it runs: time, CPU, memory and disk, as Linux shows them in /proc. Elsewhere the time alone.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Context, Server, cannot_start, code};
use crate::command_line::CommandLine;

/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(20);
/// At every so many ticks new processes are looked for, and what the disk holds: what is measured shares the CPUs with that.
const RARE_TICKS: u32 = 10;
/// In what /proc counts CPU time: Linux's USER_HZ, the same on every architecture that has images here.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// How many lines of what a failed command said are told.
const LAST_LINES: usize = 12;

/// What a command took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From its start to its end.
    pub elapsed: Duration,
    /// User and system time of it and of all that it waited for.
    pub cpu: Option<Duration>,
    /// The time that all CPUs were busy meanwhile, whoever with.
    pub machine: Option<Duration>,
    /// The most memory that its processes had together, in bytes; of one process, its own peak.
    pub memory: Option<u64>,
    /// The most that the watched directories took, and its files without a name, in bytes.
    pub disk: Option<u64>,
    /// What it wrote to its standard output.
    pub stdout: String,
}

/// The peaks that were seen.
#[derive(Clone, Copy, Default)]
struct Peaks {
    memory: u64,
    disk: u64,
}

impl Context {
    /// Shows and runs a command and measures it. What it says is told only if it fails. None in a dry run.
    pub fn measure(&self, line: &CommandLine, watched: &[PathBuf]) -> Result<Option<Usage>> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(None);
        }
        let (cpu, machine) = (cpu_of_children(), cpu_of_machine());
        let clock = Instant::now();
        let mut command = self.command(line)?;
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let process = started.map_err(|error| cannot_start(line, &error))?;
        let (pid, ended) = (process.id(), AtomicBool::new(false));
        let (output, elapsed, peaks) = thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(pid, watched, &ended));
            let output = Child::wait_with_output(process);
            let elapsed = clock.elapsed();
            ended.store(true, Ordering::Relaxed);
            (output, elapsed, watcher.join().unwrap_or_default())
        });
        let output = output.map_err(|error| cannot_start(line, &error))?;
        self.interrupts.check()?;
        let since = |before: Option<Duration>, now: Option<Duration>| Some(now?.saturating_sub(before?));
        let usage = Usage {
            elapsed,
            cpu: since(cpu, cpu_of_children()),
            machine: since(machine, cpu_of_machine()),
            memory: Some(peaks.memory).filter(|memory| *memory > 0),
            disk: Some(peaks.disk).filter(|_| !watched.is_empty()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        };
        if code(output.status) != 0 {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
            bail!("`{}` ended with exit code {}; it said last\n  {last}", line.short(), code(output.status));
        }
        Ok(Some(usage))
    }

    /// How many processes wanted a CPU in the last minute, for each CPU.
    pub fn load(&self) -> Option<f64> {
        let load: f64 = fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()?;
        Some(load / thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64))
    }

    /// How many CPUs there are, and what they are called.
    pub fn machine(&self) -> String {
        let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        format!("{cpus} CPUs{}", model.map(|model| format!(" ({model})")).unwrap_or_default())
    }

    /// What the files below a directory have together, in bytes.
    pub fn bytes_below(&self, directory: &Path) -> u64 {
        let mut sum = 0;
        below(directory, &mut |metadata| sum += metadata.len());
        sum
    }

    /// Shows and starts a server that says nothing; it ends when the returned value goes. None in a dry run.
    pub fn start(&self, line: &CommandLine) -> Result<Option<Server>> {
        self.ui.command(line);
        if self.options.dry_run {
            return Ok(None);
        }
        let mut command = self.command(line)?;
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = started.map_err(|error| cannot_start(line, &error))?;
        Ok(Some(Server { process, stdin: None, address: String::new() }))
    }

    /// Waits a moment for something outside to happen.
    pub fn pause(&self) {
        thread::sleep(5 * TICK);
    }
}

/// Looks at a process and its descendants until it has ended.
fn watch(pid: u32, watched: &[PathBuf], ended: &AtomicBool) -> Peaks {
    let (mut peaks, mut processes) = (Peaks::default(), Vec::new());
    for tick in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let is_rare = tick % RARE_TICKS == 0;
        if is_rare {
            processes = descendants(pid);
        }
        let together: u64 = processes.iter().filter_map(|pid| memory(*pid, "VmRSS:")).sum();
        let alone = processes.iter().filter_map(|pid| memory(*pid, "VmHWM:")).max().unwrap_or(0);
        peaks.memory = peaks.memory.max(together).max(alone);
        if !watched.is_empty() && is_rare {
            peaks.disk = peaks.disk.max(disk(watched, &processes));
        }
        thread::sleep(TICK);
    }
    // What it made last may be the most.
    if !watched.is_empty() {
        peaks.disk = peaks.disk.max(disk(watched, &[]));
    }
    peaks
}

/// A process and all that it started, as far as they are its own.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> =
            texts.flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// A number of KiB in a process's status, in bytes.
fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the directories take, and the files that processes have open and that no directory lists.
fn disk(watched: &[PathBuf], processes: &[u32]) -> u64 {
    let mut taken = BTreeMap::new();
    for directory in watched {
        below(directory, &mut |metadata| {
            taken.insert(identity(metadata), room(metadata));
        });
    }
    for pid in processes {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for metadata in open.filter_map(|file| fs::metadata(file.path()).ok()) {
            if metadata.is_file() && is_nameless(&metadata) {
                taken.insert(identity(&metadata), room(&metadata));
            }
        }
    }
    taken.values().sum()
}

/// Tells every file below a directory; what goes meanwhile is left out.
fn below(directory: &Path, tell: &mut dyn FnMut(&Metadata)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => below(&entry.path(), tell),
            Ok(metadata) if metadata.is_file() => tell(&metadata),
            _ => {}
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(unix)]
fn room(metadata: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}

#[cfg(unix)]
fn is_nameless(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.nlink() == 0
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> (u64, u64) {
    (0, metadata.len())
}

#[cfg(not(unix))]
fn room(metadata: &Metadata) -> u64 {
    metadata.len()
}

#[cfg(not(unix))]
fn is_nameless(_metadata: &Metadata) -> bool {
    false
}

/// User and system time of all children that have ended and were waited for (proc_pid_stat(5), cutime and cstime).
fn cpu_of_children() -> Option<Duration> {
    children_time(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn children_time(stat: &str) -> Option<Duration> {
    // The program's name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(CLOCK_TICK * (ticks()? + ticks()?))
}

/// The time that the CPUs were neither idle nor waiting for a disk (proc_stat(5)).
fn cpu_of_machine() -> Option<Duration> {
    busy_time(&fs::read_to_string("/proc/stat").ok()?)
}

fn busy_time(stat: &str) -> Option<Duration> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, ..] = fields.as_slice() else { return None };
    let ticks = user + nice + system + interrupts + soft_interrupts;
    Some(Duration::from_millis(ticks * CLOCK_TICK.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_its_manual_has_it() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 9 9 0 0 100 200 30 12 20 0 1 0";
        assert_eq!(children_time(stat), Some(Duration::from_millis(420)));
        assert_eq!(busy_time("cpu  100 1 20 9000 50 3 4 7 0 0\ncpu0 1\n"), Some(Duration::from_millis(1280)));
        assert_eq!((children_time("7 (a"), busy_time("cpu 1\n")), (None, None));
    }
}
