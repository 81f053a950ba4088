//! `bundle` and `--bundle`: what is put together, and what is asked for where there is no network.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::Repository;

const SCRIPT: &str = "app/torch_detect_GPU.py";

/// A repository with a bundle of a source; what is in it lies unpacked in `target/bundle/0123`.
fn with_bundle(test: &str, source: &str, environments: &[&str]) -> Repository {
    let repository = Repository::new(test);
    repository.write("class.tar", "a bundle");
    let environments: String = environments.iter().map(|name| format!("environment\t{name}\n")).collect();
    let facts = format!("bundle\tsha256:0123\ttarget/bundle/0123\nsource\t{source}\n{environments}");
    repository.write("programs/facts", &facts);
    repository.write(&format!("target/bundle/0123/{SCRIPT}"), "");
    if source == "rehearsal" {
        fs::create_dir_all(repository.path("target/bundle/0123/rehearsal/channel")).unwrap();
        repository.write("target/bundle/0123/rehearsal/base.oci.tar", "");
    }
    repository
}

fn call<'c>(calls: &'c [String], begin: &str) -> &'c str {
    calls.iter().find(|call| call.starts_with(begin)).unwrap_or_else(|| panic!("no `{begin}` in {calls:#?}"))
}

#[test]
fn it_is_made_of_lock_base_and_script_and_of_the_programs() {
    let repository = Repository::new("bundle").online().with_tool("strip");
    repository.xtask(&["all"]).ends(0);
    repository.calls();
    let run = repository.xtask(&["bundle", "--source", "conda-forge", "--out", "out/class.tar"]);
    assert!(run.stdout().starts_with("out/class.tar (863 B, "), "{}", run.stdout());
    let calls = repository.calls();
    assert_eq!(call(&calls, "strip").split(" -o ").count(), 2);
    let pack = call(&calls, "pixi-image bundle");
    let digest = "0".repeat(64);
    assert_eq!(
        pack.split(" --add programs/").next().unwrap(),
        format!(
            "pixi-image bundle pack --source conda-forge --out out/class.tar --add {SCRIPT}=cuda-exercise/{SCRIPT} --lock \
             cuda-exercise/pixi.lock --platform linux-64 --base ghcr.io/prefix-dev/pixi@sha256:{digest} --base-name \
             ghcr.io/prefix-dev/pixi:0.77.0-noble --workspace cuda-exercise"
        )
    );
    assert_eq!(pack.matches(" --add programs/").count(), 3, "{pack}");
    assert!(run.stderr().contains("cargo xtask all --bundle out/class.tar"), "{}", run.stderr());

    let one = ["bundle", "--source", "conda-forge", "--no-programs", "--env", "cpu"];
    repository.xtask(&one).ends(0);
    let calls = repository.calls();
    let pack = call(&calls, "pixi-image bundle");
    assert!(pack.contains(" --environment cpu ") && !pack.contains("programs/"), "{pack}");
    assert!(pack.contains(" --out target/bundle/cuda-exercise.tar "), "{pack}");
}

#[test]
fn a_rehearsals_bundle_has_its_channel_and_base() {
    let repository = Repository::new("bundle-rehearsal");
    let missing = repository.xtask(&["bundle", "--source", "rehearsal", "--no-programs"]);
    missing.ends(1);
    assert!(missing.stderr().contains("hint: `cargo xtask rehearse"), "{}", missing.stderr());
    repository.xtask(&["rehearse"]).ends(0);
    repository.calls();
    repository.xtask(&["bundle", "--source", "rehearsal", "--no-programs"]).ends(0);
    let source = "target/rehearsal/source";
    assert_eq!(
        repository.calls(),
        [format!(
            "pixi-image bundle pack --source rehearsal --out target/bundle/cuda-exercise-rehearsal.tar --add \
             rehearsal/base.oci.tar={source}/base.oci.tar --add rehearsal/channel={source}/channel --add \
             rehearsal/rehearsal.json={source}/rehearsal.json"
        )]
    );
}

#[test]
fn every_step_takes_what_it_needs_from_the_bundle_and_asks_no_network() {
    let repository = with_bundle("bundle-used", "conda-forge", &["cpu", "gpu"]).with_tool("docker").with_tool("pixi");
    let run = repository.xtask(&["all", "--bundle", "class.tar"]);
    assert!(run.stdout().contains("\nbuild docker"), "{}", run.stdout());
    assert!(run.stderr().contains("Source: conda-forge, from class.tar."), "{}", run.stderr());
    let calls = repository.calls();
    let begins = |name: &str| calls.iter().any(|call| call.starts_with(name));
    assert!(
        !begins("pixi-image probe") && !begins("pixi-image resolve") && !begins("pixi ") && !begins("docker build")
    );
    assert!(
        call(&calls, "pixi-image fetch")
            .starts_with(&format!("pixi-image fetch target/bundle/0123/{SCRIPT} --sha256 "))
    );
    assert!(call(&calls, "pixi-image lock").contains(" --among target/bundle/0123/pixi.lock --offline"));
    assert!(call(&calls, "pixi-image build").contains(" --offline --cache target/bundle/0123/cache "));

    // The variable names it for a whole class, and `status` sees the same.
    let status = repository.xtask_in(&["status"], &[("XTASK_BUNDLE", "class.tar")], "").stdout();
    assert!(status.contains("\nbuild docker         done\n"), "{status}");
}

#[test]
fn a_rehearsals_bundle_is_served_and_nothing_is_made() {
    let repository = with_bundle("bundle-rehearses", "rehearsal", &[]);
    repository.xtask(&["all", "--bundle", "class.tar"]).ends(0);
    let calls = repository.calls();
    assert!(!calls.iter().any(|call| call.starts_with("rehearsal make")), "{calls:#?}");
    assert_eq!(
        call(&calls, "rehearsal serve"),
        "rehearsal serve --channel target/bundle/0123/rehearsal/channel --port 8765"
    );
    assert!(call(&calls, "pixi-image build").contains(" --base target/bundle/0123/rehearsal/base.oci.tar "));
    assert_eq!(
        repository.xtask(&["all", "--bundle", "class.tar"]).stdout(),
        "There is nothing to do: every step is done.\n"
    );
    // What is about the learner's own files is done to them, as ever.
    repository.xtask(&["edit", "--bundle", "class.tar", "--add-dep", "sympy", "--feature", "gpu"]).ends(0);
    assert!(repository.read("cuda-exercise/pixi.toml").contains("sympy"));
    repository.xtask(&["all", "--bundle", "class.tar"]).ends(0);
    assert!(repository.read("target/rehearsal/cuda-exercise/pixi.toml").contains("sympy"));
    repository.xtask(&["rehearse", "--bundle", "class.tar"]).ends(0);
    assert!(!repository.calls().iter().any(|call| call.starts_with("rehearsal make")));
}

#[test]
fn what_a_bundle_does_not_have_is_told_with_the_way_out() {
    let repository = with_bundle("bundle-lacks", "conda-forge", &["cpu"]);
    for (arguments, said) in [
        (&["all", "--bundle", "class.tar"][..], "class.tar has the packages of cpu, not of `gpu`"),
        (&["status", "--bundle", "class.tar", "--source", "rehearsal"], "class.tar was made of conda-forge"),
        (&["status", "--bundle", "other.tar"], "there is no bundle other.tar"),
        (&["bundle", "--bundle", "class.tar"], "a bundle is made of what a network has"),
    ] {
        let run = repository.xtask(arguments);
        run.ends(1);
        assert!(run.stderr().contains(said) && run.stderr().contains("\n  hint: "), "{}", run.stderr());
    }
    repository.xtask(&["all", "--bundle", "class.tar", "--env", "cpu"]).ends(0);
    repository.write("programs/fail-build", "");
    let run = repository.xtask(&["build", "docker", "--bundle", "class.tar", "--env", "cpu"]);
    assert!(run.stderr().contains("hint: class.tar has what its own lock names"), "{}", run.stderr());
    // A bundle that pixi-image refuses is refused.
    repository.write("programs/fail-bundle", "");
    let run = repository.xtask(&["status", "--bundle", "class.tar"]);
    run.ends(1);
    assert!(run.stderr().contains("error: bundle cannot"), "{}", run.stderr());
}

/// Puts the stand-ins of the programs into the bundle, as programs of this machine.
fn pack_programs(repository: &Repository) {
    let script = format!(
        "d=programs/{}-{}; mkdir -p box/$d && cp programs/pixi-image programs/rehearsal box/$d && cd box/$d && \
         sha256sum pixi-image rehearsal >SHA256SUMS && cd ../.. && tar -cf ../class.tar programs",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let root = repository.path("");
    assert!(Command::new("sh").args(["-c", &script]).current_dir(&root).status().unwrap().success());
}

fn with_programs(test: &str) -> Repository {
    let repository = with_bundle(test, "conda-forge", &["gpu"]).with_real_tool("tar").with_real_tool("sha256sum");
    // They look for what they are to say beside themselves.
    let facts = repository.read("programs/facts");
    let program =
        repository.read("programs/pixi-image").replace("cat \"$here/facts\"", &format!("printf %s '{facts}'"));
    repository.write("programs/pixi-image", &program);
    fs::set_permissions(repository.path("programs/pixi-image"), fs::Permissions::from_mode(0o755)).unwrap();
    pack_programs(&repository);
    repository
}

#[test]
fn its_programs_are_compared_with_their_digests_and_run_before_they_are_used() {
    let repository = with_programs("bundle-programs");
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    assert!(run.stderr().contains("nothing is compiled"), "{}", run.stderr());
    assert!(run.stderr().contains("$ (cd target/bundle/programs.partial && sha256sum --check SHA256SUMS)"));
    assert!(repository.asked().is_empty(), "cargo was asked");
    let used = repository.read("target/bundle/programs/calls");
    assert!(used.contains("pixi-image --version") && used.contains("rehearsal --version"), "{used}");
    // The second time they are there.
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    assert!(!run.stderr().contains("sha256sum"), "{}", run.stderr());
    // Another bundle brings its own.
    pack_programs(&repository);
    repository.write("class.tar.more", "");
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    assert!(run.stderr().contains("sha256sum"), "{}", run.stderr());
}

#[test]
fn programs_that_are_not_what_the_list_says_are_never_run() {
    let repository = with_programs("bundle-changed");
    let whole = fs::read(repository.path("class.tar")).unwrap();
    let at = whole.windows(9).rposition(|bytes| bytes == b"#!/bin/sh").unwrap();
    let mut changed = whole.clone();
    changed[at + 12] ^= 1;
    fs::write(repository.path("class.tar"), &changed).unwrap();
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    run.ends(1);
    assert!(run.stderr().contains("error: class.tar was cut off or changed: its programs"), "{}", run.stderr());
    assert!(
        !repository.path("target/bundle/programs").exists()
            && !repository.path("target/bundle/programs.partial").exists()
    );
    assert!(repository.asked().is_empty());
}

#[test]
fn where_its_programs_do_not_run_they_are_compiled() {
    let repository = with_programs("bundle-foreign");
    repository.write("programs/rehearsal", "#!/bin/no-such-shell\n");
    fs::set_permissions(repository.path("programs/rehearsal"), fs::Permissions::from_mode(0o755)).unwrap();
    pack_programs(&repository);
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    assert!(run.stderr().contains("are of no use here (rehearsal does not run: "), "{}", run.stderr());
    assert!(repository.asked().contains(&"cargo build".to_owned()));
    // A bundle without programs: the same.
    fs::remove_dir_all(repository.path("target")).unwrap();
    repository.write(&format!("target/bundle/0123/{SCRIPT}"), "");
    repository.write("class.tar", "no tar at all");
    let run = repository.xtask_that_compiles(&["status", "--bundle", "class.tar"]);
    assert!(run.stderr().contains("it has none in programs/"), "{}", run.stderr());
}
