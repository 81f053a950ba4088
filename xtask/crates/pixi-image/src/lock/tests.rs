//! Locks of every version, and what is wrong with broken ones.

use super::*;

const SHA: &str = "fe51de6107f9edc7aa4f786a70f4a883943bc9d39b3bb7307c04c41410990726";

fn v7() -> String {
    let package = |file: &str, depends: &str| {
        format!("- conda: https://example.org/c/{file}\n  sha256: {SHA}\n  depends: [{depends}]\n  size: 10\n")
    };
    [
        "version: 7\nplatforms:\n",
        "- name: linux-64\n",
        "- name: linux-64-cuda-12\n  subdir: linux-64\n  virtual-packages: [__unix=0=0, __cuda=12]\n",
        "- name: win-64\n",
        "environments:\n",
        "  default:\n    channels:\n    - url: https://example.org/c/\n    packages:\n",
        "      linux-64:\n      - conda: https://example.org/c/linux-64/python-3.12.1-0.conda\n",
        "  gpu:\n    channels:\n    - url: https://example.org/c/\n    packages:\n      linux-64-cuda-12:\n",
        "      - conda: https://example.org/c/linux-64/aaa-1.0-0.conda\n",
        "      - conda: https://example.org/c/linux-64/python-3.12.1-0.conda\n",
        "      - conda: https://example.org/c/noarch/mmm-2.0-pyhd_0.tar.bz2\n",
        "packages:\n",
        &package("linux-64/aaa-1.0-0.conda", "mmm"),
        &package("linux-64/python-3.12.1-0.conda", "__unix"),
        &package("noarch/mmm-2.0-pyhd_0.tar.bz2", "python >=3"),
    ]
    .concat()
}

fn v6() -> String {
    [
        "version: 6\nenvironments:\n  gpu:\n    channels:\n    - url: https://example.org/c/\n    packages:\n      linux-64:\n",
        "      - conda: https://example.org/c/linux-64/torch-1.0-0.conda\n",
        "      - conda: https://example.org/c/noarch/cuda-version-12.9-h_0.conda\n",
        "packages:\n",
        "- conda: https://example.org/c/linux-64/torch-1.0-0.conda\n",
        &format!("  sha256: {SHA}\n  depends: [__cuda, cuda-version]\n"),
        "- conda: https://example.org/c/noarch/cuda-version-12.9-h_0.conda\n",
        &format!("  sha256: {SHA}\n  constrains: ['__cuda >=12']\n"),
    ]
    .concat()
}

fn legacy(version: u32, url: &str) -> String {
    format!(
        "version: {version}\nenvironments:\n  default:\n    channels:\n    - url: https://example.org/c/\n    packages:\n      \
         linux-64:\n      - conda: {url}\npackages:\n- kind: conda\n  name: a\n  version: '1.0'\n  build: ''\n  \
         subdir: linux-64\n  url: {url}\n  sha256: {SHA}\n"
    )
}

fn with(text: &str, environment: &str, platform: &str) -> Result<Environment, LockError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pixi.lock");
    std::fs::write(&path, text).unwrap();
    read(&path, environment, platform)
}

fn error(text: &str, environment: &str, platform: &str) -> String {
    with(text, environment, platform).unwrap_err().to_string()
}

fn names(environment: &Environment) -> Vec<&str> {
    environment.packages.iter().map(LockedPackage::name).collect()
}

#[test]
fn packages_come_after_what_they_depend_on() {
    let gpu = with(&v7(), "gpu", "linux-64-cuda-12").unwrap();
    assert_eq!(names(&gpu), ["python", "mmm", "aaa"]);
    assert_eq!(gpu.packages[0].sha256().hex(), SHA);
    assert_eq!(gpu.packages[0].identity(), "python-3.12.1-0");
}

#[test]
fn a_conda_platform_means_the_row_of_the_environment() {
    let gpu = with(&v7(), "gpu", "linux-64").unwrap();
    assert_eq!((gpu.platform.as_str(), gpu.subdir.as_str()), ("linux-64-cuda-12", "linux-64"));
    assert_eq!(gpu.cuda.as_deref(), Some("12"));
    let default = with(&v7(), "default", "linux-64").unwrap();
    assert_eq!((default.platform.as_str(), default.cuda), ("linux-64", None));
}

#[test]
fn of_several_rows_the_one_with_cuda_is_taken_and_two_of_them_are_named() {
    let second = v7()
        .replace("- name: win-64\n", "- name: other\n  subdir: linux-64\n")
        .replace("      linux-64-cuda-12:\n", "      other: []\n      linux-64-cuda-12:\n");
    assert_eq!(with(&second, "gpu", "linux-64").unwrap().platform, "linux-64-cuda-12");
    assert_eq!(with(&second, "gpu", "other").unwrap().packages.len(), 0);
    let third = second.replace("  subdir: linux-64\n", "  subdir: linux-64\n  virtual-packages: [__cuda=13]\n");
    let third = third.replace("  virtual-packages: [__cuda=13]\n  virtual-packages", "  virtual-packages");
    let message = error(&third, "gpu", "linux-64");
    assert!(message.contains("any of linux-64-cuda-12, other"), "{message}");
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let message = error(&v7(), "gpuu", "linux-64");
    assert!(message.contains("no environment `gpuu`; it has: default, gpu"), "{message}");
    let message = error(&v7(), "gpu", "osx-arm64");
    assert!(message.contains("not locked for the platform `osx-arm64`; it is for: linux-64-cuda-12"), "{message}");
    let message = read(Path::new("/nowhere/pixi.lock"), "gpu", "linux-64").unwrap_err().to_string();
    assert!(message.contains("no lock at /nowhere/pixi.lock") && message.contains("cargo xtask lock"), "{message}");
}

#[test]
fn versions_4_to_6_are_read_and_version_6_tells_what_cuda_its_packages_need() {
    let gpu = with(&v6(), "gpu", "linux-64").unwrap();
    assert_eq!((names(&gpu), gpu.cuda.as_deref()), (vec!["cuda-version", "torch"], Some("12")));
    let cpu = with(&v6().replace("__cuda, ", ""), "gpu", "linux-64").unwrap();
    assert_eq!(cpu.cuda, None, "a constraint alone is no need");
    for version in [4, 5] {
        let old =
            with(&legacy(version, "https://example.org/c/linux-64/a-1.0-0.conda"), "default", "linux-64").unwrap();
        assert_eq!(names(&old), ["a"]);
    }
}

#[test]
fn other_versions_are_named_with_those_that_are_read() {
    let message = error(&v7().replace("version: 7", "version: 8"), "gpu", "linux-64");
    assert!(message.contains("version 8") && message.contains("4 to 7") && message.contains("update"), "{message}");
    let message = error("version: 1\n", "gpu", "linux-64");
    assert!(message.contains("version 1 ") && message.contains("cargo xtask lock"), "{message}");
}

#[test]
fn broken_text_is_refused_with_its_line() {
    let message = error(&v7().replace("- name: win-64", "- name: [win-64"), "gpu", "linux-64");
    assert!(message.contains("line 7") && message.contains("column"), "{message}");
    for broken in ["", "{", "version: 7", "version: seven\n", "\u{0}", "- a\n- b\n", "version: 7\nenvironments: 3\n"] {
        assert!(matches!(with(broken, "gpu", "linux-64"), Err(LockError::Broken { .. })), "{broken:?}");
    }
    let message = error(&legacy(5, "https://example.org/c/linux-64/nonsense"), "default", "linux-64");
    assert!(message.contains("`nonsense` (https://example.org/c/linux-64/nonsense) is not the name"), "{message}");
}

#[test]
fn any_cut_of_a_lock_is_an_error_or_a_lock_and_never_a_panic() {
    for text in [v7(), v6(), legacy(5, "https://example.org/c/linux-64/a-1.0-0.conda")] {
        for end in (0..text.len()).step_by(3) {
            let _ = with(&text[..end], "gpu", "linux-64");
        }
    }
}

#[test]
fn a_package_that_could_not_be_verified_is_refused_by_name() {
    let message = error(&v7().replacen(&format!("  sha256: {SHA}\n"), "", 1), "gpu", "linux-64");
    assert!(message.contains("aaa-1.0-0 has no sha256"), "{message}");
}

/// The lock with packages from PyPI in the environment `gpu`: for each where it is, and more lines of what is said of it.
fn with_pypi(packages: &[(&str, &str, &str)]) -> String {
    let mut text = v7();
    for (name, place, more) in packages {
        text = text.replace(
            "      - conda: https://example.org/c/linux-64/aaa-1.0-0.conda\n",
            &format!("      - conda: https://example.org/c/linux-64/aaa-1.0-0.conda\n      - pypi: {place}\n"),
        ) + &format!("- pypi: {place}\n  name: {name}\n{more}");
    }
    text
}

fn told(version: &str) -> String {
    format!("  version: {version}\n  sha256: {SHA}\n")
}

#[test]
fn wheels_come_after_conda_packages_by_name() {
    let text = with_pypi(&[
        ("foo-bar", "https://user:secret@example.org/w/Foo_Bar-1.0%2Bcpu-py3-none-any.whl", &told("1.0+cpu")),
        (
            "aaa",
            &format!("direct+https://example.org/w/aaa-2-cp312-cp312-manylinux_2_17_x86_64.whl#sha256={SHA}"),
            "  version: '2'\n",
        ),
    ]);
    let gpu = with(&text, "gpu", "linux-64").unwrap();
    assert_eq!(names(&gpu), ["python", "mmm", "aaa", "aaa", "foo-bar"]);
    let kinds: Vec<_> = gpu.packages.iter().map(LockedPackage::kind).collect();
    assert_eq!(kinds, ["conda", "conda", "conda", "pypi", "pypi"]);
    let foo = &gpu.packages[4];
    assert_eq!((foo.identity().as_str(), foo.version().as_str()), ("foo-bar-1.0+cpu", "1.0+cpu"));
    assert_eq!(foo.wheel().unwrap().file_name, "Foo_Bar-1.0+cpu-py3-none-any.whl");
    assert_eq!((foo.sha256().hex().as_str(), foo.size()), (SHA, None));
    let direct: Vec<_> = gpu.wheels().map(|wheel| (wheel.direct, wheel.public_url().to_string())).collect();
    assert_eq!(
        direct,
        [
            (true, "https://example.org/w/aaa-2-cp312-cp312-manylinux_2_17_x86_64.whl".to_owned()),
            (false, "https://example.org/w/Foo_Bar-1.0%2Bcpu-py3-none-any.whl".to_owned())
        ]
    );
    assert_eq!(gpu.packages[3].sha256().hex(), SHA);
    assert_eq!(with(&text, "default", "linux-64").unwrap().wheels().count(), 0);
}

#[test]
fn packages_from_pypi_that_cannot_be_installed_are_told_all_at_once_with_the_way_out() {
    let text = with_pypi(&[
        ("a-sdist", "https://user:secret@example.org/w/a_sdist-1.0.tar.gz", &told("'1.0'")),
        ("b-git", "git+https://example.org/r.git?rev=1#0123456789012345678901234567890123456789", &told("'1.0'")),
        ("c-path", "./c", ""),
        ("d-file", "file:///w/d_file-1.0-py3-none-any.whl", &told("'1.0'")),
        ("e-here", "./e_here-1.0-py3-none-any.whl", &told("'1.0'")),
        ("f-unsure", "https://example.org/w/f_unsure-1.0-py3-none-any.whl", "  version: '1.0'\n"),
        ("g-other", "https://example.org/w/g_other-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", &told("'1.0'")),
        ("h-musl", "https://example.org/w/h_musl-1.0-cp312-cp312-musllinux_1_2_x86_64.whl", &told("'1.0'")),
        (
            "i-newer",
            "https://example.org/w/i_newer-1.0-py3-none-any.whl",
            &(told("'1.0'") + "  requires_python: '>=3.13'\n"),
        ),
        ("j-fine", "https://example.org/w/j_fine-1.0-py3-none-any.whl", &told("'1.0'")),
        ("k-zip", "direct+https://example.org/archive/main.zip", &told("'1.0'")),
    ]);
    let message = error(&text, "gpu", "linux-64");
    for part in [
        "a-sdist: it has to be built from source (https://example.org/w/a_sdist-1.0.tar.gz)",
        "b-git: it has to be built from source (git+https://example.org/r.git",
        "c-path: it has to be built from source (./c)",
        "d-file: it is locked by a path (/w/d_file-1.0-py3-none-any.whl)",
        "e-here: it is locked by a path (./e_here-1.0-py3-none-any.whl)",
        "f-unsure: it has no sha256",
        "g_other-1.0-cp311-cp311-manylinux_2_17_x86_64.whl does not run with python 3.12 on linux-64 with glibc 2.28",
        "h_musl-1.0-cp312-cp312-musllinux_1_2_x86_64.whl does not run",
        "i-newer: it wants python >=3.13, and the environment has 3.12.1",
        "k-zip: it has to be built from source",
        "hint: lock a version that has a fitting wheel (`pixi add --pypi \"a-sdist==VERSION\"`)",
        "`pixi add a-sdist`",
    ] {
        assert!(message.contains(part), "no `{part}` in\n{message}");
    }
    assert!(!message.contains("j-fine") && !message.contains('\u{1b}'), "{message}");
    assert!(with(&text, "default", "linux-64").is_ok(), "an environment without any is fine");
}

#[test]
fn wheels_without_a_python_are_refused() {
    let text = with_pypi(&[("foo", "https://example.org/w/foo-1.0-py3-none-any.whl", &told("'1.0'"))])
        .replace("      - conda: https://example.org/c/linux-64/python-3.12.1-0.conda\n", "");
    let message = error(&text, "gpu", "linux-64");
    assert!(message.contains("packages from PyPI (foo), but no python of conda"), "{message}");
    assert!(message.contains("hint: `pixi add python`"), "{message}");
}

#[test]
fn names_from_pypi_come_once() {
    let text = with_pypi(&[
        ("foo", "https://example.org/w/foo-1.0-py3-none-any.whl", &told("'1.0'")),
        ("foo", "https://example.org/w/foo-2.0-py3-none-any.whl", &told("'2.0'")),
    ]);
    let message = error(&text, "gpu", "linux-64");
    assert!(message.contains("has `foo` twice"), "{message}");
}

#[test]
fn glibc_of_the_row_decides_which_wheels_fit() {
    let wheel = "https://example.org/w/foo-1.0-cp312-cp312-manylinux_2_34_x86_64.whl";
    let text = with_pypi(&[("foo", wheel, &told("'1.0'"))]);
    assert!(error(&text, "gpu", "linux-64").contains("with glibc 2.28"));
    let newer = text.replace("[__unix=0=0, __cuda=12]", "[__unix=0=0, __glibc=2.35=0, __cuda=12]");
    assert_eq!(with(&newer, "gpu", "linux-64").unwrap().wheels().count(), 1);
}

#[test]
fn locks_of_version_6_have_wheels_too() {
    let wheel = "https://example.org/w/foo-1.0-cp311-abi3-manylinux_2_34_x86_64.whl";
    let python = "https://example.org/c/linux-64/python-3.12.1-0.conda";
    let text = v6().replace(
        "      - conda: https://example.org/c/linux-64/torch-1.0-0.conda\n",
        &format!("      - conda: {python}\n      - conda: https://example.org/c/linux-64/torch-1.0-0.conda\n      - pypi: {wheel}\n"),
    ) + &format!("- conda: {python}\n  sha256: {SHA}\n- pypi: {wheel}\n  name: foo\n")
        + &told("'1.0'");
    let gpu = with(&text, "gpu", "linux-64").unwrap();
    assert_eq!(gpu.wheels().map(|wheel| wheel.name.as_str()).collect::<Vec<_>>(), ["foo"]);
}

/// A lock that pixi 0.77.0 has written, without what does not count here.
const OF_PIXI: &str = "\
version: 7
platforms:
- name: linux-64
  virtual-packages:
  - __unix=0=0
  - __linux=4.18
  - __glibc=2.28
  - __archspec=0=x86_64
- name: p1
  subdir: linux-64
  virtual-packages:
  - __cuda=12
  - __unix=0=0
  - __linux=4.18
  - __glibc=2.28
  - __archspec=0=x86_64
environments:
  default:
    channels:
    - url: http://127.0.0.1:8765/
    packages:
      linux-64:
      - conda: http://127.0.0.1:8765/noarch/cuda-version-12.9-deb13_hd2c75b5_0.conda
  gpu:
    channels:
    - url: http://127.0.0.1:8765/
    packages:
      p1:
      - conda: http://127.0.0.1:8765/linux-64/python-3.13.5-deb13_h119c895_0.conda
      - conda: http://127.0.0.1:8765/noarch/cuda-version-12.9-deb13_hd2c75b5_0.conda
      - conda: http://127.0.0.1:8765/noarch/typing_extensions-4.13.2-deb13_h59941db_0.conda
packages:
- conda: http://127.0.0.1:8765/linux-64/python-3.13.5-deb13_h119c895_0.conda
  sha256: 19c74504e884691abd883b33b14399ef95a4cc4f1d14da2fe083e1fdf4a29ab9
- conda: http://127.0.0.1:8765/noarch/cuda-version-12.9-deb13_hd2c75b5_0.conda
  sha256: 25d195c3a8152cca45c7d03437f32cda80f97f92aedbf2d1c16fa334b9f3f0d1
  constrains:
  - __cuda >=12
- conda: http://127.0.0.1:8765/noarch/typing_extensions-4.13.2-deb13_h59941db_0.conda
  noarch: python
  sha256: bd306926251b63d8094b712128d43646b36fa7ec1a97b140f8b28e29ec473019
  depends:
  - python >=3.13
";

#[test]
fn the_hash_of_an_environment_is_the_one_that_pixi_writes_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pixi.lock");
    std::fs::write(&path, OF_PIXI).unwrap();
    for (environment, hash) in [("default", "4fe02850a42e11f5"), ("gpu", "95c0d0ebe37bbf70")] {
        assert_eq!(read(&path, environment, "linux-64").unwrap().lock_hash.as_deref(), Some(hash), "{environment}");
    }
    assert_eq!(with(&v6(), "gpu", "linux-64").unwrap().lock_hash, None);
}
