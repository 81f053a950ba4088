//! Repositories to make a report of: stand-ins answer for what pixi-image would say of plans and images.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::Repository;

/// Answers from the files beside it, and leaves the rest to the stand-in that was there.
const PROGRAM: &str = r#"#!/bin/sh
here=${0%/*}
case $1 in
plan | inspect) ;;
run) [ ! -e "$here/printed" ] || { cat "$here/printed"; exit; } ;;
esac
case $1 in
plan | inspect) ;;
*) exec "$here/others" "$@" ;;
esac
command=$1 name= json=
while [ $# -gt 0 ]; do
    case $1 in
    --environment) name="$2$name" ;;
    --lock) case $2 in *.before) name="$name-before" ;; esac ;;
    --json) json=.json ;;
    target/containers/*) name=${1##*/} ;;
    esac
    shift
done
[ ! -e "$here/damaged" ] || { echo "error: it is damaged" >&2; exit 1; }
cat "$here/$command-$name$json"
"#;

/// A package that tries everything to get out of its place. Names have no blanks where pixi-image prints them in columns.
pub const HOSTILE: &str = "</script><img/src=x/onerror=\"window.pwned=1\">&'";

/// One package.
#[derive(Clone)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub bytes: u64,
}

/// Packages as an environment with CUDA has them: a few are most of it.
pub fn packages(count: usize) -> Vec<Package> {
    let name = |index: usize| match index {
        0 => "libtorch".to_owned(),
        1 => "cudnn".to_owned(),
        2 => "python".to_owned(),
        index => format!("package-with-a-longer-name-{index}"),
    };
    let package = |index: usize| Package {
        name: name(index),
        version: format!("{}.{}.0", index % 7, index),
        bytes: (800_000_000.0 * 0.8_f64.powi(index as i32)) as u64 + 700,
    };
    (0..count).map(package).collect()
}

/// A repository with nothing done, and answers for what will be.
pub fn fresh(test: &str, packages: &[Package]) -> Repository {
    let repository = Repository::new(test);
    repository.write("programs/others", &repository.read("programs/pixi-image"));
    repository.write("programs/pixi-image", PROGRAM);
    for program in ["pixi-image", "others"] {
        let path = repository.path(&format!("programs/{program}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for environment in ["gpu", "cpu"] {
        // The cpu environment lacks the second package and has another version of the third.
        let mut own = packages.to_vec();
        if environment == "cpu" && own.len() > 2 {
            own[2].version += ".1";
            own.remove(1);
        }
        answer_plan(&repository, environment, &own);
        let layers: Vec<_> = own.iter().map(|package| (package.name.clone(), package.bytes + 9)).collect();
        for source in ["", "-rehearsal"] {
            let file = format!("cuda-exercise-{environment}{source}");
            repository.write(&format!("programs/inspect-{file}.oci.tar.json"), &oci(environment, &layers));
            repository.write(&format!("programs/inspect-{file}.oci.tar"), "image  as text\n");
            repository.write(&format!("programs/inspect-{file}.sif.json"), &sif(environment));
            repository.write(&format!("programs/inspect-{file}.sif"), "sif  as text\n");
        }
    }
    repository
}

/// What pixi-image says of an environment, as text and as JSON.
pub fn answer_plan(repository: &Repository, name: &str, packages: &[Package]) {
    let total: u64 = packages.iter().map(|package| package.bytes).sum();
    let count = packages.len();
    let mut text =
        format!("environment {name} for linux-64: {count} packages, {total} bytes to download, {count} layers\n");
    let mut json = Vec::new();
    for (index, Package { name, version, bytes }) in packages.iter().enumerate() {
        let layer = index + 1;
        writeln!(text, "{name}  {version}  h0_{index}  {bytes}  conda  layer {layer}").unwrap();
        let (name, version) = (quoted(name), quoted(version));
        json.push(format!(
            "{{\"name\": {name}, \"version\": {version}, \"build\": \"h0_{index}\", \"kind\": \"conda\", \"bytes\": {bytes}, \
             \"layer\": {layer}, \"sha256\": {}}}",
            quoted(&format!("sha256:{name}{version}"))
        ));
    }
    repository.write(&format!("programs/plan-{name}"), &text);
    let json = format!("{{\"download_bytes\": {total}, \"packages\": [{}]}}\n", json.join(", "));
    repository.write(&format!("programs/plan-{name}.json"), &json);
}

/// Everything is built, tested and has run, of both environments.
pub fn finish(repository: &Repository) {
    for environment in ["gpu", "cpu"] {
        repository.xtask(&["all", "--source", "rehearsal", "--env", environment]).ends(0);
    }
}

fn oci(environment: &str, layers: &[(String, u64)]) -> String {
    let layer = |digest: String, packages: &str, by: &str, bytes: u64| {
        format!(
            "{{\"digest\": {}, \"bytes\": {bytes}, \"media_type\": \"x\", \"diff_id\": \"y\", \"compression\": \"gzip\", \
             \"created_by\": {}, \"packages\": [{packages}]}}",
            quoted(&digest),
            quoted(by)
        )
    };
    let mut all = vec![layer("sha256:base".into(), "", "the base image", 15_000_000)];
    all.extend(layers.iter().map(|(name, bytes)| {
        layer(format!("sha256:{environment}{name}"), &quoted(name), &format!("pixi-image: {name}"), *bytes)
    }));
    format!(
        "{{\"kind\": \"oci\", \"path\": \"target/containers/x-{environment}.oci.tar\", \"bytes\": 4100000000, \"digest\": \
         \"sha256:{}\", \"config\": {{\"digest\": \"sha256:{}\", \"bytes\": 9}}, \"platform\": \"linux/amd64\", \"created\": null, \
         \"names\": [\"docker.io/library/cuda-exercise:{environment}\"], \"layers\": [{}], \"labels\": {{{}: {}}}, \"env\": \
         [\"PATH=/usr/bin\"], \"entrypoint\": [\"/app/entrypoint.sh\"], \"cmd\": []}}",
        "ab".repeat(32),
        "cd".repeat(32),
        all.join(", "),
        quoted(HOSTILE),
        quoted(HOSTILE),
    )
}

fn sif(environment: &str) -> String {
    format!(
        "{{\"kind\": \"sif\", \"path\": \"target/containers/x-{environment}.sif\", \"bytes\": 4000000000, \"digest\": \"sha256:{}\", \
         \"architecture\": \"amd64\", \"compression\": \"gzip\", \"block_bytes\": 131072, \"objects\": [{{\"id\": 1, \"what\": \
         \"partition\", \"name\": \"\", \"offset\": 45056, \"bytes\": 3999000000, \"file_system\": \"squashfs\", \"role\": \"primary \
         system\"}}], \"labels\": {{}}, \"signatures\": 0}}",
        "ef".repeat(32)
    )
}

/// A text as JSON has it.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04x}", c as u32).unwrap(),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
