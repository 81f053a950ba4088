//! Broken manifests and locks, and names that they do not have.

use std::fs;

use crate::small;
use crate::workspace::{Workspace, succeeds};

#[test]
fn broken_toml_is_shown_with_line_and_column() {
    let workspace = Workspace::new(&small());
    workspace.write("pixi.toml", b"[workspace]\nname = \"w\"\nchannels = [\"x\"\nplatforms = 1\n");
    workspace.fails(&mut workspace.lock(), &["pixi.toml:4:1"]);
    workspace.fails(&mut workspace.build(), &["pixi.toml:4:1"]);
}

#[test]
fn a_manifest_that_is_not_there_or_no_file_is_named() {
    let workspace = Workspace::new(&small());
    fs::remove_file(workspace.work("pixi.toml")).unwrap();
    workspace.fails(&mut workspace.build(), &["pixi.toml", "there is no manifest"]);
    fs::create_dir(workspace.work("pixi.toml")).unwrap();
    workspace.fails(&mut workspace.build(), &["pixi.toml", "directory"]);
    fs::remove_dir(workspace.work("pixi.toml")).unwrap();
    workspace.write("pixi.toml", b"name = \"\xff\"\n");
    workspace.fails(&mut workspace.build(), &["pixi.toml", "UTF-8"]);
}

#[test]
fn what_is_no_lock_is_said_to_be_none() {
    let workspace = Workspace::new(&small());
    let broken: [(&[u8], &str); 6] = [
        (b"", "middle of a line"),
        (b"\n", "is not a lock"),
        (b"version: [\n", "line 2"),
        (b"version: 7\nenvironments: 3\n", "is not a lock"),
        (b"\x00\xff\xfe\n", "not text"),
        (b"{\"version\": 7}\n", "is not a lock"),
    ];
    for (bytes, part) in broken {
        workspace.write("pixi.lock", bytes);
        workspace.fails(&mut workspace.build(), &["pixi.lock", part, "make it anew"]);
    }
    fs::remove_file(workspace.work("pixi.lock")).unwrap();
    workspace.fails(&mut workspace.build(), &["there is no lock at pixi.lock", "make it"]);
    fs::create_dir(workspace.work("pixi.lock")).unwrap();
    workspace.fails(&mut workspace.build(), &["pixi.lock", "directory"]);
}

#[test]
fn a_lock_that_was_cut_anywhere_is_refused() {
    let workspace = Workspace::new(&small());
    let whole = workspace.lock_text();
    // Behind the digest of the last package a cut between two lines leaves a lock with less to say, and nothing to see.
    let visible = whole.rfind("sha256: ").unwrap();
    let cuts =
        (0..visible).step_by(visible / 60).chain((visible..whole.len()).filter(|at| whole.as_bytes()[at - 1] != b'\n'));
    for cut in cuts.collect::<Vec<_>>() {
        workspace.write("pixi.lock", &whole.as_bytes()[..cut]);
        workspace.fails(&mut workspace.build(), &["pixi.lock"]);
    }
}

#[test]
fn a_lock_of_the_future_asks_for_a_newer_program() {
    let workspace = Workspace::new(&small());
    for version in ["8", "99"] {
        let text = workspace.lock_text().replacen("version: 7", &format!("version: {version}"), 1);
        workspace.write("pixi.lock", text.as_bytes());
        workspace.fails(
            &mut workspace.build(),
            &["pixi.lock", &format!("version {version}"), "reads 4 to 7", "update this program"],
        );
        workspace.write(
            "pixi.lock",
            workspace.lock_text().replacen(&format!("version: {version}"), "version: 7", 1).as_bytes(),
        );
    }
}

#[test]
fn an_environment_whose_name_is_a_path_is_refused() {
    let workspace = Workspace::new(&small());
    for name in ["a/b", "../b", ".."] {
        workspace.write("pixi.lock", workspace.lock_text().replacen("  default:", &format!("  {name}:"), 1).as_bytes());
        let mut build = workspace.build();
        workspace
            .fails(build.args(["--frozen", "--environment", name]), &[&format!("`{name}`"), "no name of a directory"]);
        succeeds(&mut workspace.lock());
    }
}

#[test]
fn names_that_the_lock_does_not_have_are_answered_with_those_that_it_has() {
    let workspace = Workspace::new(&small());
    workspace.fails(workspace.build().args(["--environment", "gpu"]), &["no environment `gpu`", "it has: default"]);
    workspace.fails(
        workspace.build().args(["--platform", "linux-aarch64"]),
        &["environment `default`", "`linux-aarch64`", "it is for: linux-64"],
    );
    workspace.fails(workspace.build().args(["--lock", "other/pixi.lock"]), &["other/pixi.lock"]);
}

#[test]
fn a_lock_that_no_longer_fits_its_manifest_is_refused_before_anything_is_downloaded() {
    let workspace = Workspace::new(&small());
    let manifest = String::from_utf8(workspace.read("pixi.toml")).unwrap();
    workspace.write("pixi.toml", manifest.replace("lib = \"*\"", "lib = \">=9\"").as_bytes());
    let asked = workspace.web.asked().len();
    workspace.fails(
        &mut workspace.build(),
        &[
            "pixi.lock does not satisfy pixi.toml:",
            "environment `default` for linux-64: `lib >=9` (pixi.toml:",
            "is not met: locked is 1.2.3 h0_0",
            "lock anew with `cargo xtask lock`, or `pixi lock`",
        ],
    );
    assert_eq!(workspace.web.asked().len(), asked);
    succeeds(workspace.build().arg("--frozen"));
}

#[test]
fn what_only_pixi_understands_is_no_reason_not_to_build_from_its_lock() {
    for (more, said) in [
        // It concerns another environment.
        ("[feature.x.dependencies]\nx = { git = \"https://example.org/x\" }\n[environments]\nx = [\"x\"]\n", None),
        ("[tasks]\ngo = \"true\"\n[activation]\nscripts = [\"a.sh\"]\n", None),
        ("[pypi-dependencies]\nlib = \"*\"\n", Some("what its packages from PyPI need is not checked")),
        ("[dev]\nx = { path = \"x\" }\n", Some("it is not checked, for pixi.toml:")),
        ("[hence]\nx = 1\n", Some("was not compared with its manifest: pixi.toml:")),
        ("[environments]\nx = [\"nowhere\"]\n", Some("names the feature `nowhere`")),
    ] {
        let workspace = Workspace::new(&small());
        let manifest = String::from_utf8(workspace.read("pixi.toml")).unwrap();
        workspace.write("pixi.toml", format!("{manifest}\n{more}").as_bytes());
        let output = workspace.build().output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{more}\n{stderr}");
        let warnings: Vec<_> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), said.iter().len(), "{more}\n{stderr}");
        assert!(said.is_none_or(|said| warnings[0].contains(said)), "{more}\n{stderr}");
    }
}

#[test]
fn packages_that_cannot_be_verified_are_not_used() {
    let workspace = Workspace::new(&small());
    let text = workspace.lock_text();
    let without: String =
        text.lines().filter(|line| !line.contains("sha256: ")).map(|line| format!("{line}\n")).collect();
    workspace.write("pixi.lock", without.as_bytes());
    workspace.fails(&mut workspace.build(), &["lib-1.2.3-h0_0", "no sha256", "pixi.lock"]);
}

#[test]
fn a_time_that_is_none_is_refused() {
    let workspace = Workspace::new(&small());
    for time in ["yesterday", "-1", "", "1e9", "4294967296"] {
        let parts = ["SOURCE_DATE_EPOCH", time, "unset it"];
        workspace.fails(workspace.build().env("SOURCE_DATE_EPOCH", time), &parts);
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let workspace = Workspace::new(&small());
    let before = workspace.snapshot();
    let cases: [&[&str]; 6] = [
        &["build"],
        &["build", "--reference", "w:test"],
        &["build", "--reference", "w:test", "--oci", "out/x", "--sif", "out/x"],
        &["build", "--reference", "w:test", "--oci", "out/x", "--label", "novalue"],
        &["build", "--reference", "w:test", "--oci", "out/x", "--jobs", "0"],
        &["no-such-command"],
    ];
    for arguments in cases {
        let output = workspace.command([]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    }
    assert_eq!(workspace.snapshot(), before);
}
