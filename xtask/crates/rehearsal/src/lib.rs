//! A conda channel and a base image made from Debian's mirror: real Python and real CPU PyTorch for places that cannot
//! reach conda-forge or a container registry.
//!
//! ```text
//! InRelease (signature) -> Packages.xz (sha256) -> .deb (sha256, size) -> channel/*.conda and base.oci.tar
//! ```
//!
//! Everything is a function of the signed index and of the tables in [`recipes`]: the same index gives the same bytes.

pub mod base;
pub mod cache;
pub mod channel;
pub mod conda;
pub mod deb;
pub mod elf;
pub mod image;
pub mod index;
mod make;
pub mod mirror;
pub mod pixi_base;
pub mod recipes;
pub mod record;
pub mod repack;
pub mod serve;
pub mod shape;
pub mod signature;
pub mod sources;
pub mod variant;
pub mod workspace;

pub use make::{Rehearsal, RehearsalError, Request, make};
