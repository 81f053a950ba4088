//! Downloads, probes and pulls against servers on loopback, some of which misbehave.

#[allow(dead_code)] // each test uses its part of it
#[path = "support/web.rs"]
mod web;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use pixi_image::config::Config;
use pixi_image::fetch::{self, Archive, FetchError, Options};
use pixi_image::http::HttpError;
use pixi_image::lock;
use pixi_image::model::{Digest, LockedPackage};
use pixi_image::progress::{Progress, Silent};
use pixi_image::registry::{self, Reach, RegistryError};
use web::{Answer, Web};

/// Packages as a lock names them: a URL, and what its bytes must be.
fn locked(packages: &[(&str, &[u8])]) -> Vec<LockedPackage> {
    let mut text = "version: 6\nenvironments:\n  e:\n    channels:\n    - url: https://example.org/c/\n    packages:\n      linux-64:\n".to_owned();
    for (url, _) in packages {
        text += &format!("      - conda: {url}\n");
    }
    text += "packages:\n";
    for (url, bytes) in packages {
        text += &format!(
            "- conda: {url}\n  subdir: linux-64\n  sha256: {}\n  size: {}\n",
            Digest::of(bytes).hex(),
            bytes.len()
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pixi.lock");
    std::fs::write(&path, text).unwrap();
    lock::read(&path, "e", "linux-64").unwrap().packages
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// One package served at `/a-1-0.conda` with these answers, fetched into an empty cache.
struct Bench {
    web: Web,
    cache: tempfile::TempDir,
    packages: Vec<LockedPackage>,
}

impl Bench {
    fn new(bytes: &[u8], answers: Vec<Answer>) -> Self {
        let web = Web::start();
        web.set("/a-1-0.conda", answers);
        let packages = locked(&[(&web.url("/a-1-0.conda"), bytes)]);
        Self { web, cache: tempfile::tempdir().unwrap(), packages }
    }

    fn fetch(&self) -> Result<Vec<PathBuf>, FetchError> {
        let archives = fetch::packages(&self.packages, self.cache.path(), &Options::default(), &Silent)?;
        Ok(archives.into_iter().map(|archive| archive.file.place().to_owned()).collect())
    }

    fn files(&self) -> Vec<String> {
        files(&self.cache.path().join("packages"))
    }
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[derive(Default)]
struct Count {
    expected: Mutex<u64>,
    arrived: Mutex<u64>,
}

impl Progress for Count {
    fn expect_download(&self, bytes: u64) {
        *self.expected.lock().unwrap() += bytes;
    }

    fn downloaded(&self, bytes: u64) {
        *self.arrived.lock().unwrap() += bytes;
    }
}

#[test]
fn archives_come_into_the_cache_under_their_digest_and_are_asked_for_once() {
    let bytes = content(300_000);
    let bench = Bench::new(&bytes, vec![Answer::Bytes(bytes.clone())]);
    let paths = bench.fetch().unwrap();
    assert_eq!(paths, [bench.cache.path().join("packages").join(format!("{}.conda", Digest::of(&bytes).hex()))]);
    assert_eq!(std::fs::read(&paths[0]).unwrap(), bytes);
    assert_eq!(bench.fetch().unwrap(), paths);
    assert_eq!(bench.web.asked().len(), 1);
    std::fs::write(&paths[0], b"cut by somebody").unwrap();
    bench.fetch().unwrap();
    assert_eq!(std::fs::read(&paths[0]).unwrap(), bytes, "the wrong size is seen");
}

#[test]
fn many_archives_come_in_parallel_and_progress_adds_up() {
    let web = Web::start();
    let contents: Vec<_> = (0..20).map(|index| content(10_000 + index)).collect();
    let urls: Vec<_> = (0..20).map(|index| web.url(&format!("/p{index}-1-0.tar.bz2"))).collect();
    for (index, bytes) in contents.iter().enumerate() {
        web.set(
            &format!("/p{index}-1-0.tar.bz2"),
            vec![Answer::Cut(bytes.clone(), 5000), Answer::Bytes(bytes.clone())],
        );
    }
    let packages: Vec<_> = urls.iter().zip(&contents).map(|(url, bytes)| (url.as_str(), bytes.as_slice())).collect();
    let packages = locked(&packages);
    let (cache, count) = (tempfile::tempdir().unwrap(), Count::default());
    let archives = fetch::packages(&packages, cache.path(), &Options::default(), &count).unwrap();
    for (package, Archive { file, .. }) in packages.iter().zip(&archives) {
        let path = file.place();
        assert_eq!(Digest::of(&std::fs::read(path).unwrap()), package.sha256());
        assert!(path.to_string_lossy().ends_with(".tar.bz2"));
    }
    let total: usize = contents.iter().map(Vec::len).sum();
    assert_eq!(*count.expected.lock().unwrap(), total as u64);
    assert_eq!(*count.arrived.lock().unwrap(), total as u64, "bytes that came twice count once");
}

#[test]
fn wrong_bytes_are_named_with_both_digests_and_nothing_is_kept() {
    let (good, mut bad) = (content(5000), content(5000));
    bad[4999] ^= 1;
    let bench = Bench::new(&good, vec![Answer::Bytes(bad.clone())]);
    let message = bench.fetch().unwrap_err().to_string();
    for part in
        ["cannot fetch a-1-0", &bench.web.url("/a-1-0.conda"), &Digest::of(&good).hex(), &Digest::of(&bad).hex()]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(bench.files(), [""; 0]);
    assert_eq!(bench.web.asked().len(), 1, "the same bytes would come again");
}

#[test]
fn a_wrong_size_is_seen_before_the_bytes_are_read() {
    for length in [10, 100_000] {
        let bench = Bench::new(&content(5000), vec![Answer::Bytes(content(length))]);
        let message = bench.fetch().unwrap_err().to_string();
        assert!(message.contains(&format!("expected 5000 bytes, got {length}")), "{message}");
        assert_eq!(bench.files(), [""; 0]);
    }
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_ended() {
    let bytes = content(100_000);
    let cut = |after| Answer::Cut(bytes.clone(), after);
    let bench = Bench::new(&bytes, vec![cut(40_000), Answer::Status(503), cut(10), Answer::Bytes(bytes.clone())]);
    let paths = bench.fetch().unwrap();
    assert_eq!(std::fs::read(&paths[0]).unwrap(), bytes);
    let path = "/a-1-0.conda";
    assert_eq!(
        bench.web.asked(),
        [path.to_owned(), format!("{path} from 40000"), format!("{path} from 40000"), format!("{path} from 40010")]
    );
}

#[test]
fn a_server_that_knows_no_ranges_starts_over() {
    let bytes = content(100_000);
    let bench = Bench::new(&bytes, vec![Answer::Cut(bytes.clone(), 40_000), Answer::WithoutRanges(bytes.clone())]);
    assert_eq!(std::fs::read(&bench.fetch().unwrap()[0]).unwrap(), bytes);
}

#[test]
fn a_download_that_is_cut_each_time_is_named_and_leaves_nothing() {
    let bytes = content(100_000);
    let bench = Bench::new(&bytes, vec![Answer::Cut(bytes.clone(), 100)]);
    let error = bench.fetch().unwrap_err();
    assert!(
        matches!(&error, FetchError::Package { source: HttpError::Cut { expected: Some(100_000), .. }, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("of 100000 bytes arrived"), "{error}");
    assert_eq!((bench.web.asked().len(), bench.files()), (5, Vec::new()));
}

#[test]
fn what_is_not_there_is_not_asked_for_again_and_one_failure_ends_all() {
    let bench = Bench::new(b"x", vec![Answer::Status(404)]);
    let message = bench.fetch().unwrap_err().to_string();
    assert!(message.contains("answered 404") && message.contains("hint: it was removed"), "{message}");
    assert_eq!(bench.web.asked().len(), 1);
    let nobody = locked(&[("http://127.0.0.1:9/b-1-0.conda", b"x")]);
    let error = fetch::packages(&nobody, bench.cache.path(), &Options::default(), &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Package { source: HttpError::Unreachable { .. }, .. }), "{error:?}");
    assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
}

#[test]
fn off_line_everything_that_is_missing_is_named_with_its_bytes() {
    let (a, b, c) = (content(1000), content(2000), content(3000));
    let web = Web::start();
    let urls = ["/a-1-0.conda", "/b-1-0.conda", "/c-1-0.conda"].map(|path| web.url(path));
    web.set("/b-1-0.conda", vec![Answer::Bytes(b.clone())]);
    let packages = locked(&[(&urls[0], &a), (&urls[1], &b), (&urls[2], &c)]);
    let cache = tempfile::tempdir().unwrap();
    fetch::packages(&packages[1..2], cache.path(), &Options::default(), &Silent).unwrap();
    let options = Options { offline: true, ..Options::default() };
    let message = fetch::packages(&packages, cache.path(), &options, &Silent).unwrap_err().to_string();
    assert!(message.starts_with("2 of 3 packages (4000 bytes) are not in "), "{message}");
    assert!(message.contains("\n    a-1-0\n    c-1-0\n"), "{message}");
    assert_eq!(web.asked().len(), 1);
}

#[test]
fn files_of_this_machine_are_verified_like_all_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-1-0.conda");
    std::fs::write(&file, b"right").unwrap();
    let url = url::Url::from_file_path(&file).unwrap().to_string();
    let right = fetch::packages(&locked(&[(&url, b"right")]), directory.path(), &Options::default(), &Silent).unwrap();
    assert_eq!(std::fs::read(right[0].file.place()).unwrap(), b"right");
    let wrong = fetch::packages(&locked(&[(&url, b"wrong")]), directory.path(), &Options::default(), &Silent);
    assert!(matches!(wrong, Err(FetchError::Package { source: HttpError::WrongDigest { .. }, .. })), "{wrong:?}");
    std::fs::remove_file(&file).unwrap();
    let gone = fetch::packages(&locked(&[(&url, b"gone?")]), directory.path(), &Options::default(), &Silent);
    assert!(gone.unwrap_err().to_string().contains("a-1-0.conda: No such file"));
}

#[test]
fn what_a_killed_download_left_is_removed_and_what_is_being_written_is_not() {
    let bytes = content(1000);
    let bench = Bench::new(&bytes, vec![Answer::Bytes(bytes.clone())]);
    let directory = bench.cache.path().join("packages");
    std::fs::create_dir_all(&directory).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let make = |name: &str, time: SystemTime| {
        let file = std::fs::File::create(directory.join(name)).unwrap();
        file.set_modified(time).unwrap();
        file
    };
    make(".pixi-image-left.partial", long_ago);
    make(".pixi-image-fresh.partial", SystemTime::now());
    let writing = make(".pixi-image-writing.partial", long_ago);
    writing.lock().unwrap();
    bench.fetch().unwrap();
    let mut expected = [".pixi-image-fresh.partial", ".pixi-image-writing.partial"].map(str::to_owned).to_vec();
    expected.push(format!("{}.conda", Digest::of(&bytes).hex()));
    expected.sort();
    assert_eq!(bench.files(), expected);
}

fn pixi_image(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pixi-image")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_file_is_fetched_only_as_it_must_be() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("script.py");
    let bytes = content(863);
    let web = Web::start();
    web.set("/script.py", vec![Answer::Status(500), Answer::Bytes(bytes.clone())]);
    let fetch = |url: &str, digest: Digest, size: &str| {
        pixi_image(&["fetch", url, "--sha256", &digest.hex(), "--size", size, "--out", out.to_str().unwrap()])
    };
    let output = fetch(&web.url("/script.py"), Digest::of(b"another"), "863");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&Digest::of(b"another").hex()), "{}", stderr(&output));
    assert!(stderr(&output).contains(&Digest::of(&bytes).hex()), "{}", stderr(&output));
    assert_eq!(files(directory.path()), [""; 0]);
    let output = fetch(&web.url("/script.py"), Digest::of(&bytes), "863");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read(&out).unwrap(), bytes);
    let path = out.to_str().unwrap().to_owned();
    let copy = pixi_image(&[
        "fetch",
        &path,
        "--sha256",
        &Digest::of(&bytes).hex(),
        "--size",
        "863",
        "--out",
        &format!("{path}.copy"),
    ]);
    assert!(copy.status.success(), "{}", stderr(&copy));
    assert_eq!(pixi_image(&["fetch", "x", "--sha256", "zz", "--size", "1", "--out", "y"]).status.code(), Some(2));
}

/// `fetch` of a file that must hold `content`, in a home of its own.
fn fetch_at_home(home: &Path, url: &str, content: &[u8]) -> Output {
    let out = home.join("out");
    let _ = std::fs::remove_file(&out);
    Command::new(env!("CARGO_BIN_EXE_pixi-image"))
        .args(["fetch", url, "--sha256", &Digest::of(content).hex(), "--size", &content.len().to_string(), "--out"])
        .arg(out)
        .env_clear()
        .env("HOME", home)
        .output()
        .unwrap()
}

#[test]
fn a_download_is_given_the_password_of_its_server_and_takes_it_to_no_other() {
    let (home, web, other) = (tempfile::tempdir().unwrap(), Web::start(), Web::start());
    let basic = "Authorization: Basic bWU6c2VjLXJldA=="; // me:sec-ret
    web.set("/x", vec![Answer::Bytes(b"private".to_vec()).for_who_sends(basic)]);
    web.set("/away", vec![Answer::Redirect(other.url("/x")).for_who_sends(basic)]);
    other.set("/x", vec![Answer::Bytes(b"private".to_vec())]);
    let message = stderr(&fetch_at_home(home.path(), &web.url("/x"), b"private"));
    assert!(message.contains("answered 401") && message.contains("~/.netrc"), "{message}");
    let with_password = |path: &str| web.url(path).replace("://", "://me:sec-ret@");
    let wrong = stderr(&fetch_at_home(home.path(), &with_password("/nothing"), b"private"));
    assert!(wrong.contains("answered 404") && !wrong.contains("sec-ret"), "{wrong}");
    std::fs::write(home.path().join(".netrc"), "machine 127.0.0.1\n\tlogin me\n\tpassword sec-ret\n").unwrap();
    for url in [web.url("/x"), with_password("/x"), web.url("/away"), with_password("/away")] {
        let output = fetch_at_home(home.path(), &url, b"private");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let heads = other.heads().join("\n").to_lowercase();
    assert!(heads.starts_with("get /x") && !heads.contains("authorization") && !heads.contains("referer"), "{heads}");
}

#[test]
fn a_download_comes_as_late_and_as_slowly_as_the_server_likes() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start());
    let bytes = content(300_000);
    let slow = Answer::Slow(bytes.clone(), Duration::from_millis(20));
    web.set("/x", vec![Answer::Later(429, 1), Answer::Later(503, 0), slow]);
    let begin = Instant::now();
    let output = fetch_at_home(home.path(), &web.url("/x"), &bytes);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(begin.elapsed() >= Duration::from_secs(1), "it did not wait");
    web.set("/x", vec![Answer::Later(429, 0)]);
    let message = stderr(&fetch_at_home(home.path(), &web.url("/x"), &bytes));
    assert!(message.contains("answered 429") && message.contains("too many requests"), "{message}");
    assert_eq!(web.asked().len(), 3 + 5);
}

#[test]
fn a_fetch_ends_with_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("x");
    let web = Web::start();
    web.set("/x", vec![Answer::Silence(Duration::from_secs(60))]);
    let digest = Digest::of(b"x").hex();
    let arguments = [
        "fetch",
        &web.url("/x"),
        "--sha256",
        &digest,
        "--size",
        "1",
        "--timeout",
        "0.3",
        "--out",
        out.to_str().unwrap(),
    ];
    let output = pixi_image(&arguments);
    assert!(stderr(&output).contains("took longer than 0.3 s"), "{}", stderr(&output));
    assert_eq!(files(directory.path()), [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_fetch_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("x");
    let web = Web::start();
    web.set("/x", vec![Answer::Silence(Duration::from_secs(60))]);
    let digest = Digest::of(b"x").hex();
    let arguments = ["fetch", &web.url("/x"), "--sha256", &digest, "--size", "1", "--out", out.to_str().unwrap()];
    // Whoever runs the tests in the background has them ignore SIGINT.
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_pixi-image")]).args(arguments);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    while web.asked().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(directory.path()), [""; 0]);
}

#[test]
fn proxies_are_used_but_not_for_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let (proxy, web) = (Web::start(), Web::start());
    proxy.set("http://files.example/x", vec![Answer::Bytes(b"far".to_vec())]);
    web.set("/x", vec![Answer::Bytes(b"here".to_vec())]);
    let fetch = |url: &str, content: &[u8]| {
        let out = directory.path().join(Digest::of(content).hex());
        let output = Command::new(env!("CARGO_BIN_EXE_pixi-image"))
            .args(["fetch", url, "--sha256", &Digest::of(content).hex(), "--size", &content.len().to_string(), "--out"])
            .arg(&out)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env("http_proxy", proxy.url(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read(&out).unwrap()
    };
    assert_eq!(fetch("http://files.example/x", b"far"), b"far");
    assert_eq!(fetch(&web.url("/x"), b"here"), b"here");
    assert_eq!((proxy.asked().len(), web.asked().len()), (1, 1));
}

#[test]
fn a_probe_answers_for_each_address_and_waits_for_none_too_long() {
    let web = Web::start();
    web.set("/ok", vec![Answer::Bytes(b"x".to_vec())]);
    web.set("/moved", vec![Answer::Status(302)]);
    web.set("/v2/", vec![Answer::Status(401)]);
    web.set("/private", vec![Answer::Status(401)]);
    web.set("/silent", vec![Answer::Silence(Duration::from_secs(60))]);
    let url = |path: &str| web.url(path);
    let output = pixi_image(&["probe", &url("/ok"), &url("/moved"), &url("/v2/")]);
    assert!(output.status.success());
    let expected = ["/ok", "/moved", "/v2/"].map(|path| format!("reachable\t{}\n", url(path))).concat();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let begin = Instant::now();
    let output = pixi_image(&[
        "probe",
        "--timeout",
        "0.5",
        &url("/silent"),
        &url("/private"),
        "http://127.0.0.1:9/",
        "nonsense",
        &url("/ok"),
    ]);
    assert!(begin.elapsed() < Duration::from_secs(30), "it waited for the silent one");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], format!("unreachable\t{}\tno answer within 0.5 s", url("/silent")));
    assert_eq!(lines[1], format!("unreachable\t{}\tanswered 401 Unauthorized", url("/private")));
    assert!(
        lines[2].starts_with("unreachable\thttp://127.0.0.1:9/\t") && lines[3].starts_with("unreachable\tnonsense\t")
    );
    assert_eq!(lines[4], format!("reachable\t{}", url("/ok")));
}

fn reach(offline: bool) -> Reach<'static> {
    Reach { config: Config::none(), offline }
}

/// A real registry on loopback; `None`, loudly, where it is not installed.
struct Registry {
    server: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    fn start() -> Option<Self> {
        for tool in ["docker-registry", "skopeo"] {
            if Command::new(tool).arg("--version").output().is_err() {
                assert!(
                    std::env::var_os("XTASK_REQUIRE_ENGINES").is_none_or(|value| value != "1"),
                    "{tool} is not installed"
                );
                println!("skipped: {tool} is not installed");
                return None;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { server, address, directory };
        let begin = Instant::now();
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(registry)
    }

    /// Pushes an image for each architecture under one tag, with skopeo; an index if there are several.
    fn push(&self, name: &str, architectures: &[&str]) {
        let layout = self.directory.path().join(name);
        write_layout(&layout, architectures);
        let all = if architectures.len() > 1 { &["--all"][..] } else { &[] };
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(all)
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/{name}:latest", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.address)
    }
}

fn write_blob(layout: &Path, bytes: &[u8]) -> (String, usize) {
    let digest = Digest::of(bytes);
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    (digest.to_string(), bytes.len())
}

/// An OCI layout with one image for each architecture, below an index of its own if there are several.
fn write_layout(layout: &Path, architectures: &[&str]) {
    let mut manifests = Vec::new();
    for architecture in architectures {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(architecture.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, "architecture", architecture.as_bytes()).unwrap();
        let layer = tar.into_inner().unwrap();
        let (layer_digest, layer_size) = write_blob(layout, &layer);
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        });
        let (config_digest, config_size) = write_blob(layout, config.to_string().as_bytes());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size}],
        });
        let (digest, size) = write_blob(layout, manifest.to_string().as_bytes());
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let index = |manifests: Vec<serde_json::Value>| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        })
    };
    if manifests.len() > 1 {
        let (digest, size) = write_blob(layout, index(manifests).to_string().as_bytes());
        manifests = vec![serde_json::json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
        })];
    }
    std::fs::write(layout.join("index.json"), index(manifests).to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// What skopeo, which we did not write, says about a layout.
fn architecture_of(layout: &Path) -> String {
    let output =
        Command::new("skopeo").args(["inspect", "--config"]).arg(format!("oci:{}", layout.display())).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    config["architecture"].as_str().unwrap().to_owned()
}

#[test]
fn a_base_is_pulled_for_its_architecture_and_by_digest_only_once() {
    let Some(registry) = Registry::start() else { return };
    registry.push("both", &["amd64", "arm64"]);
    let cache = tempfile::tempdir().unwrap();
    let pull = |reference: &str, architecture: &str, offline: bool| {
        registry::pull(reference, architecture, cache.path(), reach(offline), &Silent)
    };
    let tag = registry.reference("both");
    let amd = pull(&tag, "amd64", false).unwrap();
    let arm = pull(&tag, "arm64", false).unwrap();
    assert_eq!((architecture_of(&amd.layout), architecture_of(&arm.layout)), ("amd64".to_owned(), "arm64".to_owned()));
    assert_eq!(amd.digest, arm.digest, "both are pinned by the index");
    assert_ne!(amd.manifest, arm.manifest);
    let message = pull(&tag, "s390x", false).unwrap_err().to_string();
    assert!(message.contains("has no image for linux/s390x; it has: linux/amd64, linux/arm64"), "{message}");
    let pinned = format!("{}/both@{}", registry.address, amd.digest);
    assert_eq!(registry::resolve(&tag, Config::none()).unwrap(), pinned, "the index, whatever the architecture");
    assert_eq!(registry::resolve(&pinned, Config::none()).unwrap(), pinned);
    let missing = registry::resolve(&registry.reference("nothing"), Config::none()).unwrap_err().to_string();
    assert!(missing.contains("/nothing") && missing.contains("hint"), "{missing}");
    let never = tempfile::tempdir().unwrap();
    assert!(matches!(
        registry::pull(&pinned, "amd64", never.path(), reach(true), &Silent),
        Err(RegistryError::Offline { .. })
    ));
    drop(registry);
    assert_eq!(pull(&pinned, "amd64", false).unwrap(), amd, "nobody is asked any more");
    assert_eq!(pull(&tag, "arm64", true).unwrap(), arm, "off line a tag means what it meant");
    let message = pull(&tag, "amd64", false).unwrap_err().to_string();
    assert!(message.contains("cannot pull 127.0.0.1") && message.contains("hint: behind a proxy"), "{message}");
}

#[test]
fn a_base_without_an_index_is_checked_for_its_architecture() {
    let Some(registry) = Registry::start() else { return };
    registry.push("one", &["arm64"]);
    let cache = tempfile::tempdir().unwrap();
    let pull = |name: &str, architecture: &str| {
        registry::pull(&registry.reference(name), architecture, cache.path(), reach(false), &Silent)
    };
    let arm = pull("one", "arm64").unwrap();
    assert_eq!((architecture_of(&arm.layout).as_str(), arm.digest), ("arm64", arm.manifest));
    assert!(matches!(pull("one", "amd64"), Err(RegistryError::NoPlatform { .. })));
    let message = pull("nothing", "amd64").unwrap_err().to_string();
    assert!(message.contains("/nothing:latest") && message.contains("hint: is it spelled right"), "{message}");
    assert!(matches!(
        registry::pull("UPPER CASE", "amd64", cache.path(), reach(false), &Silent),
        Err(RegistryError::BadReference { .. })
    ));
}

#[test]
fn a_layer_that_was_changed_in_the_registry_is_refused() {
    let Some(registry) = Registry::start() else { return };
    registry.push("spoilt", &["amd64"]);
    // skopeo compresses layers on their way, so what lies in the registry is found by pulling it once.
    let before = tempfile::tempdir().unwrap();
    let pulled = registry::pull(&registry.reference("spoilt"), "amd64", before.path(), reach(false), &Silent).unwrap();
    let manifest = std::fs::read(pulled.layout.join("blobs/sha256").join(pulled.manifest.hex())).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let hex = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let data = registry
        .directory
        .path()
        .join("storage/docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(&hex)
        .join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let error =
        registry::pull(&registry.reference("spoilt"), "amd64", cache.path(), reach(false), &Silent).unwrap_err();
    assert!(error.to_string().contains("spoilt"), "{error}");
    let kept: Vec<_> =
        std::fs::read_dir(cache.path().join("images")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(
        !kept
            .iter()
            .any(|layout| layout.join("index.json").exists() || layout.join("blobs/sha256").join(&hex).exists())
    );
}
