//! What the command does with input that is broken, hostile or in the way: it says what, where, why and the way out, exits
//! with 1, and touches nothing.
#![cfg(target_os = "linux")]

#[path = "../support/machine.rs"]
mod machine;
#[allow(dead_code)] // each test uses its part of it
#[path = "../support/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "../support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "../support/wheels.rs"]
mod wheels;
#[path = "../support/workspace.rs"]
mod workspace;

mod base_image;
mod cache;
mod hostile_packages;
mod hostile_wheels;
mod interrupted;
mod manifest_and_lock;
mod places;
mod reaching_out;

use packages::{Content, Member, Package};

/// Two small packages, of which the second needs the first.
fn small() -> Vec<Package> {
    vec![
        Package::new("lib", [Member::file("lib/libx.so", "x".repeat(1000)), Member::file("share/doc/lib", "doc")]),
        Package::new("tool", [Member::file("bin/tool", "#!/bin/sh\n").executable()]).depends(&["lib"]),
    ]
}

fn symlink(path: &str, target: &str) -> Member {
    Member::new(path, Content::Symlink(target.to_owned()))
}

fn hardlink(path: &str, target: &str) -> Member {
    Member::new(path, Content::Hardlink(target.to_owned()))
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let next = |state: &u64| {
        let state = state ^ (state << 13);
        let state = state ^ (state >> 7);
        Some(state ^ (state << 17))
    };
    std::iter::successors(Some(88_172_645_463_325_252), next).map(|state| (state >> 24) as u8).take(length).collect()
}
