//! Names and passwords for servers, as pixi and rattler keep them, and `.netrc`.
//!
//! In pixi's order: the file that `RATTLER_AUTH_FILE` names, the configuration's `authentication-override-file`,
//! `~/.rattler/credentials.json`, and the file that `NETRC` names or `~/.netrc`. The keyring of the desktop is not asked:
//! builds run where there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rattler_networking::authentication_storage::StorageBackend;
use rattler_networking::authentication_storage::backends::file::{FileStorage, FileStorageError};
use rattler_networking::authentication_storage::backends::memory::MemoryStorage;
use rattler_networking::{Authentication, AuthenticationMiddleware, AuthenticationStorage};

use super::HttpError;
use crate::config::Config;

/// What puts credentials into requests, by the host that they go to.
pub fn middleware(config: &Config) -> Result<AuthenticationMiddleware, HttpError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |name: &str| dirs::home_dir().map(|home| home.join(name));
    let files =
        [variable("RATTLER_AUTH_FILE"), config.authentication_override_file.clone(), home(".rattler/credentials.json")];
    let mut storage = AuthenticationStorage::empty();
    for path in files.into_iter().flatten() {
        storage.add_backend(Arc::new(FileStorage::from_path(path.clone()).map_err(|error| refused(path, error))?));
    }
    let netrc = home(if cfg!(windows) { "_netrc" } else { ".netrc" });
    if let Some(path) = variable("NETRC").or(netrc) {
        storage.add_backend(Arc::new(netrc_storage(&path)?));
    }
    Ok(AuthenticationMiddleware::from_auth_storage(storage))
}

/// What serde has to say about a file of passwords quotes them: only the place is told.
fn refused(path: PathBuf, error: FileStorageError) -> HttpError {
    let reason = match error {
        FileStorageError::JSONError(_, error) if error.is_io() => "it cannot be read".to_owned(),
        FileStorageError::JSONError(_, error) => {
            format!("line {}, column {} is not what rattler writes there", error.line(), error.column())
        }
        FileStorageError::IOError(error) => error.to_string(),
    };
    HttpError::Credentials { path, reason }
}

fn netrc_storage(path: &Path) -> Result<MemoryStorage, HttpError> {
    let storage = MemoryStorage::new();
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(storage),
        Err(error) => return Err(HttpError::Credentials { path: path.to_owned(), reason: error.to_string() }),
    };
    for (host, login) in netrc(&text) {
        // It fails only after a panic in another thread.
        let _ = storage.store(&host, &login);
    }
    Ok(storage)
}

/// The machines of a `.netrc` (ftp(1)), the first of a name. Its `default` is left out, as in rattler: it would give a
/// password to every server that is asked.
fn netrc(text: &str) -> Vec<(String, Authentication)> {
    let mut machines: Vec<(String, [String; 2])> = Vec::new();
    let mut open = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "machine" => {
                    open = words.next().is_some_and(|host| {
                        let new = !machines.iter().any(|(known, _)| known == host);
                        if new {
                            machines.push((host.to_owned(), Default::default()));
                        }
                        new
                    });
                }
                "default" => open = false,
                "login" | "password" => {
                    if let (Some(value), true, Some((_, fields))) = (words.next(), open, machines.last_mut()) {
                        fields[usize::from(word == "password")] = value.to_owned();
                    }
                }
                "account" => drop(words.next()),
                // A macro ends with an empty line.
                "macdef" => {
                    lines.by_ref().find(|line| line.is_empty());
                    break;
                }
                // A comment, or what ftp does not know.
                _ => break,
            }
        }
    }
    let machines = machines.into_iter();
    machines.map(|(host, [username, password])| (host, Authentication::BasicHTTP { username, password })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netrc_is_read_as_ftp_reads_it() {
        let text = "# machine old.example login x password y\n\
                    machine a.example login me password mine # not yours\n\
                    macdef init\n  machine no.example login no password no\n\n\
                    machine b.example\n  login you\n  account z\n  password login\n\
                    default login any password all\n\
                    machine a.example login second password second\nmachine c.example password only\nmachine\n";
        let basic = |username: &str, password: &str| Authentication::BasicHTTP {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        let expected = [
            ("a.example".to_owned(), basic("me", "mine")),
            ("b.example".to_owned(), basic("you", "login")),
            ("c.example".to_owned(), basic("", "only")),
        ];
        assert_eq!(netrc(text), expected);
        assert_eq!(netrc(""), []);
    }

    #[test]
    fn a_broken_file_of_credentials_is_named_with_its_place_and_nothing_of_it_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials.json");
        for text in ["{\n \"h.example\": \"secret\"}", "{\"h.example\": {\"secret\": 1}}", "secret"] {
            std::fs::write(&path, text).unwrap();
            let error = FileStorage::from_path(path.clone()).map_err(|error| refused(path.clone(), error)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("credentials.json") && text.contains("line ") && !text.contains("secret"), "{text}");
        }
    }
}
