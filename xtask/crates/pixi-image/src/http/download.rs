//! One verified download: bytes are hashed and counted while they are written, and resumed after a cut.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Request, StatusCode};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::mirrors::Place;
use super::retry::{self, Attempts};
use super::{Client, HttpError, innermost, shown};
use crate::model::Digest;
use crate::progress::Progress;
use crate::publish::{PageCache, Pending, Steady};

/// An attempt that brought this much is not counted as failed: large files come through on bad lines, too.
const PROGRESS: u64 = 1 << 20;
/// What a file without a known size may have at most.
const SIZE_LIMIT: u64 = 64 << 30;

/// Where bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An http or https URL.
    Url(Url),
    /// A file of this machine.
    File(PathBuf),
}

impl Source {
    /// Takes http, https and file URLs.
    pub fn from_url(url: &Url) -> Result<Self, HttpError> {
        match url.scheme() {
            "http" | "https" => Ok(Self::Url(url.clone())),
            "file" => url.to_file_path().map(Self::File).map_err(|()| HttpError::BadSource(shown(url))),
            _ => Err(HttpError::BadSource(shown(url))),
        }
    }

    /// Takes the same as [`Source::from_url`], and plain paths.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        match Url::parse(text) {
            // `C:\x` parses as a URL with the scheme `c`.
            Ok(url) if url.scheme().len() > 1 => Self::from_url(&url),
            _ if text.is_empty() || text.contains("://") => Err(HttpError::BadSource(text.to_owned())),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }

    /// The source as it may be shown.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(url) => shown(url),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// What the bytes must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Their digest.
    pub sha256: Digest,
    /// Their number, where known.
    pub size: Option<u64>,
}

/// One download.
pub struct Download<'a> {
    /// The client to ask with.
    pub client: &'a Client,
    /// Where the bytes come from.
    pub source: &'a Source,
    /// What they must be.
    pub expected: Expected,
    /// Told of each byte once, however often it had to be asked for.
    pub progress: &'a dyn Progress,
    /// Ends the download at the next chunk when set.
    pub stop: &'a AtomicBool,
}

/// Why an attempt ended before the file was whole.
enum Interrupted {
    /// Worth another attempt, after the wait that the server asks for.
    Retry(HttpError, Option<Duration>),
    /// This place has it not, or has something else: another mirror may.
    Refused(HttpError),
    Fatal(HttpError),
}

impl From<HttpError> for Interrupted {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Status { .. } | HttpError::WrongSize { .. } | HttpError::WrongDigest { .. } => {
                Self::Refused(error)
            }
            error => Self::Fatal(error),
        }
    }
}

impl Download<'_> {
    /// Writes the bytes into `pending` and checks them. Publishing it is left to the caller.
    pub async fn run(&self, pending: &mut Pending) -> Result<(), HttpError> {
        let from = self.source.shown();
        let out = pending.writer(PageCache::Stays).map_err(HttpError::Write)?;
        let hasher = Sha256::new();
        let mut received = Received { pending, out, from, hasher, bytes: 0, reported: 0, validator: None };
        match self.source {
            Source::File(path) => {
                self.copy(path, &mut received)?;
                self.verify(&received)
            }
            Source::Url(url) => self.get(url, &mut received).await,
        }
    }

    fn copy(&self, path: &Path, received: &mut Received<'_>) -> Result<(), HttpError> {
        let fail = |source| HttpError::Read { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(error)),
            };
            self.take(received, &buffer[..count])?;
        }
    }

    async fn get(&self, url: &Url, received: &mut Received<'_>) -> Result<(), HttpError> {
        let mut attempts = Attempts::of(&self.client.mirrors, url)?;
        // That some mirror has other bytes is worth more to know than that another does not answer.
        let mut wrong = None;
        loop {
            let before = received.bytes;
            let Some(place) = attempts.place() else { return Err(HttpError::BadSource(shown(url))) };
            // What one mirror began no other goes on with: it may have begun something else.
            if received.from != place.shown() {
                received.restart()?;
                received.from = place.shown();
            }
            match self.attempt(&place, received).await {
                Ok(()) => return Ok(()),
                Err(Interrupted::Fatal(error)) => return Err(error),
                Err(Interrupted::Refused(error)) => {
                    let is_wrong = matches!(error, HttpError::WrongSize { .. } | HttpError::WrongDigest { .. });
                    if !attempts.refused() {
                        return Err(if is_wrong { error } else { wrong.unwrap_or(error) });
                    }
                    wrong = if is_wrong { Some(error) } else { wrong };
                }
                Err(Interrupted::Retry(error, asked_for)) => {
                    let enough = received.bytes >= before + PROGRESS;
                    let Some(wait) = attempts.failed(enough, asked_for) else { return Err(wrong.unwrap_or(error)) };
                    self.check_stop()?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn attempt(&self, place: &Place<'_>, received: &mut Received<'_>) -> Result<(), Interrupted> {
        let url = || place.shown();
        let mut request = Request::new(Method::GET, place.url().clone());
        if received.bytes > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", received.bytes));
            request.headers_mut().insert(RANGE, range.map_err(|_| HttpError::BadSource(url()))?);
            if let Some(validator) = &received.validator {
                request.headers_mut().insert(IF_RANGE, validator.clone());
            }
        }
        let unreachable = |error: reqwest_middleware::Error| {
            let error = HttpError::Unreachable { url: url(), reason: innermost(&error) };
            Interrupted::Retry(error, None)
        };
        let mut response = self.client.ask(place, request).await.map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::PARTIAL_CONTENT && starts_at(response.headers()) == Some(received.bytes) {
            // The rest follows.
        } else if status == StatusCode::OK {
            received.restart()?;
        } else {
            return Err(self.refused(url(), &response, received));
        }
        received.validator = strong_validator(response.headers());
        if let (Some(expected), Some(rest)) = (self.expected.size, response.content_length())
            && received.bytes + rest != expected
        {
            let actual = received.bytes + rest;
            return Err(HttpError::WrongSize { url: url(), expected, actual }.into());
        }
        let cut = |received: &Received<'_>, reason: String| {
            let expected = self.expected.size;
            Interrupted::Retry(HttpError::Cut { url: url(), received: received.bytes, expected, reason }, None)
        };
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => self.take(received, &bytes)?,
                Ok(None) if self.expected.size.is_some_and(|size| received.bytes < size) => {
                    return Err(cut(received, "the connection ended".to_owned()));
                }
                Ok(None) => return Ok(self.verify(received)?),
                Err(error) => return Err(cut(received, innermost(&error))),
            }
        }
    }

    fn refused(&self, url: String, response: &reqwest::Response, received: &mut Received<'_>) -> Interrupted {
        let status = response.status();
        let error = HttpError::Status { url, status: status.as_u16() };
        let asked_for_rest = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
        if asked_for_rest {
            return match received.restart() {
                Ok(()) => Interrupted::Retry(error, None),
                Err(error) => Interrupted::Fatal(error),
            };
        }
        match retry::is_transient(status) {
            true => Interrupted::Retry(error, retry::retry_after(response.headers())),
            false => Interrupted::Refused(error),
        }
    }

    fn take(&self, received: &mut Received<'_>, bytes: &[u8]) -> Result<(), HttpError> {
        self.check_stop()?;
        let actual = received.bytes + bytes.len() as u64;
        let most = self.expected.size.unwrap_or(SIZE_LIMIT);
        if actual > most {
            return Err(HttpError::WrongSize { url: received.from.clone(), expected: most, actual });
        }
        let written = received.out.write_all(bytes);
        written.map_err(|source| HttpError::Write(received.pending.error(source)))?;
        received.hasher.update(bytes);
        received.bytes = actual;
        if actual > received.reported {
            self.progress.downloaded(actual - received.reported);
            received.reported = actual;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), HttpError> {
        if self.stop.load(Ordering::Relaxed) { Err(HttpError::Stopped) } else { Ok(()) }
    }

    fn verify(&self, received: &Received<'_>) -> Result<(), HttpError> {
        let (url, size) = (received.from.clone(), received.bytes);
        if let Some(expected) = self.expected.size
            && expected != size
        {
            return Err(HttpError::WrongSize { url, expected, actual: size });
        }
        let (expected, actual) = (self.expected.sha256, Digest(received.hasher.clone().finalize().into()));
        if expected != actual {
            return Err(HttpError::WrongDigest { url, expected, actual, size });
        }
        Ok(())
    }
}

/// What has arrived so far.
struct Received<'a> {
    pending: &'a mut Pending,
    out: Steady,
    /// Where from, as it may be shown.
    from: String,
    hasher: Sha256,
    bytes: u64,
    reported: u64,
    validator: Option<HeaderValue>,
}

impl Received<'_> {
    fn restart(&mut self) -> Result<(), HttpError> {
        if self.bytes > 0 {
            let emptied = self.pending.file().set_len(0).and_then(|()| self.out.seek(SeekFrom::Start(0)));
            emptied.map_err(|source| HttpError::Write(self.pending.error(source)))?;
            self.hasher = Sha256::new();
            self.bytes = 0;
        }
        Ok(())
    }
}

/// The first byte of a partial answer: `bytes 5-9/10` (RFC 9110, 14.4).
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// Weak validators must not be used to resume (RFC 9110, 13.1.5).
fn strong_validator(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_url_or_a_path() {
        assert!(matches!(Source::parse("https://example.org/x").unwrap(), Source::Url(_)));
        assert_eq!(Source::parse("file:///a/b").unwrap(), Source::File("/a/b".into()));
        assert_eq!(Source::parse("a/b").unwrap(), Source::File("a/b".into()));
        for bad in ["", "ftp://example.org/x", "http://", "://x"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_partial_answer_tells_where_it_starts() {
        let mut headers = HeaderMap::new();
        assert_eq!(starts_at(&headers), None);
        for (text, start) in [("bytes 5-9/10", Some(5)), ("bytes */10", None), ("lines 5-9/10", None)] {
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(starts_at(&headers), start, "{text}");
        }
    }
}
