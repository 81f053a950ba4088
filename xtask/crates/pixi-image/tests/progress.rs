//! What is seen of a build while it goes on: a bar on a terminal, lines elsewhere.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[path = "../../../tests/support/terminal.rs"]
mod terminal;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::process::Command;
use std::time::Duration;

use packages::{Member, Package};
use terminal::Terminal;
use web::Answer;
use workspace::{Workspace, succeeds};

/// Two packages, of which one comes slowly.
fn slow() -> Workspace {
    let mut byte = 1_u32;
    let mut noise = || {
        byte = byte.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (byte >> 24) as u8
    };
    let content: Vec<u8> = (0..1_000_000).map(|_| noise()).collect();
    let large = Package::new("large", [Member::file("lib/large", content)]);
    let workspace = Workspace::new(&[large, Package::new("small", [Member::file("share/small", "small\n")])]);
    workspace.answer("large", |bytes| vec![Answer::Slow(bytes, Duration::from_millis(50))]);
    workspace
}

/// The command as somebody types it at a terminal, where Ctrl-C works.
fn typed(command: &Command) -> Command {
    let mut typed = Command::new("/usr/bin/env");
    typed.arg("--default-signal=INT").arg(command.get_program()).args(command.get_args());
    typed.current_dir(command.get_current_dir().unwrap());
    typed.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    typed
}

/// What still stands on the screen at the end, of lines that were drawn over.
fn visible(text: &str) -> Vec<String> {
    let last = |line: &str| {
        let drawn = line.rsplit("\x1b[2K").next().unwrap();
        drawn.rsplit('\r').next().unwrap().to_owned()
    };
    text.lines().map(last).collect()
}

/// A line without its numbers.
fn without_numbers(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[test]
fn on_a_terminal_a_bar_shows_the_work_and_leaves_one_line_of_each_result() {
    let workspace = slow();
    for columns in [100, 24] {
        let Some(mut terminal) = Terminal::start(&typed(&workspace.build()), columns) else { return };
        terminal.wait_for("Downloading [");
        let (text, code) = terminal.end();
        assert_eq!(code, 0, "{text:?}");
        assert!(text.contains("Packing [") && text.contains("Writing ["), "{text:?}");
        if columns == 100 {
            let seen: Vec<String> = visible(&text).iter().map(|line| without_numbers(line)).collect();
            let lines = ["Downloaded . MB in . s", "Packed  packages, . MB, in . s", "Wrote . MB in . s"];
            assert_eq!(seen[..3], lines, "{text:?}");
            assert!(seen[3].starts_with("oci\t") && seen[4].starts_with("sif\t") && seen.len() == 5, "{text:?}");
        }
        std::fs::remove_dir_all(workspace.path("cache")).unwrap();
        workspace.answer("large", |bytes| vec![Answer::Slow(bytes, Duration::from_millis(50))]);
    }
}

#[test]
fn who_wants_it_plain_gets_lines_without_control_codes() {
    let workspace = slow();
    // Off a terminal `succeeds` looks for control codes.
    let piped = succeeds(&mut workspace.build());
    assert!(piped.contains("Packing 2 packages\n") && piped.contains("Writing the images\n"), "{piped}");
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("CI", "true"), ("TERM", "dumb")] {
        let mut command = typed(&workspace.build());
        command.env(name, value);
        let Some(terminal) = Terminal::start(&command, 80) else { return };
        let (text, code) = terminal.end();
        assert_eq!(code, 0, "{text:?}");
        assert!(text.contains("Packing 2 packages\n") && !text.contains(['\x1b', '\r', '[']), "{name}: {text:?}");
    }
}

#[test]
fn ctrl_c_leaves_no_bar_and_no_file() {
    let workspace = slow();
    workspace.answer("large", |bytes| vec![Answer::Slow(bytes, Duration::from_secs(600))]);
    let before = workspace.snapshot();
    let Some(mut terminal) = Terminal::start(&typed(&workspace.build()), 80) else { return };
    terminal.wait_for("Downloading [");
    terminal.type_in("\x03");
    let (text, code) = terminal.end();
    assert_eq!(code, 130, "{text:?}");
    let seen = visible(&text);
    assert_eq!(seen, ["error: interrupted; nothing half-written was left behind"], "{text:?}");
    assert_eq!(workspace.snapshot(), before);
    workspace.assert_cache_is_whole();
}
