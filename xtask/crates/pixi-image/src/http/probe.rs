//! Whether addresses can be reached, all asked at once and within one time limit.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::{Method, Request, StatusCode};
use tokio::task::JoinSet;
use url::Url;

use super::mirrors::Place;
use super::{Client, HttpError, innermost, runtime, shown};
use crate::config::Config;

/// The answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// The address as it was given, without credentials.
    pub url: String,
    /// Why it cannot be reached; none if it can.
    pub reason: Option<String>,
}

/// Asks all addresses at once; the answers come in the order of the questions, `timeout` later at most. One that has
/// mirrors can be reached if one of them can.
///
/// 2xx and 3xx count as reachable, and 401 for the root of a registry (`/v2/`), which greets strangers so
/// (OCI distribution-spec, "Determining Support").
pub fn probe(config: &Config, urls: &[String], timeout: Duration) -> Result<Vec<Reachability>, HttpError> {
    let client = Client::build(config, timeout, reqwest::redirect::Policy::none())?;
    let runtime = runtime()?;
    let mut answers: Vec<_> = urls.iter().map(|url| unanswered(url, timeout)).collect();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (index, url) in urls.iter().enumerate() {
            let (client, url) = (client.clone(), url.clone());
            tasks.spawn(async move { (index, ask(&client, &url).await) });
        }
        let _ = tokio::time::timeout(timeout, async {
            while let Some(done) = tasks.join_next().await {
                if let Ok((index, reason)) = done {
                    answers[index].reason = reason;
                }
            }
        })
        .await;
    });
    // A name that is still being resolved sits in a thread that nothing can end: do not wait for it.
    runtime.shutdown_background();
    Ok(answers)
}

fn unanswered(url: &str, timeout: Duration) -> Reachability {
    let url = Url::parse(url).map_or_else(|_| url.to_owned(), |url| shown(&url));
    Reachability { url, reason: Some(format!("no answer within {} s", timeout.as_secs_f64())) }
}

async fn ask(client: &Client, url: &str) -> Option<String> {
    let url = match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        Ok(url) => return Some(format!("`{}` cannot be probed, only http and https", url.scheme())),
        Err(error) => return Some(error.to_string()),
    };
    let places = match client.mirrors.places(&url) {
        Ok(places) => places,
        Err(error) => return Some(error.to_string()),
    };
    // All at once: one that is silent must not use up the time of the others.
    let mut asked: FuturesUnordered<_> = places.iter().map(|place| ask_at(client, place)).collect();
    let mut reasons = Vec::new();
    while let Some(reason) = asked.next().await {
        reasons.push(reason?);
    }
    Some(reasons.join("; "))
}

async fn ask_at(client: &Client, place: &Place<'_>) -> Option<String> {
    let at = if place.is_mirror() { format!("{}: ", place.shown()) } else { String::new() };
    let status = match client.ask(place, Request::new(Method::GET, place.url().clone())).await {
        Ok(response) => response.status(),
        Err(error) => return Some(at + &innermost(&error)),
    };
    match status {
        status if status.is_success() || status.is_redirection() => None,
        StatusCode::UNAUTHORIZED if matches!(place.url().path(), "/v2/" | "/v2") => None,
        StatusCode::NOT_FOUND if place.is_mirror() && has_plain_repodata(client, place).await => None,
        status => Some(format!("{at}answered {status}")),
    }
}

/// Not every mirror has the compressed form. The plain one is large: its head is enough.
async fn has_plain_repodata(client: &Client, place: &Place<'_>) -> bool {
    let mut url = place.url().clone();
    let Some(path) = url.path().strip_suffix(".json.zst").map(|path| format!("{path}.json")) else { return false };
    url.set_path(&path);
    let place = place.at(url);
    let answer = client.ask(&place, Request::new(Method::HEAD, place.url().clone())).await;
    answer.is_ok_and(|response| response.status().is_success() || response.status().is_redirection())
}
