//! Which Debian mirror to use: the one that was named, else the one that apt uses on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite that the rehearsal is made from, whatever the host runs: its glibc, Python and PyTorch belong together.
pub const SUITE: &str = "trixie";

/// Why no mirror could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// Nothing names a mirror.
    #[error(
        "no Debian mirror is known: {looked_in} names none\n  hint: name one with `--debian-mirror URL` or the \
         variable DEBIAN_MIRROR; its URL ends where `dists/` and `pool/` begin"
    )]
    NoMirror {
        /// Where apt's configuration was looked for.
        looked_in: PathBuf,
    },
    /// What was named is not the URL of a mirror.
    #[error("`{url}` is not the URL of a Debian mirror: {reason}\n  hint: it looks like http://HOST/debian")]
    BadMirror {
        /// The text as it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The root of a mirror: `dists/` and `pool/` lie below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRoot {
    /// The URL, with no `/` at its end.
    pub url: String,
    /// Whether it is apt's own choice, so that apt's proxy belongs to it.
    pub from_apt: bool,
}

/// Takes the mirror that was named, else reads it from the apt configuration below `etc_apt` (normally `/etc/apt`).
pub fn choose(named: Option<&str>, etc_apt: &Path) -> Result<MirrorRoot, SourcesError> {
    match named {
        Some(url) => Ok(MirrorRoot { url: checked(url)?, from_apt: false }),
        None => read_apt(etc_apt)
            .map(|url| MirrorRoot { url, from_apt: true })
            .ok_or_else(|| SourcesError::NoMirror { looked_in: etc_apt.to_owned() }),
    }
}

fn checked(url: &str) -> Result<String, SourcesError> {
    let bad = |reason| SourcesError::BadMirror { url: url.to_owned(), reason };
    let trimmed = url.trim().trim_end_matches('/');
    let (scheme, rest) = trimmed.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
    if scheme != "http" && scheme != "https" {
        return Err(bad("only http and https are read"));
    }
    if rest.is_empty() || rest.contains(char::is_whitespace) {
        return Err(bad("it has no host, or a blank in it"));
    }
    Ok(trimmed.to_owned())
}

/// One line or stanza of apt's configuration.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
}

fn read_apt(etc_apt: &Path) -> Option<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(etc_apt.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort();
    files.extend(parts);
    let sources: Vec<Source> = files
        .iter()
        .filter_map(|file| Some((file.extension()?.to_str()?.to_owned(), std::fs::read_to_string(file).ok()?)))
        .flat_map(|(extension, text)| match extension.as_str() {
            "list" => parse_list(&text),
            "sources" => parse_deb822(&text),
            _ => Vec::new(),
        })
        .collect();
    pick(&sources)
}

/// The first source that is Debian's own archive. Other vendors' archives and the security archive do not hold trixie's
/// main component: the root of Debian's ends in `debian`, or serves a suite together with its `-updates`.
fn pick(sources: &[Source]) -> Option<String> {
    let of_main = || sources.iter().filter(|source| source.components.iter().any(|component| component == "main"));
    let usable = |source: &&Source| {
        source.suites.iter().all(|suite| !suite.contains("-security") && !suite.contains('/'))
            && checked(&source.uri).is_ok()
    };
    let named_debian = of_main().filter(usable).find(|source| {
        checked(&source.uri).is_ok_and(|uri| uri.rsplit('/').next().is_some_and(|last| last == "debian"))
    });
    let with_updates = || {
        of_main().filter(usable).find(|source| {
            let serves = |suite: &str| {
                of_main().any(|other| other.uri == source.uri && other.suites.iter().any(|name| name == suite))
            };
            source.suites.iter().any(|suite| serves(&format!("{suite}-updates")))
        })
    };
    named_debian.or_else(with_updates).and_then(|source| checked(&source.uri).ok())
}

/// The one-line style: `deb [options] URI SUITE COMPONENT...` (sources.list(5)).
fn parse_list(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
            if let Some(options) = rest.strip_prefix('[') {
                rest = options.split_once(']')?.1;
            }
            let mut words = rest.split_whitespace().map(str::to_owned);
            Some(Source { uri: words.next()?, suites: vec![words.next()?], components: words.collect() })
        })
        .collect()
}

/// The deb822 style: stanzas of fields (sources.list(5)).
fn parse_deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    without_comments.split(|line| line.trim().is_empty()).flat_map(parse_stanza).collect()
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
            (true, _, Some((_, values))) => values.extend(words(line)),
            (false, Some((name, value)), _) => fields.push((name.trim().to_ascii_lowercase(), words(value))),
            _ => {}
        }
    }
    let field = |name: &str| {
        fields.iter().find(|(field, _)| field == name).map(|(_, values)| values.clone()).unwrap_or_default()
    };
    let disabled = field("enabled").iter().any(|value| matches!(value.as_str(), "no" | "false" | "0"));
    if disabled || !field("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    field("uris")
        .into_iter()
        .map(|uri| Source { uri, suites: field("suites"), components: field("components") })
        .collect()
}

/// The proxy that apt uses for `scheme`, where `apt-config` is there and names one.
pub fn apt_proxy(scheme: &str) -> Option<String> {
    let output = Command::new("apt-config").arg("dump").output().ok()?;
    proxy_of(&String::from_utf8_lossy(&output.stdout), scheme)
}

fn proxy_of(dump: &str, scheme: &str) -> Option<String> {
    let wanted = format!("Acquire::{scheme}::Proxy ");
    let value = dump.lines().find_map(|line| line.strip_prefix(&wanted))?;
    let value = value.trim().trim_end_matches(';').trim_matches('"');
    (!value.is_empty() && value != "DIRECT" && value != "false").then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_that_was_named_wins_and_must_be_a_url() {
        let nowhere = Path::new("no/such/directory");
        let chosen = choose(Some("https://mirror.example.org/debian/"), nowhere).unwrap();
        assert_eq!(chosen, MirrorRoot { url: "https://mirror.example.org/debian".into(), from_apt: false });
        for bad in ["mirror.example.org", "ftp://mirror.example.org/debian", "http://", "file:///srv/debian"] {
            let message = choose(Some(bad), nowhere).unwrap_err().to_string();
            assert!(message.contains(bad) && message.contains("hint:"), "{message}");
        }
    }

    #[test]
    fn without_a_mirror_the_error_says_how_to_name_one() {
        let dir = tempfile::tempdir().unwrap();
        let message = choose(None, dir.path()).unwrap_err().to_string();
        assert!(message.contains("--debian-mirror URL"), "{message}");
    }

    #[test]
    fn one_line_sources_of_other_vendors_and_of_security_are_passed_over() {
        let text = "# deb http://old.example.org/debian stretch main\n\
            deb-src http://src.example.org/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] https://vendor.example.org/linux/debian bookworm stable\n\
            deb http://security.example.org/debian bookworm-security main\n\
            deb [ trusted=no ] http://mirror.example.org/debian/ bookworm main contrib # ours\n";
        assert_eq!(pick(&parse_list(text)).as_deref(), Some("http://mirror.example.org/debian"));
    }

    #[test]
    fn deb822_sources_are_read_with_comments_continuations_and_enabled() {
        let text = "Types: deb\nURIs: http://off.example.org/debian\nSuites: bookworm\nComponents: main\n\
            Enabled: no\n\nTypes: deb deb-src\n# a comment\nURIs: http://mirror.example.org/debian\n\
            Suites: bookworm\n bookworm-updates\nComponents: main\n\nTypes: deb\n\
            URIs: http://mirror.example.org/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(pick(&sources).as_deref(), Some("http://mirror.example.org/debian"));
    }

    #[test]
    fn a_renamed_mirror_is_known_by_its_updates_suite() {
        let text = "deb http://tools.example.org/apt bookworm main\n\
            deb http://proxy.example.org/debian-remote bookworm main\n\
            deb http://proxy.example.org/debian-remote bookworm-updates main\n";
        assert_eq!(pick(&parse_list(text)).as_deref(), Some("http://proxy.example.org/debian-remote"));
        assert_eq!(pick(&parse_list("deb http://archive.example.org/ubuntu noble main\n")), None);
    }

    #[test]
    fn files_are_read_from_the_directory_in_order_and_others_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("sources.list.d");
        std::fs::create_dir(&parts).unwrap();
        std::fs::write(parts.join("b.list"), "deb http://b.example.org/debian trixie main\n").unwrap();
        std::fs::write(parts.join("a.list.save"), "deb http://a.example.org/debian trixie main\n").unwrap();
        let chosen = choose(None, dir.path()).unwrap();
        assert_eq!(chosen, MirrorRoot { url: "http://b.example.org/debian".into(), from_apt: true });
    }

    #[test]
    fn the_proxy_of_apt_is_read_and_direct_is_none() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.example.org:3142\";\n\
            Acquire::https::Proxy \"DIRECT\";\n";
        assert_eq!(proxy_of(dump, "http").as_deref(), Some("http://proxy.example.org:3142"));
        assert_eq!(proxy_of(dump, "https"), None);
    }
}
