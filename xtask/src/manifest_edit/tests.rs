//! What the edits keep, add and refuse.

use super::*;
use crate::lesson;

mod properties;

fn start() -> &'static str {
    lesson::text("exercise/pixi.toml").unwrap()
}

fn finish(text: &str, style: Option<PlatformStyle>) -> Result<String, ManifestError> {
    super::finish(text, &Request { style, ..Request::default() }).map(|edited| edited.text)
}

fn edited(text: &str, request: Request) -> Edited {
    super::finish(text, &request).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// An edit that is refused: line, column, key and reason.
fn refused(text: &str, request: Request) -> (usize, usize, String, String) {
    match super::finish(text, &request) {
        Err(ManifestError::Refused { line, column, key, reason }) => (line, column, key, reason),
        other => panic!("{other:?}"),
    }
}

fn in_style(style: PlatformStyle) -> Request {
    Request { style: Some(style), ..Request::default() }
}

fn with_cuda(version: &str) -> Request {
    Request { cuda: Some(version.to_owned()), ..Request::default() }
}

fn with_packages(feature: Option<&str>, specs: &[&str]) -> Request {
    let dependencies = specs.iter().map(|spec| spec.parse().unwrap()).collect();
    Request { feature: feature.map(str::to_owned), dependencies, ..Request::default() }
}

fn finished(text: &str) -> String {
    let once = finish(text, None).unwrap();
    assert_eq!(finish(&once, None).unwrap(), once, "the second edit changes nothing");
    once
}

#[test]
fn the_start_becomes_the_exercise_of_the_lesson() {
    let expected = r#"[workspace]
channels = ["conda-forge"]
name = "cuda-exercise"
platforms = ["linux-64", "osx-arm64", "win-64"]
version = "0.1.0"

[tasks]

[dependencies]

[feature.cpu.dependencies]
pytorch-cpu = "*"

[feature.gpu.system-requirements]
cuda = "12"

[feature.gpu.target.linux-64.dependencies]
pytorch-gpu = "*"

[feature.gpu.target.win-64.dependencies]
pytorch-gpu = "*"

[environments]
cpu = ["cpu"]
gpu = ["gpu"]
"#;
    assert_eq!(finished(start()), expected);
}

#[test]
fn comments_order_and_what_the_learner_wrote_stay() {
    let text = r#"# my project
[workspace] # here
name = "mine"
channels = [ "conda-forge" ]   # one
platforms = [
    "linux-64",  # the cluster
    "linux-aarch64"  # the board
]


[environments]
# the small one
cpu = { features = ["cpu"], solve-group = "a" }

[feature.cpu.dependencies]
pytorch-cpu = ">=2.8.0,<3" # pinned
# the end
"#;
    let expected = r#"# my project
[workspace] # here
name = "mine"
channels = [ "conda-forge" ]   # one
platforms = [
    "linux-64",  # the cluster
    "linux-aarch64",  # the board
    "osx-arm64",
    "win-64"
]


[environments]
# the small one
cpu = { features = ["cpu"], solve-group = "a" }
gpu = ["gpu"]

[feature.cpu.dependencies]
pytorch-cpu = ">=2.8.0,<3" # pinned
# the end

[feature.gpu.system-requirements]
cuda = "12"

[feature.gpu.target.linux-64.dependencies]
pytorch-gpu = "*"

[feature.gpu.target.win-64.dependencies]
pytorch-gpu = "*"
"#;
    assert_eq!(finished(text), expected);
}

#[test]
fn a_trailing_comma_and_its_comment_stay_with_their_value() {
    let text = "[workspace]\nplatforms = [\n  \"linux-64\", # first\n]\n";
    let edited = finished(text);
    assert!(
        edited.starts_with("[workspace]\nplatforms = [\n  \"linux-64\", # first\n  \"osx-arm64\",\n  \"win-64\",\n]\n"),
        "{edited}"
    );
}

#[test]
fn line_ends_of_windows_stay() {
    let edited = finished(&start().replace('\n', "\r\n"));
    assert_eq!(edited, finished(start()).replace('\n', "\r\n"));
}

#[test]
fn tables_written_inline_or_dotted_are_understood() {
    let text = "workspace = { name = \"x\", channels = [], platforms = [\"linux-64\"] }\nenvironments = { cpu = [\"cpu\"] }\n\
                feature.cpu.dependencies.pytorch-cpu = \"2.*\"\n";
    let edited = finished(text);
    assert!(edited.contains("platforms = [\"linux-64\", \"osx-arm64\", \"win-64\"]"), "{edited}");
    assert!(edited.contains("feature.cpu.dependencies.pytorch-cpu = \"2.*\""), "{edited}");
    assert_eq!(edited.matches("pytorch-cpu").count(), 1, "{edited}");
    Document::parse(edited).unwrap();
}

#[test]
fn the_old_project_table_is_a_workspace_too() {
    assert!(finished("[project]\nplatforms = []\n").contains("platforms = [\"linux-64\", \"osx-arm64\", \"win-64\"]"));
}

#[test]
fn rich_platforms_carry_the_cuda_version() {
    let rich = finish(start(), Some(PlatformStyle::Rich)).unwrap();
    assert!(rich.contains(r#"{ name = "linux-64-cuda", platform = "linux-64", cuda = "12" }"#), "{rich}");
    assert!(rich.contains("[feature.gpu]\nplatforms = [\"linux-64-cuda\", \"win-64-cuda\"]\n"), "{rich}");
    assert!(!rich.contains("system-requirements"), "{rich}");
    assert_eq!(finished(&rich), rich, "without a style the manifest keeps its own");
}

#[test]
fn a_manifest_changes_its_style_on_request_and_keeps_its_versions() {
    let legacy =
        finished(start()).replace("pytorch-gpu = \"*\"", "pytorch-gpu = \">=2.8\"").replace("\"12\"", "\"12.4\"");
    let rich = finish(&legacy, Some(PlatformStyle::Rich)).unwrap();
    assert!(rich.contains("cuda = \"12.4\" }") && !rich.contains("target"), "{rich}");
    assert_eq!(rich.matches("pytorch-gpu = \">=2.8\"").count(), 1, "{rich}");
    let back = finish(&rich, Some(PlatformStyle::Legacy)).unwrap();
    assert_eq!(back.matches("pytorch-gpu = \">=2.8\"").count(), 2, "{back}");
    assert!(back.contains("platforms = [\"linux-64\", \"osx-arm64\", \"win-64\"]"), "{back}");
}

#[test]
fn a_change_of_style_is_one_change_beside_those_that_are_asked_for() {
    let board = Request { platforms: vec!["linux-aarch64".to_owned()], ..in_style(PlatformStyle::Rich) };
    let rich = edited(&finished(start()), board);
    let by_hand = "# pixi has no command that changes how the need for CUDA is written";
    assert_eq!(pixi_commands(&rich.changes), [by_hand, "pixi workspace platform add linux-aarch64"]);
    let legacy = edited(&rich.text, Request { cuda: Some("12.9".to_owned()), ..in_style(PlatformStyle::Legacy) });
    let newer = Change::CudaRequirement { old: Some("12".to_owned()), new: "12.9".to_owned() };
    assert_eq!(legacy.changes, [Change::Style(PlatformStyle::Legacy), newer]);
    assert!(legacy.text.contains("cuda = \"12.9\"\n"), "{}", legacy.text);
}

#[test]
fn a_platform_with_cuda_is_not_the_plain_one() {
    let text = "[workspace]\nplatforms = [{ name = \"linux-64-cuda\", platform = \"linux-64\", cuda = \"12\" }]\n";
    assert!(
        finished(text).contains("cuda = \"12\" }, \"linux-64\", \"osx-arm64\", \"win-64\", {"),
        "{}",
        finished(text)
    );
}

#[test]
fn broken_toml_is_refused_with_line_and_column() {
    let error = finish("[workspace]\nname = \"x\nplatforms = []\n", None).unwrap_err();
    assert!(matches!(error, ManifestError::Syntax { line: 2, .. }), "{error}");
    let error = finish("[workspace]\n[workspace]\n", None).unwrap_err();
    assert!(matches!(error, ManifestError::Syntax { line: 2, column: 2, .. }), "{error:?}");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_line_and_column() {
    let cases = [
        ("[workspace]\nplatforms = \"linux-64\"\n", 2, 13, "workspace.platforms"),
        ("[workspace]\nfeature = 1\n[feature]\ncpu = 3\n", 4, 7, "feature.cpu"),
        ("workspace = 3\n", 1, 13, "workspace"),
        ("[workspace]\nplatforms = []\n[environments]\ncpu = 'cpu'\n", 4, 7, "environments.cpu"),
        ("[workspace]\n[[feature]]\nx = 1\n", 2, 1, "feature"),
        ("[workspace]\n[[workspace.platforms]]\nplatform = 'linux-64'\n", 2, 1, "workspace.platforms"),
        ("[workspace]\nplatforms = ['linux-64', 1]\n", 2, 26, "workspace.platforms[1]"),
        ("[workspace]\nplatforms = [{ cuda = '12' }]\n", 2, 14, "workspace.platforms[0]"),
        ("[workspace]\nplatforms = [\n  { platform = 'win-64', cuda = 12 }\n]\n", 3, 3, "workspace.platforms[0]"),
        ("[workspace]\n[feature.gpu]\nsystem-requirements.cuda = 12\n", 3, 28, "feature.gpu.system-requirements.cuda"),
        ("[workspace]\n[environments]\ngpu = ['a', {}]\n", 3, 13, "environments.gpu[1]"),
        ("[workspace]\n[feature]\ngpu.target.linux-64 = 'x'\n", 3, 23, "feature.gpu.target.linux-64"),
    ];
    for (text, line, column, key) in cases {
        let error = finish(text, None).unwrap_err();
        let ManifestError::Shape { line: l, column: c, key: k, .. } = &error else { panic!("{error}") };
        assert_eq!((*l, *c, k.as_str()), (line, column, key), "{text}");
    }
    assert_eq!(finish("[dependencies]\n", None), Err(ManifestError::NoWorkspace));
    assert_eq!(finish("", None), Err(ManifestError::NoWorkspace));
}

#[test]
fn the_rehearsal_has_its_channel_alone_and_the_platform_of_the_images() {
    let copy = for_rehearsal(&finished(start()), "http://127.0.0.1:8765").unwrap();
    assert!(copy.contains("channels = [\"http://127.0.0.1:8765\"]\n"), "{copy}");
    assert!(copy.contains("platforms = [\"linux-64\"]\n"), "{copy}");
    assert!(copy.contains("[feature.gpu.target.linux-64.dependencies]") && !copy.contains("win-64"), "{copy}");

    let rich = finish(start(), Some(PlatformStyle::Rich)).unwrap();
    let copy = for_rehearsal(&rich, "http://127.0.0.1:8765").unwrap();
    assert!(copy.contains("linux-64-cuda") && !copy.contains("win-64") && !copy.contains("osx"), "{copy}");

    let mac = "[workspace]\nplatforms = [\"osx-arm64\"]\n";
    assert_eq!(for_rehearsal(mac, "http://127.0.0.1:8765"), Err(ManifestError::NoImagePlatform));
}

#[test]
fn a_spec_is_read_and_written_as_pixi_does() {
    for (typed, version, shown) in [
        ("numpy", "*", "numpy=*"),
        ("NumPy=*", "*", "numpy=*"),
        ("numpy=1.2", "1.2.*", "numpy=1.2.*"),
        ("numpy==1.2", "==1.2", "numpy==1.2"),
        ("numpy 1.2", "==1.2", "numpy==1.2"),
        ("numpy==1.2.*", "1.2.*", "numpy=1.2.*"),
        ("numpy=1.2*", "1.2.*", "numpy=1.2.*"),
        ("numpy >= 1.2, <2", ">=1.2,<2", "numpy>=1.2,<2"),
        ("numpy>=1.2.*", ">=1.2", "numpy>=1.2"),
        ("numpy=1.2|=2", "1.2.*|2.*", "numpy=1.2.*|2.*"),
        ("numpy~=1.2", "~=1.2", "numpy~=1.2"),
        ("numpy!=1.2.*", "!=1.2.*", "numpy!=1.2.*"),
        ("numpy=1!2.0", "1!2.0.*", "numpy=1!2.0.*"),
        ("numpy<1.2+cu12", "<1.2+cu12", "numpy<1.2+cu12"),
        ("_x.y-z>1a", ">1a", "_x.y-z>1a"),
    ] {
        let dependency: Dependency = typed.parse().unwrap();
        assert_eq!((dependency.version.as_str(), dependency.to_string().as_str()), (version, shown), "{typed}");
        assert_eq!(shown.parse::<Dependency>().unwrap(), dependency, "{shown}");
    }
    let bad = "|-x|>=2|numpy=|numpy>=|numpy>=1.2,|numpy=>=1|numpy===1|numpy>=.1|numpy>=1..2|numpy^1|numpy=1.*.2|\
               numpy=1.2=py*|numpy 1.2 py_0|numpy>=1 <2|conda-forge::numpy|numpy[version=1]|./numpy|numpy @ file|\
               numpy (>=1)|nümpy|numpy>=*|a b";
    for bad in bad.split('|').chain(["numpy>=1|", "numpy|>=1"]) {
        assert!(bad.parse::<Dependency>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_package_goes_where_pixi_add_puts_it() {
    let text = r#"[workspace]
platforms = []
[dependencies]
NumPy = { version = "1.*", channel = "x" } # fast
# end
"#;
    let request = with_packages(None, &["numpy>=2", "scipy"]);
    let Edited { text: after, changes, .. } = edited(text, request.clone());
    assert!(after.contains("[dependencies]\nNumPy = \">=2\" # fast\nscipy = \"*\"\n# end\n"), "{after}");
    let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert!(said.contains(&r#"numpy >=2 instead of { version = "1.*", channel = "x" }"#.to_owned()), "{said:?}");
    let again = edited(&after, request);
    assert_eq!((again.text.as_str(), again.changes), (after.as_str(), Vec::new()));
    assert_eq!(again.notes, ["numpy is in [dependencies] already: >=2.", "scipy is in [dependencies] already: *."]);
    let any = edited(&after, with_packages(None, &["numpy", "numpy=*"]));
    assert_eq!(any.text, after, "any version will do, so the one that is there does");
    let twice = edited(&after, with_packages(None, &["scipy=1", "scipy=2"])).changes;
    assert!(matches!(&twice[..], [change] if change.to_string() == "scipy 2.* instead of *"), "{twice:?}");

    let after = edited(&after, with_packages(Some("lint"), &["ruff"]));
    assert!(after.text.ends_with("[feature.lint.dependencies]\nruff = \"*\"\n"), "{}", after.text);
    assert_eq!(after.notes, ["No environment has the feature lint yet, so nothing of it is installed."]);
    assert_eq!(pixi_commands(&after.changes), ["pixi add --feature lint 'ruff=*'"]);
}

#[test]
fn what_a_feature_has_for_some_platforms_is_changed_there() {
    let after = edited(&finished(start()), with_packages(Some("gpu"), &["pytorch-gpu>=2.8"]));
    assert_eq!(after.text.matches("pytorch-gpu = \">=2.8\"").count(), 2, "{}", after.text);
    assert_eq!(
        pixi_commands(&after.changes),
        ["pixi add --feature gpu --platform linux-64 --platform win-64 'pytorch-gpu>=2.8'"]
    );
    // `--platform` takes names of platforms only.
    let text = "[workspace]\nplatforms = []\n[target.unix.dependencies]\nnumpy = \"1.*\"\n";
    let after = edited(text, with_packages(None, &["numpy=2"])).text;
    assert!(after.contains("[target.unix.dependencies]\nnumpy = \"1.*\"\n"), "{after}");
    assert!(after.contains("[dependencies]\nnumpy = \"2.*\"\n"), "{after}");
}

#[test]
fn a_package_that_is_a_table_of_its_own_is_left_to_its_owner() {
    let text = "[workspace]\nplatforms = []\n[dependencies.numpy]\nversion = \"1.*\" # why\n";
    let error = super::finish(text, &with_packages(None, &["numpy=2"])).unwrap_err();
    let place = "line 3, column 1: `dependencies.numpy` is of type table, but a version on one line belongs there";
    assert!(error.to_string().starts_with(place), "{error}");
    let lines = "[workspace]\nplatforms = []\n[dependencies]\nnumpy = {\n  version = \"1.*\", # why\n}\n";
    let error = super::finish(lines, &with_packages(None, &["numpy=2"])).unwrap_err();
    assert!(error.to_string().starts_with("line 4, column 9: `dependencies.numpy` is of type inline table"), "{error}");
}

#[test]
fn channels_and_platforms_go_behind_the_others_once() {
    let request = Request {
        channels: ["bioconda", "https://prefix.dev/x", "conda-forge"].map(str::to_owned).to_vec(),
        platforms: ["linux-aarch64", "linux-64", "linux-riscv64"].map(str::to_owned).to_vec(),
        ..Request::default()
    };
    let text = r#"[workspace]
channels = ["conda-forge", { channel = "bioconda/", priority = -1 }]
platforms = [{ name = "board", platform = "linux-riscv64" }]
"#;
    let Edited { text: after, changes, notes } = edited(text, request);
    assert!(after.contains("priority = -1 }, \"https://prefix.dev/x\"]\n"), "{after}");
    assert!(
        after.contains(r#""linux-64", "osx-arm64", "win-64", "linux-aarch64", { name = "linux-64-cuda""#),
        "{after}"
    );
    let commands = pixi_commands(&changes);
    assert_eq!(commands[0], "pixi workspace channel add https://prefix.dev/x");
    assert_eq!(commands[1], "pixi workspace platform add linux-64 osx-arm64 win-64 linux-aarch64");
    assert_eq!(
        commands[2],
        "pixi workspace platform add --feature cpu board=linux-riscv64 linux-64 osx-arm64 win-64 linux-aarch64"
    );
    let already = ["The channel bioconda is there already.", "The channel conda-forge is there already."];
    assert_eq!(notes, already);
    let again = edited(&after, Request { platforms: vec!["linux-riscv64".to_owned()], ..Request::default() });
    assert_eq!((again.text, again.notes), (after, vec!["The platform linux-riscv64 is there already.".to_owned()]));
}

#[test]
fn another_platform_is_one_of_the_cpu_environment_in_both_styles() {
    let board = || Request { platforms: vec!["linux-aarch64".to_owned()], ..Request::default() };
    let limited = "[feature.cpu]\nplatforms = [\"linux-64\", \"osx-arm64\", \"win-64\", \"linux-aarch64\"]\n";
    let rich = edited(&edited(start(), in_style(PlatformStyle::Rich)).text, board());
    assert!(rich.text.contains(limited), "{}", rich.text);
    let add = "pixi workspace platform add";
    let expected = [format!("{add} linux-aarch64"), format!("{add} --feature cpu linux-aarch64")];
    assert_eq!(pixi_commands(&rich.changes), expected);

    let legacy = edited(&finished(start()), board()).text;
    let rich = edited(&legacy, in_style(PlatformStyle::Rich)).text;
    assert!(rich.contains(limited), "{rich}");
    let back = edited(&rich, in_style(PlatformStyle::Legacy)).text;
    assert!(back.contains("\"linux-aarch64\"]\n") && !back.contains("[feature.cpu]\n"), "{back}");
}

#[test]
fn another_cuda_version_replaces_the_one_that_is_there_in_both_styles() {
    let legacy = edited(&finished(start()), with_cuda("12.9"));
    assert!(legacy.text.contains("cuda = \"12.9\"\n"), "{}", legacy.text);
    assert_eq!(legacy.changes, [Change::CudaRequirement { old: Some("12".to_owned()), new: "12.9".to_owned() }]);
    let by_hand = &pixi_commands(&legacy.changes)[0];
    assert!(by_hand.starts_with("# by hand: ") && by_hand.ends_with("--feature gpu cuda 12.9)"), "{by_hand}");

    let rich = edited(&edited(start(), in_style(PlatformStyle::Rich)).text, with_cuda("12.9"));
    assert_eq!(rich.text.matches("cuda = \"12.9\"").count(), 2, "{}", rich.text);
    let edit = "pixi workspace platform edit";
    let expected = [format!("{edit} linux-64-cuda --cuda 12.9"), format!("{edit} win-64-cuda --cuda 12.9")];
    assert_eq!(pixi_commands(&rich.changes), expected);
    let again = edited(&rich.text, with_cuda("12.9"));
    assert_eq!((again.changes.len(), again.notes), (0, vec!["The gpu feature asks for CUDA 12.9 already.".to_owned()]));
    let first = edited(start(), with_cuda("11.8")).changes;
    assert!(first.contains(&Change::CudaRequirement { old: None, new: "11.8".to_owned() }), "{first:?}");
}

#[test]
fn platforms_that_pixi_names_by_their_cuda_version_are_found_and_followed() {
    let text = r#"[workspace]
platforms = ["linux-64", { platform = "linux-64", cuda = "12.4" },
             { name = "lab", platform = "win-64", cuda = { driver = "12.4", arch = "8.6" } }]
[feature.gpu]
platforms = ["linux-64-cuda-12-4", "lab"]
[feature.more]
platforms = ["linux-64-cuda-12-4"]
"#;
    assert!(!finished(text).contains("\"linux-64-cuda\""), "none is added beside it: {}", finished(text));
    let after = edited(text, with_cuda("13")).text;
    assert!(after.contains(r#"{ platform = "linux-64", cuda = "13" }"#), "{after}");
    assert!(after.contains(r#"cuda = { driver = "13", arch = "8.6" }"#), "{after}");
    assert_eq!(after.matches("\"linux-64-cuda-13\"").count(), 2, "{after}");
    let target = format!("{text}[feature.more.target.linux-64-cuda-12-4.dependencies]\n");
    let (line, column, key, reason) = refused(&target, with_cuda("13"));
    assert_eq!((line, column, key.as_str()), (8, 22, "feature.more.target.linux-64-cuda-12-4"), "{reason}");
    let twin = text.replace("[\"linux-64\",", "[\"linux-64\", { platform = \"linux-64\", cuda = \"13\" },");
    assert!(refused(&twin, with_cuda("13")).3.contains("would be the same"));
}

#[test]
fn a_style_that_cannot_hold_what_is_there_is_refused_with_its_place() {
    let legacy = "[workspace]\nplatforms = []\n[feature.gpu.system-requirements]\ncuda = \"12\"\nlibc = \"2.31\"\n";
    let (line, column, key, _) = refused(legacy, in_style(PlatformStyle::Rich));
    assert_eq!((line, column, key.as_str()), (3, 1, "feature.gpu.system-requirements"));
    let head = "[workspace]\nplatforms = [\n  ";
    let ours = r#"{ name = "linux-64-cuda", platform = "linux-64", cuda = "12" },"#;
    for (row, reason) in [
        (r#"{ platform = "linux-64", glibc = "2.31" }"#, "has no place"),
        (r#"{ name = "x", platform = "linux-64", cuda = "12" }"#, "differs"),
        (r#"{ name = "win-64-cuda", platform = "win-64", cuda = "13" }"#, "differs"),
    ] {
        let text = format!("{head}{ours}\n  {row}\n]\n");
        let (line, column, key, why) = refused(&text, in_style(PlatformStyle::Legacy));
        assert_eq!((line, column, key.as_str()), (4, 3, "workspace.platforms[1]"), "{why}");
        assert!(why.contains(reason), "{why}");
    }
    let named = format!("{head}{ours}\n]\n[feature.x]\nplatforms = [\"linux-64-cuda\"]\n");
    assert_eq!(refused(&named, in_style(PlatformStyle::Legacy)).2, "feature.x.platforms");
    let both = format!("{head}{ours}\n]\n[system-requirements]\nlinux = \"5\"\n");
    assert_eq!(refused(&both, Request::default()).2, "system-requirements");
}

#[test]
fn comments_on_what_another_style_takes_out_stay() {
    let text = r#"[workspace]
platforms = [
    "linux-64", # the cluster
    "win-64", # the lab
]

# why CUDA
[feature.gpu.system-requirements] # here
cuda = "12" # at least

# for the cluster
[feature.gpu.target.linux-64.dependencies]
pytorch-gpu = "*" # any
"#;
    let rich = edited(text, in_style(PlatformStyle::Rich)).text;
    let expected = "\n# why CUDA\n# here\n# at least\n# for the cluster\n# any\n[feature.gpu.dependencies]\n";
    assert!(rich.contains(expected), "{rich}");
    let commented = rich
        .replace("    { name", "    # below\n    { name")
        .replace("cuda = \"12\" },", "cuda = \"12\" }, # with CUDA");
    let legacy = edited(&commented, in_style(PlatformStyle::Legacy)).text;
    let array = r#"[
    "linux-64", # the cluster
    "win-64", # the lab
    "osx-arm64",
    # below
    # with CUDA
    # below
    # with CUDA
]"#;
    assert!(legacy.contains(array), "{legacy}");

    let inline = "workspace = { platforms = [] }\nfeature = {}\nenvironments = {}\n\n# the end\n";
    assert!(
        finished(inline).ends_with("environments = { cpu = [\"cpu\"], gpu = [\"gpu\"] }\n\n# the end\n"),
        "{}",
        finished(inline)
    );
}

#[test]
fn dotted_keys_that_an_edit_would_put_in_another_order_are_refused() {
    let text = "feature.cpu.dependencies.x = \"*\"\ntasks.a = \"b\"\nfeature.gpu.dependencies.y = \"*\"\n[workspace]\n";
    let (line, column, key, reason) = refused(text, Request::default());
    assert_eq!((line, column, key.as_str()), (2, 1, "tasks.a = \"b\""));
    assert!(reason.contains("side by side"), "{reason}");
    let mixed = format!("x.a = 1\ny.b = 2\nx.c = 3\n\n{}", finished(start()));
    assert_eq!(finished(&mixed), mixed, "what needs no edit is left as it is");
    assert!(for_rehearsal(&mixed, "http://127.0.0.1:8765").is_ok(), "the copy may have any order");
}

#[test]
fn an_environment_that_has_other_features_gets_this_one_too() {
    let text = r#"[workspace]
platforms = []
[environments]
cpu = ["lint"]
gpu = { features = [], solve-group = "a b", no-default-feature = true }
"#;
    let Edited { text: after, changes, .. } = edited(text, Request::default());
    assert!(after.contains("cpu = [\"lint\", \"cpu\"]\ngpu = { features = [\"gpu\"], solve"), "{after}");
    let commands = pixi_commands(&changes);
    let environment = "pixi workspace environment add --force --feature";
    assert_eq!(commands[commands.len() - 2], format!("{environment} lint --feature cpu cpu"));
    assert_eq!(commands.last().unwrap(), &format!("{environment} gpu --solve-group 'a b' --no-default-feature gpu"));
    let more = "[workspace]\nplatforms = []\n[environments.cpu]\nfeatures = []\nplatforms = [\"linux-64\"]\n";
    let commands = pixi_commands(&edited(more, Request::default()).changes);
    let none = "# pixi has no command that adds the feature cpu to the environment cpu as it is";
    assert!(commands.iter().any(|command| command == none), "{commands:?}");
}

#[test]
fn every_form_of_a_list_takes_another_value_in_its_way() {
    for (before, after) in [
        ("[]", "[\"x\"]"),
        ("[ ]", "[\"x\"]"),
        ("[ \"a\" ]", "[ \"a\", \"x\" ]"),
        ("[\"a\",]", "[\"a\", \"x\",]"),
        ("[\n]", "[\n    \"x\"\n]"),
        ("[ # none\n  ]", "[ # none\n    \"x\"\n  ]"),
        ("[\n  \"a\"\n]", "[\n  \"a\",\n  \"x\"\n]"),
        ("[\n\t\"a\", # one\n\t# end\n]", "[\n\t\"a\", # one\n\t# end\n\t\"x\",\n]"),
        ("[\"a\",\n \"b\"]", "[\"a\",\n \"b\", \"x\"]"),
    ] {
        let request = Request { channels: vec!["x".to_owned()], ..Request::default() };
        let edited = edited(&format!("[workspace]\nplatforms = []\nchannels = {before}\n"), request).text;
        assert!(edited.contains(&format!("channels = {after}\n")), "{edited}");
    }
    for (before, after) in [
        ("{}", "{ x = \"*\" }"),
        ("{ a = \"1\" }", "{ a = \"1\", x = \"*\" }"),
        ("{a=\"1\"}", "{a=\"1\", x = \"*\"}"),
        ("{\n  a = \"1\", # one\n}", "{\n  a = \"1\", # one\n  x = \"*\",\n}"),
        ("{\n  a = \"1\" # one\n}", "{\n  a = \"1\", # one\n  x = \"*\"\n}"),
    ] {
        let text = format!("dependencies = {before}\n[workspace]\nplatforms = []\n");
        let edited = edited(&text, with_packages(None, &["x"])).text;
        assert!(edited.starts_with(&format!("dependencies = {after}\n")), "{edited}");
    }
    let indented = "[workspace]\n  platforms = []\n\n[dependencies]\n  # one\n  a = \"*\"\n";
    let edited = edited(indented, with_packages(None, &["x"])).text;
    assert!(edited.contains("  # one\n  a = \"*\"\n  x = \"*\"\n"), "{edited}");
}

#[test]
fn comments_are_told_from_strings() {
    let text = r##"a = 1 # one
b = '# no' # two
c = "\"# no" # three
d = """
# no\""" # no"""""
# four
e = ''' # no ' '''' # five"##;
    assert!(Document::parse(text).is_ok());
    assert_eq!(comments::comments(text), ["# one", "# two", "# three", "# four", "# five"]);
}

#[test]
fn what_is_explained_is_what_an_edit_writes() {
    let explained = lesson::text("explain/manifest.md").unwrap();
    let (legacy, rich) = explained.split_once("\n## Two styles\n").unwrap();
    for (text, style) in [(legacy, PlatformStyle::Legacy), (rich, PlatformStyle::Rich)] {
        let written = edited(start(), in_style(style)).text;
        let shown: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        assert!(shown.len() >= 3 && shown.iter().all(|line| written.contains(line)), "{shown:?} in {written}");
    }
}
