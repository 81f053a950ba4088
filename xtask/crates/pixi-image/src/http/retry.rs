//! Where to ask next, and when: one answer for packages and for repodata.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, Request, Response, ResponseBuilderExt, StatusCode};
use reqwest_middleware::{Error, Middleware, Next};
use url::Url;

use super::mirrors::{Mirrors, Place};
use super::{Client, HttpError};

/// Failed attempts in a row after which it is given up.
const ATTEMPTS: u32 = 5;
/// The wait before the second attempt; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(200);
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Answers up to here are held in memory: every shard, and the index of them.
const SMALL: u64 = 32 << 20;

/// The attempts to have one URL answered, at one of its mirrors.
pub struct Attempts<'a> {
    places: Vec<Place<'a>>,
    failed: u32,
}

impl<'a> Attempts<'a> {
    /// None yet.
    pub fn of(mirrors: &'a Mirrors, url: &Url) -> Result<Self, HttpError> {
        Ok(Self { places: mirrors.places(url)?, failed: 0 })
    }

    /// Where to ask now; nowhere, when all places have refused.
    pub fn place(&self) -> Option<Place<'a>> {
        self.places.first().cloned()
    }

    /// The place asked last has not what is wanted: whether there is another.
    pub fn refused(&mut self) -> bool {
        let place = self.places.remove(0);
        place.failed();
        !self.places.is_empty()
    }

    /// The place asked last failed: how long to wait before the next attempt; none if it is to be given up. Where `enough`
    /// of a download came it is asked again for the rest, else it is another's turn.
    pub fn failed(&mut self, enough: bool, asked_for: Option<Duration>) -> Option<Duration> {
        if enough {
            self.failed = 1;
            return Some(wait(1, asked_for));
        }
        if let Some(place) = self.places.first() {
            place.failed();
            self.places.rotate_left(1);
        }
        self.failed += 1;
        match self.failed {
            ATTEMPTS.. => None,
            // Another mirror needs no rest.
            failed if (failed as usize) < self.places.len() => Some(Duration::ZERO),
            failed => Some(wait(failed, asked_for)),
        }
    }
}

/// Whether the same request may be answered better later.
pub fn is_transient(status: StatusCode) -> bool {
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY)
}

fn wait(failed: u32, asked_for: Option<Duration>) -> Duration {
    asked_for.unwrap_or(BACKOFF * (1 << (failed.max(1) - 1))).min(LONGEST_WAIT)
}

/// Seconds only: dates would bring the clock in, and no file server sends them.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?))
}

/// Mirrors and attempts for those who send requests of their own, as the reader of channels does.
pub struct Persistent(pub Client);

#[async_trait::async_trait]
impl Middleware for Persistent {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut ::http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let mut attempts = Attempts::of(&self.0.mirrors, request.url()).map_err(Error::middleware)?;
        loop {
            let (Some(place), Some(copy)) = (attempts.place(), request.try_clone()) else {
                return next.run(request, extensions).await;
            };
            let answer = next.clone().run(place.direct(&self.0.plain, copy)?, extensions).await;
            let answer = match answer {
                Ok(response) if request.method() == Method::GET && is_small(&response) => whole(response).await,
                answer => answer,
            };
            let asked_for = match &answer {
                Ok(response) if is_transient(response.status()) => retry_after(response.headers()),
                Ok(response) if response.status().is_client_error() || response.status().is_server_error() => {
                    match attempts.refused() {
                        true => continue,
                        false => return answer,
                    }
                }
                Err(Error::Reqwest(error)) if !error.is_builder() && !error.is_redirect() => None,
                _ => return answer,
            };
            match attempts.failed(false, asked_for) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return answer,
            }
        }
    }
}

fn is_small(response: &Response) -> bool {
    response.status().is_success() && response.content_length().is_some_and(|length| length <= SMALL)
}

/// The same answer, once all of it has arrived: who reads it cannot ask again if it is cut.
async fn whole(response: Response) -> reqwest_middleware::Result<Response> {
    let (status, url, headers) = (response.status(), response.url().clone(), response.headers().clone());
    let mut whole = ::http::Response::builder().status(status).url(url).body(response.bytes().await?);
    if let Ok(whole) = &mut whole {
        *whole.headers_mut() = headers;
    }
    whole.map(Response::from).map_err(Error::middleware)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn attempts(mirrors: &Mirrors) -> Attempts<'_> {
        Attempts::of(mirrors, &"https://h.example/x".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_server_is_asked_again_after_longer_and_longer_waits_and_as_it_says_but_not_for_ever() {
        let none = Mirrors::default();
        let mut attempts = attempts(&none);
        let waits: Vec<_> = (0..5).map(|_| attempts.failed(false, None).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(800), Some(1600), None]);
        assert_eq!(attempts.failed(true, Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(attempts.failed(false, Some(Duration::from_secs(86_400))), Some(Duration::from_secs(20)));
        assert!(!attempts.refused() && attempts.place().is_none());
    }

    #[test]
    fn every_mirror_is_asked_before_any_is_waited_for_and_one_that_has_it_not_is_asked_no_more() {
        let to = ["https://a.example/", "https://b.example/", "https://c.example/"].map(|url| url.parse().unwrap());
        let mirrors = [("https://h.example/".parse().unwrap(), to.to_vec())].into();
        let mirrors = Mirrors::of(&Config { mirrors, ..Config::default() });
        let mut attempts = attempts(&mirrors);
        let here = |attempts: &Attempts<'_>| attempts.place().unwrap().shown();
        assert_eq!(here(&attempts), "https://a.example/x");
        assert_eq!(attempts.failed(false, Some(Duration::from_secs(9))), Some(Duration::ZERO));
        assert_eq!(here(&attempts), "https://b.example/x");
        assert!(attempts.refused());
        assert_eq!(here(&attempts), "https://c.example/x");
        assert_eq!(attempts.failed(false, None), Some(Duration::from_millis(400)));
        assert_eq!(here(&attempts), "https://a.example/x");
        assert!(attempts.refused() && !attempts.refused());
    }

    #[test]
    fn a_wait_is_read_as_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        for (text, wait) in [("7", Some(7)), (" 7 ", Some(7)), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None)] {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers), wait.map(Duration::from_secs), "{text}");
        }
    }
}
