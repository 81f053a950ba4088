use super::*;

use crate::lesson;

fn ids(findings: &[Finding]) -> Vec<&'static str> {
    let mut ids: Vec<_> = findings.iter().map(|finding| finding.trap.id).collect();
    ids.dedup();
    ids
}

/// All files of a folder of the lesson, as they would stand in a workspace.
fn folder(name: &str, files: &[(&str, &str)]) -> Files {
    let file = |(path, file): &(&str, &str)| {
        let text = lesson::text(&format!("{name}/{file}")).unwrap_or_else(|| panic!("{name}/{file}"));
        File { path: (*path).to_owned(), text: text.to_owned() }
    };
    let tree = Tree { workspace: "w".to_owned(), names: vec!["app".to_owned()], sources: Vec::new() };
    Files { files: files.iter().map(file).collect(), tree: Some(tree) }
}

#[test]
fn the_recipes_and_workflows_of_ours_are_in_no_trap() {
    let mut files = folder(
        "recipes",
        &[("w/Dockerfile", "Dockerfile"), ("w/.dockerignore", ".dockerignore"), ("w/apptainer.def", "apptainer.def")],
    );
    let workflows = folder(
        "workflows",
        &[(".github/workflows/docker.yaml", "docker.yaml"), (".github/workflows/apptainer.yaml", "apptainer.yaml")],
    );
    let start = folder("exercise", &[("w/pixi.toml", "pixi.toml")]);
    files.files.extend(workflows.files.into_iter().chain(start.files));
    let findings = in_files(&files);
    let said: Vec<_> =
        findings.iter().map(|one| format!("{} {}:{} {}", one.trap.id, one.place, one.line, one.what)).collect();
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn the_lessons_files_are_in_the_traps_that_show_there() {
    for (folder, file, expected) in [
        ("exact", "Dockerfile", "T03 T04 T05 T07 T08 T14 T17 T19 T20"),
        ("exact", "apptainer.def", "T03 T04 T05 T06 T07 T08 T13 T14 T17 T19 T20"),
        ("exact", "docker.yaml", "T06 T12 T16"),
        ("exact", "apptainer.yaml", "T10 T12"),
        ("recipes", "Dockerfile", ""),
        ("recipes", "apptainer.def", ""),
        ("workflows", "docker.yaml", ""),
        ("workflows", "apptainer.yaml", ""),
    ] {
        let text = lesson::text(&format!("{folder}/{file}")).unwrap();
        assert_eq!(ids(&in_file(file, text)).join(" "), expected, "{folder}/{file}");
    }
}

#[test]
fn the_table_is_that_of_the_text() {
    let text = lesson::text("explain/traps.md").unwrap();
    let titles: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let table: Vec<_> = TRAPS.iter().map(|trap| format!("{}: {}", trap.id, trap.title)).collect();
    assert_eq!(table, titles);
    assert!(TRAPS.iter().all(|trap| !trap.mend.is_empty()));
}
