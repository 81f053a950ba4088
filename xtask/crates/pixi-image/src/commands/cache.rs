//! Where the cache is: an argument that several subcommands share.

use std::path::PathBuf;

use anyhow::Context;
use pixi_image::store::Store;

#[derive(clap::Args)]
pub struct CacheArgs {
    /// The cache of packages and packs [default: $PIXI_IMAGE_CACHE, else pixi-image in the user's cache directory]
    #[arg(long = "cache", value_name = "DIR")]
    root: Option<PathBuf>,
}

impl CacheArgs {
    pub fn store(self) -> anyhow::Result<Store> {
        match self.root {
            Some(root) => Ok(Store::at(root)),
            None => Store::of_user()
                .context("there is no place for the cache: HOME is not set\n  hint: name one with --cache DIR"),
        }
    }
}
