//! What activation scripts set is in the configuration of a built image, worked out from its own files.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

use packages::{Content, Member, Package};
use pixi_image::layout::ImageSource;
use rattler_conda_types::package::FileMode;
use workspace::{OCI, Workspace, base, succeeds};

const PREFIX: &str = "/app/.pixi/envs/default";
const PLACEHOLDER: &str = "/home/builder/placeholder_placeholder_placeholder_placeholder_placeholder_placeholder";

fn script(name: &str, text: &str) -> Member {
    Member::file(&format!("etc/conda/activate.d/{name}.sh"), text.as_bytes())
}

/// `Env` and `Entrypoint` of the image.
fn configuration(workspace: &Workspace) -> (Vec<String>, Option<Vec<String>>) {
    let image = ImageSource::open(&workspace.work(OCI)).unwrap().image("amd64").unwrap();
    let config = image.config.config().clone().unwrap();
    (config.env().clone().unwrap(), config.entrypoint().clone())
}

fn value<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_image_declares_what_its_scripts_set_even_without_a_shell() {
    let one = Package::new(
        "one",
        [
            Member::file("share/one/data", "x"),
            Member::new("share/link", Content::Symlink("one".to_owned())),
            script("one", &format!("export ONE_HOME={PLACEHOLDER}/share/one\n")).patched(PLACEHOLDER, FileMode::Text),
        ],
    );
    // Its file loses against the dependent's, and its script with it.
    let two = Package::new("two", [script("shared", "export SHARED=two\n")]);
    let three = Package::new(
        "three",
        [
            script("shared", "export SHARED=three\n"),
            script(
                "three",
                "[ -d \"$ONE_HOME\" ] && export FOUND=\"$SHARED\"\n[ -s \"$CONDA_PREFIX/share/link/data\" ] && FOUND=$FOUND+\n\
                 for d in \"$CONDA_PREFIX\"/share/*; do export LIST=\"$LIST:${d##*/}\"; done\n\
                 if [ -f /etc/os ]; then export BASE=1; fi\n",
            ),
        ],
    )
    .depends(&["one", "two"]);
    let workspace = Workspace::new(&[one, two, three]);
    base(&workspace.work("base.tar"), "amd64", &[("etc/os", "x")]);
    let said = succeeds(&mut workspace.build_on("base.tar"));
    assert!(!said.contains("activation"), "{said}");
    let (env, entrypoint) = configuration(&workspace);
    assert_eq!(entrypoint, None);
    for (name, expected) in [
        ("ONE_HOME", format!("{PREFIX}/share/one")),
        ("SHARED", "three".to_owned()),
        ("FOUND", "three+".to_owned()),
        ("LIST", ":link:one".to_owned()),
        ("BASE", "1".to_owned()),
        ("PIXI_IMAGE_ACTIVATED", PREFIX.to_owned()),
    ] {
        assert_eq!(value(&env, name), Some(expected.as_str()), "{name} in {env:?}");
    }
}

#[test]
fn a_script_that_must_run_is_named_with_what_docker_exec_needs() {
    let package = Package::new("one", [script("a", "export A=1\n"), script("b", "\nexport B=$(id -u)\n")]);
    let workspace = Workspace::new(&[package]);
    base(&workspace.work("base.tar"), "amd64", &[("bin/bash", "x")]);
    let said = succeeds(&mut workspace.build_on("base.tar"));
    let place = format!("{PREFIX}/etc/conda/activate.d/b.sh, line 2: a command substitution");
    assert!(said.contains(&place) && said.contains("docker exec CONTAINER /app/entrypoint.sh COMMAND"), "{said}");
    let (env, entrypoint) = configuration(&workspace);
    assert_eq!((value(&env, "A"), value(&env, "PIXI_IMAGE_ACTIVATED")), (None, None));
    assert!(entrypoint.is_some());
    let said = succeeds(&mut workspace.build());
    assert!(said.contains("b.sh will not run: the image has no shell") && said.contains(&place), "{said}");
}
