//! Images of the host's own shell, run for real: by an ordinary user, and by whoever runs the tests.
#![cfg(target_os = "linux")]

mod checks;
mod environments;
mod image;
mod interface;
#[allow(dead_code)] // each test uses its part of it
#[path = "../support/packages.rs"]
mod packages;
mod process;
mod sandbox;
#[allow(dead_code)]
#[path = "../support/varied.rs"]
mod varied;
#[allow(dead_code)]
#[path = "../support/web.rs"]
mod web;
#[allow(dead_code)]
#[path = "../support/workspace.rs"]
mod workspace;
