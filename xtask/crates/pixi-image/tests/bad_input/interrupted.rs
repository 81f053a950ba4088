//! Signals in each phase: nothing half-written stays, and the next build gives the bytes of an undisturbed one.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{with_usual_signals, without_nameless_files};
use crate::noise;
use crate::packages::{Format, Member, Package};
use crate::web::Answer;
use crate::workspace::{OLDER, Shelf, Workspace, succeeds};

/// When to send the signal: at once, or so many milliseconds after the line on stderr that begins so.
const MOMENTS: [(&str, u64); 8] = [
    ("Reading the lock", 0),
    ("Downloading", 0),
    ("Downloading", 60),
    ("Packing", 0),
    ("Packing", 40),
    ("Packing", 200),
    ("Writing the images", 0),
    ("Writing the images", 20),
];

/// Some packages that take a while.
fn slow() -> Workspace {
    let mut shelf = Shelf::default();
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        let content = noise((3 << 20) * (number + 1));
        shelf.add(&Package::new(name, [Member::file(&format!("lib/{name}"), content)]), Format::Conda);
    }
    Workspace::of(shelf)
}

/// Starts the command and sends it a signal at a moment. True if that ended it.
fn interrupt(command: &mut Command, moment: (&str, u64), signal: Signal) -> bool {
    with_usual_signals(command);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    for line in lines.by_ref().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line.starts_with(moment.0) {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(moment.1));
    let _ = kill_process(Pid::from_child(&child), signal); // it may have ended
    for line in lines.map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait().unwrap();
    assert!(!said.contains("panicked"), "{said}");
    if status.success() {
        return false;
    }
    match signal {
        Signal::KILL => assert_eq!(status.signal(), Some(9), "{said}"),
        _ => {
            let last = said.lines().last().unwrap();
            assert_eq!(status.code(), Some(128 + signal.as_raw()), "{said}");
            assert!(last.starts_with("error: ") && last.contains("nothing half-written"), "{said}");
        }
    }
    true
}

/// Interrupts builds at each moment, with a cold cache each time; `prepare` readies every command.
fn disturb(signals: &[Signal], prepare: impl Fn(&mut Command)) {
    let workspace = slow();
    succeeds(&mut workspace.build());
    let right = workspace.digests();
    // A channel that dawdles: downloads last longer than the latest signal.
    for name in ["one", "two", "three"] {
        workspace.answer(name, |bytes| vec![Answer::Slow(bytes, Duration::from_millis(5))]);
    }
    let mut ended = 0;
    for signal in signals {
        for moment in MOMENTS {
            std::fs::remove_dir_all(workspace.path("cache")).unwrap();
            workspace.forget_results();
            let before = workspace.snapshot();
            let mut build = workspace.build();
            prepare(&mut build);
            if interrupt(&mut build, moment, *signal) {
                ended += 1;
                for path in ["out/image.oci.tar", "out/image.sif"] {
                    let found = workspace.read(path);
                    let whole = right.contains(&pixi_image::model::Digest::of(&found));
                    assert!(found == OLDER || whole, "{path} is half-written after {signal:?} at {moment:?}");
                }
                // The signal may come between the two results, which are whole then.
                let results = ["out/image.oci.tar", "out/image.sif"].map(|name| workspace.work(name));
                let changed = workspace.snapshot().into_iter().filter(|(path, what)| before.get(path) != Some(what));
                let strange: Vec<_> = changed.filter(|(path, _)| !results.contains(path)).collect();
                assert!(strange.is_empty(), "{signal:?} at {moment:?} left {strange:?}");
                workspace.assert_cache_is_whole();
            }
            let mut again = workspace.build();
            prepare(&mut again);
            succeeds(&mut again);
            assert_eq!(workspace.digests(), right, "after {signal:?} at {moment:?}");
        }
    }
    // How many depends on the machine: the later moments may come when all is done.
    assert!(ended >= signals.len(), "only {ended} builds were interrupted");
}

#[test]
fn an_interrupted_build_leaves_nothing_behind() {
    disturb(&[Signal::INT, Signal::TERM], |_| {});
}

#[test]
fn a_killed_build_leaves_nothing_behind() {
    disturb(&[Signal::KILL], |_| {});
}

#[test]
fn where_files_must_have_names_an_interrupted_build_removes_them() {
    disturb(&[Signal::INT, Signal::HUP], without_nameless_files);
}

#[test]
fn where_files_must_have_names_a_killed_build_leaves_them_to_the_next_one() {
    let workspace = slow();
    workspace.answer("two", |bytes| vec![Answer::Slow(bytes, Duration::from_millis(50))]);
    let mut build = workspace.build();
    without_nameless_files(&mut build);
    assert!(interrupt(&mut build, ("Downloading", 100), Signal::KILL));
    let partial = || -> Vec<_> {
        let all = workspace.snapshot().into_keys().chain(workspace.cached());
        all.filter(|path| path.extension().is_some_and(|extension| extension == "partial")).collect()
    };
    assert!(partial().len() > 2, "{:?}", partial());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    for path in partial() {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    workspace.serve();
    succeeds(&mut workspace.build());
    assert_eq!(partial(), Vec::<std::path::PathBuf>::new());
}
