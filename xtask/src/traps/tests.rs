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

#[test]
fn a_file_that_is_half_written_is_no_reason_to_fail() {
    for (folder, file) in [
        ("exact", "Dockerfile"),
        ("exact", "apptainer.def"),
        ("exact", "docker.yaml"),
        ("recipes", "Dockerfile"),
        ("recipes", "apptainer.def"),
        ("workflows", "apptainer.yaml"),
    ] {
        let text = lesson::text(&format!("{folder}/{file}")).unwrap();
        for end in (0..text.len()).step_by(23).filter(|end| text.is_char_boundary(*end)) {
            in_file(file, &text[..end]);
            in_file(file, &text[end..]);
        }
    }
}

#[test]
fn what_others_write_well_is_no_trap() {
    for (name, text) in [
        ("Dockerfile", "FROM python:3.13-slim\nCOPY . .\nCMD python x.py\n"),
        (
            "docker.yaml",
            "jobs:\n  a:\n    steps:\n    - run: docker build -t x:latest .\n    - run: docker run x:latest true\n",
        ),
        (
            "docker.yaml",
            "jobs:\n  a:\n    steps:\n    - uses: docker/setup-qemu-action@v3\n    - uses: docker/build-push-action@v6\n      \
             with:\n        platforms: linux/amd64,linux/arm64\n",
        ),
        (
            "docker.yaml",
            "jobs:\n  a:\n    steps:\n    - uses: docker/metadata-action@v5\n      with:\n        tags: |\n          \
             type=raw,value=latest,enable={{is_default_branch}}\n          type=sha\n",
        ),
        ("build.sh", "# apptainer build --build-arg ENVIRONMENT_NAME=gpu x.sif a.def\napptainer build x.sif a.def\n"),
        ("pixi.toml", "[feature.gpu.system-requirements]\ncuda = \"12\"\n"),
    ] {
        assert_eq!(ids(&in_file(name, text)), Vec::<&str>::new(), "{text}");
    }
    // The recipe of pixi's own documentation: pinned, with a command of its own, on a base without pixi.
    let pixi = "FROM ghcr.io/prefix-dev/pixi:0.77.0 AS build\nWORKDIR /app\nCOPY . .\nRUN pixi install --locked -e prod\n\
                RUN pixi shell-hook -e prod -s bash > /shell-hook\nRUN echo \"#!/bin/bash\" > /app/entrypoint.sh\n\
                RUN cat /shell-hook >> /app/entrypoint.sh\nRUN echo 'exec \"$@\"' >> /app/entrypoint.sh\n\
                FROM ubuntu:24.04 AS production\nWORKDIR /app\nCOPY --from=build /app/.pixi/envs/prod /app/.pixi/envs/prod\n\
                COPY --from=build --chmod=0755 /app/entrypoint.sh /app/entrypoint.sh\nENTRYPOINT [ \"/app/entrypoint.sh\" ]\n\
                CMD [ \"uvicorn\", \"x:app\" ]\n";
    assert_eq!(ids(&in_file("Dockerfile", pixi)).join(" "), "T05 T14 T17 T19");
}
