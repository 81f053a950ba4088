//! Where entries come from: one package format per file.

pub mod app;
pub mod base;
pub mod conda;
pub mod package;
pub mod placement;
pub mod prefix;
pub mod python;
pub mod wheel;
