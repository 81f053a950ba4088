//! Whether the kernel gives an ordinary user namespaces, which containers without root rest on.

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engines::checks::last_line;
use crate::engines::gpu;

/// Why it gives none.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The switch, where it is known, else what was said.
    pub why: String,
    /// What to do about it.
    pub mend: &'static str,
}

/// A switch of the kernel, the value that forbids, and the command that allows.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("user.max_user_namespaces", "0", "ask for `sysctl user.max_user_namespaces=15000`"),
    ("kernel.unprivileged_userns_clone", "0", "ask for `sysctl kernel.unprivileged_userns_clone=1`"),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "ask for `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
];

/// Tries it; without `unshare` it cannot be tried. Root needs no user namespace, only the others.
pub fn forbidden(cx: &Context) -> Option<Forbidden> {
    if !cx.on_path("unshare") {
        return None;
    }
    let which: &[&str] = if is_root(cx) { &["--mount"] } else { &["--user", "--map-root-user"] };
    let tried = cx.glance(&CommandLine::new("unshare").args(which.iter().copied()).arg("true")).ok()?;
    if tried.code == 0 {
        return None;
    }
    let proc = gpu::tree(cx).join("proc/sys");
    let is_set = |(name, value, _): &&(&str, &str, &str)| {
        let place = proc.join(name.replace('.', "/"));
        cx.read_file(&place).is_ok_and(|text| text.trim() == *value)
    };
    Some(match SWITCHES.iter().find(is_set) {
        Some((name, value, mend)) => Forbidden { why: format!("{name} is {value}"), mend },
        None => Forbidden {
            why: last_line(&tried).to_owned(),
            mend: "no switch says so: a container or a security module may, so try it outside of one",
        },
    })
}

/// Whether this is root, which needs no namespaces of its own.
pub fn is_root(cx: &Context) -> bool {
    cx.glance(&CommandLine::new("id").arg("-u")).is_ok_and(|id| id.stdout.trim() == "0")
}
