//! What must not be seen: passwords and tokens in URLs, and texts that quote such URLs.

use rattler_redaction::strip_url_for_serialization;
use url::Url;

/// The URL as it may be shown: no user, no password, no channel token (`/t/<token>/`), no signature.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if let Some(rest) = url.path().strip_prefix("/t/")
        && let Some((_, path)) = rest.split_once('/')
    {
        let path = format!("/t/***/{path}");
        url.set_path(&path);
    }
    // A query of a download is a signature (S3, Azure) or nothing that a reader needs.
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.into()
}

/// A text with every URL in it as it may be shown: errors of libraries quote what was asked for.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at]
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+')
            .map_or(0, |before| before + rest[before..].chars().next().map_or(0, char::len_utf8));
        let end =
            rest[at..].find(|c: char| c.is_whitespace() || "\"'<>()`,".contains(c)).map_or(rest.len(), |e| at + e);
        out.push_str(&rest[..scheme]);
        match Url::parse(&rest[scheme..end]) {
            Ok(url) => out.push_str(&shown(&url)),
            // What cannot be read may hold anything.
            Err(_) => out.push_str("***"),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// The URL as it may be written down: the same place, without user, password, token and query.
pub fn without_credentials(url: &Url) -> Url {
    strip_url_for_serialization(url)
}

/// The name or address of a channel as it may be written down.
pub fn channel_without_credentials(channel: String) -> String {
    match Url::parse(&channel) {
        Ok(url) if are_in(&url) => String::from(without_credentials(&url)).trim_end_matches('/').to_owned(),
        _ => channel,
    }
}

/// Whether a password or token is part of the URL.
pub fn are_in(url: &Url) -> bool {
    has_password(url) || has_token(url)
}

/// Whether a name or password is part of a web address. The name alone may be a token; `ssh://git@` is none.
pub fn has_password(url: &Url) -> bool {
    let is_web = url.scheme().ends_with("http") || url.scheme().ends_with("https");
    is_web && (!url.username().is_empty() || url.password().is_some())
}

/// Whether the URL, if it is of a channel, holds a token: `/t/<token>/`. Others have such paths with other meanings.
pub fn has_token(url: &Url) -> bool {
    url.path().strip_prefix("/t/").is_some_and(|rest| rest.contains('/') && !rest.starts_with('/'))
}

/// The first line of a text, counted from 1, with a URL that is `secret`, and that URL as it may be shown.
pub fn first_in(text: &str, secret: impl Fn(&Url) -> bool) -> Option<(usize, String)> {
    text.lines().enumerate().find_map(|(number, line)| {
        let words = line.split(|c: char| c.is_whitespace() || "\"'<>()`,[]{}".contains(c));
        let mut urls = words.filter(|word| word.contains("://")).filter_map(|word| Url::parse(word).ok());
        urls.find(&secret).map(|url| (number + 1, shown(&url)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_and_written_without_credentials() {
        let url = "https://user:secret@example.org/t/tk-123/channel/x.conda?sig=abc".parse().unwrap();
        assert_eq!(shown(&url), "https://example.org/t/***/channel/x.conda?***");
        assert_eq!(without_credentials(&url).as_str(), "https://example.org/channel/x.conda");
        let plain: Url = "https://example.org/channel/x.conda".parse().unwrap();
        assert_eq!((shown(&plain).as_str(), without_credentials(&plain)), (plain.as_str(), plain.clone()));
    }

    #[test]
    fn a_channel_keeps_its_name_and_loses_its_password() {
        for (channel, expected) in [
            ("conda-forge", "conda-forge"),
            ("https://h.org/c/", "https://h.org/c/"),
            ("https://u:****@h.org/c", "https://h.org/c"),
            ("https://h.org/t/****/c", "https://h.org/c"),
        ] {
            assert_eq!(channel_without_credentials(channel.to_owned()), expected);
        }
    }

    #[test]
    fn urls_within_a_text_are_shown_without_credentials_and_the_rest_stays() {
        for (text, expected) in [
            ("nothing to see: a/b", "nothing to see: a/b"),
            ("for url (https://u:p@h.org/t/tk/x), twice", "for url (https://h.org/t/***/x), twice"),
            ("ä“http://u:p@h/é” and ftp://x@y/", "ä“http://h/%C3%A9%E2%80%9D and ftp://y/"),
            ("http://u:p@:bad", "***"),
            ("://", "***"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn a_password_in_a_text_is_found_with_its_line() {
        let found = |text: &str| first_in(text, are_in);
        assert_eq!(
            found("channels = [\"https://h.org/c\", \"https://h.org/t/\"]\n# a@b c:d@e ssh://git@h.org/x\n"),
            None
        );
        let text = "x\nchannels = [\"https://h.org/c\",\"https://u:p@h.org/c\"]\n";
        assert_eq!(found(text), Some((2, "https://h.org/c".to_owned())));
        assert_eq!(
            found("- conda: https://h.org/t/tk-1/c/x.conda"),
            Some((1, "https://h.org/t/***/c/x.conda".to_owned()))
        );
    }
}
