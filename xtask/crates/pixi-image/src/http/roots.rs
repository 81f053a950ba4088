//! Whose certificates are trusted: the system's and Mozilla's, unless variables or the configuration say otherwise.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder};

use super::HttpError;
use crate::config::{Config, TlsRootCerts};

/// Certificates of authorities, beside the system's own or instead of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Whether the system's own are not trusted.
    pub only: bool,
    /// As the files hold them, each in PEM.
    pub pem: Vec<Vec<u8>>,
    /// Whether Mozilla's are trusted, as they are part of this program.
    pub bundled: bool,
}

impl Roots {
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` come first, as in OpenSSL and pixi, then `tls-root-certs`. Where nothing is said
    /// the system's are trusted, for a company's own is among them, and Mozilla's, for a bare system has none.
    pub fn of(config: &Config) -> Result<Self, HttpError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let pem = named(variable("SSL_CERT_FILE"), variable("SSL_CERT_DIR"))?;
        let (only, bundled) = match config.tls_root_certs {
            _ if !pem.is_empty() => (true, false),
            Some(TlsRootCerts::Webpki) => (true, true),
            Some(TlsRootCerts::System) => (false, false),
            None => (false, true),
        };
        Ok(Self { only, pem, bundled })
    }

    /// Makes a client trust them.
    pub fn apply(&self, builder: ClientBuilder) -> reqwest::Result<ClientBuilder> {
        let mut all = Vec::new();
        for bundle in &self.pem {
            all.extend(Certificate::from_pem_bundle(bundle)?);
        }
        for der in self.bundled() {
            all.push(Certificate::from_der(der)?);
        }
        Ok(if self.only { builder.tls_certs_only(all) } else { builder.tls_certs_merge(all) })
    }

    /// Mozilla's certificates in DER, if they are trusted.
    pub fn bundled(&self) -> impl Iterator<Item = &'static [u8]> {
        let all: &'static [_] = if self.bundled { webpki_root_certs::TLS_SERVER_ROOT_CERTS } else { &[] };
        all.iter().map(AsRef::as_ref)
    }
}

/// What the two variables name. Whoever sets them means it: what is not there is no reason to trust others.
fn named(file: Option<OsString>, directories: Option<OsString>) -> Result<Vec<Vec<u8>>, HttpError> {
    let mut pem = Vec::new();
    if let Some(file) = file {
        let path = PathBuf::from(file);
        let fail = |reason: String| HttpError::Roots { variable: "SSL_CERT_FILE", path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|error| fail(error.to_string()))?;
        if !holds_certificates(&bytes) {
            return Err(fail("it holds no certificate in PEM".to_owned()));
        }
        pem.push(bytes);
    }
    for directory in directories.iter().flat_map(std::env::split_paths) {
        let found = in_directory(&directory).map_err(|error| error.to_string());
        let found =
            found.and_then(
                |found| if found.is_empty() { Err("no file in it holds a certificate".into()) } else { Ok(found) },
            );
        let fail = |reason| HttpError::Roots { variable: "SSL_CERT_DIR", path: directory.clone(), reason };
        pem.extend(found.map_err(fail)?);
    }
    Ok(pem)
}

/// The certificates of a directory; `c_rehash` puts them there under several names.
fn in_directory(directory: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            found.push(std::fs::read(&path)?);
        }
    }
    found.retain(|bytes| holds_certificates(bytes));
    found.sort();
    found.dedup();
    Ok(found)
}

fn holds_certificates(bytes: &[u8]) -> bool {
    Certificate::from_pem_bundle(bytes).is_ok_and(|found| !found.is_empty())
}
