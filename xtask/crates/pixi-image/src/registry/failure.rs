//! What ends an attempt to ask a registry, and whether another one may help.

use oci_client::Reference;
use oci_client::errors::{OciDistributionError, OciErrorCode};

use super::RegistryError;
use crate::http;
use crate::publish::PublishError;

/// What ends an attempt.
pub enum Failure {
    Registry(OciDistributionError),
    Cut(String),
    Ours(PublishError),
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Self {
        Self::Registry(error)
    }
}

impl Failure {
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cut(_) => true,
            Self::Ours(_) => false,
            Self::Registry(OciDistributionError::ServerError { code, .. }) => *code >= 500 || *code == 429,
            Self::Registry(OciDistributionError::RequestError(_) | OciDistributionError::IoError(_)) => true,
            Self::Registry(OciDistributionError::RegistryError { envelope, .. }) => {
                envelope.errors.iter().any(|error| matches!(error.code, OciErrorCode::Toomanyrequests))
            }
            Self::Registry(_) => false,
        }
    }

    pub fn into_error(self, reference: &Reference) -> RegistryError {
        const PROXY: &str = "\n  hint: behind a proxy set HTTPS_PROXY and HTTP_PROXY; without any way to it, \
                             `cargo xtask --source rehearsal` works with a base made on this machine";
        const NOT_THERE: &str = "\n  hint: is it spelled right, and public? Pulls here are anonymous";
        const TROUBLE: &str = "\n  hint: the registry has trouble of its own, or a proxy answers; try again later";
        let (reason, hint) = match self {
            Self::Ours(error) => return RegistryError::Publish(error),
            Self::Cut(reason) => (reason, "\n  hint: try again; nothing was kept"),
            Self::Registry(error) => match &error {
                OciDistributionError::RequestError(request) => (http::innermost(request), PROXY),
                OciDistributionError::ServerError { code, .. } => {
                    let hint = if *code == 404 { NOT_THERE } else { TROUBLE };
                    (format!("the registry answered {code}"), hint)
                }
                OciDistributionError::UnauthorizedError { .. }
                | OciDistributionError::AuthenticationFailure(_)
                | OciDistributionError::ImageManifestNotFoundError(_)
                | OciDistributionError::RegistryError { .. } => (error.to_string(), NOT_THERE),
                _ => (error.to_string(), ""),
            },
        };
        RegistryError::Pull { reference: reference.to_string(), reason: reason.trim().to_owned(), hint }
    }
}
