//! Why the system forbids an ordinary user to make namespaces, and what mends it.

use std::fmt;
use std::path::Path;

use rustix::io::Errno;

/// A step of entering the container that the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `unshare(2)`.
    Unshare,
    /// Writing `/proc/self/uid_map` or its neighbours.
    IdMap,
    /// The first mount in the new namespace.
    Mount,
    /// `pivot_root(2)`.
    Root,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unshare => "cannot make the namespaces of a container",
            Self::IdMap => "cannot map the user into the new user namespace",
            Self::Mount => "cannot mount in the new mount namespace",
            Self::Root => "cannot make the image the root directory (pivot_root)",
        })
    }
}

/// What decides whether namespaces are allowed here.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The kernel knows user namespaces at all.
    pub supported: bool,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, a switch of Debian's kernels; false forbids.
    pub unprivileged_userns_clone: Option<bool>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, a switch of Ubuntu's kernels since 23.10; true restricts.
    pub apparmor_restricts: bool,
    /// A seccomp filter is active on this process.
    pub seccomp_filter: bool,
    /// The root directory of this process is not the root of its mount namespace.
    pub chroot: bool,
    /// The program that made the container we are in.
    pub container: Option<&'static str>,
    /// How many threads this process has.
    pub threads: u32,
}

impl Facts {
    /// Reads the facts of this system and process.
    pub fn gather() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let status = read("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u32>().ok())
        };
        let mounts = read("/proc/self/mountinfo");
        let container = if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            Some("Kubernetes")
        } else if Path::new("/.dockerenv").exists() {
            Some("Docker")
        } else if Path::new("/run/.containerenv").exists() {
            Some("Podman")
        } else {
            None
        };
        Self {
            supported: Path::new("/proc/self/ns/user").exists(),
            max_user_namespaces: read("/proc/sys/user/max_user_namespaces").and_then(|text| text.parse().ok()),
            unprivileged_userns_clone: read("/proc/sys/kernel/unprivileged_userns_clone").map(|text| text != "0"),
            apparmor_restricts: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1"),
            seccomp_filter: field("Seccomp") == Some(2),
            chroot: mounts.is_some_and(|text| !text.lines().any(|line| line.split(' ').nth(4) == Some("/"))),
            container,
            threads: field("Threads").unwrap_or(1),
        }
    }
}

/// Names the switch that forbids it and the way out, as lines that follow an error message.
pub fn explain(errno: Errno, facts: &Facts) -> String {
    if !facts.supported {
        return "the kernel was built without user namespaces (CONFIG_USER_NS)\n  hint: run the image with docker, or \
                with an apptainer that is installed setuid"
            .into();
    }
    if facts.max_user_namespaces == Some(0) {
        return "user.max_user_namespaces is 0 on this machine\n  hint: an administrator can allow them with `sudo \
                sysctl user.max_user_namespaces=15000`"
            .into();
    }
    if errno == Errno::NOSPC {
        return "the limit user.max_user_namespaces is used up\n  hint: end other containers of yours, or have an \
                administrator raise it with `sudo sysctl user.max_user_namespaces=15000`"
            .into();
    }
    if facts.unprivileged_userns_clone == Some(false) {
        return "kernel.unprivileged_userns_clone is 0 on this machine\n  hint: an administrator can allow them with \
                `sudo sysctl kernel.unprivileged_userns_clone=1`"
            .into();
    }
    if facts.chroot {
        return "this process runs in a chroot, where the kernel refuses containers\n  hint: enter that directory \
                with pivot_root instead (systemd-nspawn, bubblewrap, podman), or run the image outside of it"
            .into();
    }
    if facts.seccomp_filter {
        return seccomp(facts.container);
    }
    if facts.apparmor_restricts {
        return "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1, the default of \
                Ubuntu since 23.10)\n  hint: an administrator can allow them with `sudo sysctl \
                kernel.apparmor_restrict_unprivileged_userns=0`, or give this program a profile with the rule `userns,`"
            .into();
    }
    if errno == Errno::INVAL && facts.threads > 1 {
        return format!("the process has {} threads, and only one with a single thread can do it", facts.threads);
    }
    "no switch that is known to forbid it is set\n  hint: a chroot or a security module (SELinux, AppArmor) can; the \
     latter's log says so (`sudo dmesg | tail`)"
        .into()
}

fn seccomp(container: Option<&'static str>) -> String {
    let place = container.map_or("a seccomp filter".to_owned(), |name| format!("the seccomp filter of {name}"));
    let mend = match container {
        Some("Kubernetes") => {
            "set securityContext.seccompProfile.type to Unconfined (and procMount to Unmasked), or run the image \
             directly as a pod"
        }
        Some(_) => {
            "start the outer container with `--security-opt seccomp=unconfined --security-opt \
             systempaths=unconfined`, or run the image outside of it"
        }
        None => "run the image outside of the sandbox that set it",
    };
    format!("{place} forbids it\n  hint: {mend}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Facts {
        Facts { supported: true, max_user_namespaces: Some(15000), threads: 1, ..Facts::default() }
    }

    #[test]
    fn each_switch_is_named_with_its_mend() {
        let table: [(Errno, Facts, &[&str]); 10] = [
            (Errno::INVAL, Facts { supported: false, ..allowed() }, &["CONFIG_USER_NS", "docker"]),
            (
                Errno::NOSPC,
                Facts { max_user_namespaces: Some(0), ..allowed() },
                &["max_user_namespaces is 0", "sysctl user.max_user_namespaces="],
            ),
            (Errno::NOSPC, allowed(), &["used up", "sysctl user.max_user_namespaces="]),
            (
                Errno::PERM,
                Facts { unprivileged_userns_clone: Some(false), ..allowed() },
                &["sysctl kernel.unprivileged_userns_clone=1"],
            ),
            (Errno::PERM, Facts { chroot: true, ..allowed() }, &["chroot", "pivot_root"]),
            (
                Errno::PERM,
                Facts { seccomp_filter: true, container: Some("Docker"), ..allowed() },
                &["seccomp filter of Docker", "seccomp=unconfined"],
            ),
            (
                Errno::PERM,
                Facts { seccomp_filter: true, container: Some("Kubernetes"), ..allowed() },
                &["Kubernetes", "seccompProfile"],
            ),
            (
                Errno::ACCESS,
                Facts { apparmor_restricts: true, ..allowed() },
                &["AppArmor", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"],
            ),
            (Errno::INVAL, Facts { threads: 3, ..allowed() }, &["3 threads"]),
            (Errno::PERM, allowed(), &["security module", "dmesg"]),
        ];
        for (errno, facts, words) in table {
            let text = explain(errno, &facts);
            for word in words {
                assert!(text.contains(word), "{facts:?}: {text}");
            }
        }
    }

    #[test]
    fn the_facts_of_this_machine_can_be_gathered() {
        let facts = Facts::gather();
        assert!(facts.threads >= 1);
    }
}
