//! Solves every environment of a manifest on every platform of it, and writes the lock that real pixi accepts.

mod check;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rattler_conda_types::{Channel, MatchSpec, PackageName, RepoDataRecord, Subdir};
use rattler_lock::{LockFile, PlatformData, PlatformName, PypiPrereleaseMode, SolveOptions};
use rattler_networking::LazyClient;
use rattler_repodata_gateway::fetch::{CacheAction, FetchRepoDataError};
use rattler_repodata_gateway::{ChannelConfig, Gateway, GatewayError, RepoData, SourceConfig};
use rattler_solve::{SolveError as Unsolvable, SolverImpl, SolverTask, resolvo};
use url::Url;

use crate::http::{self, HttpError};
use crate::manifest::{Manifest, ManifestEnvironment, ManifestError, Requirement, Target};
use crate::progress::Progress;

pub use check::{CheckError, Checked, Remark, check, require_satisfied, row_name};

/// Attempts to read a channel.
const ATTEMPTS: u32 = 3;

/// How to solve.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The cache; what channels offer is kept in `repodata` below it.
    pub cache: &'a Path,
    /// Use what is in the cache, however old it is.
    pub offline: bool,
    /// The time from which `exclude-newer` counts ages.
    pub now: Timestamp,
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
    #[error(
        "cannot read the channel {url}: {reason}\n  hint: behind a proxy set HTTPS_PROXY and HTTP_PROXY; without any way \
         to it, `cargo xtask --source rehearsal` works with a channel made on this machine"
    )]
    Channel {
        /// Its address, without credentials.
        url: String,
        /// The innermost cause.
        reason: String,
    },
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
    let channels = Channels::open(options)?;
    let mut solved = Vec::new();
    for environment in &manifest.environments {
        for target in &environment.targets {
            progress.phase(&format!("solve {} for {}", environment.name, target.platform.name));
            solved.push(solve_target(&channels, environment, target, options.now)?);
        }
    }
    write(manifest, solved)
}

/// What channels offer, read once each.
struct Channels {
    gateway: Gateway,
    runtime: tokio::runtime::Runtime,
}

impl Channels {
    fn open(options: &Options<'_>) -> Result<Self, SolveError> {
        let cache_action = if options.offline { CacheAction::ForceCacheOnly } else { CacheAction::CacheOrFetch };
        let default = SourceConfig { cache_action, ..SourceConfig::default() };
        let gateway = Gateway::builder()
            .with_client(LazyClient::from(http::client(http::CONNECT_TIMEOUT)?))
            .with_cache_dir(options.cache.join("repodata"))
            .with_channel_config(ChannelConfig { default, ..ChannelConfig::default() })
            .with_max_concurrent_requests(16)
            .finish();
        Ok(Self { gateway, runtime: http::runtime()? })
    }

    fn query(&self, channels: &[Channel], subdir: Subdir, specs: &[MatchSpec]) -> Result<Vec<RepoData>, SolveError> {
        let mut failed = 0;
        loop {
            let query = self.gateway.query(channels.to_vec(), [subdir, Subdir::NoArch], specs.to_vec()).recursive(true);
            match self.runtime.block_on(async { query.await }) {
                Ok(output) => return Ok(output.repodata),
                Err(error) if failed + 1 < ATTEMPTS && request(&error).1 => failed += 1,
                Err(error) => return Err(unreadable(&error, channels)),
            }
            std::thread::sleep(Duration::from_millis(500 << failed));
        }
    }
}

/// What is known about a request that failed: its address, and whether asking again may help.
fn request(error: &GatewayError) -> (Option<&Url>, bool) {
    let busy = |status: Option<reqwest::StatusCode>| status.is_some_and(|s| s.is_server_error() || s.as_u16() == 429);
    // The errors of both crates have the same methods, and no trait in common.
    match error {
        GatewayError::ReqwestError(error) => {
            (error.url(), busy(error.status()) || error.is_timeout() || error.is_connect() || error.is_body())
        }
        GatewayError::FetchRepoDataError(FetchRepoDataError::HttpError(error)) => {
            (error.url(), busy(error.status()) || error.is_timeout() || error.is_connect() || error.is_body())
        }
        GatewayError::FetchRepoDataError(FetchRepoDataError::FailedToDownload(url, _)) => (Some(url), true),
        _ => (None, false),
    }
}

fn unreadable(error: &GatewayError, channels: &[Channel]) -> SolveError {
    let url = match (error, request(error).0) {
        (GatewayError::SubdirNotFoundError(missing), _) => {
            format!("{}{}/", http::shown(missing.channel.base_url.url()), missing.subdir)
        }
        (_, Some(url)) => {
            let channel = channels.iter().find(|channel| url.as_str().starts_with(channel.base_url.as_str()));
            http::shown(channel.map_or(url, |channel| channel.base_url.url()))
        }
        (_, None) => channels.iter().map(|channel| http::shown(channel.base_url.url())).collect::<Vec<_>>().join(", "),
    };
    SolveError::Channel { url, reason: http::innermost(error) }
}

/// An environment on a platform with the packages that were found.
struct Solved {
    environment: String,
    platform: String,
    records: Vec<RepoDataRecord>,
}

fn solve_target(
    channels: &Channels,
    environment: &ManifestEnvironment,
    target: &Target,
    now: Timestamp,
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
    let repodata = channels.query(&once, target.platform.subdir, &asked)?;
    // Records arrive in any order; the solver's choice must not hang on it.
    let available = repodata.iter().map(|source| {
        let mut records: Vec<&RepoDataRecord> = source.iter().collect();
        records.sort_by(|a, b| a.url.cmp(&b.url));
        records
    });
    let mut task: SolverTask<'_, _> = available.collect();
    task.virtual_packages = target.platform.for_solver();
    task.excluded_candidates = elsewhere(&asked, &repodata);
    task.specs = requirements;
    task.constraints = constraints;
    task.channel_priority = environment.group_choice.channel_priority;
    task.strategy = environment.group_choice.strategy;
    task.exclude_newer = environment.group_choice.exclude_newer.solver(now);
    let records = match resolvo::Solver.solve(task) {
        Ok(result) => result.records,
        Err(error) => return Err(unsolvable(environment, target, &repodata, error)),
    };
    Ok(solved(if target.group.is_some() { needed(&target.own.requirements, records) } else { records }))
}

/// The solver looks neither at the subdir nor at the file name of a spec.
fn elsewhere(specs: &[MatchSpec], repodata: &[RepoData]) -> HashMap<Url, Arc<str>> {
    let reason: Arc<str> = "it is another file than the one that pixi.toml names".into();
    let mut excluded = HashMap::new();
    for spec in specs.iter().filter(|spec| spec.subdir.is_some() || spec.file_name.is_some()) {
        let records = repodata.iter().flat_map(RepoData::iter);
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
    repodata: &[RepoData],
    error: Unsolvable,
) -> SolveError {
    let offered: BTreeSet<&str> = repodata
        .iter()
        .flat_map(|source| source.iter())
        .map(|record| record.package_record.name.as_normalized())
        .collect();
    let wanted = target.group.as_ref().unwrap_or(&target.own);
    let missing: Vec<_> = wanted
        .requirements
        .iter()
        .filter(|requirement| !offered.contains(requirement.name().as_str()))
        .map(|requirement| format!("`{}` ({})", requirement.text, requirement.place))
        .collect();
    let hint = if missing.is_empty() {
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
        let urls = environment.channels.iter().map(|channel| channel.base_url.to_string());
        builder.set_channels(&environment.name, urls);
        builder.set_options(&environment.name, solve_options(environment));
        for target in &environment.targets {
            builder.add_environment_platform(&environment.name, &target.platform.name).map_err(|error| fail(&error))?;
        }
    }
    for Solved { environment, platform, records } in solved {
        for record in records {
            builder.add_conda_package(&environment, &platform, record.into()).map_err(|error| fail(&error))?;
        }
    }
    builder.finish().render_to_string().map_err(|error| fail(&error))
}

/// Where the lock of a manifest stands.
pub fn lock_path(manifest: &Path) -> PathBuf {
    manifest.with_file_name("pixi.lock")
}
