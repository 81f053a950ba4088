//! What the edits keep, add and refuse.

use super::*;
use crate::lesson;

fn start() -> &'static str {
    lesson::text("exercise/pixi.toml").unwrap()
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
    assert_eq!(style_of(&rich), Ok(PlatformStyle::Rich));
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
