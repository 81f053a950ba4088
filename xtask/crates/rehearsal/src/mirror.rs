//! Fetching from the mirror: what the index promised arrives whole and unchanged, or not at all.

use std::collections::VecDeque;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pixi_image::model::Digest;
use pixi_image::progress::Progress;
use pixi_image::publish::PublishError;
use sha2::Digest as _;

use crate::cache::Cache;
use crate::index::Remote;
use crate::sources::{self, MirrorRoot};

/// Connections to the mirror at once.
const CONNECTIONS: usize = 4;
/// How often a file is asked for before it is given up; between tries it waits for 0.5 s, then 1 s.
const TRIES: u32 = 3;
/// An InRelease larger than this is refused as hostile, in bytes (trixie's has 140 kB).
const IN_RELEASE_LIMIT: u64 = 8 << 20;

/// Why something could not be had from the mirror. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The HTTP client cannot be made.
    #[error("cannot set up HTTP: {reason}")]
    Client {
        /// What is wrong, for example a proxy's URL.
        reason: String,
    },
    /// No answer came, or it broke off.
    #[error(
        "cannot fetch {url}: {reason}\n  hint: check the network and the proxy (http_proxy, https_proxy), or name \
         another mirror with `--debian-mirror URL`"
    )]
    Network {
        /// What was asked for.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// The server refused.
    #[error(
        "cannot fetch {url}: the server answers {status}\n  hint: the mirror may be in the middle of an update: \
         try again later, or name another one with `--debian-mirror URL`"
    )]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: String,
    },
    /// It is not what the signed index says.
    #[error(
        "{url} is not what Debian's signed index says: {reason}\n  hint: the mirror or a proxy on the way changed or \
         cut it; nothing of it was kept; name another mirror with `--debian-mirror URL`"
    )]
    Mismatch {
        /// What was asked for.
        url: String,
        /// Expected and found size or digest.
        reason: String,
    },
    /// It is not in the cache, and the network must not be used.
    #[error("{what} is not in the cache {cache}\n  hint: run once without `--offline`")]
    Offline {
        /// The file.
        what: String,
        /// The directory of the cache.
        cache: PathBuf,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Cache(#[from] PublishError),
}

/// A mirror, and the cache in front of it. Without the mirror it is offline.
pub struct Mirror {
    root: Option<String>,
    client: reqwest::Client,
    cache: Cache,
}

impl Mirror {
    /// A mirror to fetch from; none means that only the cache is used.
    pub fn new(root: Option<&MirrorRoot>, cache: Cache) -> Result<Self, MirrorError> {
        let bad = |error: reqwest::Error| MirrorError::Client { reason: chain(&error) };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rehearsal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60));
        if root.is_some_and(is_on_loopback) {
            builder = builder.no_proxy(); // a proxy would look on its own machine
        }
        if let Some(root) = root.filter(|root| root.from_apt && !proxy_in_environment()) {
            let scheme = root.url.split(':').next().unwrap_or("http");
            if let Some(proxy) = sources::apt_proxy(scheme) {
                builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(bad)?);
            }
        }
        Ok(Self { root: root.map(|root| root.url.clone()), client: builder.build().map_err(bad)?, cache })
    }

    /// The InRelease of `suite`, not verified yet: from the mirror, or from the cache when offline.
    pub async fn in_release(&self, suite: &str) -> Result<Vec<u8>, MirrorError> {
        let path = format!("dists/{suite}/InRelease");
        let Some(root) = &self.root else {
            return self.cache.index(suite).ok_or_else(|| self.offline(&path));
        };
        let url = format!("{root}/{path}");
        let mut try_number = 1;
        loop {
            let mut bytes = Vec::new();
            match self.stream(&url, IN_RELEASE_LIMIT, &mut |chunk| bytes.extend_from_slice(chunk)).await {
                Ok(()) => return Ok(bytes),
                Err(error) if !may_pass(&error) || try_number == TRIES => return Err(error),
                Err(_) => pause(&mut try_number).await,
            }
        }
    }

    /// Fetches files that are not in the cache yet and returns the place of each, in the order that was asked for.
    pub async fn fetch(
        self: &Arc<Self>,
        wanted: &[Remote],
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, MirrorError> {
        let mut places: Vec<Option<PathBuf>> = wanted.iter().map(|r| self.cache.find(&r.digest, r.size)).collect();
        let missing: VecDeque<usize> = (0..wanted.len()).filter(|at| places[*at].is_none()).collect();
        progress.expect_download(missing.iter().map(|at| wanted[*at].size).sum());
        let queue = Arc::new(Mutex::new((missing, wanted.to_vec())));
        let (sender, mut done) = tokio::sync::mpsc::channel(CONNECTIONS);
        // Dropped on the first error, which ends the other downloads too.
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (mirror, queue, sender) = (Arc::clone(self), Arc::clone(&queue), sender.clone());
            workers.spawn(async move {
                while let Some((at, remote)) = next(&queue) {
                    let fetched = mirror.fetch_one(&remote).await;
                    if sender.send((at, fetched)).await.is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        while let Some((at, fetched)) = done.recv().await {
            places[at] = Some(fetched?);
            progress.downloaded(wanted[at].size);
        }
        Ok(places.into_iter().flatten().collect())
    }

    async fn fetch_one(&self, remote: &Remote) -> Result<PathBuf, MirrorError> {
        let Some(root) = &self.root else {
            return Err(self.offline(remote.paths.last().map_or("a file", String::as_str)));
        };
        let mut last = None;
        for path in &remote.paths {
            let url = format!("{root}/{path}");
            let mut try_number = 1;
            loop {
                match self.download(&url, remote).await {
                    Ok(place) => return Ok(place),
                    Err(MirrorError::Cache(error)) => return Err(error.into()),
                    Err(error) if !may_pass(&error) || try_number == TRIES => {
                        last = Some(error);
                        break;
                    }
                    Err(_) => pause(&mut try_number).await,
                }
            }
        }
        Err(last.unwrap_or_else(|| self.offline("a file without a path")))
    }

    async fn download(&self, url: &str, remote: &Remote) -> Result<PathBuf, MirrorError> {
        let (mut pending, place) = self.cache.begin(&remote.digest)?;
        let mut hasher = sha2::Sha256::new();
        let mut size = 0;
        let mut written = Ok(());
        let mut take = |chunk: &[u8]| {
            hasher.update(chunk);
            size += chunk.len() as u64;
            if written.is_ok() {
                written = pending.file().write_all(chunk);
            }
        };
        self.stream(url, remote.size, &mut take).await?;
        written.map_err(|source| pending.error(source))?;
        let mismatch = |reason| MirrorError::Mismatch { url: url.to_owned(), reason };
        if size != remote.size {
            return Err(mismatch(format!("{size} bytes came instead of {}", remote.size)));
        }
        let digest = Digest(hasher.finalize().into());
        if digest != remote.digest {
            return Err(mismatch(format!("its digest is {digest} instead of {}", remote.digest)));
        }
        pending.publish(0o644)?;
        Ok(place)
    }

    async fn stream(&self, url: &str, limit: u64, take: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), MirrorError> {
        let broken = |error: reqwest::Error| MirrorError::Network { url: url.to_owned(), reason: chain(&error) };
        let mut response = self.client.get(url).send().await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(MirrorError::Status { url: url.to_owned(), status: response.status().to_string() });
        }
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            size += chunk.len() as u64;
            if size > limit {
                let reason = format!("more than {limit} bytes came");
                return Err(MirrorError::Mismatch { url: url.to_owned(), reason });
            }
            take(&chunk);
        }
        Ok(())
    }

    fn offline(&self, what: &str) -> MirrorError {
        MirrorError::Offline { what: what.to_owned(), cache: self.cache.directory().to_owned() }
    }
}

type Queue = Mutex<(VecDeque<usize>, Vec<Remote>)>;

fn next(queue: &Queue) -> Option<(usize, Remote)> {
    let mut queue = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let at = queue.0.pop_front()?;
    Some((at, queue.1[at].clone()))
}

/// Whether a second try may go better. A file that is not there will not appear.
fn may_pass(error: &MirrorError) -> bool {
    match error {
        MirrorError::Network { .. } | MirrorError::Mismatch { .. } => true,
        MirrorError::Status { status, .. } => status.starts_with('5') || status.starts_with("429"),
        _ => false,
    }
}

async fn pause(try_number: &mut u32) {
    tokio::time::sleep(Duration::from_millis(250 << *try_number)).await;
    *try_number += 1;
}

fn is_on_loopback(root: &MirrorRoot) -> bool {
    let url = reqwest::Url::parse(&root.url).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn proxy_in_environment() -> bool {
    ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// An error with its causes: reqwest's own text says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
