//! What runs in a container: its arguments and its environment.
//!
//! The environment is the image's own, over a few variables of the host (see [`passes`]); those given by the caller
//! come last. The host's `PATH`, `LD_LIBRARY_PATH`, `PYTHONPATH` and the like never get in: they name things that the
//! image does not have.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use super::rootfs::Kind;

/// The search path where an image sets none, as docker and apptainer have it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The program of a SIF that sources its environment and starts its runscript.
pub const SIF_RUN: &str = "/.singularity.d/actions/run";
/// What [`SIF_RUN`] does, for a SIF that lacks it.
const SIF_RUN_SCRIPT: &str = r#"for script in /.singularity.d/env/*.sh; do [ -f "$script" ] && . "$script"; done
[ -x /.singularity.d/runscript ] && exec /.singularity.d/runscript "$@"
exec "${@:-/bin/sh}""#;

/// The variables of the host that are passed on by their full names: the user, the terminal, the language, proxies,
/// and what a launcher of parallel jobs says to each rank.
const PASSED: [&str; 32] = [
    "HOME",
    "USER",
    "LOGNAME",
    "TERM",
    "COLORTERM",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "LANG",
    "LANGUAGE",
    "TZ",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS",
    "MASTER_ADDR",
    "MASTER_PORT",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
];
/// The same by how names begin: Slurm, PBS, LSF, HTCondor, and the process managers of MPI.
const PASSED_PREFIXES: [&str; 11] =
    ["LC_", "SLURM_", "SLURMD_", "PBS_", "LSB_", "_CONDOR_", "PMI_", "PMIX_", "OMPI_", "NCCL_", "CUDA_MPS_"];

/// The arguments and the environment of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments; never empty.
    pub argv: Vec<OsString>,
    /// All variables.
    pub env: BTreeMap<OsString, OsString>,
}

/// The image names no command, and none was given.
#[derive(Debug, thiserror::Error)]
#[error("the image names no command to run\n  hint: give one after `--`")]
pub struct NoCommand;

/// Whether a variable of the host is passed on.
pub fn passes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Decides what runs: as `docker run IMAGE ARGUMENTS` for an OCI image, as `apptainer run IMAGE ARGUMENTS` for a SIF.
///
/// `host` is the whole environment of the caller, `given` what the caller wants set; `has_run_action` says whether a SIF
/// holds [`SIF_RUN`].
pub fn process(
    kind: &Kind,
    arguments: &[OsString],
    host: impl IntoIterator<Item = (OsString, OsString)>,
    given: impl IntoIterator<Item = (OsString, OsString)>,
    has_run_action: bool,
) -> Result<Process, NoCommand> {
    let mut env: BTreeMap<OsString, OsString> = host.into_iter().filter(|(name, _)| passes(name)).collect();
    env.insert("PATH".into(), DEFAULT_PATH.into());
    let argv = match kind {
        Kind::Oci(config) => {
            env.extend(oci_env(config));
            oci_argv(config, arguments)
        }
        Kind::Sif if has_run_action => [&[SIF_RUN.into()], arguments].concat(),
        Kind::Sif => {
            let shell = ["/bin/sh", "-c", SIF_RUN_SCRIPT, "run"].map(OsString::from);
            [&shell, arguments].concat()
        }
    };
    env.extend(given);
    if argv.is_empty() { Err(NoCommand) } else { Ok(Process { argv, env }) }
}

/// The variables that an OCI configuration sets.
pub fn oci_env(config: &ImageConfiguration) -> Vec<(OsString, OsString)> {
    let lines = config.config().as_ref().and_then(|config| config.env().as_ref());
    let pairs = lines.into_iter().flatten().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

fn oci_argv(config: &ImageConfiguration, arguments: &[OsString]) -> Vec<OsString> {
    let words = |list: Option<&Vec<String>>| list.into_iter().flatten().map(OsString::from).collect::<Vec<_>>();
    let config = config.config().as_ref();
    let mut argv = words(config.and_then(|config| config.entrypoint().as_ref()));
    match arguments {
        [] => argv.extend(words(config.and_then(|config| config.cmd().as_ref()))),
        given => argv.extend_from_slice(given),
    }
    argv
}

/// A program that cannot be started.
#[derive(Debug, PartialEq, Eq)]
pub enum Unstartable {
    /// Nothing of that name is there: exit code 127.
    Missing,
    /// It is no program that this user may run: exit code 126.
    NotExecutable,
}

/// Finds a program as a shell does: by its path when it has a `/`, else along `search`. Empty parts of `search`, which
/// would mean the working directory, are left out.
pub fn find_program(program: &OsStr, search: &OsStr) -> Result<PathBuf, Unstartable> {
    let candidates: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else if program.is_empty() {
        Vec::new()
    } else {
        let parts = search.as_bytes().split(|byte| *byte == b':').filter(|part| !part.is_empty());
        parts.map(|part| Path::new(&OsString::from_vec(part.to_vec())).join(program)).collect()
    };
    let mut found = Unstartable::Missing;
    for candidate in candidates {
        if candidate.is_file() && rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        }
        if candidate.exists() {
            found = Unstartable::NotExecutable;
        }
    }
    Err(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn oci(json: &str) -> Kind {
        let whole = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        Kind::Oci(Box::new(serde_json::from_str(&whole).unwrap()))
    }

    fn argv(kind: &Kind, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        let process = process(kind, &arguments, [], [], true).unwrap();
        process.argv.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn arguments_replace_cmd_and_follow_the_entrypoint() {
        let both = oci(r#"{"Entrypoint":["/entry","-x"],"Cmd":["default"]}"#);
        assert_eq!(argv(&both, &[]), ["/entry", "-x", "default"]);
        assert_eq!(argv(&both, &["a b", "'c'"]), ["/entry", "-x", "a b", "'c'"]);
        assert_eq!(argv(&oci(r#"{"Cmd":["default"]}"#), &["mine"]), ["mine"]);
        assert!(process(&oci("{}"), &[], [], [], true).is_err());
        assert_eq!(argv(&Kind::Sif, &["a b"]), [SIF_RUN, "a b"]);
    }

    #[test]
    fn the_host_gives_the_user_and_the_job_but_never_its_paths() {
        let host = pairs(&[
            ("PATH", "/host/bin"),
            ("LD_LIBRARY_PATH", "/host/lib"),
            ("PYTHONPATH", "/host/python"),
            ("SECRET_TOKEN", "x"),
            ("HOME", "/home/me"),
            ("SLURM_PROCID", "3"),
            ("LANG", "C"),
        ]);
        let kind = oci(r#"{"Env":["LANG=C.UTF-8","A=1=2","B="]}"#);
        let given = pairs(&[("B", "given")]);
        let env = process(&kind, &["x".into()], host, given, false).unwrap().env;
        let expected = pairs(&[
            ("PATH", DEFAULT_PATH),
            ("HOME", "/home/me"),
            ("SLURM_PROCID", "3"),
            ("LANG", "C.UTF-8"),
            ("A", "1=2"),
            ("B", "given"),
        ]);
        assert_eq!(env, expected.into_iter().collect());
    }

    #[test]
    fn a_program_is_found_along_the_search_path_or_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (program, text) = (place("program", 0o755), place("text", 0o644));
        let search = OsString::from(format!("/nonexistent::{}", dir.path().display()));
        assert_eq!(find_program(OsStr::new("program"), &search), Ok(program.clone()));
        assert_eq!(find_program(program.as_os_str(), OsStr::new("")), Ok(program));
        assert_eq!(find_program(OsStr::new("text"), &search), Err(Unstartable::NotExecutable));
        assert_eq!(find_program(text.as_os_str(), &search), Err(Unstartable::NotExecutable));
        assert_eq!(find_program(dir.path().as_os_str(), &search), Err(Unstartable::NotExecutable));
        for missing in ["absent", "", "/no/such/program"] {
            assert_eq!(find_program(OsStr::new(missing), &search), Err(Unstartable::Missing), "{missing}");
        }
    }
}
