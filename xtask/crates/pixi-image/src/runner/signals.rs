//! Signals taken one by one, in order, outside of any handler.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

/// The signals that are taken: a child's end, and what asks a command to end or to do something.
const TAKEN: [Signal; 8] =
    [Signal::CHILD, Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::ALARM];

/// The signals that are blocked and waited for.
pub struct Taken {
    set: libc::sigset_t,
    /// What was blocked before.
    before: libc::sigset_t,
}

/// One signal that has arrived.
pub struct Arrived {
    /// Which one.
    pub number: Signal,
    /// The terminal sent it to its whole foreground process group.
    pub from_terminal: bool,
}

/// Blocks the signals from now on: they wait until [`Taken::next`]. Children have them blocked, too,
/// unless [`Taken::restore_in`] is used. To be called before any child is started.
pub fn block() -> io::Result<Taken> {
    let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigemptyset initializes the set, the other calls get a set that is initialized, and the numbers are valid.
    // A caller may have set SIGCHLD to be ignored, which we would inherit: then no child could be waited for. Setting it
    // discards one that is pending, so this must come before the first child.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TAKEN {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Taken { set: set.assume_init(), before: before.assume_init() })
    }
}

impl Taken {
    /// Waits for the next signal.
    pub fn next(&self) -> io::Result<Arrived> {
        // SAFETY: the set is initialized, and the kernel fills `info` when the call succeeds.
        let wait = |info: *mut libc::siginfo_t| unsafe { libc::sigwaitinfo(&self.set, info) };
        loop {
            if let Some(arrived) = arrived(wait)? {
                return Ok(arrived);
            }
        }
    }

    /// Takes those that have arrived, without waiting.
    pub fn so_far(&self) -> io::Result<Vec<Arrived>> {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is initialized, and the kernel fills `info` when the call succeeds.
        let look = |info: *mut libc::siginfo_t| unsafe { libc::sigtimedwait(&self.set, info, &at_once) };
        let mut all = Vec::new();
        loop {
            match arrived(look) {
                Ok(signal) => all.extend(signal),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a command the signals as they were before.
    pub fn restore_in(&self, command: &mut Command) {
        let before = self.before;
        let restore = move || {
            // SAFETY: the set is initialized.
            match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        unsafe { command.pre_exec(restore) };
    }
}

/// The signal that `wait` takes; none if it was interrupted.
fn arrived(wait: impl Fn(*mut libc::siginfo_t) -> libc::c_int) -> io::Result<Option<Arrived>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    let number = wait(info.as_mut_ptr());
    if number < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
    }
    let Some(number) = TAKEN.into_iter().find(|signal| signal.as_raw() == number) else { return Ok(None) };
    // SAFETY: the call succeeded, so it has filled `info`.
    let code = unsafe { info.assume_init() }.si_code;
    Ok(Some(Arrived { number, from_terminal: code == libc::SI_KERNEL }))
}
