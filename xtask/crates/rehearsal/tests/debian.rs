//! With a real mirror: the signature, what a changed index leads to, and a whole rehearsal made twice.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pixi_image::progress::Silent;
use rattler_conda_types::{MatchSpec, ParseStrictness, RepoData};
use rehearsal::cache::Cache;
use rehearsal::mirror::Mirror;
use rehearsal::record::Record;
use rehearsal::signature::{self, SignatureError};
use rehearsal::sources::{self, MirrorRoot, SUITE};
use rehearsal::{Request, make};

/// Trixie's InRelease from this machine's mirror. Without one the test is skipped; where XTASK_REQUIRE_ENGINES is 1
/// that is a failure.
fn in_release() -> Option<String> {
    let named = std::env::var("DEBIAN_MIRROR").ok();
    let found = sources::choose(named.as_deref(), Path::new("/etc/apt")).map_err(|error| error.to_string());
    match found.and_then(|root| fetch(&root)) {
        Ok(text) => Some(text),
        Err(reason) if std::env::var("XTASK_REQUIRE_ENGINES").is_ok_and(|value| value == "1") => {
            panic!("a Debian mirror is required here: {reason}")
        }
        Err(reason) => {
            eprintln!("skipped: no Debian mirror can be reached: {reason}");
            None
        }
    }
}

fn fetch(root: &MirrorRoot) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mirror = Mirror::new(Some(root), Cache::new(dir.path())).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let bytes = runtime.block_on(mirror.in_release(SUITE)).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn debians_own_index_is_trusted_and_a_changed_one_is_not() {
    let Some(text) = in_release() else { return };
    let signed = signature::verify(text.as_bytes(), now()).unwrap();
    assert!(signed.contains("\nCodename: trixie\n") && !signed.contains("PGP"), "{}", &signed[..200]);

    let changed = text.replacen("Codename: trixie", "Codename: forky", 1);
    let error = signature::verify(changed.as_bytes(), now()).unwrap_err();
    assert!(matches!(error, SignatureError::NotTrusted { .. }), "{error}");
    assert!(error.to_string().contains("it did not sign this text"), "{error}");

    // What stands outside the signed part is never returned.
    let extended = signature::verify(format!("Origin: evil\n\n{text}").as_bytes(), now());
    assert!(!extended.is_ok_and(|signed| signed.contains("evil")));
    assert!(signature::verify(format!("{text}Origin: evil\n").as_bytes(), now()).is_err());
    let cut = &text[..text.len() / 2];
    assert!(matches!(signature::verify(cut.as_bytes(), now()), Err(SignatureError::NotSigned { .. })));
}

#[test]
fn keys_that_have_expired_and_signatures_of_the_future_are_refused() {
    let Some(text) = in_release() else { return };
    let message = signature::verify(text.as_bytes(), 2_200_000_000).unwrap_err().to_string();
    assert!(message.contains("has expired") && message.contains("clock"), "{message}");
    let message = signature::verify(text.as_bytes(), 1_000_000_000).unwrap_err().to_string();
    assert!(message.contains("from the future"), "{message}");
}

#[test]
fn a_rehearsal_is_made_once_and_the_same_from_the_cache_without_a_network() {
    if in_release().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let request = |out: &str| Request {
        out: dir.path().join(out),
        mirror: std::env::var("DEBIAN_MIRROR").ok(),
        // Kept from run to run, so that the mirror is asked for 136 MB only once.
        cache: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("debian"),
        offline: false,
        refresh: false,
    };
    let first = make(&request("one"), &Silent).unwrap();
    assert!(!first.unchanged);

    let unreachable = Some("http://127.0.0.1:9/debian".to_owned());
    let again = make(&Request { mirror: unreachable, ..request("one") }, &Silent).unwrap();
    assert!(again.unchanged, "a second call must not need the mirror");

    let second = make(&Request { offline: true, ..request("two") }, &Silent).unwrap();
    assert!(!second.unchanged);
    assert_eq!((&second.digest, &second.base_digest), (&first.digest, &first.base_digest));
    let record = |out: &str| std::fs::read(dir.path().join(out).join("rehearsal.json")).unwrap();
    assert_eq!(record("one"), record("two"));

    std::fs::remove_file(&second.base).unwrap();
    assert_eq!(Record::of_complete(&dir.path().join("two")), None);
    the_channel_is_understood_by_rattler(&first.channel);
    #[cfg(target_os = "linux")]
    installer::the_image_holds_what_rattlers_installer_makes(&first);
}

fn the_channel_is_understood_by_rattler(channel: &Path) {
    let mut names = Vec::new();
    for subdir in ["linux-64", "noarch"] {
        let repodata = RepoData::from_path(channel.join(subdir).join("repodata.json")).unwrap();
        for (file, record) in &repodata.conda_packages {
            names.push(record.name.as_normalized().to_owned());
            assert!(record.sha256.is_some() && record.md5.is_some() && record.size.is_some(), "{file:?}");
            assert_eq!(record.subdir, subdir);
            for spec in record.depends.iter().chain(&record.constrains) {
                MatchSpec::from_str(spec, ParseStrictness::Strict).unwrap();
            }
        }
    }
    names.sort();
    assert_eq!(
        names.join(" "),
        "cuda-version libtorch mpmath numpy python pytorch pytorch-cpu pytorch-gpu sympy typing_extensions"
    );
}

#[cfg(target_os = "linux")]
mod installer {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::num::NonZeroUsize;
    use std::os::unix::fs::PermissionsExt;

    use pixi_image::build::{self, build};
    use pixi_image::config::Config;
    use pixi_image::runner::rootfs;
    use pixi_image::source::base::BaseReference;
    use pixi_image::store::Store;
    use pixi_image::{lock, manifest, solve};
    use rattler::install::Installer;
    use rattler::package_cache::PackageCache;
    use rattler_conda_types::{PrefixRecord, Subdir};
    use rehearsal::Rehearsal;

    use super::{Path, PathBuf, Silent};

    const PREFIX: &str = "/app/.pixi/environment";

    /// A file's content and whether it is executable, or a link's target.
    #[derive(PartialEq)]
    enum Node {
        File(Vec<u8>, bool),
        Link(PathBuf),
    }

    /// Solves, builds and unpacks the gpu environment, and compares it with what rattler links of the same lock.
    pub fn the_image_holds_what_rattlers_installer_makes(rehearsal: &Rehearsal) {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let channel = url::Url::from_directory_path(&rehearsal.channel).unwrap();
        let text = format!(
            "[workspace]\nname = \"oracle\"\nchannels = [\"{channel}\"]\nplatforms = [\"linux-64\"]\n\
             [feature.gpu.system-requirements]\ncuda = \"12\"\n\
             [feature.gpu.dependencies]\npytorch-gpu = \"*\"\n[environments]\ngpu = [\"gpu\"]\n"
        );
        fs::write(place("pixi.toml"), text).unwrap();
        let manifest = manifest::read(&place("pixi.toml")).unwrap();
        let (cache, now) = (place("cache"), jiff::Timestamp::now());
        let options = solve::Options { cache: &cache, offline: false, config: Config::none(), now, among: None };
        fs::write(place("pixi.lock"), solve::solve(&manifest, &options, &Silent).unwrap()).unwrap();

        let request = build::Request {
            lock: place("pixi.lock"),
            manifest: place("pixi.toml"),
            environment: "gpu".into(),
            platform: "linux-64".into(),
            base: BaseReference::Local(rehearsal.base.clone()),
            app: None,
            reference: "oracle:gpu".into(),
            labels: BTreeMap::new(),
            oci: Some(place("oracle.oci.tar")),
            sif: None,
            created: None,
            jobs: NonZeroUsize::MIN,
            frozen: false,
            offline: false,
            config: Config::default(),
        };
        build(&request, &Store::at(place("cache")), &Silent).unwrap();
        let unpacked = rootfs::prepare(&place("oracle.oci.tar"), &place("cache"), &Silent).unwrap();

        let environment = lock::read(&request.lock, "gpu", "linux-64").unwrap();
        let records: Vec<_> =
            environment.packages.iter().filter_map(|package| Some(package.conda()?.record.clone())).collect();
        let install = Installer::new()
            .with_package_cache(PackageCache::new(place("rattler")))
            .with_target_platform(Subdir::Linux64)
            .with_alternative_target_prefix(PREFIX)
            .with_execute_link_scripts(false)
            .install(place("prefix"), records);
        tokio::runtime::Runtime::new().unwrap().block_on(install).unwrap();

        assert_same(&unpacked.path.join(&PREFIX[1..]), &place("prefix"));
    }

    fn assert_same(ours: &Path, rattlers: &Path) {
        let (ours, rattlers) = (tree(ours), tree(rattlers));
        let names = |tree: &BTreeMap<PathBuf, Node>| tree.keys().filter(|path| !added(path)).cloned().collect();
        let (mine, theirs): (BTreeSet<PathBuf>, BTreeSet<PathBuf>) = (names(&ours), names(&rattlers));
        assert_eq!(mine.symmetric_difference(&theirs).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
        assert!(mine.len() > 4_000, "{} files", mine.len());
        for path in &mine {
            match (&ours[path], &rattlers[path]) {
                (Node::File(mine, _), Node::File(theirs, _)) if path.starts_with("conda-meta") => {
                    assert_eq!(record(mine), record(theirs), "{}", path.display());
                }
                (mine, theirs) => assert!(mine == theirs, "{} differs", path.display()),
            }
        }
    }

    /// What pixi, as we follow it, and rattler put beside the packages.
    fn added(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let meta = path.starts_with("conda-meta") && path.extension().is_none_or(|extension| extension != "json");
        meta || name == "CACHEDIR.TAG"
    }

    /// A record without what holds only on the machine that rattler linked on.
    fn record(bytes: &[u8]) -> PrefixRecord {
        let mut record: PrefixRecord = serde_json::from_slice(bytes).unwrap();
        record.extracted_package_dir = None;
        record.link = None;
        record.paths_data.paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
        record.files.sort();
        record
    }

    fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let node = if metadata.is_dir() {
                    open.push(path);
                    continue;
                } else if metadata.is_symlink() {
                    Node::Link(fs::read_link(&path).unwrap())
                } else {
                    Node::File(fs::read(&path).unwrap(), metadata.permissions().mode() & 0o100 != 0)
                };
                found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
            }
        }
        found
    }
}
