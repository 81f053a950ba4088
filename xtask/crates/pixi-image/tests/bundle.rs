//! Bundles: what is put in comes out again where there is no network, and nothing else ever does.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "runner/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "support/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use packages::{Member, Package};
use pixi_image::model::Digest;
use serde_json::{Value, json};
use web::Answer;
use workspace::{Workspace, stderr, succeeds};

const SCRIPT: &str = "print('hello')\n";

fn small() -> Vec<Package> {
    vec![
        Package::new("lib", [Member::file("lib/libx.so", "x".repeat(1000))]),
        Package::new("tool", [Member::file("bin/tool", "#!/bin/sh\necho the tool runs\n").executable()])
            .depends(&["lib"]),
        Package::new("other", [Member::file("share/other", "other")]),
    ]
}

/// Serves an image with programs of this machine as a registry does; its reference.
fn registry(workspace: &Workspace) -> String {
    let layout = workspace.path("layout");
    fs::create_dir(&layout).unwrap();
    image::Tree::with_programs().oci(&layout, json!({"Env": ["PATH=/bin"]}));
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    for path in files(&layout.join("blobs")) {
        let (digest_of_blob, bytes) =
            (format!("sha256:{}", path.file_name().unwrap().display()), fs::read(&path).unwrap());
        if digest_of_blob == digest {
            workspace.web.set("/v2/base/manifests/1", vec![Answer::Bytes(bytes.clone())]);
        }
        let kind = if digest_of_blob == digest { "manifests" } else { "blobs" };
        workspace.web.set(&format!("/v2/base/{kind}/{digest_of_blob}"), vec![Answer::Bytes(bytes)]);
    }
    format!("{}/base:1", workspace.web.url("").trim_start_matches("http://"))
}

fn pack(workspace: &Workspace, more: &[&str]) -> Command {
    let mut command = workspace.command(["bundle", "pack", "--out", "out/class.tar", "--source", "test"]);
    command.args(["--lock", "pixi.lock", "--add", "app/script.py=script.py"]).args(more);
    workspace.write("script.py", SCRIPT.as_bytes());
    command
}

/// What `open` said, by the names of the facts.
fn open(workspace: &Workspace, bundle: &str) -> BTreeMap<String, Vec<String>> {
    let output = workspace.command(["bundle", "open", bundle, "--into", "unpacked"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            (fields.next().unwrap(), fields.collect())
        })
        .collect()
}

fn refuse(workspace: &Workspace, bundle: &[u8], parts: &[&str]) {
    workspace.write("bad.tar", bundle);
    let mut command = workspace.command(["bundle", "open", "bad.tar", "--into", "unpacked"]);
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts.iter().chain(&["\n  hint: "]) {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let left: Vec<_> = files(&workspace.work("unpacked")).into_iter().filter(|path| !path.ends_with(".lock")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!workspace.path("escaped").exists());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_class_without_a_network_locks_builds_tests_and_runs_the_same_images() {
    let workspace = Workspace::new(&small());
    let base = registry(&workspace);
    succeeds(&mut workspace.build_on(&base));
    let (images, lock) = (workspace.digests(), workspace.read("pixi.lock"));
    succeeds(&mut pack(&workspace, &["--base", &base]));

    // As if it were another machine, years later.
    workspace.web.clear();
    fs::remove_dir_all(workspace.path("cache")).unwrap();
    fs::remove_file(workspace.work("pixi.lock")).unwrap();
    workspace.forget_results();
    let facts = open(&workspace, "out/class.tar");
    let directory = &facts["bundle"][1];
    assert_eq!((facts["source"][0].as_str(), &facts["base"][0]), ("test", &base));
    assert_eq!(facts["environment"], ["default"]);
    assert_eq!(workspace.read(&format!("{directory}/app/script.py")), SCRIPT.as_bytes());

    let among = format!("{directory}/pixi.lock");
    let Some(mut solve) = machine::without_network(workspace.lock().args(["--offline", "--among", &among])) else {
        return println!("skipped: this machine does not let us take its network away");
    };
    succeeds(&mut solve);
    assert_eq!(workspace.read("pixi.lock"), lock);
    let mut build = workspace.build_on(&base);
    let build = build.args(["--offline", "--cache", &format!("{directory}/cache")]);
    succeeds(&mut machine::without_network(build).unwrap());
    assert_eq!(workspace.digests(), images);
    assert!(workspace.cached().is_empty(), "everything stays in the bundle's own cache");
    for image in [workspace::OCI, workspace::SIF] {
        for command in [&["test", image, "--lock", "pixi.lock", "--", "tool"][..], &["run", image, "--", "tool"]] {
            let mut run = workspace.command([]);
            let output = machine::without_network(run.args(command)).unwrap().output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", stderr(&output));
            assert_eq!(String::from_utf8_lossy(&output.stdout), "the tool runs\n");
        }
    }
}

#[test]
fn the_same_content_makes_the_same_bundle() {
    let workspace = Workspace::new(&small());
    succeeds(&mut pack(&workspace, &[]));
    let first = workspace.read("out/class.tar");
    succeeds(pack(&workspace, &[]).arg("--offline"));
    assert_eq!(Digest::of(&workspace.read("out/class.tar")), Digest::of(&first));
    // It is a tar as any other, and says itself what is in it.
    let mut tar = tar::Archive::new(first.as_slice());
    let names: Vec<_> =
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!((names.len(), names[0].as_str(), names[1].as_str()), (6, "bundle.json", "app/script.py"));
}

#[test]
fn what_is_there_is_not_unpacked_again_and_what_was_taken_away_is() {
    let workspace = Workspace::new(&small());
    succeeds(&mut pack(&workspace, &[]));
    let directory = workspace.work(&open(&workspace, "out/class.tar")["bundle"][1]);
    fs::write(directory.join("cache/of-a-build"), "").unwrap();
    open(&workspace, "out/class.tar");
    assert!(directory.join("cache/of-a-build").exists(), "it was unpacked a second time");
    fs::write(directory.join("app/script.py"), "cut").unwrap();
    open(&workspace, "out/class.tar");
    assert_eq!(fs::read_to_string(directory.join("app/script.py")).unwrap(), SCRIPT);
    assert!(!directory.join("cache/of-a-build").exists());
    // What a killed process left does not stand in the way.
    let name = directory.file_name().unwrap().to_str().unwrap();
    fs::rename(&directory, directory.with_file_name(format!(".{name}.partial"))).unwrap();
    open(&workspace, "out/class.tar");
    assert_eq!(fs::read_to_string(directory.join("app/script.py")).unwrap(), SCRIPT);
}

#[test]
fn a_bundle_that_was_cut_off_or_changed_is_refused_with_the_members_name() {
    let workspace = Workspace::new(&small());
    succeeds(&mut pack(&workspace, &[]));
    let whole = workspace.read("out/class.tar");
    let at = whole.windows(SCRIPT.len()).position(|bytes| bytes == SCRIPT.as_bytes()).unwrap();

    let mut changed = whole.clone();
    changed[at] ^= 1;
    refuse(&workspace, &changed, &["bad.tar was cut off or changed: app/script.py has the content sha256:"]);
    refuse(&workspace, &whole[..at + 512], &["cut off or changed: packages/"]);
    refuse(&workspace, &whole[..at], &["cut off or changed: app/script.py"]);
    refuse(&workspace, &whole[..700], &["cut off or changed: bundle.json is cut off"]);
    refuse(&workspace, &whole[..whole.len() - 1], &["cut off or changed: its end"]);
    refuse(&workspace, &[whole.as_slice(), b"more"].concat(), &["cut off or changed: its end"]);
    refuse(&workspace, b"", &["is not a bundle"]);
    refuse(&workspace, &[b'x'; 2000], &["is not a bundle", "does not begin with bundle.json"]);
    let mut header = whole.clone();
    header[at - 512] = b'X'; // the script's name in its header
    refuse(&workspace, &header, &["app/script.py is not there"]);
}

/// A tar whose list says `listed` and which holds `held`: name, type and content.
fn hostile(listed: &[(&str, &[u8])], held: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let member =
        |(path, content): &(&str, &[u8])| json!({"path": path, "size": content.len(), "sha256": Digest::of(content)});
    let members: Vec<Value> = listed.iter().map(member).collect();
    let list = json!({"format": 1, "source": "test", "environments": [], "members": members}).to_string();
    let mut out = Vec::new();
    let all = [("bundle.json", tar::EntryType::Regular, list.as_bytes())];
    for (path, kind, content) in all.iter().chain(held) {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn nothing_leaves_its_directory_and_nothing_is_there_that_is_not_listed() {
    let workspace = Workspace::new(&small());
    let file = tar::EntryType::Regular;
    for path in
        ["../../escaped", "/tmp/escaped", "app/../../escaped", "cache/packages/x", "app/", ".bashrc", "app/a\nb"]
    {
        refuse(&workspace, &hostile(&[(path, b"x")], &[(path, file, b"x")]), &["is not a bundle", "it lists `"]);
    }
    let listed: &[(&str, &[u8])] = &[("app/a", b"x")];
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory, tar::EntryType::GNULongName]
    {
        refuse(&workspace, &hostile(listed, &[("app/a", kind, b"x")]), &["app/a is not there"]);
    }
    refuse(&workspace, &hostile(listed, &[("app/b", file, b"x")]), &["app/a should come where `app/b` does"]);
    refuse(&workspace, &hostile(listed, &[("app/a", file, b"y")]), &["app/a has the content"]);
    refuse(&workspace, &hostile(listed, &[]), &["cut off or changed"]);
    refuse(&workspace, &hostile(listed, &[("app/a", file, b"x"), ("app/b", file, b"y")]), &["its end"]);
    let twice: &[(&str, &[u8])] = &[("app/a", b"x"), ("app/a", b"x")];
    refuse(&workspace, &hostile(twice, &[]), &["at the wrong place"]);
    // A size that no file can have comes to nothing before a byte is written.
    let list = r#"{"format": 1, "source": "t", "environments": [], "members": [{"path": "app/a", "size": 18446744073709551000, "sha256": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;
    let mut bytes = hostile(&[], &[]);
    let mut header = tar::Header::new_ustar();
    header.set_path("bundle.json").unwrap();
    header.set_size(list.len() as u64);
    header.set_cksum();
    bytes.splice(.., [header.as_bytes(), list.as_bytes(), &[0; 2048]].concat());
    refuse(&workspace, &bytes, &["adds up to no number"]);
    let newer = String::from_utf8(hostile(&[], &[])).unwrap().replace("\"format\":1", "\"format\":9");
    refuse(&workspace, newer.as_bytes(), &["it has format 9"]);
}

#[test]
fn programs_are_listed_for_sha256sum_and_not_taken_out() {
    let workspace = Workspace::new(&small());
    workspace.write("program", b"#!/bin/sh\n");
    succeeds(&mut pack(&workspace, &["--add", "programs/linux-x/program=program"]));
    let directory = workspace.work(&open(&workspace, "out/class.tar")["bundle"][1]);
    assert!(!directory.join("programs").exists());
    let status =
        |script: &str| Command::new("sh").args(["-c", script]).current_dir(workspace.work("out")).status().unwrap();
    assert!(
        status("tar -xf class.tar programs/linux-x && cd programs/linux-x && sha256sum --check SHA256SUMS").success()
    );
    assert!(status("test -x programs/linux-x/program").success());
}

#[test]
fn what_cannot_be_put_in_is_refused_and_nothing_is_written() {
    let workspace = Workspace::new(&small());
    let names = ["x=script.py", "cache/x=script.py", "app/../x=script.py", "app/x=missing", "app/script.py=script.py"];
    for place in names {
        let before = workspace.work("out/class.tar").exists();
        let output = pack(&workspace, &["--add", place]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{place}");
        assert!(stderr(&output).contains("\n  hint: "), "{}", stderr(&output));
        assert_eq!(workspace.work("out/class.tar").exists(), before);
    }
    let output = pack(&workspace, &["--environment", "gpu"]).output().unwrap();
    assert!(stderr(&output).contains("gpu"), "{}", stderr(&output));
}

#[test]
fn a_changed_manifest_is_solved_among_the_packages_of_the_bundles_lock() {
    let workspace = Workspace::new(&small());
    fs::copy(workspace.work("pixi.lock"), workspace.work("class.lock")).unwrap();
    workspace.web.clear();
    fs::remove_dir_all(workspace.path("cache")).unwrap();
    let manifest = String::from_utf8(workspace.read("pixi.toml")).unwrap();
    workspace.write("pixi.toml", manifest.replace("other = \"*\"\n", "").as_bytes());
    let said = succeeds(workspace.lock().args(["--among", "class.lock"]));
    assert!(said.contains("solve default for linux-64"), "{said}");
    let names = |text: String| text.lines().filter(|line| line.contains("- conda: ")).count();
    // Each package stands in the environment and in the list.
    assert_eq!(names(workspace.lock_text()), 4, "{}", workspace.lock_text());

    workspace.write("pixi.toml", manifest.replace("other = \"*\"", "numpy = \"*\"").as_bytes());
    let output = workspace.lock().args(["--among", "class.lock"]).output().unwrap();
    assert!(stderr(&output).contains("numpy"), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: only the packages of class.lock can be had here"), "{}", stderr(&output));
}
