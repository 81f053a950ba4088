//! Images of the host's own shell, run for real: by an ordinary user, and by whoever runs the tests.
#![cfg(target_os = "linux")]

mod checks;
mod image;
mod interface;
mod process;
mod sandbox;
