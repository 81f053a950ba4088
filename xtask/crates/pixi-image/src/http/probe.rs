//! Whether addresses can be reached, all asked at once and within one time limit.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::task::JoinSet;
use url::Url;

use super::{HttpError, build, innermost, runtime, shown};

/// The answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// The address as it was given, without credentials.
    pub url: String,
    /// Why it cannot be reached; none if it can.
    pub reason: Option<String>,
}

/// Asks all addresses at once; the answers come in the order of the questions, `timeout` later at most.
///
/// 2xx and 3xx count as reachable, and 401 for the root of a registry (`/v2/`), which greets strangers so
/// (OCI distribution-spec, "Determining Support").
pub fn probe(urls: &[String], timeout: Duration) -> Result<Vec<Reachability>, HttpError> {
    let client = build(timeout, reqwest::redirect::Policy::none())?;
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

async fn ask(client: &reqwest::Client, url: &str) -> Option<String> {
    let url = match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        Ok(url) => return Some(format!("`{}` cannot be probed, only http and https", url.scheme())),
        Err(error) => return Some(error.to_string()),
    };
    let registry = matches!(url.path(), "/v2/" | "/v2");
    match client.get(url).send().await {
        Ok(response) => match response.status() {
            status if status.is_success() || status.is_redirection() => None,
            StatusCode::UNAUTHORIZED if registry => None,
            status => Some(format!("answered {status}")),
        },
        Err(error) => Some(innermost(&error)),
    }
}
