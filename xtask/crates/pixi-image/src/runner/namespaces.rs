//! New namespaces for this process, and a supervised child in them.
//!
//! Three processes take part: the caller, which waits; the init of the new pid namespace, which reaps and forwards; and
//! the command. When the caller dies, even by SIGKILL, the kernel kills the init, and with it everything in its
//! namespace.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, setpgid, wait};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use super::forbidden::{Facts, Step, explain};
use super::signals::{self, Arrived, Taken};

/// The system refused a step of making a container.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {errno}: {reason}")]
pub struct Forbidden {
    /// What was refused.
    pub step: Step,
    /// What the system said.
    pub errno: Errno,
    /// The switch that forbids it, and the way out.
    pub reason: String,
}

impl Forbidden {
    /// Finds out why `step` was refused.
    pub fn new(step: Step, errno: Errno) -> Self {
        Self { step, errno, reason: explain(errno, &Facts::gather()) }
    }
}

/// What a root process keeps of its capabilities in a container: what docker's containers have, without the making of
/// device nodes.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Whether a user namespace was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// In a user namespace of our own, with one user in it: the caller.
    User,
    /// Without one, because the caller may mount. Files of all users stay accessible, as root expects.
    Root,
}

/// Puts this process into a new mount namespace and its future children into a new pid namespace; an ordinary user also
/// gets a user namespace, in which uid and gid stay what they are.
///
/// The namespaces of System V IPC and of the host name stay the host's: ranks of one job on one machine share memory.
/// The process must have a single thread.
pub fn enter() -> Result<Privilege, Forbidden> {
    let may_mount = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let privilege = if may_mount { Privilege::Root } else { Privilege::User };
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    if privilege == Privilege::User {
        flags |= UnshareFlags::NEWUSER;
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: only CLONE_FILES, which is not among these flags, would break descriptors that others hold.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|errno| Forbidden::new(Step::Unshare, errno))?;
    if privilege == Privilege::User {
        let map = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text)
                .map_err(|error| Forbidden::new(Step::IdMap, Errno::from_io_error(&error).unwrap_or(Errno::IO)))
        };
        map("setgroups", "deny".into())?;
        map("uid_map", format!("{uid} {uid} 1"))?;
        map("gid_map", format!("{gid} {gid} 1"))?;
    }
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(|errno| Forbidden::new(Step::Mount, errno))?;
    Ok(privilege)
}

/// Gives up what a command must never have: new privileges by setuid programs and, for root, capabilities over the host.
pub fn confine(privilege: Privilege) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if privilege == Privilege::Root {
        for capability in CapabilitySet::all().iter() {
            if !KEPT.contains(capability) && rustix::thread::capability_is_in_bounding_set(capability) == Ok(true) {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    Ok(())
}

/// Runs `body` in a child process and gives its exit code, 128 + the signal's number when a signal ended it; with the
/// message of the error, if it was one.
///
/// After [`enter`], that child is the init of the new pid namespace. Signals that arrive here are sent on to it.
/// The process must have a single thread.
pub fn in_child(body: impl FnOnce(&Taken) -> Result<u8, (u8, String)>) -> io::Result<(u8, Option<String>)> {
    let signals = signals::block()?;
    let (alive, life) = io::pipe()?;
    let (mut messages, mut message) = io::pipe()?;
    // SAFETY: this process has a single thread (`enter` would have failed otherwise), so no lock is held by another one,
    // and the child may go on as this process would.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            drop((life, messages));
            let ended = match die_with_parent(alive) {
                Ok(()) => body(&signals),
                Err(_) => Ok(1), // nobody is left to hear of it
            };
            let code = ended.unwrap_or_else(|(code, text)| {
                // The code alone must do when the message cannot be passed on.
                let _ = message.write_all(text.as_bytes());
                code
            });
            std::process::exit(code.into());
        }
        pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork gave no process"))?,
    };
    drop((alive, message));
    loop {
        let signal = signals.next()?;
        if signal.number == Signal::CHILD {
            if let Some(code) = reap(child)? {
                drop(life);
                let mut text = String::new();
                messages.read_to_string(&mut text)?;
                return Ok((code, Some(text).filter(|text| !text.is_empty())));
            }
        } else if !signal.from_terminal {
            // The terminal's own signals have reached the command already. A child that is gone needs none.
            let _ = kill_process(child, signal.number);
        }
    }
}

/// Asks the kernel to kill this process when its parent dies, and fails if that happened already: then the pipe, whose
/// other end only the parent holds, is closed.
fn die_with_parent(mut parent: PipeReader) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::fs::fcntl_setfl(parent.as_fd(), OFlags::NONBLOCK)?;
    match parent.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Starts `command` as the init of a pid namespace.
///
/// Without a terminal (`own_group`) the command leads a process group of its own. With one it stays in the caller's, so
/// that the shell's job control works on it, and init leaves that group as soon as the command is in it.
pub fn start<'t>(command: &mut Command, own_group: bool, signals: &'t Taken) -> io::Result<Supervised<'t>> {
    signals.restore_in(command);
    if own_group {
        leave_group();
        command.process_group(0);
    }
    let early = signals.so_far()?;
    let child = command.spawn()?;
    if !own_group {
        leave_group();
    }
    Ok(Supervised { child, own_group, signals, early })
}

/// What is sent to the whole group of the caller is to come once, through the caller.
fn leave_group() {
    // The init leads no session and has executed nothing, so nothing forbids it.
    let _ = setpgid(None, None);
}

/// A command that runs, and what is to be known to wait for it.
pub struct Supervised<'t> {
    child: Child,
    own_group: bool,
    signals: &'t Taken,
    /// Signals from before it was there.
    early: Vec<Arrived>,
}

impl Supervised<'_> {
    /// Waits for the command and gives its exit code; reaps orphans and forwards signals meanwhile.
    pub fn wait(self) -> io::Result<u8> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the command has no process id"))?;
        let send = |signal| {
            // A command that is gone needs no signal.
            let _ = if self.own_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        };
        self.early.iter().filter(|signal| signal.number != Signal::CHILD).for_each(|signal| send(signal.number));
        loop {
            let signal = self.signals.next()?;
            if signal.number == Signal::CHILD {
                if let Some(code) = reap(pid)? {
                    return Ok(code);
                }
            } else if !signal.from_terminal {
                // The terminal's own signals came to the command, too. A second one could end it while it handles the
                // first.
                send(signal.number);
            }
        }
    }
}

/// Takes the exit of all children that have ended; the code of `awaited` when it is among them.
fn reap(awaited: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == awaited => code = Some(exit_code(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) as u8,
        (None, Some(signal)) => 128 + (signal & 0x7f) as u8,
        (None, None) => 1,
    }
}
