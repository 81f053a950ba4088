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
    target.own.requirements.iter().map(|requirement| requirement.text.as_str()).collect()
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
    let group = f.group.as_ref().unwrap();
    let along: Vec<_> = group.requirements.iter().map(|requirement| requirement.text.as_str()).collect();
    assert_eq!(along, ["a", "f"]);
    assert_eq!(texts(&environment(&manifest, "g").targets[0]), ["g", "a"]);
    assert!(environment(&manifest, "g").targets[0].group.is_none());
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
    assert_eq!(cuda.choice.channel_priority, ChannelPriority::Disabled);
    assert_eq!(environment(&manifest, "default").choice.channel_priority, ChannelPriority::Strict);
}

#[test]
fn what_cannot_be_locked_is_kept_by_name_and_place_with_the_environments_that_it_concerns() {
    for (rest, place, name) in [
        ("[pypi-dependencies]\nrequests = \"*\"\n", "4:2", "pypi-dependencies"),
        ("[feature.x.pypi-dependencies]\nrequests = \"*\"\n", "4:12", "feature.x.pypi-dependencies"),
        ("[environments.x]\npypi-dependencies = { a = \"*\" }\n", "5:1", "environments.x.pypi-dependencies"),
        ("[dependencies]\na = { git = \"https://example.org/a\" }\n", "5:7", "dependencies.a.git"),
        ("[target.linux-64.dependencies]\na = { path = \"a\" }\n", "5:7", "target.linux-64.dependencies.a.path"),
        ("[dependencies]\na = { url = \"https://example.org/a-1-0.conda\" }\n", "5:7", "dependencies.a.url"),
        ("[dependencies]\na = { version = \"1\", extras = [\"b\"] }\n", "5:22", "dependencies.a.extras"),
        ("[dependencies]\na = { version = \"1\", when = \"python\" }\n", "5:22", "dependencies.a.when"),
        ("[dev]\na = { path = \"a\" }\n", "4:2", "dev"),
        ("[constraints]\na = { path = \"a\" }\n", "5:7", "constraints.a.path"),
        (
            "dependencies = { a = { git = \"https://example.org/a\" } }\n[dependencies]\na = { workspace = true }\n",
            "4:24",
            "workspace.dependencies.a.git",
        ),
    ] {
        let concerns_x = name.contains(".x.");
        let environments = if rest.contains("[feature.x") { "[environments]\nx = [\"x\"]\n" } else { "" };
        let manifest = manifest(&workspace(&format!("{rest}{environments}")));
        let refused = &environment(&manifest, if concerns_x { "x" } else { "default" }).refused;
        let said = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(refused.len(), 1, "{said}");
        assert!(said.starts_with(&format!("/w/pixi.toml:{place}: `{name}` is not supported")), "{said}");
        assert!(!concerns_x || environment(&manifest, "default").refused.is_empty(), "{said}");
    }
}

#[test]
fn what_nobody_knows_is_refused_whomever_it_concerns() {
    for (rest, place, name) in [
        ("[depndencies]\na = \"*\"\n", "4:2", "depndencies"),
        ("[dependencies]\na = { verson = \"1\" }\n", "5:7", "dependencies.a.verson"),
        ("[target.\"if(linux)\".dependencies]\na = \"*\"\n", "4:9", "target.if(linux)"),
        ("[feature.x.exclude-newer]\na = \"7d\"\n", "4:12", "feature.x.exclude-newer"),
        (
            "[system-requirements]\nlibc = { family = \"uclibc\", version = \"1\" }\n",
            "5:10",
            "system-requirements.libc.family",
        ),
    ] {
        let message = error(&workspace(rest));
        assert!(message.starts_with(&format!("/w/pixi.toml:{place}: `{name}` is not supported")), "{message}");
    }
    let python = parse(Path::new("/w/pyproject.toml"), "[tool.pixi.workspace]\n").unwrap_err().to_string();
    assert!(python.starts_with("/w/pyproject.toml:1:1: `tool.pixi` is not supported"), "{python}");
    assert!(
        python.contains("hint: take it out, or lock with pixi itself (`pixi lock`); `build` takes its lock"),
        "{python}"
    );
}

#[test]
fn a_requirement_may_name_anything_that_tells_packages_apart() {
    let manifest = manifest(&workspace(
        r#"
        [dependencies]
        a = { version = "1.*", build = "py*", build-number = ">=3", channel = "nvidia", subdir = "noarch" }
        b = { file-name = "b-1-0.conda", license = "MIT", license-family = "MIT", track-features = ["x"], flags = ["y"] }
        c = { md5 = "00000000000000000000000000000000", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
        "#,
    ));
    let requirements = &environment(&manifest, "default").targets[0].own.requirements;
    let [a, b, c] = requirements.as_slice() else { panic!("{requirements:?}") };
    assert_eq!((a.spec.subdir.as_deref(), a.spec.build_number.is_some()), (Some("noarch"), true));
    assert_eq!(a.spec.channel.as_ref().unwrap().base_url.as_str(), "https://conda.anaconda.org/nvidia/");
    assert_eq!((b.spec.file_name.as_deref(), b.spec.license.as_deref()), (Some("b-1-0.conda"), Some("MIT")));
    assert_eq!((b.spec.track_features.as_ref().unwrap().len(), b.spec.flags.as_ref().unwrap().len()), (1, 1));
    assert!(c.spec.md5.is_some() && c.spec.sha256.is_some());
}

#[test]
fn a_requirement_may_be_that_of_the_workspace() {
    let text = workspace(
        "dependencies = { a = \">=2\", b = { version = \"1.*\", build = \"x\" } }\n[dependencies]\na = { workspace = true }\n\
         [feature.f.dependencies]\nb = { workspace = true, build = \"y\" }\n[environments]\nf = [\"f\"]\n",
    );
    assert_eq!(texts(&environment(&manifest(&text), "f").targets[0]), ["b 1.* y", "a >=2"]);
    let message = error(&text.replace("a = \">=2\", ", ""));
    assert!(message.starts_with("/w/pixi.toml:6:7: `dependencies.a.workspace` is true, but"), "{message}");
    let message = error(&text.replace("a = { workspace = true }", "a = { workspace = false }"));
    assert!(message.contains("may only be true"), "{message}");
}

#[test]
fn an_environment_may_say_of_itself_what_a_feature_could() {
    let manifest = manifest(&workspace(
        r#"
        [dependencies]
        a = "1.*"
        [feature.f.dependencies]
        b = "*"
        [environments.e]
        features = ["f"]
        dependencies = { c = "*" }
        constraints = { d = "<2" }
        channels = ["nvidia"]
        solve-strategy = "lowest"
        [environments.e.target.linux]
        dependencies = { c = "2.*" }
        "#,
    ));
    let e = environment(&manifest, "e");
    assert_eq!(texts(&e.targets[0]), ["c 2.*", "b", "a 1.*"]);
    assert_eq!(e.targets[0].own.constraints[0].text, "d <2");
    assert_eq!(e.channels[0].base_url.as_str(), "https://conda.anaconda.org/nvidia/");
    assert_eq!(e.choice.strategy, SolveStrategy::LowestVersion);
    assert_eq!(environment(&manifest, "default").choice.strategy, SolveStrategy::Highest);
}

#[test]
fn what_a_build_would_need_is_installed_too_where_nothing_is_built() {
    let manifest = manifest(&workspace(
        "[dependencies]\na = \"1\"\nb = \"1\"\n[build-dependencies]\na = \"2\"\n[host-dependencies]\na = \"3\"\nc = \"3\"\n",
    ));
    assert_eq!(texts(&environment(&manifest, "default").targets[0]), ["a ==2", "b ==1", "c ==3"]);
}

#[test]
fn a_solve_group_is_solved_for_what_all_its_features_ask_for_on_a_platform() {
    let manifest = manifest(&workspace(
        r#"
        [feature.cuda.system-requirements]
        cuda = "12"
        [feature.cuda.dependencies]
        c = "*"
        [feature.mac]
        platforms = ["osx-arm64"]
        dependencies = { m = "*" }
        [feature.low]
        solve-strategy = "lowest"
        channels = ["nvidia"]
        [environments]
        default = { solve-group = "one" }
        cuda = { features = ["cuda", "low"], solve-group = "one" }
        mac = { features = ["mac"], solve-group = "one" }
        alone = { features = ["low"], solve-group = "two" }
        "#,
    ));
    assert_eq!(platforms(&manifest, "default"), ["linux-64", "osx-arm64"], "a feature brought the second one");
    assert_eq!(platforms(&manifest, "cuda"), ["linux-64-cuda-12", "osx-arm64"]);
    assert_eq!(platforms(&manifest, "mac"), ["osx-arm64"]);
    let default = environment(&manifest, "default");
    let along = |target: &Target| -> Vec<String> {
        target.group.as_ref().unwrap().requirements.iter().map(|requirement| requirement.text.clone()).collect()
    };
    assert_eq!(along(&default.targets[0]), ["c"]);
    assert_eq!(along(&default.targets[1]), ["c", "m"]);
    assert_eq!(
        (default.choice.strategy, default.group_choice.strategy),
        (SolveStrategy::Highest, SolveStrategy::LowestVersion)
    );
    assert_eq!(default.channels.len(), 2);
    let alone = environment(&manifest, "alone");
    assert!(alone.targets.iter().all(|target| target.group.is_none()));
}

#[test]
fn platforms_declare_any_virtual_package_and_are_called_as_pixi_calls_them() {
    for (entry, name, declared) in [
        (
            r#"{ platform = "linux-64", cuda = { driver = "12.0", arch = "8.6" } }"#,
            "linux-64-cuda-12-0-cuda-arch-8-6",
            &["__cuda=12.0", "__cuda_arch=8.6"][..],
        ),
        (
            r#"{ platform = "linux-64", archspec = "x86_64_v3", glibc = "2.28" }"#,
            "linux-64-archspec-x86-64-v3",
            &["__archspec=0=x86_64_v3"],
        ),
        (r#"{ platform = "osx-arm64", osx = "14.0" }"#, "osx-arm64-macos-14-0", &["__osx=14.0"]),
        (r#"{ platform = "linux-64", __amdgpu = "1=gfx" }"#, "linux-64-amdgpu-1-gfx", &["__amdgpu=1=gfx"]),
        (r#"{ name = "win-64" }"#, "win-64", &[]),
    ] {
        let manifest = manifest(&workspace("").replace("\"linux-64\"", entry));
        let platform = &environment(&manifest, "default").targets[0].platform;
        assert_eq!(
            (platform.name.as_str(), platform.declared()),
            (name, declared.iter().map(|d| (*d).to_owned()).collect())
        );
    }
    for (entry, about) in [
        (r#"{ platform = "linux-64", archspec = "pentium_9" }"#, "`pentium_9` is no microarchitecture"),
        (r#"{ platform = "linux-64", __cuda_arch = "8" }"#, "means nothing without `cuda`"),
        (r#"{ platform = "linux-64", cuda = "12", __cuda = "13" }"#, "declares `__cuda` once more"),
        (r#"{ platform = "linux-64", cuda = { arch = "8" } }"#, "needs a `driver`"),
        (r#"{ name = "linux-64", cuda = "12" }"#, "needs a name of its own"),
        (r#"{ name = "linux", platform = "linux-64" }"#, "all platforms of that family"),
        (r#"{ name = "9-a", platform = "linux-64" }"#, "a letter first"),
        (r#"{ name = "a", platform = "linux-64", rocm = "6" }"#, "not known here"),
    ] {
        let message = error(&workspace("").replace("\"linux-64\"", entry));
        assert!(message.starts_with("/w/pixi.toml:3:") && message.contains(about), "{message}");
    }
}

#[test]
fn packages_see_the_virtual_packages_that_pixi_shows_them() {
    let text =
        workspace("").replace("\"linux-64\"", r#"{ platform = "linux-64", archspec = "x86_64_v3", __amdgpu = "1" }"#);
    let manifest = manifest(&text);
    let seen: Vec<_> =
        environment(&manifest, "default").targets[0].platform.for_solver().iter().map(ToString::to_string).collect();
    assert_eq!(seen, ["__archspec=1=x86_64_v3", "__unix=0=0", "__linux=4.18=0", "__glibc=2.28=0"]);
    let musl = workspace("[system-requirements]\nlibc = { family = \"musl\", version = \"1.2\" }\n");
    assert_eq!(platforms(&parse(Path::new("/w/pixi.toml"), &musl).unwrap(), "default"), ["linux-64-musl-1-2"]);
    let both = format!("{musl}[feature.g.system-requirements]\nlibc = \"2.30\"\n[environments]\ng = [\"g\"]\n");
    assert!(error(&both).contains("`environments.g` has features that require different families of libc"));
}

#[test]
fn targets_may_be_patterns_of_names() {
    let manifest =
        manifest(&workspace("[target.\"*-64\".dependencies]\na = \"*\"\n[target.\"osx-*\".dependencies]\nb = \"*\"\n"));
    assert_eq!(texts(&environment(&manifest, "default").targets[0]), ["a"]);
}

#[test]
fn cutoffs_are_dates_times_and_ages_and_the_closest_holds() {
    let manifest = manifest(
        "[workspace]\nchannels = [{ channel = \"a\", exclude-newer = \"2025-02-01T10:00:00Z\" }, \"b\"]\nplatforms = [\"linux-64\"]\n\
         exclude-newer = \"2025-01-31\"\n[exclude-newer]\npython = \"1d 2h\"\n",
    );
    let cutoffs = &environment(&manifest, "default").choice.exclude_newer;
    let now: jiff::Timestamp = "2025-06-02T02:00:00Z".parse().unwrap();
    let cutoff = |name: &str, channel: &str| {
        let cutoff = cutoffs.cutoff(&name.parse().unwrap(), Some(&format!("https://conda.anaconda.org/{channel}/")));
        cutoff.unwrap().at(now).to_string()
    };
    assert_eq!(cutoff("numpy", "b"), "2025-02-01T00:00:00Z", "all of the day is in");
    assert_eq!(cutoff("numpy", "a"), "2025-02-01T10:00:00Z");
    assert_eq!(cutoff("python", "a"), "2025-06-01T00:00:00Z");
    let message = error(&workspace("exclude-newer = \"yesterday\"\n"));
    assert!(message.starts_with("/w/pixi.toml:4:1: `workspace.exclude-newer` `yesterday` is no date"), "{message}");
}

#[test]
fn the_version_of_pixi_that_a_manifest_requires_is_compared() {
    let requires = |spec: &str| workspace(&format!("requires-pixi = \"{spec}\"\n"));
    assert_eq!(manifest(&requires(">=0.70,<1")).environments.len(), 1);
    let message = error(&requires(">=99"));
    assert!(message.starts_with("/w/pixi.toml:4:1: `workspace.requires-pixi` asks for pixi >=99, and"), "{message}");
    assert!(message.contains("hint: lock with a pixi of that version"), "{message}");
}

#[test]
fn how_pypi_is_asked_stands_in_the_lock_even_if_it_is_not() {
    let manifest = manifest(&workspace(
        "pypi-options = { prerelease-mode = \"allow\" }\n[feature.f.pypi-options]\nprerelease-mode = \"disallow\"\n\
         [environments]\nf = [\"f\"]\n",
    ));
    assert_eq!(environment(&manifest, "default").prerelease.as_deref(), Some("allow"));
    assert_eq!(environment(&manifest, "f").prerelease.as_deref(), Some("disallow"));
}

#[test]
fn the_explanation_names_every_key() {
    let text = include_str!("../../../../lesson/explain/locking.md");
    let tables = [&workspace::ROOT, &workspace::WORKSPACE, &feature::FEATURE, &feature::ENVIRONMENT, &spec::DEPENDENCY];
    let keys = tables.iter().flat_map(|keys| keys.used.iter().copied().chain(keys.refused.iter().map(|(key, _)| *key)));
    let more = [platform::SYSTEM_KEYS, feature::CHANNEL_KEYS].concat();
    let missing: Vec<_> = keys.chain(more).filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
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
        ("solve-strategy = \"maybe\"\n", "4:1", "neither"),
        (
            "channel-priority = \"disabled\"\n[feature.f]\nchannel-priority = \"strict\"\n[environments]\nf = [\"f\"]\n",
            "4:1",
            "differs",
        ),
        ("[environments]\nX = []\n", "5:1", "lower-case"),
        ("[feature.f]\n[environments]\nx = [\"f\", \"f\"]\n", "6:11", "twice"),
        ("[feature.f]\nplatforms = [\"linux-65\"]\n", "5:14", "not among the platforms"),
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
        [package]
        name = "x"
        [feature.f.tasks]
        x = { cmd = "y" }
        [target.linux-64.activation]
        scripts = ["b.sh"]
        "#,
    ));
    assert_eq!(manifest.environments.len(), 1);
}
