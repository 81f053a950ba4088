//! Shapes of real locks: their sizes, their bytes, and that images can be made of them.
#![cfg(unix)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use pixi_image::build::{self, Format};
use pixi_image::config::Config;
use pixi_image::entry::{ImagePath, Mode};
use pixi_image::lock;
use pixi_image::model::Digest;
use pixi_image::progress::Silent;
use pixi_image::source::base::BaseReference;
use pixi_image::store::Store;
use rehearsal::channel;
use rehearsal::conda::CondaWriter;
use rehearsal::record::PackageRecord;
use rehearsal::shape::content::Numbers;
use rehearsal::shape::{Request, Shape, ShapeError, shape};
use rehearsal::variant;

/// A lock as pixi writes it, of a few packages of each kind, with the sizes of real ones.
const LOCK: &str = r#"version: 6
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    packages:
      linux-64:
      - conda: https://conda.anaconda.org/conda-forge/linux-64/libcublas-12.9.1.4-h676940d_1.conda
      - conda: https://conda.anaconda.org/conda-forge/linux-64/libzlib-1.3.1-hb9d3cd8_2.conda
      - conda: https://conda.anaconda.org/conda-forge/linux-64/openssl-3.6.0-h26f9b46_0.conda
      - conda: https://conda.anaconda.org/conda-forge/linux-64/python-3.13.9-hc97d973_101_cp313.conda
      - conda: https://conda.anaconda.org/conda-forge/noarch/python_abi-3.13-8_cp313.conda
      - conda: https://conda.anaconda.org/conda-forge/noarch/sympy-1.14.0-pyh2585a3b_105.conda
packages:
- conda: https://conda.anaconda.org/conda-forge/linux-64/libcublas-12.9.1.4-h676940d_1.conda
  sha256: 0000000000000000000000000000000000000000000000000000000000000001
  depends:
  - __cuda >=12
  size: 467746725
- conda: https://conda.anaconda.org/conda-forge/linux-64/libzlib-1.3.1-hb9d3cd8_2.conda
  sha256: 0000000000000000000000000000000000000000000000000000000000000002
  depends:
  - __glibc >=2.17,<3.0.a0
  size: 60963
- conda: https://conda.anaconda.org/conda-forge/linux-64/openssl-3.6.0-h26f9b46_0.conda
  sha256: 0000000000000000000000000000000000000000000000000000000000000003
  size: 3165399
- conda: https://conda.anaconda.org/conda-forge/linux-64/python-3.13.9-hc97d973_101_cp313.conda
  sha256: 0000000000000000000000000000000000000000000000000000000000000004
  depends:
  - libzlib >=1.3.1,<2.0a0
  - openssl >=3.5.4,<4.0a0
  constrains:
  - python_abi 3.13.* *_cp313
  size: 37174029
- conda: https://conda.anaconda.org/conda-forge/noarch/python_abi-3.13-8_cp313.conda
  sha256: 0000000000000000000000000000000000000000000000000000000000000005
  size: 7002
- conda: https://conda.anaconda.org/conda-forge/noarch/sympy-1.14.0-pyh2585a3b_105.conda
  noarch: python
  sha256: 0000000000000000000000000000000000000000000000000000000000000006
  depends:
  - python >=3.10
  size: 4616621
"#;

fn request(directory: &Path, permille: u64, variant: Option<&str>) -> Request {
    std::fs::create_dir_all(directory).unwrap();
    let lock = directory.join("real.lock");
    std::fs::write(&lock, LOCK).unwrap();
    Request {
        lock,
        environment: "default".to_owned(),
        platform: "linux-64".to_owned(),
        out: directory.join("out"),
        permille,
        url: format!("file://{}", directory.join("out/channel").display()),
        variant: variant.map(str::to_owned),
        like: channel(&directory.join("like")),
    }
}

/// A channel of one package with a text and a library, which are random but for a byte's likelihood.
fn channel(place: &Path) -> PathBuf {
    let archive = place.join("linux-64/real-1-0.conda");
    std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
    std::fs::create_dir_all(place.join("noarch")).unwrap();
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&archive).unwrap();
    let mut writer = CondaWriter::new(file, "real-1-0").unwrap();
    let mut numbers = Numbers::of("real");
    let mut skewed = |limit: u64| {
        let byte = |_| (numbers.below(limit) * numbers.below(limit) / limit) as u8;
        (0..1 << 20).map(byte).collect::<Vec<u8>>()
    };
    for (path, content) in [("lib/module.py", skewed(20)), ("lib/libreal.so.1", skewed(60))] {
        let path = ImagePath::new(path).unwrap();
        writer.file(&path, Mode::FILE, content.len() as u64, &mut content.as_slice()).unwrap();
    }
    let index = serde_json::json!({"name": "real", "version": "1", "build": "0", "build_number": 0, "depends": []});
    let sums = writer.finish(&[("index.json", index.clone())]).unwrap();
    let mut repodata = index;
    repodata["sha256"] = sums.sha256.hex().into();
    repodata["size"] = sums.size.into();
    let (subdir, file_name) = ("linux-64".to_owned(), "real-1-0.conda".to_owned());
    let record = PackageRecord { subdir, file_name, sha256: sums.sha256, size: sums.size, repodata };
    channel::write_repodata(place, &[record]).unwrap();
    place.to_owned()
}

fn digests(out: &Path) -> Vec<(String, Digest)> {
    let packages = variant::records(&out.join("channel")).unwrap();
    packages.into_iter().map(|package| (package.file_name, package.sha256)).collect()
}

#[test]
fn archives_are_as_large_as_the_lock_says() {
    let directory = tempfile::tempdir().unwrap();
    let made = shape(&request(directory.path(), 30, None), &Silent).unwrap();
    let wanted = [467_746_725, 60_963, 3_165_399, 37_174_029, 7002, 4_616_621].map(|size| size * 30 / 1000);
    assert!(made.bytes.abs_diff(wanted.iter().sum()) * 100 <= made.bytes * 5, "{} bytes", made.bytes);
    for package in variant::records(&directory.path().join("out/channel")).unwrap() {
        // It stands in the environment first, then with its fields.
        let real = LOCK.rsplit(&format!("/{}\n", package.file_name)).next().unwrap();
        let real: u64 = real.split("size: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let off = package.size.abs_diff(real * 30 / 1000);
        assert!(off <= (package.size / 20).max(4096), "{}: {} of {real}", package.file_name, package.size);
    }
}

#[test]
fn the_same_lock_makes_the_same_bytes_and_what_is_there_is_left_alone() {
    let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let made = shape(&request(one.path(), 2, None), &Silent).unwrap();
    shape(&request(two.path(), 2, None), &Silent).unwrap();
    let (first, second) = (one.path().join("out"), two.path().join("out"));
    assert_eq!(digests(&first), digests(&second));
    let again = shape(&request(one.path(), 2, None), &Silent).unwrap();
    assert_eq!(again, Shape { unchanged: true, ..made });
    let other = shape(&request(one.path(), 3, None), &Silent).unwrap();
    assert!(!other.unchanged);
    assert_ne!(digests(&first), digests(&second));
}

fn build(workspace: &Path, cache: &Path) -> Vec<(Format, PathBuf)> {
    let request = build::Request {
        lock: workspace.join("pixi.lock"),
        manifest: workspace.join("pixi.toml"),
        environment: "default".to_owned(),
        platform: "linux-64".to_owned(),
        base: BaseReference::Scratch,
        app: None,
        reference: "shape:default".to_owned(),
        labels: Default::default(),
        oci: Some(workspace.join("image.oci.tar")),
        sif: Some(workspace.join("image.sif")),
        created: None,
        jobs: NonZeroUsize::MIN,
        frozen: false,
        offline: false,
        config: Config::default(),
    };
    let built = build::build(&request, &Store::at(cache.to_owned()), &Silent).unwrap();
    built.into_iter().map(|artifact| (artifact.format, artifact.path)).collect()
}

#[test]
fn images_are_made_of_it_and_of_its_variant() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    shape(&request(directory.path(), 4, Some("openssl")), &Silent).unwrap();
    let identities = |workspace: &str| -> Vec<String> {
        let environment = lock::read(&out.join(workspace).join("pixi.lock"), "default", "linux-64").unwrap();
        let mut identities: Vec<_> = environment.packages.iter().map(|package| package.identity()).collect();
        identities.sort();
        identities
    };
    let (plain, changed) = (identities("workspace"), identities("changed"));
    assert_eq!(plain.len(), 6);
    let new: Vec<_> = changed.iter().filter(|identity| !plain.contains(identity)).collect();
    assert_eq!(new, ["openssl-3.6.0-h26f9b46_1"], "one package has another build, and no other is different");
    let cache = directory.path().join("cache");
    for workspace in ["workspace", "changed"] {
        let built = build(&out.join(workspace), &cache);
        assert_eq!(built.len(), 2);
        assert!(built.iter().all(|(_, path)| path.metadata().unwrap().len() > 1_000_000), "{built:?}");
    }
}

#[test]
fn too_few_real_packages_make_no_shape() {
    let directory = tempfile::tempdir().unwrap();
    let mut wanted = request(directory.path(), 2, None);
    shape(&wanted, &Silent).unwrap();
    wanted.like = directory.path().join("nothing");
    std::fs::create_dir_all(wanted.like.join("linux-64")).unwrap();
    std::fs::create_dir_all(wanted.like.join("noarch")).unwrap();
    channel::write_repodata(&wanted.like, &[]).unwrap();
    let error = shape(&wanted, &Silent).unwrap_err();
    assert!(matches!(error, ShapeError::Specimens(_)) && error.to_string().contains("hint: --like"), "{error}");
}

#[test]
fn what_cannot_be_imitated_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut wanted = request(directory.path(), 2, Some("numpy"));
    assert!(matches!(shape(&wanted, &Silent).unwrap_err(), ShapeError::Variant(_)));
    std::fs::write(&wanted.lock, LOCK.replace("linux-64", "osx-arm64")).unwrap();
    wanted.platform = "osx-arm64".to_owned();
    let message = shape(&wanted, &Silent).unwrap_err().to_string();
    assert!(message.contains("osx-arm64") && message.contains("hint:"), "{message}");
}
