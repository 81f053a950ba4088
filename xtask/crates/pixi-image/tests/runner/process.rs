//! Signals, children and namespaces.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image::Tree;
use crate::sandbox::{Ended, Sandbox, is_root, uid};

/// A script that says that it is ready, and ends with code 5 when it gets the signal, saying so. The shell has no child:
/// bash takes the exit of one, at the same moment as a signal, for many things.
fn trap(signal: &str) -> String {
    format!("trap 'echo got {signal}; exit 5' {signal}; echo ready; while :; do :; done")
}

/// Starts a command and waits until it says that it is ready.
fn start(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    (child, stdout)
}

fn kill(arguments: &[&str]) {
    assert!(Command::new("kill").args(arguments).status().unwrap().success());
}

/// The ids of the processes whose command line holds `mark`.
fn processes(mark: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = all.filter(|path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        path.file_name().unwrap().to_string_lossy().parse::<u32>().is_ok() && line.contains(mark)
    });
    found.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// Waits until no process has `mark` in its command line.
fn assert_all_end(mark: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !processes(mark).is_empty() {
        assert!(Instant::now() < until, "still there: {:?}", processes(mark));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_arrives_once_whether_sent_to_the_runner_or_to_its_group() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    for (signal, to_group) in [("INT", true), ("TERM", false), ("USR1", false), ("HUP", true)] {
        let script = trap(signal);
        let (mut child, mut stdout) = start(&mut sandbox.command(&image, &[], &["bash", "-c", &script]));
        let to = if to_group { format!("-{}", child.id()) } else { child.id().to_string() };
        kill(&[&format!("-{signal}"), "--", &to]);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("got {signal}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(5), "{signal}");
    }
}

#[test]
fn a_command_that_a_signal_ends_gives_its_number() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    // Without a child of the shell's own: one that starts just then may miss the signal, and bash waits for it.
    let (mut child, _stdout) =
        start(&mut sandbox.command(&image, &[], &["sh", "-c", "echo ready; while :; do :; done; echo no"]));
    kill(&["-INT", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ctrl_c_on_a_terminal_reaches_the_command_once() {
    let Some(sandbox) = Sandbox::new() else { return };
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("SKIPPED: needs script(1)");
        return;
    }
    let image = sandbox.oci("image");
    let script = sandbox.path("loop.sh");
    std::fs::write(&script, trap("INT")).unwrap();
    // `script` has $SHELL start it, and not every shell replaces itself: dash would wait, and die of the signal itself.
    let line = format!(
        "exec {} run --no-gpu --cache {} --bind {} {} -- bash {}",
        sandbox.program(),
        sandbox.path("cache").display(),
        script.display(),
        image.display(),
        script.display()
    );
    // At once, so that some of the rounds meet the container's init where it still begins to wait.
    for _ in 0..20 {
        let mut command = sandbox.as_user(&["script", "--quiet", "--return", "--command", &line, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("ready") {
            assert_ne!(stdout.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
        child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        stdout.read_to_string(&mut seen).unwrap();
        assert_eq!(seen.matches("got INT").count(), 1, "{seen}");
        assert_eq!(child.wait().unwrap().code(), Some(5), "{seen}");
    }
}

#[test]
fn nothing_outlives_a_runner_that_is_killed() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let mark = format!("4{}.75", std::process::id());
    let script = format!("sleep {mark} & setsid sleep {mark} & echo ready; sleep {mark}");
    let (mut child, _stdout) = start(&mut sandbox.command(&image, &[], &["sh", "-c", &script]));
    assert!(!processes(&mark).is_empty());
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert_all_end(&mark);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let mark = format!("5{}.75", std::process::id());
    let script = format!("setsid sleep {mark} >/dev/null 2>&1 & (sleep 0.01 &) ; exit 3");
    let ended = sandbox.run(&image, &[], &["sh", "-c", &script]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_all_end(&mark);
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let script = "for i in 1 2 3; do (sh -c 'exit 0' &) ; done; sleep 0.3; \
                  for p in /proc/[0-9]*; do while read a b c; do [ $a = State: ] && [ $b = Z ] && echo zombie; done \
                  <$p/status; done; true";
    assert_eq!(sandbox.run(&image, &[], &["bash", "-c", script]).ok(), "");
}

#[test]
fn standard_streams_are_the_callers() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let mut child = sandbox
        .command(&image, &[], &["sh", "-c", "cat; echo problem >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"through");
    assert!(output.stderr.ends_with(b"problem\n"));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let (mut child, stdout) =
        start(&mut sandbox.command(&image, &[], &["sh", "-c", "echo ready; while :; do echo more || exit 9; done"]));
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(141), "SIGPIPE has its usual effect");
}

#[test]
fn it_runs_in_an_empty_network_namespace() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let before = ["unshare", "--user", "--map-root-user", "--net"];
    let seen =
        Ended::of(&mut sandbox.command_after(&before, &image, &[], &["sh", "-c", "ls /sys/class/net; id -u"])).ok();
    assert!(seen.ends_with("0\n"), "root of the namespace that it was started in: {seen}");
    if is_root() {
        let cache = sandbox.path("cache");
        let words = [sandbox.program(), "run", image.to_str().unwrap(), "--cache", cache.to_str().unwrap(), "--", "ls"];
        let as_user = sandbox.as_user(&words);
        let mut command = Command::new("unshare");
        command.arg("--net").arg(as_user.get_program()).args(as_user.get_args());
        command.current_dir(sandbox.path("work")).env("HOME", sandbox.path("home")).stdin(Stdio::null());
        Ended::of(&mut command).ok();
    }
}

#[test]
fn without_an_overlay_the_image_is_read_only() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    // Overlays stack two deep, so a cache that lies on the second one can have no third above it.
    let stack = sandbox.own_directory("stack");
    let stack = stack.to_str().unwrap();
    let script = format!(
        "mount -t tmpfs t {stack} && cd {stack} && mkdir a b c d e f g h && \
         mount -t overlay o -o lowerdir=a,upperdir=b,workdir=c,userxattr d && \
         mount -t tmpfs t e && mkdir e/up e/work && mount -t overlay o -o lowerdir=d,upperdir=e/up,workdir=e/work,userxattr f && \
         exec {} run --no-gpu {} --cache f -- sh -c 'echo x >/new || echo refused; id -u'",
        sandbox.program(),
        image.display()
    );
    let ended =
        Ended::of(&mut sandbox.as_user(&["unshare", "--user", "--mount", "--map-root-user", "sh", "-c", &script]));
    assert!(ended.stderr.contains("the image's files are read-only"), "{ended:?}");
    assert_eq!(ended.ok(), "refused\n0\n");
}

#[test]
fn a_container_can_hold_another() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    sandbox.run(&image, &[], &["ls"]).ok();
    let tree = Tree::with_programs().libraries_of(Path::new(sandbox.program()));
    let outer = tree.oci(&sandbox.path("outer"), serde_json::json!({"Env": ["PATH=/bin"]}));
    let place = sandbox.path("").display().to_string();
    let cache = sandbox.path("cache");
    let inner = [sandbox.program(), "run", "--no-gpu", image.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    let inner = [&inner[..], &["--", "sh", "-c", "id -u; exit 6"]].concat();
    let ended = sandbox.run(&outer, &["--bind", &place], &inner);
    assert_eq!((ended.code, ended.stdout), (Some(6), format!("{}\n", uid())), "{}", ended.stderr);
}

#[test]
fn where_namespaces_are_forbidden_the_switch_is_named() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    // The limit of a namespace of our own, in which the program has no capability to mount.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-sys_admin \"$@\"";
    let before = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"];
    let ended = Ended::of(&mut sandbox.command_after(&before, &image, &[], &["ls"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("user.max_user_namespaces is 0"), "{ended:?}");
    assert!(ended.stderr.contains("sysctl user.max_user_namespaces="), "{ended:?}");
}

#[test]
fn a_full_disk_leaves_nothing_and_is_said() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let script = "mount -t tmpfs -o size=1m t \"$1\" && shift && \"$@\"; code=$?; ls \"$CACHE/rootfs\"; exit $code";
    let cache = sandbox.path("cache");
    let before = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c", script, "sh", cache.to_str().unwrap()];
    let ended = Ended::of(sandbox.command_after(&before, &image, &[], &["ls"]).env("CACHE", &cache));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("No space left") && ended.stderr.contains("--cache"), "{ended:?}");
    assert!(!ended.stdout.contains("partial"), "{ended:?}");
}
