//! What manifests mean, and what is refused where.

use super::*;

const EXERCISE: &str = r#"
[workspace]
channels = ["conda-forge"]
name = "cuda-exercise"
platforms = ["linux-64", "osx-arm64", "win-64"]
version = "0.1.0"

[tasks]

[dependencies]

[feature.cpu.dependencies]
pytorch-cpu = ">=2.8.0,<3"

[feature.gpu.system-requirements]
cuda = "12"

[feature.gpu.target.linux-64.dependencies]
pytorch-gpu = ">=2.8.0,<3"

[feature.gpu.target.win-64.dependencies]
pytorch-gpu = ">=2.8.0,<3"

[environments]
cpu = ["cpu"]
gpu = ["gpu"]
"#;

fn manifest(text: &str) -> Manifest {
    parse(Path::new("/w/pixi.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> String {
    parse(Path::new("/w/pixi.toml"), text).unwrap_err().to_string()
}

fn environment<'a>(manifest: &'a Manifest, name: &str) -> &'a ManifestEnvironment {
    manifest.environments.iter().find(|environment| environment.name == name).unwrap()
}

fn platforms(manifest: &Manifest, name: &str) -> Vec<String> {
    environment(manifest, name).targets.iter().map(|target| target.platform.name.clone()).collect()
}

fn texts(target: &Target) -> Vec<&str> {
    target.requirements.iter().map(|requirement| requirement.text.as_str()).collect()
}

fn workspace(rest: &str) -> String {
    format!("[workspace]\nchannels = [\"conda-forge\"]\nplatforms = [\"linux-64\"]\n{rest}")
}

#[test]
fn the_exercise_has_three_environments_and_a_cuda_row_where_there_is_cuda() {
    let manifest = manifest(EXERCISE);
    let names: Vec<_> = manifest.environments.iter().map(|environment| environment.name.as_str()).collect();
    assert_eq!(names, ["default", "cpu", "gpu"]);
    assert_eq!(platforms(&manifest, "cpu"), ["linux-64", "osx-arm64", "win-64"]);
    assert_eq!(platforms(&manifest, "gpu"), ["linux-64-cuda-12", "osx-arm64", "win-64-cuda-12"]);
    let gpu = environment(&manifest, "gpu");
    assert_eq!(texts(&gpu.targets[0]), ["pytorch-gpu >=2.8.0,<3"]);
    assert!(texts(&gpu.targets[1]).is_empty());
    let virtual_packages: Vec<_> = gpu.targets[0].platform.virtual_packages.iter().map(ToString::to_string).collect();
    let expected = ["__cuda=12", "__unix=0=0", "__linux=4.18", "__glibc=2.28", "__archspec=0=x86_64"];
    assert_eq!(virtual_packages, expected, "the strings that pixi itself writes");
    let mac: Vec<_> = gpu.targets[1].platform.virtual_packages.iter().map(ToString::to_string).collect();
    assert_eq!(mac, ["__unix=0=0", "__osx=13.0", "__archspec=0=m1"]);
    assert_eq!(gpu.channels[0].base_url.as_str(), "https://conda.anaconda.org/conda-forge/");
}

#[test]
fn rich_platforms_are_rows_of_their_own_and_a_feature_picks_them_by_name() {
    let text = r#"
        [workspace]
        channels = ["conda-forge"]
        platforms = ["linux-64", { name = "gpu-box", platform = "linux-64", cuda = "12" }, { platform = "win-64", cuda = "12.4" }]
        [feature.gpu]
        platforms = ["gpu-box"]
        [environments]
        gpu = ["gpu"]
    "#;
    let manifest = manifest(text);
    assert_eq!(platforms(&manifest, "gpu"), ["gpu-box"]);
    assert_eq!(platforms(&manifest, "default"), ["linux-64", "gpu-box", "win-64-cuda-12-4"]);
    let message =
        error(&text.replace("[environments]", "[feature.gpu.system-requirements]\ncuda = \"12\"\n[environments]"));
    assert!(message.contains("the feature `gpu` may not have `system-requirements`"), "{message}");
    let message = error(&text.replace("platforms = [\"gpu-box\"]", "platforms = [\"gpu-bux\"]"));
    assert!(message.starts_with("/w/pixi.toml:6:22: ") && message.contains("`gpu-bux`"), "{message}");
}

#[test]
fn system_requirements_of_several_features_are_combined_and_defaults_make_no_row() {
    let manifest = manifest(&workspace(
        r#"
        [feature.a.system-requirements]
        cuda = "12"
        linux = "5.10"
        [feature.b.system-requirements]
        cuda = "12.4"
        macos = "14.0"
        [feature.c.system-requirements]
        libc = { family = "glibc", version = "2.28" }
        [environments]
        ab = ["a", "b"]
        c = ["c"]
        "#,
    ));
    assert_eq!(platforms(&manifest, "ab"), ["linux-64-cuda-12-4-linux-5-10"]);
    assert_eq!(platforms(&manifest, "c"), ["linux-64"]);
}

#[test]
fn the_target_that_is_written_last_says_what_is_asked_for() {
    let manifest = manifest(&workspace(
        r#"
        [dependencies]
        a = "1.*"
        b = "*"
        [target.unix.dependencies]
        a = "2.*"
        [target.linux-64.dependencies]
        a = { version = "3.*", build = "py*" }
        [target.win.dependencies]
        a = "4.*"
        [feature.f.dependencies]
        a = "<9"
        [environments]
        f = ["f"]
        "#,
    ));
    assert_eq!(texts(&environment(&manifest, "default").targets[0]), ["a 3.* py*", "b"]);
    let both = texts(&environment(&manifest, "f").targets[0]).join(", ");
    assert_eq!(both, "a <9, a 3.* py*, b", "features add to each other");
}

#[test]
fn environments_can_leave_the_default_feature_out_and_share_a_solve_group() {
    let manifest = manifest(&workspace(
        r#"
        [dependencies]
        a = "*"
        [feature.f.dependencies]
        f = "*"
        [feature.g.dependencies]
        g = "*"
        [environments]
        default = { solve-group = "one" }
        f = { features = ["f"], no-default-feature = true, solve-group = "one" }
        g = { features = ["g"] }
        "#,
    ));
    let f = &environment(&manifest, "f").targets[0];
    assert_eq!(texts(f), ["f"]);
    let along: Vec<_> = f.group_requirements.iter().map(|requirement| requirement.text.as_str()).collect();
    assert_eq!(along, ["a"]);
    assert_eq!(texts(&environment(&manifest, "g").targets[0]), ["g", "a"]);
    assert!(environment(&manifest, "g").targets[0].group_requirements.is_empty());
}

#[test]
fn channels_are_ordered_by_feature_and_priority() {
    let manifest = manifest(&workspace(
        r#"
        [feature.cuda]
        channels = ["nvidia", { channel = "pytorch", priority = -1 }, "./here"]
        channel-priority = "disabled"
        [environments]
        cuda = ["cuda"]
        "#,
    ));
    let cuda = environment(&manifest, "cuda");
    let urls: Vec<_> = cuda.channels.iter().map(|channel| channel.base_url.as_str()).collect();
    let conda = "https://conda.anaconda.org";
    let nvidia = format!("{conda}/nvidia/");
    assert_eq!(urls, [&nvidia, "file:///w/here/", &format!("{conda}/conda-forge/"), &format!("{conda}/pytorch/")]);
    assert_eq!(cuda.channel_priority, ChannelPriority::Disabled);
    assert_eq!(environment(&manifest, "default").channel_priority, ChannelPriority::Strict);
}

#[test]
fn what_cannot_be_solved_is_refused_by_name_with_its_place() {
    for (rest, place, name) in [
        ("[pypi-dependencies]\nrequests = \"*\"\n", "4:2", "pypi-dependencies"),
        ("[feature.x.pypi-dependencies]\nrequests = \"*\"\n", "4:12", "feature.x.pypi-dependencies"),
        ("[dependencies]\na = { git = \"https://example.org/a\" }\n", "5:7", "dependencies.a.git"),
        ("[dependencies]\na = { path = \"a\" }\n", "5:7", "dependencies.a.path"),
        ("[package]\nname = \"x\"\n", "4:2", "package"),
        ("[host-dependencies]\na = \"*\"\n", "4:2", "host-dependencies"),
        ("[constraints]\na = \"<2\"\n", "4:2", "constraints"),
        ("exclude-newer = \"2025-01-01\"\n", "4:1", "workspace.exclude-newer"),
        ("solve-strategy = \"lowest\"\n", "4:1", "workspace.solve-strategy"),
        ("[environments.e]\ndependencies = { a = \"*\" }\n", "5:1", "environments.e.dependencies"),
        ("[depndencies]\na = \"*\"\n", "4:2", "depndencies"),
        ("[target.\"linux-*\".dependencies]\na = \"*\"\n", "4:9", "target.linux-*"),
        (
            "[system-requirements]\nlibc = { family = \"musl\", version = \"1\" }\n",
            "5:10",
            "system-requirements.libc.family",
        ),
    ] {
        let message = error(&workspace(rest));
        assert!(message.starts_with(&format!("/w/pixi.toml:{place}: `{name}` is not supported")), "{message}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (rest, place, about) in [
        ("[dependencies]\na = \">>1\"\n", "5:1", "no version to ask for"),
        ("[dependencies]\n\"a b\" = \"*\"\n", "5:1", "no name of a package"),
        ("[dependencies]\na = 1\n", "5:1", "must be a string, not integer"),
        ("[environments]\nx = [\"y\"]\n", "5:6", "names the feature `y`"),
        ("[dependencies\n", "4:14", ""),
        ("channel-priority = \"maybe\"\n", "4:1", "neither"),
    ] {
        let message = error(&workspace(rest));
        assert!(message.starts_with(&format!("/w/pixi.toml:{place}: ")) && message.contains(about), "{message}");
    }
    assert!(error("").contains("`workspace` is missing"));
    assert!(error("[workspace]\nplatforms = [\"linux-63\"]\nchannels = []\n").starts_with("/w/pixi.toml:2:14: "));
    assert!(error("[workspace]\nplatforms = []\n").contains("has no `channels`"));
}

#[test]
fn what_changes_nothing_about_the_lock_is_accepted() {
    let manifest = manifest(&workspace(
        r#"
        authors = ["A <a@example.org>"]
        [tasks]
        go = "python go.py"
        [activation]
        scripts = ["a.sh"]
        [pypi-dependencies]
        [feature.f.tasks]
        x = { cmd = "y" }
        [target.linux-64.activation]
        scripts = ["b.sh"]
        "#,
    ));
    assert_eq!(manifest.environments.len(), 1);
}
