//! Manifests as they come: what is solved is content with itself, comes out the same again, and notices what changes.

#[allow(dead_code)] // each test uses its part of it
#[path = "support/channel.rs"]
mod channel;
#[allow(dead_code)]
#[path = "support/locks.rs"]
mod locks;
#[path = "support/manifests.rs"]
mod manifests;
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pixi_image::lock;
use pixi_image::manifest::{self, Manifest, Requirement};
use pixi_image::progress::Silent;
use pixi_image::solve::{self, Checked, SolveError};
use proptest::prelude::prop_assert_eq;
use proptest::test_runner::{Config, TestRunner};
use web::Web;

/// Channels on loopback, and a directory for a lock.
struct Bench {
    directory: tempfile::TempDir,
    web: Web,
}

impl Bench {
    fn manifest(&self, text: &str) -> Option<Manifest> {
        manifest::parse(Path::new("/w/pixi.toml"), &locks::addressed(text, &self.web)).ok()
    }

    fn solve(&self, manifest: &Manifest) -> Option<String> {
        let (cache, config) = (self.directory.path(), pixi_image::config::Config::none());
        let options = solve::Options { cache, offline: false, config, now: now(), among: None };
        match solve::solve(manifest, &options, &Silent) {
            Ok(lock) => Some(lock),
            Err(SolveError::Unsolvable { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self, manifest: &Manifest, lock: &str) -> Checked {
        std::fs::write(self.lock(), lock).unwrap();
        solve::check(manifest, &self.lock(), now()).unwrap()
    }

    fn lock(&self) -> PathBuf {
        self.directory.path().join("pixi.lock")
    }
}

/// Ages are counted from here, so that a test never gets old.
fn now() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().unwrap()
}

#[test]
fn any_lock_satisfies_its_manifest_comes_out_the_same_again_and_notices_what_changes() {
    let bench = Bench { directory: tempfile::tempdir().unwrap(), web: Web::start() };
    locks::main().serve_at(&bench.web, "/main");
    locks::extra().serve_at(&bench.web, "/extra");
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let solved = std::cell::Cell::new(0);
    let noticed = std::cell::Cell::new(0);
    runner
        .run(&manifests::any_manifest(), |written| {
            let text = written.text();
            // Features may contradict each other: then there is nothing to solve.
            let Some(manifest) = bench.manifest(&text) else { return Ok(()) };
            let Some(lock) = bench.solve(&manifest) else { return Ok(()) };
            solved.set(solved.get() + 1);
            prop_assert_eq!(bench.check(&manifest, &lock), Checked::default());
            prop_assert_eq!(bench.solve(&manifest), Some(lock.clone()));
            for (line, changed) in text.lines().enumerate().filter_map(|(index, line)| Some((index, unmeetable(line)?)))
            {
                let mut lines: Vec<&str> = text.lines().collect();
                lines[line] = &changed;
                let manifest = bench.manifest(&lines.join("\n")).unwrap();
                let Checked { unmet, .. } = bench.check(&manifest, &lock);
                let asked = asked_at(&manifest, line + 1, &bench.lock());
                let place = format!("(/w/pixi.toml:{}:1) is not met", line + 1);
                let told = unmet.iter().filter(|remark| remark.reason.contains(&place)).count();
                prop_assert_eq!(told, asked, "{}: {:#?}", changed, unmet);
                noticed.set(noticed.get() + told);
            }
            Ok(())
        })
        .unwrap();
    assert!(solved.get() > 0 && noticed.get() > 0, "nothing could be solved");
}

/// A line of a table of requirements, for a version that no channel has.
fn unmeetable(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" = \"")?;
    let is_setting = ["channel-priority", "solve-strategy", "exclude-newer"].contains(&name);
    (rest.ends_with('"') && !is_setting).then(|| format!("{name} = \"==99\""))
}

/// How many environments and platforms ask for what a line says: where a package must be there, or is there.
fn asked_at(manifest: &Manifest, line: usize, lock: &Path) -> usize {
    let here = |requirement: &&Requirement| requirement.place.line == line;
    let mut asked = 0;
    for environment in &manifest.environments {
        for target in &environment.targets {
            let locked = lock::read(lock, &environment.name, &target.platform.name).unwrap();
            let is_locked = |name: &str| locked.packages.iter().any(|package| package.name() == name);
            asked += target.own.requirements.iter().filter(here).count();
            asked += target.own.constraints.iter().filter(here).filter(|limit| is_locked(&limit.name())).count();
        }
    }
    asked
}
