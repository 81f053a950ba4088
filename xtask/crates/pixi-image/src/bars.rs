//! Progress as a bar on the terminal. It is for binaries: nothing of the library draws.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::Progress;

/// Times a second that a bar is drawn.
const HERTZ: u8 = 10;
const PHASE: &str = "{spinner} {msg}";
const DOWNLOAD: &str =
    "Downloading [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} to go";
const PACK: &str = "Packing [{wide_bar}] {pos}/{len} {msg}";
const WRITE: &str = "Writing [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";

/// One bar at a time on standard error. What it showed disappears when the next one comes; a line of what was done stays.
pub struct Bars(Mutex<State>);

/// What is shown now.
struct State {
    bar: ProgressBar,
    work: Work,
    started: Instant,
    is_stopped: bool,
    /// Bytes of images that were written before that was all there was to do.
    written: u64,
}

/// What the bar is about.
enum Work {
    Nothing,
    Phase,
    Download,
    Pack { made: usize, cached: usize, bytes: u64 },
    Write,
}

impl Bars {
    /// Where standard error is a terminal that can draw one, and nobody asked for plain text: with NO_COLOR, CLICOLOR=0 or CI.
    pub fn on_terminal() -> Option<Self> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is = |name, word: &str| env::var_os(name).is_some_and(|value| value == word);
        let is_dumb = is("TERM", "dumb") || (cfg!(unix) && !is_set("TERM"));
        let is_plain = is_set("NO_COLOR") || is_set("CI") || is("CLICOLOR", "0") || is_dumb;
        let (bar, started) = (ProgressBar::hidden(), Instant::now());
        let state = State { bar, work: Work::Nothing, started, is_stopped: false, written: 0 };
        (!is_plain && io::stderr().is_terminal()).then(|| Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes away the bar, and says what was done where that is worth a line.
    fn end(&mut self) {
        self.bar.finish_and_clear();
        let (elapsed, bytes) = (self.started.elapsed().as_secs_f64(), self.bar.position());
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Nothing | Work::Phase => {}
            Work::Download => line(&format!("Downloaded {} in {elapsed:.1} s", size(bytes))),
            Work::Pack { made, cached, bytes } => {
                let cached = if cached == 0 { String::new() } else { format!(", {cached} of them from the cache") };
                line(&format!("Packed {made} packages, {}{cached}, in {elapsed:.1} s", size(bytes)));
            }
            Work::Write => line(&format!("Wrote {} in {elapsed:.1} s", size(bytes))),
        }
    }

    fn begin(&mut self, work: Work, template: &str, length: Option<u64>) {
        self.end();
        if self.is_stopped {
            return;
        }
        let target = ProgressDrawTarget::stderr_with_hz(HERTZ);
        // The templates are ours, and tested; the default style is only for them that are not.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar =
            ProgressBar::with_draw_target(length, target).with_style(style.progress_chars("=> ").tick_chars("-\\|/ "));
        self.bar.enable_steady_tick(Duration::from_millis(1000 / u64::from(HERTZ)));
        (self.work, self.started) = (work, Instant::now());
    }
}

impl Progress for Bars {
    fn phase(&self, text: &str) {
        let mut state = self.state();
        state.begin(Work::Phase, PHASE, None);
        state.bar.set_message(text.to_owned());
    }

    fn expect_download(&self, bytes: u64) {
        if bytes > 0 {
            self.state().begin(Work::Download, DOWNLOAD, Some(bytes));
        }
    }

    fn downloaded(&self, bytes: u64) {
        let state = self.state();
        if matches!(state.work, Work::Download) {
            state.bar.inc(bytes);
        }
    }

    fn expect_packages(&self, count: usize) {
        let work = Work::Pack { made: 0, cached: 0, bytes: 0 };
        self.state().begin(work, PACK, Some(count as u64));
    }

    fn packing(&self, identity: &str) {
        self.state().bar.set_message(identity.to_owned());
    }

    fn packed(&self, _identity: &str, size: u64, was_cached: bool) {
        let mut state = self.state();
        if let Work::Pack { made, cached, bytes } = &mut state.work {
            *made += 1;
            *cached += usize::from(was_cached);
            *bytes += size;
            state.bar.inc(1);
        }
    }

    fn expect_written(&self, bytes: u64) {
        let mut state = self.state();
        state.begin(Work::Write, WRITE, Some(bytes));
        state.bar.set_position(state.written);
    }

    fn written(&self, bytes: u64) {
        let mut state = self.state();
        state.written += bytes;
        if matches!(state.work, Work::Write) {
            state.bar.inc(bytes);
        }
    }

    fn warn(&self, text: &str) {
        self.state().bar.suspend(|| line(&format!("warning: {text}")));
    }

    fn finished(&self) {
        self.state().end();
    }

    fn stopped(&self) {
        let mut state = self.state();
        (state.work, state.is_stopped) = (Work::Nothing, true);
        state.end();
    }
}

fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A line on stderr. That nobody reads it is no reason to stop.
fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_drawn() {
        for template in [PHASE, DOWNLOAD, PACK, WRITE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
