//! Everything that can stop a build; each says in its own words what failed, why, and what to do.

use crate::activation::ActivationError;
use crate::archive::ArchiveError;
use crate::clobber::ClobberError;
use crate::fetch::FetchError;
use crate::lock::LockError;
use crate::manifest::ManifestError;
use crate::pack::{CopyError, PackError};
use crate::publish::PublishError;
use crate::registry::RegistryError;
use crate::sif::TextsTooLarge;
use crate::solve::CheckError;
use crate::source::app::AppError;
use crate::source::base::BaseError;
use crate::source::package::PackageError;
use crate::source::python::PythonError;
use crate::squashfs::SquashfsError;
use crate::tree::TreeError;

/// Why a build stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant is another module's error, passed on as it is
pub enum BuildError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("{source}\n  hint: the copy that was pulled lies in {images}; delete it there, and it is pulled again")]
    PulledBase { images: std::path::PathBuf, source: BaseError },
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Python(#[from] PythonError),
    #[error(transparent)]
    Clobber(#[from] ClobberError),
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("cannot merge the image's files: {0}")]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Squashfs(#[from] SquashfsError),
    #[error(transparent)]
    Sif(#[from] TextsTooLarge),
    #[error(
        "images are made for Linux; the platform {0} is not\n  hint: choose a linux platform of the lock with --platform"
    )]
    NotLinux(String),
    #[error(
        "the base image has {layers} layers, and an image stays at or below {max}\n  hint: use a base image with fewer layers"
    )]
    BaseTooDeep { layers: usize, max: usize },
    #[error(
        "the environment `{0}` cannot be put into an image: its name is no name of a directory\n  hint: name it with letters, \
         digits and `-`, as pixi demands"
    )]
    EnvironmentName(String),
    #[error(
        "the base image has an environment already, at {path}: this one would be mixed with it\n  hint: use the base image \
         that it was made from"
    )]
    BaseHasEnvironment { path: String },
    #[error(
        "in the base image {path} is no plain directory, so nothing can be installed below it\n  hint: use another base image"
    )]
    BaseInTheWay { path: String },
    #[error(
        "{path}:{line} holds the password or token of {url}, and this file goes into the image\n  hint: take it out, and put \
         it into ~/.netrc or ~/.rattler/credentials.json; then lock again"
    )]
    Secret { path: std::path::PathBuf, line: usize, url: String },
    #[error("cannot pack {what}: {source}")]
    Packing { what: String, source: std::io::Error },
    #[error("cannot read {path}: {source}\n  hint: make it readable, or name another")]
    Input { path: std::path::PathBuf, source: std::io::Error },
}
