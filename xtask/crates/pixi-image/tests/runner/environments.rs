//! Images of two environments of one lock: what they have in common is there once, and each is at home in its own place.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use pixi_image::layout::ImageSource;
use rattler_conda_types::package::FileMode;
use serde_json::json;

use crate::image::Tree;
use crate::packages::{Member, Package};
use crate::sandbox::{Ended, Sandbox};
use crate::varied::noise;
use crate::workspace::{Workspace, succeeds};

const PLACEHOLDER: &str = "/home/builder/placeholder_placeholder_placeholder_placeholder_placeholder_placeholder";
const ENVIRONMENTS: [&str; 2] = ["cpu", "gpu"];

/// Two packages of both environments, and one of each alone. The `python` tells from where it was started, as real ones do.
fn workspace() -> Workspace {
    let python = "#!/bin/sh\nprintf '%s\\n' \"$CONDA_PREFIX\" \"${PATH%%:*}\" \"${0%/bin/python}\"\n";
    let python = [Member::file("bin/python", python).executable(), Member::file("lib/noise", noise(300_000))];
    let script = format!("export COMMON={PLACEHOLDER}/share/common\n");
    let script = Member::file("etc/conda/activate.d/common.sh", script).patched(PLACEHOLDER, FileMode::Text);
    let place = Member::file("share/common/place", PLACEHOLDER).patched(PLACEHOLDER, FileMode::Text);
    let own = |name: &str| Package::new(name, [Member::file(&format!("lib/{name}"), noise(50_000))]);
    let workspace = Workspace::new(&[
        Package::new("python", python).version("3.12.4"),
        Package::new("common", [script, place]),
        own("only-cpu"),
        own("only-gpu"),
    ]);
    let manifest = format!(
        "[workspace]\nname = \"w\"\nchannels = [\"{}\"]\nplatforms = [\"linux-64\"]\n\n\
         [dependencies]\npython = \"*\"\ncommon = \"*\"\n\n\
         [feature.cpu.dependencies]\nonly-cpu = \"*\"\n\n[feature.gpu.dependencies]\nonly-gpu = \"*\"\n\n\
         [environments]\ncpu = [\"cpu\"]\ngpu = [\"gpu\"]\n",
        workspace.web.url("/channel")
    );
    workspace.write("pixi.toml", manifest.as_bytes());
    succeeds(&mut workspace.lock());
    Tree::with_programs().oci(&workspace.work("base"), json!({"Env": ["PATH=/bin"]}));
    workspace
}

fn build(workspace: &Workspace, environment: &str) -> Command {
    let mut command = workspace.command(["build", "--base", "./base", "--app", "app", "--environment", environment]);
    command.arg("--reference").arg(format!("w:{environment}"));
    command.args(["--oci", &format!("out/{environment}.oci.tar"), "--sif", &format!("out/{environment}.sif")]);
    command
}

/// The bytes of each layer by its digest, and what its history says that it holds.
fn layers(workspace: &Workspace, environment: &str) -> BTreeMap<String, (u64, String)> {
    let image = ImageSource::open(&workspace.work(&format!("out/{environment}.oci.tar"))).unwrap();
    let image = image.image("amd64").unwrap();
    let history = image.config.history().iter().flatten();
    let said = history.map(|history| history.created_by().clone().unwrap_or_default());
    let layers = image.manifest.layers().iter().map(|layer| (layer.digest().to_string(), layer.size()));
    layers.zip(said).map(|((digest, size), said)| (digest, (size, said))).collect()
}

#[test]
fn two_environments_share_all_layers_but_those_of_their_own_packages_and_of_the_application() {
    let workspace = workspace();
    for environment in ENVIRONMENTS {
        let said = succeeds(&mut build(&workspace, environment));
        let line = |package: &str| said.lines().find(|line| line.starts_with(&format!("  {package}-1.2.3"))).unwrap();
        assert_eq!(line("common").ends_with("(cached)"), environment == "gpu", "{said}");
        assert!(!line(&format!("only-{environment}")).ends_with("(cached)"), "{said}");
    }
    let [cpu, gpu] = ENVIRONMENTS.map(|environment| layers(&workspace, environment));
    let (shared, own): (Vec<_>, Vec<_>) = gpu.iter().partition(|(digest, _)| cpu.contains_key(*digest));
    let held = |layers: &[(&String, &(u64, String))]| {
        let mut held: Vec<_> = layers.iter().map(|(_, (_, said))| said.replace("pixi-image: ", "")).collect();
        held.sort();
        held
    };
    assert_eq!(held(&shared), ["", "common", "python"], "the base and what both environments have");
    assert_eq!(held(&own), ["application files, manifest, lock, activation", "only-gpu"]);
    let bytes = |layers: &[(&String, &(u64, String))]| layers.iter().map(|(_, (size, _))| size).sum::<u64>();
    assert!(bytes(&shared) > 300_000 && bytes(&own) < 60_000, "{shared:?} {own:?}");
}

#[test]
fn each_environment_is_at_home_where_the_lesson_has_it_and_its_files_are_found_at_both_places() {
    let Some(sandbox) = Sandbox::new() else { return };
    let workspace = workspace();
    for environment in ENVIRONMENTS {
        succeeds(&mut build(&workspace, environment));
        let home = format!("/app/.pixi/envs/{environment}");
        // A SIF has the packages where it shows them; either way they are found at both places.
        let (of_oci, of_sif) = ("../environment\n".to_owned(), "packages\n".to_owned());
        for (format, link) in [("oci.tar", of_oci), ("sif", of_sif)] {
            let image = workspace.work(&format!("out/{environment}.{format}"));
            let run = |command: &[&str]| sandbox.run(&image, &[], command).ok();
            assert_eq!(run(&["python"]), format!("{home}\n{home}/bin\n{home}\n"), "{format}");
            let look = "readlink \"$CONDA_PREFIX\" || echo packages; cat \"$COMMON/place\"; echo; echo \"$COMMON\"";
            let expected = format!("{link}/app/.pixi/environment\n{home}/share/common\n");
            assert_eq!(run(&["sh", "-c", look]), expected, "{format}");
            let record = run(&["cat", &format!("{home}/conda-meta/pixi_env_prefix")]);
            assert_eq!(record, format!("{home}/conda-meta"), "{format}");
        }
        let lock = sandbox.path(&format!("{environment}.lock"));
        fs::copy(workspace.work("pixi.lock"), &lock).unwrap();
        let (image, cache) = (workspace.work(&format!("out/{environment}.sif")), sandbox.path("cache"));
        let [image, lock, cache] = [&image, &lock, &cache].map(|path| path.to_str().unwrap());
        let options = ["--lock", lock, "--environment", environment, "--cache", cache, "--no-gpu"];
        let tested = Ended::of(&mut sandbox.as_user(&[&[sandbox.program(), "test", image], &options[..]].concat()));
        assert!(tested.stderr.contains(&format!("ok: {home} is activated, and `python` is its own")), "{tested:?}");
        tested.ok();
    }
}
