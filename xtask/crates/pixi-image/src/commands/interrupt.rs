//! Ends the process when a signal asks for it, and leaves nothing behind.

use std::sync::Arc;

use anyhow::Context;
use pixi_image::progress::Progress;
use pixi_image::publish;

use super::report;

/// From here on a signal removes what is half-written, and what is shown of the work, and ends the process. A thread waits for it, so this is not for
/// commands that make namespaces.
pub fn watch(progress: Arc<dyn Progress + Send + Sync>) -> anyhow::Result<()> {
    const CANNOT: &str = "cannot wait for signals";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context(CANNOT)?;
    // What asks for signals does so now and not on the thread: one may come before that runs.
    let signal = {
        let _in_runtime = runtime.enter();
        signal().context(CANNOT)?
    };
    let wait = move || {
        let (what, number) = runtime.block_on(signal);
        let _nothing_new = publish::abandon();
        progress.stopped();
        report::last(&format!("error: {what}; nothing half-written was left behind"), 128 + number);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context(CANNOT)?;
    Ok(())
}

/// Waits for a signal that asks the process to end; gives what it is called, and its number, which shells have in exit codes.
#[cfg(unix)]
fn signal() -> std::io::Result<impl Future<Output = (&'static str, i32)> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind: SignalKind| (!is_ignored(kind.as_raw_value())).then(|| signal(kind)).transpose();
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let wait = async |signals: &mut Option<tokio::signal::unix::Signal>| match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    };
    Ok(async move {
        tokio::select! {
            _ = wait(&mut interrupt) => ("interrupted", 2),
            _ = wait(&mut terminate) => ("ended by SIGTERM", 15),
            _ = wait(&mut hangup) => ("ended by SIGHUP", 1),
        }
    })
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

#[cfg(not(unix))]
fn signal() -> std::io::Result<impl Future<Output = (&'static str, i32)> + Send> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => ("interrupted", 2),
            Err(_) => std::future::pending().await,
        }
    })
}
