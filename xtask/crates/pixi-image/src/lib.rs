//! Turns one environment of a `pixi.lock` into an OCI image and an Apptainer SIF.
//!
//! Data flows down once:
//!
//! ```text
//! pixi.lock -> lock -> Environment -> fetch -> package archives
//!           -> source::conda (archive bytes to entries) -> pack (compressed once, for both formats)
//!           -> archive (OCI)   and   squashfs + sif (SIF)
//! ```
//!
//! No engine, root, daemon or staging tree is needed, nothing of the image is executed while it is built, and the result
//! is a function of its inputs alone.

pub mod activation;
pub mod archive;
pub mod bars;
pub mod build;
pub mod bundle;
pub mod clobber;
pub mod config;
pub mod entry;
pub mod fetch;
mod hashed;
pub mod http;
pub mod inspect;
#[cfg(target_os = "linux")]
pub mod install;
pub mod layers;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod model;
pub mod pack;
mod pieces;
pub mod progress;
pub mod publish;
pub mod registry;
#[cfg(target_os = "linux")]
pub mod runner;
pub mod secrets;
pub mod sif;
pub mod singularity;
pub mod solve;
pub mod source;
pub mod squashfs;
pub mod store;
pub mod tree;
pub mod verify;
