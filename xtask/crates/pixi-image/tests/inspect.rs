//! `pixi-image inspect`: both formats, what is damaged, and what tries to steer a terminal.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pixi_image::archive::{BaseConfig, single_layer};
use pixi_image::entry::{ImagePath, Mode, push_file};
use pixi_image::inspect::{Inspection, Oci, Sif, inspect};
use pixi_image::model::Digest;
use pixi_image::sif::{self, SifArchitecture, SifSpec};
use serde_json::{Value, json};

/// An OCI archive of one layer.
fn archive(directory: &Path) -> PathBuf {
    let place = directory.join("a.oci.tar");
    let config = BaseConfig {
        env: vec!["A=b".into()],
        cmd: vec!["sh".into()],
        labels: BTreeMap::from([("title".into(), "\u{1b}[31mred".into())]),
        architecture: "arm64".into(),
        created: 1_700_000_000,
    };
    single_layer(&place, "pixi-image: numpy python", &config, &mut |sink| {
        push_file(sink, ImagePath::new("etc/x").unwrap(), Mode::FILE, 5, b"content")
    })
    .unwrap();
    place
}

/// A SIF whose squashfs holds nothing but its superblock.
fn sif_file(directory: &Path) -> PathBuf {
    let place = directory.join("a.sif");
    let mut squashfs = vec![0; 4096];
    squashfs[..4].copy_from_slice(b"hsqs");
    squashfs[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    squashfs[20] = 6;
    let metadata =
        json!({ "data": { "attributes": { "labels": { "a": "b", "n": 1 } } }, "type": "container" }).to_string();
    let spec = SifSpec {
        architecture: SifArchitecture::Arm64,
        created: 0,
        definition: b"Bootstrap: scratch\n",
        inspect_metadata: metadata.as_bytes(),
        content_id: [7; 32],
        squashfs_size: squashfs.len() as u64,
    };
    fs::write(&place, [sif::prefix(&spec).unwrap(), squashfs].concat()).unwrap();
    place
}

fn oci(path: &Path) -> Oci {
    match inspect(path).unwrap() {
        Inspection::Oci(image) => *image,
        Inspection::Sif(_) => panic!("{} is taken for a SIF", path.display()),
    }
}

fn sif_of(path: &Path) -> Sif {
    match inspect(path).unwrap() {
        Inspection::Sif(image) => image,
        Inspection::Oci(_) => panic!("{} is taken for an OCI image", path.display()),
    }
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pixi-image")).arg("inspect").args(arguments).output().unwrap()
}

#[test]
fn an_archive_and_its_layout_are_told_alike() {
    let directory = tempfile::tempdir().unwrap();
    let place = archive(directory.path());
    let image = oci(&place);
    assert_eq!(image.bytes, fs::metadata(&place).unwrap().len());
    assert_eq!((image.platform.as_str(), image.created.as_deref()), ("linux/arm64", Some("2023-11-14T22:13:20Z")));
    assert_eq!((image.env.as_slice(), image.cmd.as_slice()), (&["A=b".to_owned()][..], &["sh".to_owned()][..]));
    let [layer] = image.layers.as_slice() else { panic!("{} layers", image.layers.len()) };
    assert_eq!(layer.packages, ["numpy", "python"]);
    assert_eq!((layer.compression, layer.blob.bytes > 0), ("gzip", true));
    assert!(layer.diff_id.starts_with("sha256:") && layer.diff_id != layer.blob.digest);

    let layout = directory.path().join("layout");
    tar::Archive::new(fs::File::open(&place).unwrap()).unpack(&layout).unwrap();
    let unpacked = oci(&layout);
    assert_eq!(unpacked.digest, image.digest);
    assert!(image.digest.is_some() && unpacked.bytes < image.bytes);
}

#[test]
fn an_archive_of_an_older_docker_is_told_by_its_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("docker.tar");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["A=b"] },
        "history": [{ "created_by": "FROM" }, { "created_by": "ENV", "empty_layer": true }, { "created_by": "RUN" }],
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64))] },
    })
    .to_string();
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": ["x:gpu"], "Layers": ["1/layer.tar", "2/layer.tar"] }]).to_string();
    let mut tar = tar::Builder::new(fs::File::create(&place).unwrap());
    for (name, content) in [
        ("c.json", config.as_bytes()),
        ("1/layer.tar", &[0; 1024]),
        ("2/layer.tar", &[0; 512]),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.finish().unwrap();
    let image = oci(&place);
    assert_eq!((image.digest, image.config.digest), (None, Digest::of(config.as_bytes()).to_string()));
    assert_eq!(image.names, ["x:gpu"]);
    let layers: Vec<_> = image.layers.iter().map(|one| (one.blob.bytes, one.created_by.as_deref())).collect();
    assert_eq!(layers, [(1024, Some("FROM")), (512, Some("RUN"))]);
    assert_eq!(image.layers[0].diff_id, image.layers[0].blob.digest);
}

#[test]
fn a_sif_is_told_by_its_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let place = sif_file(directory.path());
    let image = sif_of(&place);
    assert_eq!(image.digest, Digest::of(&fs::read(&place).unwrap()));
    assert_eq!(
        (image.architecture.as_str(), image.compression, image.block_bytes),
        ("arm64", Some("zstd"), Some(131_072))
    );
    assert_eq!(image.labels, BTreeMap::from([("a".to_owned(), "b".to_owned()), ("n".to_owned(), "1".to_owned())]));
    assert_eq!(image.signatures, 0);
    let objects: Vec<_> = image.objects.iter().map(|one| (one.what.as_str(), one.file_system)).collect();
    assert_eq!(objects, [("definition file", None), ("JSON", None), ("partition", Some("squashfs"))]);
    assert!(image.objects.iter().all(|object| object.offset + object.bytes <= image.bytes));
}

#[test]
fn a_signature_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let place = sif_file(directory.path());
    let mut bytes = fs::read(&place).unwrap();
    bytes[4096..4100].copy_from_slice(&sif::SIGNATURE.to_le_bytes()); // in the place of the definition file
    fs::write(&place, bytes).unwrap();
    assert_eq!(sif_of(&place).signatures, 1);
}

#[test]
fn whatever_is_damaged_ends_in_a_reason_and_never_in_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    for whole in [archive(directory.path()), sif_file(directory.path())] {
        let bytes = fs::read(&whole).unwrap();
        let place = directory.path().join("damaged");
        let try_with = |damaged: &[u8]| {
            fs::write(&place, damaged).unwrap();
            inspect(&place).map_err(|error| assert!(!error.to_string().is_empty())).is_ok()
        };
        for length in (0..bytes.len()).step_by(509) {
            try_with(&bytes[..length]);
        }
        assert!(!try_with(&bytes[..bytes.len() / 2]));
        for at in (0..bytes.len()).step_by(131) {
            for value in [0, 0xff, bytes[at] ^ 1] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                try_with(&damaged);
            }
        }
        // Sizes and offsets of headers and descriptors, at their largest.
        for at in (0..bytes.len().min(8192) - 8).step_by(8) {
            let mut damaged = bytes.clone();
            damaged[at..at + 8].fill(0xff);
            try_with(&damaged);
        }
    }
}

#[test]
fn the_command_says_it_as_a_table_or_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, sif) = (archive(directory.path()), sif_file(directory.path()));
    for (place, kind) in [(&archive, "oci"), (&sif, "sif")] {
        let place = place.to_str().unwrap();
        let output = program(&[place]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(place), "{text}");
        assert!(!text.contains('\u{1b}'), "an image steers the terminal");
        let output = program(&[place, "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["kind"], kind);
        assert!(document["bytes"].as_u64().unwrap() > 1000);
    }
    let text = String::from_utf8(program(&[archive.to_str().unwrap()]).stdout).unwrap();
    assert!(text.contains("packages: numpy python"), "{text}");
}

#[test]
fn what_is_no_image_ends_with_1_and_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("x.txt");
    fs::write(&text, "hello\n".repeat(1000)).unwrap();
    for place in [text.as_path(), directory.path(), Path::new("/dev/null"), &directory.path().join("absent")] {
        let output = program(&[place.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.contains("hint: ") && output.stdout.is_empty(), "{said}");
        assert!(said.lines().count() <= 2, "{said}");
    }
}
