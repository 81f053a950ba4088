//! `exclude-newer`: the time after which packages are not taken, in general, of a channel, or of one name.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use rattler_conda_types::{Channel, PackageName};
use rattler_solve::TimestampPolicy;
use url::Url;

use super::ManifestError;
use super::document::{Node, Table};
use crate::secrets;

/// A point in time, or one that moves along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutoff {
    /// Packages that are newer are not taken.
    At(Timestamp),
    /// Packages that are younger are not taken.
    Ago(Duration),
}

impl Cutoff {
    /// The point in time as seen from `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(age) => {
                SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(Timestamp::MIN)
            }
        }
    }

    /// `2025-06-01`, all of that day included; a time as in RFC 3339; or an age like `7d` or `1h30m`.
    pub fn read(node: &Node<'_>) -> Result<Self, ManifestError> {
        let text = node.str()?;
        if let Ok(age) = humantime::parse_duration(text) {
            return Ok(Self::Ago(age));
        }
        let day_after = text.parse::<civil::Date>().and_then(|date| date.tomorrow());
        // A date would also be taken as a time, but for one with hours and minutes.
        let day = day_after.and_then(|date| date.to_zoned(TimeZone::UTC)).map(|midnight| midnight.timestamp());
        let time = if text.contains(':') { text.parse() } else { day };
        time.map(Self::At).map_err(|_| {
            node.invalid(format!(
                "`{text}` is no date like 2025-06-01, no time as in RFC 3339, and no age like 7d or 1h30m"
            ))
        })
    }
}

/// All cutoffs that hold in an environment. One of a package goes before that of its channel, and that before the general.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExcludeNewer {
    /// That of the workspace.
    pub general: Option<Cutoff>,
    /// Those of channels, by the name that records carry while they are solved.
    pub channels: Vec<(String, Cutoff)>,
    /// Those of packages.
    pub packages: Vec<(PackageName, Cutoff)>,
}

impl ExcludeNewer {
    /// The tables of the manifest; channels are added with each environment.
    pub fn read(root: &Table<'_>, workspace: &Table<'_>) -> Result<Self, ManifestError> {
        let general = workspace.get("exclude-newer").map(|node| Cutoff::read(&node)).transpose()?;
        let mut packages = Vec::new();
        for (name, node) in
            root.get("exclude-newer").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries)
        {
            let package = name.parse().map_err(|error| node.invalid(format!("is no name of a package: {error}")))?;
            packages.push((package, Cutoff::read(&node)?));
        }
        Ok(Self { general, channels: Vec::new(), packages })
    }

    /// Adds a channel's own cutoff.
    pub fn channel(&mut self, channel: &Channel, cutoff: Cutoff) {
        self.channels.push((channel.canonical_name(), cutoff));
    }

    /// When a package of this name from this channel is too new.
    pub fn cutoff(&self, package: &PackageName, channel: Option<&str>) -> Option<Cutoff> {
        let of_package = self.packages.iter().find(|(name, _)| name == package).map(|(_, cutoff)| *cutoff);
        let of_channel = || {
            let channel = address(channel?);
            self.channels.iter().find(|(name, _)| address(name) == channel).map(|(_, cutoff)| *cutoff)
        };
        of_package.or_else(of_channel).or(self.general)
    }

    /// As the solver takes it; none where nothing is cut off. Packages without a time are taken, as pixi does.
    pub fn solver(&self, now: Timestamp) -> Option<rattler_solve::ExcludeNewer> {
        if *self == Self::default() {
            return None;
        }
        let general = self.general.map_or(Timestamp::MAX, |cutoff| cutoff.at(now));
        let mut config =
            rattler_solve::ExcludeNewer::from_datetime(general).with_timestamp_policy(TimestampPolicy::AllowMissing);
        for (name, cutoff) in &self.channels {
            config = config.with_channel_cutoff(name, cutoff.at(now));
        }
        for (name, cutoff) in &self.packages {
            #[expect(deprecated, reason = "an exemption can only loosen, the manifest's table can tighten, too")]
            let with = config.with_package_cutoff(name.clone(), cutoff.at(now));
            config = with;
        }
        Some(config)
    }
}

/// A lock names channels without their passwords, and some without the last slash.
fn address(channel: &str) -> String {
    let url = Url::parse(channel).map_or_else(|_| channel.to_owned(), |url| secrets::without_credentials(&url).into());
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_the_same_with_and_without_its_password() {
        let config = rattler_conda_types::ChannelConfig::default_with_root_dir("/".into());
        let channel = Channel::from_str("https://me:secret@example.org/own", &config).unwrap();
        let mut cutoffs = ExcludeNewer::default();
        cutoffs.channel(&channel, Cutoff::Ago(Duration::from_secs(1)));
        let name = "any".parse().unwrap();
        assert!(cutoffs.cutoff(&name, Some("https://example.org/own")).is_some());
        assert!(cutoffs.cutoff(&name, Some("https://example.org/other/")).is_none());
    }
}
