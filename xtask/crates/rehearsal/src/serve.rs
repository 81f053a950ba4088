//! Serving a channel, and the base image that goes with it, over HTTP on loopback, for as long as whoever started it lives.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use pixi_image::layout::LayoutError;
use pixi_image::model::Digest;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

use crate::channel::{self, ChannelError};
use crate::image::ServedImage;

/// Where a server says which channel and which image it serves.
const IDENTITY: &str = "/rehearsal.json";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// There is no image.
    #[error(transparent)]
    Image(#[from] LayoutError),
    /// Something else uses the port.
    #[error(
        "port {port} of 127.0.0.1 is taken by {holder}\n  hint: choose another one with `--port PORT` (0 takes any \
         that is free), or end what uses it"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// What answers there.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot serve on port {port} of 127.0.0.1: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// A channel that is served, or could be had where it is served already.
#[derive(Debug)]
pub enum Served {
    /// This process serves it now.
    Here(Box<Server>),
    /// Another server of the same channel, and of the image if one is wanted, has the port; its URL.
    Elsewhere(String),
}

/// A listening server. It answers once [`Server::run`] is called; connections before that wait.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    url: String,
    channel: PathBuf,
    image: Option<ServedImage>,
    identity: Identity,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Identity {
    channel: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<Digest>,
}

/// Takes `port` (0: any free one) for the channel in a directory and, where one is named, the image in an OCI archive.
pub async fn listen(channel: &Path, image: Option<&Path>, port: u16) -> Result<Served, ServeError> {
    let image = image.map(ServedImage::open).transpose()?;
    let wanted = Identity { channel: channel::digest(channel)?, image: image.as_ref().map(|image| image.digest) };
    let refused = |source| ServeError::Listen { port, source };
    match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(listener) => {
            let url = format!("http://{}", listener.local_addr().map_err(refused)?);
            Ok(Served::Here(Box::new(Server { listener, url, channel: channel.to_owned(), image, identity: wanted })))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let url = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
            let holder = match identity(&url).await {
                Some(found) if found.channel != wanted.channel => "a server of another rehearsal channel",
                Some(found) if wanted.image.is_none() || found.image == wanted.image => {
                    return Ok(Served::Elsewhere(url));
                }
                Some(_) => "a server of this rehearsal channel that has another base image, or none",
                None => "another program",
            };
            Err(ServeError::PortTaken { port, holder: holder.to_owned() })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Asks a server what it serves.
async fn identity(url: &str) -> Option<Identity> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().ok()?;
    let response = client.get(format!("{url}{IDENTITY}")).send().await.ok()?.error_for_status().ok()?;
    let mut response = Some(response).filter(|response| response.content_length().is_some_and(|size| size < 4096))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).ok()
}

/// What is read of a package at a time, in bytes: each piece goes through another thread.
const CHUNK: usize = 1 << 20;

impl Server {
    /// The channel's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves until `end` is done; connections that are open then are closed.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), ServeError> {
        let port = self.listener.local_addr().map_or(0, |address| address.port());
        let identity = serde_json::json!(self.identity).to_string();
        let mut router = Router::new()
            .route(IDENTITY, get(async move || ([(CONTENT_TYPE, "application/json")], identity)))
            .fallback_service(ServeDir::new(self.channel).with_buf_chunk_size(CHUNK));
        if let Some(image) = self.image {
            let registry = image.router();
            router = router.nest_service("/v2", registry);
        }
        tokio::select! {
            served = axum::serve(self.listener, router) => served.map_err(|source| ServeError::Listen { port, source }),
            () = end => Ok(()),
        }
    }
}

/// Is done when standard input ends, so when the process that holds its other end is gone.
pub async fn stdin_closed() {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a runtime would wait for a blocking read when it shuts down.
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        let mut stdin = io::stdin().lock();
        while stdin.read(&mut buffer).is_ok_and(|count| count > 0) {}
        drop(sender);
    });
    // The sender sends nothing: its end is the message.
    let _ = receiver.await;
}
