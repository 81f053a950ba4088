//! What of this machine a test may take away: privileges, the network, space on a disk, kinds of files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Nobody: a user without rights on any file of ours.
const NOBODY: u32 = 65534;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command as an ordinary user, who gets `owned`. Root starts a copy of the program from `beside`, for its own may lie
/// where that user may not look; others are ordinary themselves.
pub fn as_ordinary_user(command: &Command, beside: &Path, owned: &[PathBuf]) -> Command {
    if !is_root() {
        return wrapped(&[], command);
    }
    let copy = beside.join("program");
    if !copy.exists() {
        if fs::hard_link(command.get_program(), &copy).is_err() {
            fs::copy(command.get_program(), &copy).unwrap();
        }
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for path in owned {
        give(path);
    }
    let id = NOBODY.to_string();
    let mut inner = Command::new(copy);
    take_over(&mut inner, command);
    wrapped(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"], &inner)
}

fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

/// The command without a network; none where this machine does not let us take it away.
pub fn without_network(command: &Command) -> Option<Command> {
    let unshare: &[&str] = if is_root() { &["unshare", "-n", "--"] } else { &["unshare", "-rn", "--"] };
    works(unshare).then(|| wrapped(unshare, command))
}

/// The command with so many bytes of space at `directory`, and what is left there in the file `listing`; none where this
/// machine does not let us mount.
pub fn with_little_space(command: &Command, directory: &Path, bytes: u64, listing: &Path) -> Option<Command> {
    let unshare: &[&str] = if is_root() { &["unshare", "-m"] } else { &["unshare", "-rm"] };
    let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" || exit 99; listing=$3; place=$2; shift 3; \
                  \"$@\"; code=$?; find \"$place\" -type f -printf '%P\\n' > \"$listing\"; exit $code";
    let bytes = bytes.to_string();
    let (directory, listing) = (directory.to_str().unwrap(), listing.to_str().unwrap());
    works(&[unshare, &["mount", "-t", "tmpfs", "tmpfs", directory]].concat())
        .then(|| wrapped(&[unshare, &["sh", "-c", script, "sh", &bytes, directory, listing]].concat(), command))
}

/// Says on stderr that a part of a test did not run, and why. Where nothing may be skipped that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var_os("XTASK_REQUIRE_ENGINES").is_none_or(|set| set != "1"), "required here, but {why}");
    eprintln!("skipped: {why}");
}

fn works(command: &[&str]) -> bool {
    let words: Vec<&str> = [command, &["true"]].concat();
    let words = if command.contains(&"mount") { command } else { &words };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// `wrapper... command...`, with its directory and environment.
fn wrapped(wrapper: &[&str], command: &Command) -> Command {
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.push(command.get_program().to_owned());
    let mut outer = Command::new(&words[0]);
    outer.args(&words[1..]);
    take_over(&mut outer, command);
    outer.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    outer
}

fn take_over(outer: &mut Command, command: &Command) {
    outer.args(command.get_args()).env_clear().stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        outer.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
}

/// Gives signals their usual effect on the command's process: whoever runs the tests in the background, or by nohup, has them
/// ignore some.
pub fn with_usual_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM] {
            // SAFETY: the numbers are valid, and no handler is installed.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes a few system calls and allocates nothing.
    unsafe { command.pre_exec(reset) };
}

/// Makes the command's process believe that no file system has files without names, as NFS and FUSE have none.
pub fn without_nameless_files(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let jump = |code, k, jt, jf| libc::sock_filter { code: (libc::BPF_JMP | code | libc::BPF_K) as u16, jt, jf, k };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    // struct seccomp_data: the number of the call at 0, its second argument (the flags of open) at 24, its third at 32.
    let refused = libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32;
    let nameless = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
    #[cfg(target_arch = "x86_64")]
    let open = [
        load(0),
        jump(libc::BPF_JEQ, libc::SYS_open as u32, 0, 3),
        load(24),
        jump(libc::BPF_JSET, nameless, 0, 1),
        answer(refused),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let open = [];
    let openat = [
        load(0),
        jump(libc::BPF_JEQ, libc::SYS_openat as u32, 0, 3),
        load(32),
        jump(libc::BPF_JSET, nameless, 0, 1),
        answer(refused),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program: Vec<libc::sock_filter> = open.into_iter().chain(openat).collect();
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: prctl(2) and seccomp(2) with a filter that lives until they return; both may be called after fork.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == 0
        };
        if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}
