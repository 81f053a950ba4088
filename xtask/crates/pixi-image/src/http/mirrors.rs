//! Where a URL is really asked for: at one of its mirrors, with the password that stands in its address.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Request;
use reqwest::header::AUTHORIZATION;
use url::Url;

use super::HttpError;
use crate::config::Config;
use crate::secrets::shown;

/// The mirrors of the configuration. How often one failed is kept for as long as this lives.
#[derive(Debug, Default)]
pub struct Mirrors {
    /// The longest prefix first, so that the most exact one is found.
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    prefix: String,
    /// In the order of the configuration.
    mirrors: Vec<Mirror>,
    /// Mirrors that cannot be asked from here, as they may be shown.
    others: Vec<String>,
}

#[derive(Debug)]
struct Mirror {
    base: Url,
    failures: AtomicUsize,
}

/// A place where a URL may be asked for.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    url: Url,
    mirror: Option<&'a Mirror>,
}

impl Mirrors {
    /// The mirrors that `config` names.
    pub fn of(config: &Config) -> Self {
        let rule = |(prefix, mirrors): (&Url, &Vec<Url>)| {
            let (ours, others) =
                mirrors.iter().partition::<Vec<&Url>, _>(|url| matches!(url.scheme(), "http" | "https"));
            Rule {
                prefix: without_user(prefix).into(),
                mirrors: ours
                    .into_iter()
                    .map(|base| Mirror { base: base.clone(), failures: AtomicUsize::new(0) })
                    .collect(),
                others: others.into_iter().map(shown).collect(),
            }
        };
        let mut rules: Vec<Rule> = config.mirrors.iter().map(rule).collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Self { rules }
    }

    /// All places for `url`, the one that failed least often first.
    pub fn places(&self, url: &Url) -> Result<Vec<Place<'_>>, HttpError> {
        let plain = without_user(url);
        let found = self.rules.iter().find_map(|rule| Some((rule, plain.as_str().strip_prefix(&rule.prefix)?)));
        let Some((rule, rest)) = found else { return Ok(vec![Place { url: url.clone(), mirror: None }]) };
        if rule.mirrors.is_empty() {
            return Err(HttpError::NoMirror { prefix: rule.prefix.clone(), mirrors: rule.others.join(", ") });
        }
        let mut mirrors: Vec<&Mirror> = rule.mirrors.iter().collect();
        mirrors.sort_by_key(|mirror| mirror.failures.load(Ordering::Relaxed));
        let place = |mirror: &'_ Mirror| {
            let mut text = mirror.base.as_str().to_owned();
            text.push_str(rest);
            Url::parse(&text).map_err(|_| HttpError::BadSource(shown(url)))
        };
        mirrors.into_iter().map(|mirror| Ok(Place { url: place(mirror)?, mirror: Some(mirror) })).collect()
    }
}

impl Place<'_> {
    /// The address, as it may be shown.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether it is another place than the one that was asked for.
    pub fn is_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Another address at the same mirror.
    pub fn at(&self, url: Url) -> Self {
        Self { url, ..self.clone() }
    }

    /// Remembers that it failed: others come first from now on.
    pub fn failed(&self) {
        if let Some(mirror) = self.mirror {
            mirror.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a request ask here. A password that was meant for another server does not come along.
    pub fn direct(&self, client: &reqwest::Client, mut request: Request) -> reqwest::Result<Request> {
        if self.mirror.is_some() {
            request.headers_mut().remove(AUTHORIZATION);
        }
        *request.url_mut() = without_user(&self.url);
        let builder = reqwest::RequestBuilder::from_parts(client.clone(), request);
        match (self.url.username(), self.url.password()) {
            ("", None) => builder.build(),
            (user, password) => builder.basic_auth(decoded(user), password.map(decoded)).build(),
        }
    }
}

fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn mirrors(rules: &[(&str, &[&str])]) -> Mirrors {
        let mirrors = rules.iter().map(|(prefix, to)| (url(prefix), to.iter().map(|to| url(to)).collect())).collect();
        Mirrors::of(&Config { mirrors, ..Config::default() })
    }

    fn shown_places(mirrors: &Mirrors, from: &str) -> Vec<String> {
        mirrors.places(&url(from)).unwrap().iter().map(Place::shown).collect()
    }

    #[test]
    fn the_most_exact_prefix_counts_and_its_mirrors_keep_their_order_until_one_fails() {
        let mirrors = mirrors(&[
            ("https://h.example/", &["https://all.example/x/"]),
            ("https://h.example/forge/", &["https://a.example/forge/", "https://u:p@b.example/f/"]),
        ]);
        let asked = "https://h.example/forge/noarch/a-1-0.conda?x=1";
        assert_eq!(
            shown_places(&mirrors, asked),
            ["https://a.example/forge/noarch/a-1-0.conda?***", "https://b.example/f/noarch/a-1-0.conda?***"]
        );
        mirrors.places(&url(asked)).unwrap()[0].failed();
        assert!(shown_places(&mirrors, asked)[0].starts_with("https://b.example/f/noarch/"));
        assert_eq!(shown_places(&mirrors, "https://h.example/forge2/x"), ["https://all.example/x/forge2/x"]);
        assert_eq!(shown_places(&mirrors, "https://other.example/forge/x"), ["https://other.example/forge/x"]);
        let with_user = mirrors.places(&url("https://me:mine@h.example/z")).unwrap()[0].url().clone();
        assert_eq!(with_user.as_str(), "https://all.example/x/z", "a password of the channel is none of the mirror");
    }

    #[test]
    fn a_mirror_that_cannot_be_asked_is_passed_over_where_there_is_another_else_named() {
        let one = mirrors(&[("https://h.example/", &["oci://r.example/x/", "https://a.example/"])]);
        assert_eq!(shown_places(&one, "https://h.example/z"), ["https://a.example/z"]);
        let none = mirrors(&[("https://h.example/", &["oci://u:secret@r.example/x/"])]);
        let error = none.places(&url("https://h.example/z")).unwrap_err().to_string();
        assert!(error.contains("oci://r.example/x/") && error.contains("hint"), "{error}");
    }

    #[test]
    fn the_password_of_an_address_becomes_a_header_and_that_of_another_server_is_left_behind() {
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let header = |mirrors: &Mirrors, asked: &str| {
            let mut request = Request::new(reqwest::Method::GET, url("https://h.example/z"));
            request.headers_mut().insert(AUTHORIZATION, "Basic theirs".parse().unwrap());
            let places = mirrors.places(&url(asked)).unwrap();
            let request = places[0].direct(&client, request).unwrap();
            assert_eq!(request.url().username(), "");
            request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
        };
        let with = mirrors(&[("https://h.example/", &["https://us%40er:p%3Aw@a.example/"])]);
        assert_eq!(header(&with, "https://h.example/z").as_deref(), Some("Basic dXNAZXI6cDp3"));
        let without = mirrors(&[("https://h.example/", &["https://a.example/"])]);
        assert_eq!(header(&without, "https://h.example/z"), None);
        assert_eq!(header(&Mirrors::default(), "https://h.example/z").as_deref(), Some("Basic theirs"));
    }
}
