//! What a command in an image sees, and what it leaves behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::image::{Tree, append, layout};
use crate::sandbox::{Ended, Sandbox, is_root, uid};

#[test]
fn exit_codes_are_passed_on_and_say_what_went_wrong() {
    let Some(sandbox) = Sandbox::new() else { return };
    let tree = Tree::with_programs().file("bin/text", "not a program", 0o644).file(
        "bin/orphan",
        "#!/no/such/interpreter\n",
        0o755,
    );
    let image = tree.oci(&sandbox.path("image"), json!({"Env": ["PATH=/bin"]}));
    for (command, code, message) in [
        (&["sh", "-c", "exit 0"][..], 0, ""),
        (&["sh", "-c", "exit 7"], 7, ""),
        (&["sh", "-c", "kill -9 $$"], 137, ""),
        (&["sh", "-c", "kill -TERM $$"], 143, ""),
        (&["python"], 127, "python: there is no such command in the image\n  searched: /bin"),
        (&["/bin/absent"], 127, "/bin/absent: there is no such file in the image"),
        (&["text"], 126, "text: it is no program that you may execute"),
        (&["/bin"], 126, "no program"),
        (&["orphan"], 127, "interpreter"),
        (&[], 1, "names no command"),
    ] {
        let ended = sandbox.run(&image, &[], command);
        assert_eq!(ended.code, Some(code), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains(message), "{command:?}: {ended:?}");
    }
}

#[test]
fn arguments_arrive_as_they_are_given() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let words = ["a b", "'single'", "\"double\"", "$HOME `id` \\", "", "-x", "--", "ü\n"];
    let printed = sandbox.run(&image, &[], &[&["printf", "<%s>"][..], &words].concat()).ok();
    assert_eq!(printed, words.map(|word| format!("<{word}>")).concat());
}

#[test]
fn the_environment_is_the_images_and_not_the_hosts() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let mut command = sandbox.command(&image, &["--env", "GIVEN=a b", "--env", "TAKEN"], &["env"]);
    command.env("LD_LIBRARY_PATH", "/host").env("SECRET", "x").env("SLURM_PROCID", "3").env("TAKEN", "t");
    let env = Ended::of(&mut command).ok();
    for line in ["PATH=/bin", "FROM_IMAGE=yes", "GIVEN=a b", "TAKEN=t", "SLURM_PROCID=3"] {
        assert!(env.lines().any(|found| found == line), "{line}: {env}");
    }
    assert!(env.contains(&format!("HOME={}\n", sandbox.path("home").display())), "{env}");
    assert!(!env.contains("LD_LIBRARY_PATH") && !env.contains("SECRET"), "{env}");
}

#[test]
fn nothing_of_the_hosts_path_is_needed() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let mut command = sandbox.command_after(&["/usr/bin/env", "-i", "PATH="], &image, &[], &["sh", "-c", "echo $PATH"]);
    assert_eq!(Ended::of(&mut command).ok(), "/bin\n");
}

#[test]
fn the_user_and_the_directory_are_the_callers() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let work = sandbox.path("work");
    let seen = sandbox.run(&image, &[], &["sh", "-c", "id -u; pwd; echo $PWD; echo made >here; echo $$"]).ok();
    let work_text = work.display();
    // The shell is the second process: the first is the init.
    assert_eq!(seen, format!("{}\n{work_text}\n{work_text}\n2\n", uid()));
    assert_eq!(std::fs::read(work.join("here")).unwrap(), b"made\n");
    if is_root() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(work.join("here").metadata().unwrap().uid(), uid());
    }
}

#[test]
fn root_stays_root_and_reaches_the_files_of_others() {
    if !is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let secret = sandbox.path("work/secret");
    std::fs::write(&secret, "s").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.give(&secret);
    let mut command = Command::new(sandbox.program());
    command.args(["run", "--no-gpu", "--cache"]).arg(sandbox.path("root-cache")).arg(&image);
    command.args([
        "--",
        "sh",
        "-c",
        "id -u; cat secret; while read a b; do [ $a = CapEff: ] && echo $b; done </proc/self/status; true",
    ]);
    let seen = Ended::of(command.current_dir(sandbox.path("work"))).ok();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[0], "0");
    assert!(lines[1].starts_with('s'), "{seen}");
    let effective = u64::from_str_radix(lines[1].trim_start_matches('s'), 16).unwrap();
    assert_eq!(effective & (1 << 21), 0, "CAP_SYS_ADMIN is gone");
}

#[test]
fn binds_show_what_was_asked_for() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let data = sandbox.own_directory("data");
    std::fs::write(data.join("file"), "content").unwrap();
    let data = data.to_str().unwrap();
    let (writable, read_only) = (format!("{data}:/new/place"), format!("{data}:/bin:ro"));
    let one_file = format!("{data}/file:/etc/one:ro");
    let options = ["--bind", &writable, "--bind", &one_file, "--bind", data];
    let script = format!("cat /etc/one {data}/file; echo new >/new/place/made; echo x >/etc/one || echo refused");
    assert_eq!(sandbox.run(&image, &options, &["sh", "-c", &script]).ok(), "contentcontentrefused\n");
    assert!(Path::new(data).join("made").exists());

    let shell = ["/usr/bin/sh", "-c", "echo x >/bin/new || echo refused"];
    let tree = Tree::with_programs().file("usr/bin/x", "", 0o755);
    let other = tree.oci(&sandbox.path("other"), json!({}));
    let ended = sandbox.run(&other, &["--bind", &read_only], &shell);
    assert_eq!(ended.code, Some(127), "the bind covers /bin: {ended:?}");

    let missing = sandbox.run(&image, &["--bind", "/no/such/thing:/x"], &["ls"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("cannot show /no/such/thing at /x"), "{missing:?}");
    let bad = sandbox.run(&image, &["--bind", "/tmp:relative"], &["ls"]);
    assert_eq!(bad.code, Some(1));
    assert!(bad.stderr.contains("hint"), "{bad:?}");
}

#[test]
fn a_bind_makes_nothing_in_directories_of_the_host() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let inside_home = format!("/etc:{}/new/etc", sandbox.path("home").display());
    let ended = sandbox.run(&image, &["--bind", &inside_home], &["ls"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("does not exist in that directory of the host"), "{ended:?}");
    assert_eq!(std::fs::read_dir(sandbox.path("home")).unwrap().count(), 0);
}

#[test]
fn the_links_of_an_image_do_not_lead_binds_onto_the_host() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_mtime(0);
    // Not below what every container shows of the host, wherever the project lies.
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    sandbox.give(outside.path());
    tar.append_link(&mut header, "data", outside.path()).unwrap();
    let image = layout(&sandbox.path("hostile"), &[tar.into_inner().unwrap()], json!({"Cmd": ["/x"]}));
    let ended = sandbox.run(&image, &["--bind", "/etc:/data/made"], &[]);
    assert_eq!(ended.code, Some(127), "{ended:?}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn what_is_written_to_the_image_is_gone_with_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let script = "rm /bin/touch && echo x >/new && mkdir -p /bin/d && ls /new";
    assert_eq!(sandbox.run(&image, &[], &["sh", "-c", script]).ok(), "/new\n");
    assert_eq!(
        sandbox.run(&image, &[], &["sh", "-c", "ls /bin/touch; [ -e /new ] || echo gone"]).ok(),
        "/bin/touch\ngone\n"
    );
}

#[test]
fn a_cache_that_holds_the_image_may_be_read_only_and_the_work_area_is_hidden() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    sandbox.run(&image, &[], &["ls"]).ok();
    let chmod = |mode: &str| {
        let cache = sandbox.path("cache");
        assert!(sandbox.as_user(&["chmod", "-R", mode, cache.to_str().unwrap()]).status().unwrap().success());
    };
    chmod("a-w");
    let rootfs = sandbox.path("cache/rootfs");
    let seen = sandbox.run(&image, &[], &["ls", rootfs.to_str().unwrap()]).ok();
    chmod("u+w");
    assert!(seen.contains(".lock") && !seen.contains("upper"), "{seen}");
    let removed = sandbox.as_user(&["rm", "-rf", rootfs.to_str().unwrap()]).status().unwrap();
    assert!(removed.success() && !rootfs.exists(), "the user can remove the cache");
}

#[test]
fn two_first_runs_at_once_both_succeed() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let start = || sandbox.command(&image, &[], &["sh", "-c", "echo fine"]).spawn().unwrap();
    let both = [start(), start()];
    for child in both {
        assert!(child.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn a_damaged_or_hostile_image_leaves_nothing_usable() {
    let Some(sandbox) = Sandbox::new() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "fine", b"x", 0o644);
    append(&mut tar, "../../../escaped", b"x", 0o644);
    let hostile = layout(&sandbox.path("hostile"), &[tar.into_inner().unwrap()], json!({"Cmd": ["/x"]}));
    let ended = sandbox.run(&hostile, &[], &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("../../../escaped") && ended.stderr.contains("hint"), "{ended:?}");

    let damaged = sandbox.oci("damaged");
    let blobs = std::fs::read_dir(damaged.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let ended = sandbox.run(&damaged, &[], &["ls"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("damaged"), "{ended:?}");

    let left = std::fs::read_dir(sandbox.path("cache/rootfs")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = left.filter(|path| path.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!sandbox.path("escaped").exists());
}

#[test]
fn what_an_interrupted_run_left_is_cleared_away() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    sandbox.run(&image, &[], &["ls"]).ok();
    let rootfs = sandbox.path("cache/rootfs");
    let whole =
        std::fs::read_dir(&rootfs).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let partial = whole.with_extension("partial");
    std::fs::rename(&whole, &partial).unwrap();
    std::fs::write(partial.join("leftover"), "").unwrap();
    let seen = sandbox.run(&image, &[], &["ls", "/"]).ok();
    assert!(!seen.contains("leftover"), "{seen}");
    assert!(whole.is_dir() && !partial.exists());
}

#[test]
fn a_sif_runs_its_runscript_in_its_environment() {
    let Some(sandbox) = Sandbox::new() else { return };
    let base = Tree::with_programs()
        .file(".singularity.d/env/10-path.sh", "export PATH=/bin\n", 0o755)
        .file(".singularity.d/env/90-environment.sh", "export MARK=\"from env\"\n", 0o755)
        .file(".singularity.d/runscript", "#!/bin/sh\nprintf '<%s>' \"$MARK\" \"$@\"\nexit 5\n", 0o755);
    let action = "#!/bin/sh\nfor file in /.singularity.d/env/*.sh; do . \"$file\"; done\nprintf action:\n\
                  exec /.singularity.d/runscript \"$@\"\n";
    let without = base.sif(&sandbox.path("without.sif"));
    let with = base.file(".singularity.d/actions/run", action, 0o755).sif(&sandbox.path("with.sif"));
    for (image, before) in [(&with, "action:"), (&without, "")] {
        let ended = sandbox.run(image, &[], &["a b", "'c'"]);
        assert_eq!((ended.code, ended.stdout), (Some(5), format!("{before}<from env><a b><'c'>")), "{}", ended.stderr);
    }

    let mut bytes = std::fs::read(&with).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(sandbox.path("cut.sif"), bytes).unwrap();
    let cut = sandbox.run(&sandbox.path("cut.sif"), &[], &[]);
    assert_eq!(cut.code, Some(1));
    assert!(cut.stderr.contains("cut.sif") && cut.stderr.contains("hint"), "{cut:?}");
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let Some(sandbox) = Sandbox::new() else { return };
    std::fs::write(sandbox.path("text"), "hello").unwrap();
    for (path, words) in [("text", "not an OCI image"), ("absent", "absent")] {
        let ended = sandbox.run(&sandbox.path(path), &[], &["ls"]);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}

#[test]
fn a_cdi_specification_is_followed() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = sandbox.oci("image");
    let driver = sandbox.own_directory("driver");
    std::fs::write(driver.join("libcuda.so.999"), "a library").unwrap();
    std::os::unix::fs::symlink("libcuda.so.999", driver.join("libcuda.so.1")).unwrap();
    std::fs::write(driver.join("nvidia-smi"), "#!/bin/sh\necho GPU 0\n").unwrap();
    std::fs::set_permissions(driver.join("nvidia-smi"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let driver = driver.to_str().unwrap();
    let spec = json!({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all", "containerEdits": {
        "deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/zero"}]}}], "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "mounts": [
            {"hostPath": format!("{driver}/libcuda.so.999"), "containerPath": "/usr/lib64/libcuda.so.999"},
            {"hostPath": format!("{driver}/nvidia-smi"), "containerPath": "/usr/bin/nvidia-smi"}],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args":
            ["nvidia-cdi-hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib64/libcuda.so"]}]}});
    let cdi = sandbox.own_directory("cdi");
    std::fs::write(cdi.join("nvidia.json"), spec.to_string()).unwrap();
    let script = "echo $LD_LIBRARY_PATH $NVIDIA_VISIBLE_DEVICES; cat /.singularity.d/libs/libcuda.so.1; echo; \
                  readlink /usr/lib64/libcuda.so; /usr/bin/nvidia-smi; [ -c /dev/nvidia0 ] && [ -c /dev/null ] && \
                  echo x >/dev/null && echo device";
    let cache = sandbox.path("cache");
    let run = [sandbox.program(), "run", "-v", image.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    let with = ["--cdi-dir", cdi.to_str().unwrap(), "--", "sh", "-c", script];
    let ended = Ended::of(&mut sandbox.as_user(&[&run[..], &with].concat()));
    assert!(ended.stderr.contains("nvidia.json"), "{ended:?}");
    assert_eq!(ended.ok(), "/.singularity.d/libs void\na library\nlibcuda.so.1\nGPU 0\ndevice\n");
    if !Path::new("/dev/nvidiactl").exists() {
        let without = ["--cdi-dir", "/no/such/directory", "--", "sh", "-c", "echo ran"];
        let ended = Ended::of(&mut sandbox.as_user(&[&run[..], &without].concat()));
        assert!(ended.stderr.contains("no NVIDIA device here: running on the CPU"), "{ended:?}");
        assert_eq!(ended.ok(), "ran\n");
    }
}
