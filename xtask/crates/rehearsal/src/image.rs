//! The read-only part of a container registry, for one image: what engines ask for when a recipe says `FROM`.
//!
//! OCI distribution-spec, "Pull": `/v2/`, manifests and blobs. Blobs are read out of the archive where they lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri};
use futures_util::stream;
use oci_spec::image::MediaType;
use pixi_image::layout::{ImageSource, LayoutError};
use pixi_image::model::Digest;

use crate::index::ARCHITECTURE;
use crate::pixi_base;

/// What is read of a blob at a time, in bytes.
const PIECE: u64 = 256 << 10;

/// An image that is ready to be served. Its archive stays open: a new one of the same name is another image.
#[derive(Debug)]
pub struct ServedImage {
    /// The digest of the manifest.
    pub digest: Digest,
    media_types: HashMap<Digest, String>,
    blobs: HashMap<Digest, (u64, u64)>,
    file: Arc<File>,
}

impl ServedImage {
    /// Opens the OCI archive at `path`.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let image = ImageSource::open(path)?.image(ARCHITECTURE)?;
        let fail = |source| LayoutError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let blobs = index(&file).map_err(fail)?;
        let mut wanted = vec![image.digest.to_string(), image.manifest.config().digest().to_string()];
        wanted.extend(image.manifest.layers().iter().map(|layer| layer.digest().to_string()));
        let there = |text: &String| text.parse::<Digest>().is_ok_and(|digest| blobs.contains_key(&digest));
        if let Some(absent) = wanted.iter().find(|text| !there(text)) {
            return Err(LayoutError::NotAnImage {
                path: path.to_owned(),
                reason: format!("it is not an archive with the blob {absent}"),
            });
        }
        let media_type = image.manifest.media_type().clone().unwrap_or(MediaType::ImageManifest).to_string();
        let media_types = HashMap::from([(image.digest, media_type)]);
        Ok(Self { digest: image.digest, media_types, blobs, file: Arc::new(file) })
    }

    /// The routes below `/v2`.
    pub fn router(self) -> Router {
        Router::new().fallback(answer).with_state(Arc::new(self))
    }

    fn blob(&self, digest: Digest, method: &Method) -> Option<Response<Body>> {
        let (start, size) = *self.blobs.get(&digest)?;
        let body = if method == Method::HEAD { Body::empty() } else { self.body(start, size) };
        let media_type = self.media_types.get(&digest).map_or("application/octet-stream", String::as_str);
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
        headers.insert("docker-content-digest", HeaderValue::from_str(&digest.to_string()).ok()?);
        Some(response)
    }

    fn body(&self, start: u64, size: u64) -> Body {
        let file = self.file.clone();
        let pieces = stream::unfold((start, size), move |(start, left)| {
            let file = file.clone();
            async move {
                if left == 0 {
                    return None;
                }
                let piece = left.min(PIECE);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; piece as usize]; // at most PIECE
                    read_exact_at(&file, &mut bytes, start).map(|()| bytes)
                });
                let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                let left = if read.is_ok() { left - piece } else { 0 };
                Some((read, (start + piece, left)))
            }
        });
        Body::from_stream(pieces)
    }
}

/// Where each blob of the archive lies, and its size.
fn index(file: &File) -> io::Result<HashMap<Digest, (u64, u64)>> {
    let length = file.metadata()?.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut blobs = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = entry.path_bytes();
        let name = String::from_utf8_lossy(&name);
        let hex = name.trim_start_matches("./").strip_prefix("blobs/sha256/").unwrap_or_default();
        let (start, size) = (entry.raw_file_position(), entry.size());
        let whole = start.checked_add(size).is_some_and(|end| end <= length);
        if let (Ok(digest), true, true) = (Digest::from_hex(hex), whole, entry.header().entry_type().is_file()) {
            blobs.insert(digest, (start, size));
        }
    }
    Ok(blobs)
}

/// Answers one request. Names may hold slashes, so the path is taken apart here and not by the router.
async fn answer(State(image): State<Arc<ServedImage>>, method: Method, uri: Uri) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only");
    }
    let path = uri.path().trim_start_matches('/');
    if path.is_empty() {
        return json(StatusCode::OK, "{}".to_owned());
    }
    let (name, tag) = pixi_base::REFERENCE.split_once(':').unwrap_or((pixi_base::REFERENCE, "latest"));
    let below = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
    let Some(below) = below else {
        return refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &format!("this registry holds {name} alone"));
    };
    match below.split_once('/') {
        Some(("manifests", reference)) => {
            let digest = if reference == tag { Some(image.digest) } else { reference.parse().ok() };
            let found = digest.filter(|digest| *digest == image.digest).and_then(|digest| image.blob(digest, &method));
            found.unwrap_or_else(|| {
                refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &format!("{name} has the tag {tag} alone"))
            })
        }
        Some(("blobs", digest)) => {
            let found = digest.parse().ok().and_then(|digest| image.blob(digest, &method));
            found.unwrap_or_else(|| refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "there is no such blob"))
        }
        Some(("tags", "list")) => json(StatusCode::OK, serde_json::json!({ "name": name, "tags": [tag] }).to_string()),
        _ => refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is nothing here"),
    }
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

/// OCI distribution-spec, "Error Codes".
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string())
}

/// Requests run side by side on one open file, so none may move its position.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut start: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let read = file.seek_read(bytes, start)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        start += read as u64;
    }
    Ok(())
}
