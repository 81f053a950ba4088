//! Ctrl-C: the commands that run here get it too, so xtask waits for them and then ends by itself, having tidied up.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(unix)]
use crate::ui;

/// The exit code of what SIGINT ended, as shells have it.
pub const EXIT_CODE: u8 = 130;

/// Somebody pressed Ctrl-C.
#[derive(Debug)]
pub struct Interrupted {
    /// What that means for the work.
    pub farewell: String,
}

impl std::error::Error for Interrupted {}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted: {}", self.farewell)
    }
}

/// What Ctrl-C meets.
#[derive(Clone)]
pub struct Interrupts {
    /// Set by the signal's handler itself, so before a command that it ended, too, is seen to have ended.
    heard: Arc<AtomicBool>,
    waits_for_answer: Arc<AtomicBool>,
    farewell: Arc<Mutex<String>>,
}

impl Interrupts {
    /// From here on Ctrl-C is heard. Where it cannot be, it ends the process as ever.
    pub fn watch() -> Self {
        let farewell = "what is done stays done; the same command goes on from there".to_owned();
        let interrupts =
            Self { heard: Arc::default(), waits_for_answer: Arc::default(), farewell: Arc::new(Mutex::new(farewell)) };
        #[cfg(unix)]
        interrupts.listen();
        interrupts
    }

    #[cfg(unix)]
    fn listen(&self) {
        use signal_hook::consts::SIGINT;
        if is_ignored(SIGINT) {
            return;
        }
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT]) else { return };
        let _ = signal_hook::flag::register(SIGINT, Arc::clone(&self.heard));
        let own = self.clone();
        // At a question, and at the second Ctrl-C, the process ends at once: nothing is under way, or it takes too long.
        std::thread::spawn(move || {
            for (index, _) in signals.forever().enumerate() {
                let asks = own.waits_for_answer.load(Ordering::SeqCst);
                if asks {
                    ui::end_line();
                }
                if asks || index > 0 {
                    ui::interrupted(&own.interrupted().farewell);
                    std::process::exit(EXIT_CODE.into());
                }
            }
        });
    }

    /// Fails once Ctrl-C was pressed.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.heard.load(Ordering::SeqCst) { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Waits for somebody's answer.
    pub fn while_asking<T>(&self, ask: impl FnOnce() -> T) -> Result<T, Interrupted> {
        self.waits_for_answer.store(true, Ordering::SeqCst);
        self.check()?;
        let answer = ask();
        self.waits_for_answer.store(false, Ordering::SeqCst);
        self.check()?;
        Ok(answer)
    }

    /// Changes what is said at the end.
    pub fn set_farewell(&self, text: String) {
        *self.farewell.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn interrupted(&self) -> Interrupted {
        Interrupted { farewell: self.farewell.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

/// Whether who started us wants a signal to be ignored, as `nohup` does, and shells for what they put into the background
/// (proc_pid_status(5), `SigIgn`).
#[cfg(unix)]
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & 1 << (number - 1) != 0
}
