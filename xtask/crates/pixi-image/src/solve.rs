//! Solves every environment of a manifest on every platform of it, and writes the lock that real pixi accepts.

mod among;
mod check;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rattler_conda_types::{Channel, MatchSpec, PackageName, RepoDataRecord, Subdir};
use rattler_lock::{LockFile, PlatformData, PlatformName, PypiPrereleaseMode, SolveOptions};
use rattler_repodata_gateway::fetch::{CacheAction, FetchRepoDataError};
use rattler_repodata_gateway::{ChannelConfig, Gateway, GatewayError, SourceConfig};
use rattler_solve::{SolveError as Unsolvable, SolverImpl, SolverTask, resolvo};
use url::Url;

use crate::config::{Config, RepodataKinds};
use crate::http::{self, Client, HttpError};
use crate::lock::LockError;
use crate::manifest::{Manifest, ManifestEnvironment, ManifestError, Requirement, Target};
use crate::progress::Progress;
use crate::secrets;

pub use check::{CheckError, Checked, Remark, check, require_satisfied, row_name};

/// Requests at a time, unless the configuration says otherwise.
const REQUESTS: usize = 16;

/// How to solve.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The cache; what channels offer is kept in `repodata` below it.
    pub cache: &'a Path,
    /// Use what is in the cache, however old it is.
    pub offline: bool,
    /// How channels are reached.
    pub config: &'a Config,
    /// The time from which `exclude-newer` counts ages.
    pub now: Timestamp,
    /// A lock whose packages are all that can be had, in place of what channels offer.
    pub among: Option<&'a Path>,
}

/// Why there is no new lock.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// Nothing can be downloaded at all.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The manifest asks for something that cannot be locked here.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A channel does not answer, or is none.
    #[error("cannot read the channel {url}: {reason}{hint}")]
    Channel {
        /// Its address, without credentials.
        url: String,
        /// The innermost cause.
        reason: String,
        /// The way out.
        hint: String,
    },
    /// A channel of a kind that is not known here.
    #[error(
        "the channel {0} cannot be read here: only http, https and file are known\n  hint: give the https address of the \
         same channel, or lock with pixi and build from its lock"
    )]
    UnknownKind(String),
    /// No set of packages meets all requirements.
    #[error("environment `{environment}` cannot be solved for {platform}:\n{}{hint}", indented(.reason))]
    Unsolvable {
        /// The environment.
        environment: String,
        /// The name of the platform.
        platform: String,
        /// What the solver says.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The lock to choose among cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The lock cannot be put together.
    #[error("cannot write down what was solved: {0}")]
    Write(String),
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Solves a manifest into the text of a lock, version 7. The same manifest and channels give the same text.
pub fn solve(manifest: &Manifest, options: &Options<'_>, progress: &dyn Progress) -> Result<String, SolveError> {
    if let Some(refusal) = manifest.environments.iter().find_map(|environment| environment.refused.first()) {
        return Err(ManifestError::Refused { refusal: refusal.clone() }.into());
    }
    let offer = Offer::open(options)?;
    let mut solved = Vec::new();
    for environment in &manifest.environments {
        for target in &environment.targets {
            progress.phase(&format!("solve {} for {}", environment.name, target.platform.name));
            solved.push(offer.solve(environment, target, options.now)?);
        }
    }
    write(manifest, solved)
}

/// The packages of one source that there are to choose from, the most wanted source first.
type Available = Vec<Arc<RepoDataRecord>>;

/// Where packages are chosen from.
enum Offer<'a> {
    Channels(Box<Channels>),
    Lock(among::Locked<'a>),
}

impl<'a> Offer<'a> {
    fn open(options: &Options<'a>) -> Result<Self, SolveError> {
        Ok(match options.among {
            Some(lock) => Self::Lock(among::Locked::read(lock)?),
            None => Self::Channels(Box::new(Channels::open(options)?)),
        })
    }

    fn solve(&self, environment: &ManifestEnvironment, target: &Target, now: Timestamp) -> Result<Solved, SolveError> {
        let subdir = target.platform.subdir;
        let locked = match self {
            Self::Channels(channels) => {
                let query = |once: &[Channel], asked: &[MatchSpec]| channels.query(once, subdir, asked);
                return solve_target(environment, target, now, None, query);
            }
            Self::Lock(locked) => locked,
        };
        // What was chosen together once is chosen together again, where it still does.
        let own = |once: &[Channel], _: &[MatchSpec]| Ok(locked.of_environment(environment, target, once));
        let all = |once: &[Channel], _: &[MatchSpec]| Ok(locked.all(subdir, once));
        solve_target(environment, target, now, Some(locked.path), own)
            .or_else(|_| solve_target(environment, target, now, Some(locked.path), all))
    }
}

/// What channels offer, read once each.
struct Channels {
    client: Client,
    gateway: Gateway,
    runtime: tokio::runtime::Runtime,
    offline: bool,
}

impl Channels {
    fn open(options: &Options<'_>) -> Result<Self, SolveError> {
        let (config, offline) = (options.config, options.offline || options.config.offline);
        let cache_action = if offline { CacheAction::ForceCacheOnly } else { CacheAction::CacheOrFetch };
        let source = |kinds: RepodataKinds| SourceConfig {
            cache_action,
            bz2_enabled: kinds.disable_bzip2 != Some(true),
            zstd_enabled: kinds.disable_zstd != Some(true),
            sharded_enabled: kinds.disable_sharded != Some(true),
            ..SourceConfig::default()
        };
        let default = config.repodata.default;
        let per_channel =
            config.repodata.per_channel.iter().map(|(url, kinds)| (url.clone(), source(kinds.or(default))));
        let client = Client::new(config, http::CONNECT_TIMEOUT)?;
        let gateway = Gateway::builder()
            .with_client(client.for_channels())
            .with_cache_dir(options.cache.join("repodata"))
            .with_channel_config(ChannelConfig { default: source(default), per_channel: per_channel.collect() })
            .with_max_concurrent_requests(config.downloads.unwrap_or(REQUESTS))
            .finish();
        Ok(Self { client, gateway, runtime: http::runtime()?, offline })
    }

    fn query(&self, channels: &[Channel], subdir: Subdir, specs: &[MatchSpec]) -> Result<Vec<Available>, SolveError> {
        for channel in channels {
            let url = channel.base_url.url();
            match url.scheme() {
                "http" | "https" => self.client.check(url)?,
                "file" => {}
                _ => return Err(SolveError::UnknownKind(http::shown(url))),
            }
        }
        let query = self.gateway.query(channels.to_vec(), [subdir, Subdir::NoArch], specs.to_vec()).recursive(true);
        match self.runtime.block_on(async { query.await }) {
            Ok(output) => Ok(output.repodata.iter().map(|source| source.iter_arc().cloned().collect()).collect()),
            Err(error) => Err(self.unreadable(&error, channels)),
        }
    }

    fn unreadable(&self, error: &GatewayError, channels: &[Channel]) -> SolveError {
        let (asked, status) = request(error);
        let below = |url: &Url, channel: &Channel| {
            let channel = secrets::without_credentials(channel.base_url.url());
            secrets::without_credentials(url).as_str().starts_with(channel.as_str())
        };
        let all = || channels.iter().map(|channel| http::shown(channel.base_url.url())).collect::<Vec<_>>().join(", ");
        let url = match (error, asked) {
            (GatewayError::SubdirNotFoundError(missing), _) => {
                format!("{}{}/", http::shown(missing.channel.base_url.url()), missing.subdir)
            }
            (_, Some(url)) => match channels.iter().find(|channel| below(url, channel)) {
                Some(channel) => http::shown(channel.base_url.url()),
                None => format!("{} (asked at {})", all(), http::shown(url)),
            },
            (_, None) => all(),
        };
        let reason = http::innermost(error);
        let hint = match status.map(|status| status.as_u16()) {
            _ if self.offline => "\n  hint: run once without `--offline`".to_owned(),
            Some(401 | 403) => http::status_hint(401).to_owned(),
            _ => {
                let rehearse = "without any way to it, `cargo xtask --source rehearsal` works with a channel made here";
                format!("{}; {rehearse}", http::way_out(&reason))
            }
        };
        SolveError::Channel { url, reason, hint }
    }
}

/// What is known about a request that failed: its address, and the answer.
fn request(error: &GatewayError) -> (Option<&Url>, Option<reqwest::StatusCode>) {
    // The errors of both crates have the same methods, and no trait in common.
    match error {
        GatewayError::ReqwestError(error) => (error.url(), error.status()),
        GatewayError::FetchRepoDataError(FetchRepoDataError::HttpError(error)) => (error.url(), error.status()),
        GatewayError::FetchRepoDataError(FetchRepoDataError::FailedToDownload(url, _)) => (Some(url), None),
        _ => (None, None),
    }
}

/// An environment on a platform with the packages that were found.
struct Solved {
    environment: String,
    platform: String,
    records: Vec<RepoDataRecord>,
}

fn solve_target(
    environment: &ManifestEnvironment,
    target: &Target,
    now: Timestamp,
    among: Option<&Path>,
    query: impl Fn(&[Channel], &[MatchSpec]) -> Result<Vec<Available>, SolveError>,
) -> Result<Solved, SolveError> {
    let wanted = target.group.as_ref().unwrap_or(&target.own);
    let specs = |requirements: &[Requirement]| requirements.iter().map(|one| one.spec.clone()).collect::<Vec<_>>();
    let solved =
        |records| Solved { environment: environment.name.clone(), platform: target.platform.name.clone(), records };
    if wanted.requirements.is_empty() {
        return Ok(solved(Vec::new()));
    }
    let (requirements, constraints) = (specs(&wanted.requirements), specs(&wanted.constraints));
    let asked: Vec<_> = requirements.iter().chain(&constraints).cloned().collect();
    let mut once = environment.channels.clone();
    let mut seen = BTreeSet::new();
    once.retain(|channel| seen.insert(channel.base_url.to_string()));
    let sources = query(&once, &asked)?;
    // Records arrive in any order; the solver's choice must not hang on it.
    let available = sources.iter().map(|source| {
        let mut records: Vec<&RepoDataRecord> = source.iter().map(Arc::as_ref).collect();
        records.sort_by(|a, b| a.url.cmp(&b.url));
        records
    });
    let mut task: SolverTask<'_, _> = available.collect();
    task.virtual_packages = target.platform.for_solver();
    task.excluded_candidates = elsewhere(&asked, &sources);
    task.specs = requirements;
    task.constraints = constraints;
    task.channel_priority = environment.group_choice.channel_priority;
    task.strategy = environment.group_choice.strategy;
    task.exclude_newer = environment.group_choice.exclude_newer.solver(now);
    let records = match resolvo::Solver.solve(task) {
        Ok(result) => result.records,
        Err(error) => return Err(unsolvable(environment, target, &sources, among, error)),
    };
    Ok(solved(if target.group.is_some() { needed(&target.own.requirements, records) } else { records }))
}

/// The solver looks neither at the subdir nor at the file name of a spec.
fn elsewhere(specs: &[MatchSpec], sources: &[Available]) -> HashMap<Url, Arc<str>> {
    let reason: Arc<str> = "it is another file than the one that pixi.toml names".into();
    let mut excluded = HashMap::new();
    for spec in specs.iter().filter(|spec| spec.subdir.is_some() || spec.file_name.is_some()) {
        let records = sources.iter().flatten();
        let others =
            records.filter(|record| spec.name.matches(&record.package_record.name) && !is_of_place(spec, record));
        excluded.extend(others.map(|record| (record.url.clone(), reason.clone())));
    }
    excluded
}

/// Whether a record lies where a spec says, as far as it does.
fn is_of_place(spec: &MatchSpec, record: &RepoDataRecord) -> bool {
    spec.subdir.as_ref().is_none_or(|subdir| *subdir == record.package_record.subdir)
        && spec.file_name.as_ref().is_none_or(|name| *name == record.identifier.to_file_name())
}

fn unsolvable(
    environment: &ManifestEnvironment,
    target: &Target,
    sources: &[Available],
    among: Option<&Path>,
    error: Unsolvable,
) -> SolveError {
    let offered: BTreeSet<&str> =
        sources.iter().flatten().map(|record| record.package_record.name.as_normalized()).collect();
    let wanted = target.group.as_ref().unwrap_or(&target.own);
    let missing: Vec<_> = wanted
        .requirements
        .iter()
        .filter(|requirement| !offered.contains(requirement.name().as_str()))
        .map(|requirement| format!("`{}` ({})", requirement.text, requirement.place))
        .collect();
    let hint = if let Some(lock) = among {
        format!(
            "\n  hint: only the packages of {} can be had here; where there is a network, channels have others",
            lock.display()
        )
    } else if missing.is_empty() {
        "\n  hint: loosen one of these requirements in pixi.toml, or leave the platform out".to_owned()
    } else {
        let urls: Vec<_> = environment.channels.iter().map(|channel| http::shown(channel.base_url.url())).collect();
        format!("\n  hint: no channel of it ({}) has {} for this platform", urls.join(", "), missing.join(", "))
    };
    let reason = match error {
        Unsolvable::Unsolvable(reasons) => reasons.join("\n"),
        error => error.to_string(),
    };
    let (environment, platform) = (environment.name.clone(), target.platform.name.clone());
    SolveError::Unsolvable { environment, platform, reason, hint }
}

/// The packages that requirements need, directly or not.
fn needed(requirements: &[Requirement], records: Vec<RepoDataRecord>) -> Vec<RepoDataRecord> {
    let reached = reached(requirements, &records);
    records.into_iter().filter(|record| reached.contains(record.package_record.name.as_normalized())).collect()
}

/// The names of what requirements need among some packages, directly or not.
fn reached(requirements: &[Requirement], records: &[RepoDataRecord]) -> BTreeSet<String> {
    let by_name: BTreeMap<&str, &RepoDataRecord> =
        records.iter().map(|record| (record.package_record.name.as_normalized(), record)).collect();
    let mut wanted: Vec<String> = requirements.iter().map(Requirement::name).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        let Some(record) = by_name.get(name.as_str()) else { continue };
        if reached.insert(name) {
            wanted.extend(depends(record));
        }
    }
    reached
}

/// The names of what a package depends on.
fn depends(record: &RepoDataRecord) -> impl Iterator<Item = String> {
    let specs = record.package_record.depends.iter();
    specs.map(|spec| PackageName::normalized_name_from_matchspec_str(spec).into_owned())
}

/// As the lock holds it; the manifest has made sure that the mode is one of pixi's words.
fn prerelease_mode(environment: &ManifestEnvironment) -> PypiPrereleaseMode {
    match environment.prerelease.as_deref() {
        Some("disallow") => PypiPrereleaseMode::Disallow,
        Some("allow") => PypiPrereleaseMode::Allow,
        Some("if-necessary") => PypiPrereleaseMode::IfNecessary,
        Some("explicit") => PypiPrereleaseMode::Explicit,
        _ => PypiPrereleaseMode::IfNecessaryOrExplicit,
    }
}

/// What pixi compares with the lock: the environment's own words, though a solve group decides by all of its own.
fn solve_options(environment: &ManifestEnvironment) -> SolveOptions {
    SolveOptions {
        strategy: environment.choice.strategy,
        channel_priority: environment.choice.channel_priority,
        pypi_prerelease_mode: prerelease_mode(environment),
    }
}

fn write(manifest: &Manifest, solved: Vec<Solved>) -> Result<String, SolveError> {
    let fail = |error: &dyn std::fmt::Display| SolveError::Write(error.to_string());
    let mut rows: BTreeMap<&str, PlatformData> = BTreeMap::new();
    for target in manifest.environments.iter().flat_map(|environment| &environment.targets) {
        let platform = &target.platform;
        let row = PlatformData {
            name: PlatformName::try_from(platform.name.as_str()).map_err(|error| fail(&error))?,
            subdir: platform.subdir,
            virtual_packages: platform.virtual_packages.iter().map(ToString::to_string).collect(),
        };
        rows.insert(&platform.name, row);
    }
    let mut builder = LockFile::builder().with_platforms(rows.into_values().collect()).map_err(|error| fail(&error))?;
    for environment in &manifest.environments {
        let urls =
            environment.channels.iter().map(|channel| secrets::without_credentials(channel.base_url.url()).to_string());
        builder.set_channels(&environment.name, urls);
        builder.set_options(&environment.name, solve_options(environment));
        for target in &environment.targets {
            builder.add_environment_platform(&environment.name, &target.platform.name).map_err(|error| fail(&error))?;
        }
    }
    for Solved { environment, platform, records } in solved {
        for mut record in records {
            // A lock goes into version control and into images: a password of the manifest does not come along.
            record.url = secrets::without_credentials(&record.url);
            record.channel = record.channel.map(secrets::channel_without_credentials);
            builder.add_conda_package(&environment, &platform, record.into()).map_err(|error| fail(&error))?;
        }
    }
    builder.finish().render_to_string().map_err(|error| fail(&error))
}

/// Where the lock of a manifest stands.
pub fn lock_path(manifest: &Path) -> PathBuf {
    manifest.with_file_name("pixi.lock")
}
