//! The one way to a client: proxies, roots, passwords and mirrors as variables and pixi's configuration say.

use std::sync::Arc;
use std::time::Duration;

use rattler_networking::{AuthenticationMiddleware, LazyClient};
use reqwest::redirect::Policy;
use reqwest::{Request, Response};
use reqwest_middleware::ClientBuilder;
use url::Url;

use super::mirrors::{Mirrors, Place};
use super::retry::Persistent;
use super::roots::Roots;
use super::{HttpError, Proxies, READ_TIMEOUT, USER_AGENT, credentials, innermost};
use crate::config::Config;

/// Sends requests; one is enough for a whole program, and a clone is the same one.
#[derive(Clone)]
pub struct Client {
    pub(super) plain: reqwest::Client,
    pub(super) mirrors: Arc<Mirrors>,
    credentials: Arc<AuthenticationMiddleware>,
}

impl Client {
    /// A client that gives up connecting after `connect`.
    pub fn new(config: &Config, connect: Duration) -> Result<Self, HttpError> {
        Self::build(config, connect, Policy::limited(10))
    }

    pub(super) fn build(config: &Config, connect: Duration, redirects: Policy) -> Result<Self, HttpError> {
        let (plain, mirrors) = (plain(config, connect, redirects)?, Arc::new(Mirrors::of(config)));
        Ok(Self { plain, mirrors, credentials: Arc::new(credentials::middleware(config)?) })
    }

    /// Sends `request` to a place; nothing is tried twice.
    pub(super) async fn ask(&self, place: &Place<'_>, request: Request) -> reqwest_middleware::Result<Response> {
        let request = place.direct(&self.plain, request)?;
        ClientBuilder::new(self.plain.clone()).with_arc(self.credentials.clone()).build().execute(request).await
    }

    /// For the reader of channels, which sends requests of its own: with mirrors, and asking again.
    pub fn for_channels(&self) -> LazyClient {
        let client = ClientBuilder::new(self.plain.clone()).with(Persistent(self.clone()));
        client.with_arc(self.credentials.clone()).build().into()
    }

    /// Whether `url` can be asked for at all: an error where all its mirrors are of a kind that is not known here.
    pub fn check(&self, url: &Url) -> Result<(), HttpError> {
        self.mirrors.places(url).map(drop)
    }
}

fn plain(config: &Config, connect: Duration, redirects: Policy) -> Result<reqwest::Client, HttpError> {
    if let Some(path) = &config.tls_no_verify {
        return Err(HttpError::Unverified(path.clone()));
    }
    let fail = |error: reqwest::Error| HttpError::Client(innermost(&error));
    let proxies = Proxies::of(config);
    let except = || reqwest::NoProxy::from_string(&proxies.except);
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects)
        // A token may be part of a channel's path.
        .referer(false)
        // Digests are of the bytes as they are stored, whatever encodings other crates switch on.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_proxy();
    if let Some(proxy) = &proxies.http {
        builder = builder.proxy(reqwest::Proxy::http(proxy).map_err(fail)?.no_proxy(except()));
    }
    if let Some(proxy) = &proxies.https {
        builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(fail)?.no_proxy(except()));
    }
    Roots::of(config)?.apply(builder).and_then(reqwest::ClientBuilder::build).map_err(fail)
}
