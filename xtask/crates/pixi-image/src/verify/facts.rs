//! What an image tells of what it was made from: enough to tell another build from damage.

use std::collections::BTreeMap;

/// The label of an image's time.
const CREATED: &str = "org.opencontainers.image.created";
/// The label of the base's digest.
const BASE: &str = "org.opencontainers.image.base.digest";
/// How many labels are named.
const LABELS: usize = 3;
/// How many characters of a value are shown.
const SHOWN: usize = 200;

/// What an image says of its making.
#[derive(Debug, Default)]
pub struct Facts {
    /// The program and its version.
    pub maker: Option<String>,
    /// `/app/pixi.lock`.
    pub lock: Option<Vec<u8>>,
    /// `/app/pixi.toml`.
    pub manifest: Option<Vec<u8>>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl Facts {
    /// What another image was made from, as sentences about it.
    pub fn causes(&self, ours: &Self) -> Vec<String> {
        let mut causes = Vec::new();
        if let (Some(theirs), Some(ours)) = (&self.maker, &ours.maker)
            && theirs != ours
        {
            causes.push(format!("it was made by {theirs}, and this is {ours}"));
        }
        for (name, theirs, ours) in
            [("pixi.lock", &self.lock, &ours.lock), ("pixi.toml", &self.manifest, &ours.manifest)]
        {
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs != ours
            {
                let line = theirs.split(|b| *b == b'\n').zip(ours.split(|b| *b == b'\n'));
                let line = line.take_while(|(theirs, ours)| theirs == ours).count() + 1;
                causes.push(format!("it was built from another {name}: theirs differs from line {line} on"));
            }
        }
        let other_lock = causes.len();
        let keys = self.labels.keys().chain(ours.labels.keys()).collect::<std::collections::BTreeSet<_>>();
        for key in keys.into_iter().filter(|key| self.labels.get(*key) != ours.labels.get(*key)) {
            let show = |labels: &BTreeMap<String, String>| match labels.get(key) {
                Some(value) => printable(value),
                None => "none".to_owned(),
            };
            let (theirs, ours) = (show(&self.labels), show(&ours.labels));
            match key.as_str() {
                BASE => causes.push(format!("it stands on another base image: {theirs}, not {ours}")),
                // The time is that of the newest package, if none is given.
                CREATED if other_lock > 0 => {}
                CREATED => causes
                    .push(format!("it carries the time {theirs}, not {ours}: SOURCE_DATE_EPOCH was set otherwise")),
                _ if causes.len() < other_lock + LABELS => {
                    causes.push(format!("its label {} is {theirs}, not {ours}", printable(key)));
                }
                _ => {}
            }
        }
        causes
    }
}

/// Text of an image as a terminal may have it: the end of what is long, which tells more of paths and digests.
pub fn printable(text: &str) -> String {
    let start = text.char_indices().nth_back(SHOWN).map(|(start, _)| start);
    let shown = text[start.unwrap_or(0)..].chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    start.map_or("", |_| "...").chars().chain(shown).collect()
}
