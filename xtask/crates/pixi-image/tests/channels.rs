//! Channels as companies have them, behind mirrors, passwords, certificates and bad lines: locked and fetched.
#![cfg(target_os = "linux")] // where pixi's configuration lies differs

#[allow(dead_code)] // each test uses its part of it
#[path = "support/channel.rs"]
mod channel;
#[path = "support/tls.rs"]
mod tls;
#[allow(dead_code)] // each test uses its part of it
#[path = "support/web.rs"]
mod web;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use channel::Channel;
use pixi_image::config::Config;
use pixi_image::fetch::{self, FetchError, Options};
use pixi_image::http::HttpError;
use pixi_image::lock;
use pixi_image::model::{Digest, LockedPackage};
use pixi_image::progress::Silent;
use tls::Authority;
use url::Url;
use web::{Answer, Web};

/// `me:sec-ret`, as HTTP wants it.
const BASIC: &str = "Authorization: Basic bWU6c2VjLXJldA==";

/// Two packages, one of which needs the other.
fn channel() -> Channel {
    Channel::default().package("noarch", "tool-1.0-h_0", &["base"]).package("linux-64", "base-2.0-h_0", &[])
}

/// A workspace with a channel, in a home of its own.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(channel: &str) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(bench.path("home")).unwrap();
        bench.write(
            "work/pixi.toml",
            &format!(
                "[workspace]\nname = \"w\"\nchannels = [\"{channel}\"]\nplatforms = [\"linux-64\"]\n\n[dependencies]\ntool = \"*\"\n"
            ),
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// The command with nothing of this process's environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pixi-image"));
        command.args(arguments).current_dir(self.path("work")).env_clear();
        command.env("HOME", self.path("home")).env("PIXI_IMAGE_CACHE", self.path("cache"));
        command
    }

    fn lock(&self) -> Command {
        self.command(&["lock"])
    }

    fn lock_text(&self) -> String {
        fs::read_to_string(self.path("work/pixi.lock")).unwrap()
    }

    fn packages(&self) -> Vec<LockedPackage> {
        lock::read(&self.path("work/pixi.lock"), "default", "linux-64").unwrap().packages
    }

    /// As if it were done for the first time.
    fn forget(&self) {
        let _ = fs::remove_dir_all(self.path("cache"));
        let _ = fs::remove_file(self.path("work/pixi.lock"));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    stderr(&output)
}

fn mirrors(from: &str, to: &[&Web]) -> String {
    let to: Vec<_> = to.iter().map(|web| format!("\"{}\"", web.url("/channel"))).collect();
    format!("[mirrors]\n\"{from}\" = [{}]\n", to.join(", "))
}

/// A server with the channel below `/channel`.
fn serving(channel: &Channel) -> Web {
    let web = Web::start();
    channel.serve(&web);
    web
}

/// A name that is never asked for: no test may look it up.
const FAR: &str = "http://conda.invalid/far";

#[test]
fn a_channel_is_read_at_its_mirror_and_locked_by_its_own_name() {
    let web = serving(&channel());
    let bench = Bench::new(FAR);
    bench.write("work/.pixi/config.toml", &mirrors(FAR, &[&web]));
    succeeds(&mut bench.lock());
    assert!(bench.lock_text().contains("http://conda.invalid/far/linux-64/base-2.0-h_0.conda"));
    assert!(!bench.lock_text().contains("127.0.0.1"), "{}", bench.lock_text());
    bench.forget();
    fs::remove_dir_all(bench.path("work/.pixi")).unwrap();
    let asked = web.asked().len();
    let message = fails(bench.lock().env("http_proxy", web.url("")));
    assert!(message.contains("cannot read the channel http://conda.invalid/far/"), "{message}");
    assert!(web.asked().len() > asked);
}

#[test]
fn the_configuration_of_the_workspace_comes_before_the_users_and_pixi_home_before_xdg() {
    let web = serving(&channel());
    let bench = Bench::new(FAR);
    let here = mirrors(FAR, &[&web]);
    let nowhere = mirrors(FAR, &[]).replace("[]", "[\"oci://nowhere.invalid/x\"]");
    let places = ["home/.config/pixi/config.toml", "home/.pixi/config.toml", "work/.pixi/config.toml"];
    for (number, place) in places.iter().enumerate() {
        for other in &places[..number] {
            bench.write(other, &nowhere);
        }
        bench.write(place, &here);
        succeeds(&mut bench.lock());
        bench.write(place, &nowhere);
        let message = fails(&mut bench.lock());
        assert!(message.contains("oci://nowhere.invalid/x"), "{message}");
        bench.forget();
    }
    bench.write("one.toml", &here);
    fs::remove_dir_all(bench.path("work/.pixi")).unwrap();
    succeeds(bench.lock().env("PIXI_CONFIG_FILE", bench.path("one.toml")));
    bench.forget();
    bench.write("other/config.toml", &here);
    succeeds(bench.lock().env("PIXI_HOME", bench.path("other")));
    bench.forget();
    bench.write("xdg/pixi/config.toml", &here);
    fs::remove_dir_all(bench.path("home/.pixi")).unwrap();
    succeeds(bench.lock().env("XDG_CONFIG_HOME", bench.path("xdg")));
    bench.forget();
    bench.write("work/.pixi/config.toml", &here);
    succeeds(bench.lock().env("PIXI_NO_CONFIG", "true"));
}

#[test]
fn a_configuration_that_cannot_be_followed_is_named_with_its_place() {
    let web = serving(&channel());
    let bench = Bench::new(&web.url("/channel"));
    bench.write("work/.pixi/config.toml", "a = 1\nmirrors = 5\n");
    let message = fails(&mut bench.lock());
    assert!(message.contains(".pixi/config.toml:2:11: "), "{message}");
    bench.write("work/.pixi/config.toml", "tls-no-verify = true\n");
    let message = fails(&mut bench.lock());
    assert!(
        message.contains("config.toml says `tls-no-verify = true`") && message.contains("SSL_CERT_FILE"),
        "{message}"
    );
    fs::remove_dir_all(bench.path("work/.pixi")).unwrap();
    for (variable, file) in [("SSL_CERT_FILE", "nothing.pem"), ("SSL_CERT_FILE", "pixi.toml"), ("SSL_CERT_DIR", ".")] {
        let message = fails(bench.lock().env(variable, file));
        assert!(message.contains(&format!("{variable} names {file}: ")), "{message}");
    }
    bench.write("home/.rattler/credentials.json", "{\n\"127.0.0.1\": \"sec-ret\"}");
    let message = fails(&mut bench.lock());
    assert!(message.contains("credentials.json: line 2") && !message.contains("sec-ret"), "{message}");
    assert_eq!(web.asked(), [""; 0]);
}

#[test]
fn channels_of_other_kinds_are_refused_by_name() {
    for channel in ["s3://bucket/channel", "oci://registry.invalid/channel", "gcs://bucket/channel"] {
        let bench = Bench::new(channel);
        bench.write("home/.pixi/config.toml", "[s3-options.bucket]\nregion = \"eu\"\n");
        let message = fails(&mut bench.lock());
        assert!(message.contains(&format!("the channel {channel}/ cannot be read here")), "{message}");
    }
}

#[test]
fn each_mirror_is_asked_before_it_is_given_up_and_wrong_bytes_of_one_are_never_used() {
    let (broken, empty, good) = (Web::start(), Web::start(), serving(&channel()));
    channel().serve_as(&broken, "/channel", |_| Answer::Status(503));
    let bench = Bench::new(FAR);
    bench.write("work/.pixi/config.toml", &mirrors(FAR, &[&broken, &empty, &good]));
    succeeds(&mut bench.lock());
    assert!(!broken.asked().is_empty() && !empty.asked().is_empty());

    let packages = bench.packages();
    let base = packages.iter().find(|package| package.name() == "base").unwrap();
    let right = channel().files()["linux-64/base-2.0-h_0.conda"].clone();
    let mut wrong = right.clone();
    wrong[7] ^= 1;
    let path = "/channel/linux-64/base-2.0-h_0.conda";
    let url = |web: &Web| Url::parse(&web.url("/channel/")).unwrap();
    let fetch = |cache: &str, mirrors: &[&Web]| {
        let to = mirrors.iter().map(|web| url(web)).collect();
        let config = Config { mirrors: [(Url::parse(&format!("{FAR}/")).unwrap(), to)].into(), ..Config::default() };
        let options = Options { config: &config, offline: false };
        fetch::packages(std::slice::from_ref(base), &bench.path(cache), &options, &Silent)
    };
    // One that is cut after wrong bytes: the next mirror must not go on with them.
    for (number, bad) in [
        Answer::Bytes(wrong.clone()),
        Answer::Cut(wrong.clone(), 100),
        Answer::Bytes(right[1..].to_vec()),
        Answer::Bytes([right.clone(), vec![0]].concat()),
        Answer::Status(401),
        Answer::Status(500),
    ]
    .into_iter()
    .enumerate()
    {
        broken.set(path, vec![bad]);
        for (others, mirrors) in [&[&broken, &good][..], &[&broken, &empty, &good]].iter().enumerate() {
            let archives = fetch(&format!("cache{number}{others}"), mirrors).unwrap();
            assert_eq!(fs::read(archives[0].file.place()).unwrap(), right, "{number}");
        }
    }
    good.set(path, vec![Answer::Bytes(wrong.clone())]);
    let error = fetch("never", &[&broken, &empty, &good]).unwrap_err();
    assert!(matches!(error, FetchError::Package { source: HttpError::WrongDigest { .. }, .. }), "{error:?}");
    for part in ["cannot fetch base-2.0-h_0", &good.url(path), &Digest::of(&right).hex(), &Digest::of(&wrong).hex()] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(fs::read_dir(bench.path("never/packages")).unwrap().count(), 0);
}

#[test]
fn a_password_is_found_wherever_pixi_keeps_it_and_is_written_nowhere() {
    let web = Web::start();
    channel().serve_as(&web, "/channel", |answer| answer.for_who_sends(BASIC));
    let bench = Bench::new(&web.url("/channel"));
    let message = fails(&mut bench.lock());
    assert!(message.contains("401") && message.contains("~/.netrc"), "{message}");

    let basic = r#"{"127.0.0.1": {"BasicHTTP": {"username": "me", "password": "sec-ret"}}}"#;
    let other = r#"{"127.0.0.1": {"BasicHTTP": {"username": "me", "password": "old"}}}"#;
    let netrc = "machine 127.0.0.1 login me password sec-ret # mine\n";
    let with_password = web.url("/channel").replace("://", "://me:sec-ret@");
    type Files<'a> = Vec<(&'a str, String)>;
    let cases: [(&str, Files<'_>, Option<&str>); 7] = [
        ("~/.netrc", vec![("home/.netrc", netrc.into())], None),
        ("$NETRC", vec![("there", netrc.into()), ("home/.netrc", "machine x".into())], Some("NETRC")),
        ("credentials.json", vec![("home/.rattler/credentials.json", basic.into())], None),
        (
            "$RATTLER_AUTH_FILE",
            vec![("there", basic.into()), ("home/.rattler/credentials.json", other.into())],
            Some("RATTLER_AUTH_FILE"),
        ),
        (
            "authentication-override-file",
            vec![
                ("a.json", basic.into()),
                ("home/.rattler/credentials.json", other.into()),
                ("work/.pixi/config.toml", "authentication-override-file = \"../a.json\"\n".into()),
            ],
            None,
        ),
        (
            "a mirror's URL",
            vec![
                ("home/.netrc", "machine 127.0.0.1 login me password old".into()),
                ("work/.pixi/config.toml", format!("[mirrors]\n\"{}\" = [\"{with_password}\"]\n", web.url("/channel"))),
            ],
            None,
        ),
        (
            "the channel's URL",
            vec![(
                "work/pixi.toml",
                fs::read_to_string(bench.path("work/pixi.toml")).unwrap().replace(&web.url("/channel"), &with_password),
            )],
            None,
        ),
    ];
    for (place, files, variable) in cases {
        for left in ["home", "work/.pixi", "there"] {
            let _ = fs::remove_dir_all(bench.path(left));
        }
        bench.forget();
        for (name, text) in &files {
            bench.write(name, text);
        }
        let mut command = bench.lock();
        if let Some(variable) = variable {
            command.env(variable, bench.path("there"));
        }
        let said = succeeds(&mut command);
        let lock = bench.lock_text();
        assert!(lock.contains(&web.url("/channel/linux-64/base-2.0-h_0.conda")), "{place}: {lock}");
        for text in [said, lock] {
            assert!(!["sec-ret", "bWU6", "***"].iter().any(|part| text.contains(part)), "{place}: {text}");
        }
    }
    // The last one's manifest holds the password: that it fits the lock is seen, and that it cannot go into an image.
    succeeds(&mut bench.command(&["lock", "--check"]));
    let arguments = ["build", "--base", "scratch", "--reference", "w:test", "--oci", "x.tar"];
    let message = fails(&mut bench.command(&arguments));
    assert!(message.contains("pixi.toml:3 holds the password") && !message.contains("sec-ret"), "{message}");
    let plain = fs::read_to_string(bench.path("work/pixi.toml")).unwrap().replace("me:sec-ret@", "");
    let lock = bench.lock_text();
    for (manifest, lock, said) in [
        (plain.replace("/channel", "/t/tk-sec-ret/channel"), lock.clone(), "pixi.toml:3 holds"),
        (plain.clone(), lock.replace("http://127", "http://me:sec-ret@127"), "pixi.lock:"),
        (plain.clone(), lock.replace("/channel/", "/t/tk-sec-ret/channel/"), "pixi.lock:"),
    ] {
        bench.write("work/pixi.toml", &manifest);
        bench.write("work/pixi.lock", &lock);
        let message = fails(&mut bench.command(&arguments));
        assert!(message.contains(said) && !message.contains("sec-ret"), "{message}");
    }
    // Not everything that looks so is one: the build gets as far as to the archives, which are none.
    bench.write("work/pixi.toml", &format!("# https://forum.example/t/topic/5\n# ssh://git@h.example/x\n{plain}"));
    bench.write("work/pixi.lock", &lock);
    let message = fails(&mut bench.command(&arguments));
    assert!(message.contains("-h_0") && !message.contains("holds the password"), "{message}");
}

#[test]
fn tokens_go_where_they_belong_and_into_no_message() {
    let web = Web::start();
    channel().serve_as(&web, "/channel", |answer| answer.for_who_sends("Authorization: Bearer sec-ret"));
    channel().serve_at(&web, "/t/tk-sec-ret/channel");
    let bench = Bench::new(&web.url("/channel"));
    bench.write("home/.rattler/credentials.json", r#"{"127.0.0.1": {"BearerToken": "sec-ret"}}"#);
    succeeds(&mut bench.lock());
    bench.forget();
    bench.write("home/.rattler/credentials.json", r#"{"127.0.0.1": {"CondaToken": "tk-sec-ret"}}"#);
    succeeds(&mut bench.lock());
    assert!(!bench.lock_text().contains("sec-ret"), "{}", bench.lock_text());
    for answer in [Answer::Status(403), Answer::Status(500), Answer::Bytes(b"{".to_vec())] {
        bench.forget();
        web.set("/t/tk-sec-ret/channel/noarch/repodata.json", vec![answer]);
        let message = fails(&mut bench.lock());
        assert!(message.contains(&web.url("/channel/")) && !message.contains("sec-ret"), "{message}");
        assert!(!message.contains("asked at"), "{message}");
    }
    let in_the_url = Bench::new(&web.url("/t/tk-sec-ret/channel"));
    let message = fails(&mut in_the_url.lock());
    assert!(!message.contains("sec-ret"), "{message}");
    channel().serve(&web);
    channel().serve_at(&web, "/t/tk-sec-ret/channel");
    succeeds(&mut in_the_url.lock());
    assert!(!in_the_url.lock_text().contains("sec-ret"), "{}", in_the_url.lock_text());
    assert!(in_the_url.lock_text().contains(&web.url("/channel/noarch/tool-1.0-h_0.conda")));
}

#[test]
fn a_password_does_not_follow_to_another_server() {
    let (web, other) = (Web::start(), serving(&channel()));
    for (path, _) in channel().files() {
        let answer = Answer::Redirect(other.url(&format!("/channel/{path}")));
        web.set(&format!("/channel/{path}"), vec![answer.clone().for_who_sends(BASIC)]);
        web.set(&format!("/t/tk-sec-ret/channel/{path}"), vec![answer]);
    }
    let bench = Bench::new(&web.url("/channel"));
    for credentials in
        [r#"{"BasicHTTP": {"username": "me", "password": "sec-ret"}}"#, r#"{"CondaToken": "tk-sec-ret"}"#]
    {
        bench.forget();
        bench.write("home/.rattler/credentials.json", &format!("{{\"127.0.0.1\": {credentials}}}"));
        succeeds(&mut bench.lock());
    }
    let heads = other.heads().join("\n").to_lowercase();
    assert!(heads.contains("repodata.json"), "{heads}");
    for secret in ["authorization", "referer", "sec-ret", "bwu6"] {
        assert!(!heads.contains(secret), "{secret} in {heads}");
    }
}

/// The files of a channel with one kind of repodata alone.
fn only(kind: &str) -> Vec<(String, Vec<u8>)> {
    let files = channel().files();
    match kind {
        "shards" => files.into_iter().filter(|(path, _)| path.ends_with(".conda")).chain(channel().shards()).collect(),
        "plain" => files.into_iter().collect(),
        _ => files
            .into_iter()
            .map(|(path, bytes)| match (path.ends_with("/repodata.json"), kind) {
                (true, "zst") => (format!("{path}.zst"), zstd::encode_all(bytes.as_slice(), 1).unwrap()),
                (true, _) => {
                    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
                    (format!("{path}.bz2"), encoder.finish().unwrap())
                }
                _ => (path, bytes),
            })
            .collect(),
    }
}

fn serving_only(kind: &str) -> Web {
    let web = Web::start();
    for (path, bytes) in only(kind) {
        web.set(&format!("/channel/{path}"), vec![Answer::Bytes(bytes)]);
    }
    web
}

#[test]
fn every_kind_of_repodata_is_read_where_it_is_the_only_one() {
    for kind in ["shards", "zst", "bz2", "plain"] {
        let web = serving_only(kind);
        let bench = Bench::new(&web.url("/channel"));
        succeeds(&mut bench.lock());
        let names: Vec<_> = bench.packages().iter().map(LockedPackage::identity).collect();
        assert_eq!(names, ["base-2.0-h_0", "tool-1.0-h_0"], "{kind}");
        let paths = fetch::packages(&bench.packages(), &bench.path("cache"), &Options::default(), &Silent).unwrap();
        assert_eq!(paths.len(), 2);
    }
}

#[test]
fn kinds_of_repodata_that_the_configuration_excludes_are_not_asked_for() {
    let web = serving_only("plain");
    let bench = Bench::new(&web.url("/channel"));
    succeeds(&mut bench.lock());
    let asked = |web: &Web, what: &str| web.asked().iter().any(|path| path.contains(what));
    for what in ["repodata_shards", ".zst", ".bz2"] {
        assert!(asked(&web, what), "{what}");
    }
    let web = serving_only("plain");
    let bench = Bench::new(&web.url("/channel"));
    let config = format!(
        "[repodata-config]\ndisable-sharded = true\ndisable-bzip2 = true\n[repodata-config.\"{}\"]\ndisable-zstd = true\n",
        web.url("/")
    );
    bench.write("work/.pixi/config.toml", &config);
    succeeds(&mut bench.lock());
    for what in ["repodata_shards", ".zst", ".bz2"] {
        assert!(!asked(&web, what), "{what}");
    }
}

#[test]
fn repodata_is_asked_for_again_where_that_may_help_and_as_late_as_the_server_says() {
    for kind in ["shards", "zst", "plain"] {
        let web = Web::start();
        for (path, bytes) in only(kind) {
            let first = match bytes.len() % 2 {
                _ if path.contains("repodata") => Answer::Later(429, 1),
                0 => Answer::Cut(bytes.clone(), bytes.len() / 2),
                _ => Answer::Status(503),
            };
            web.set(&format!("/channel/{path}"), vec![first, Answer::Bytes(bytes)]);
        }
        let bench = Bench::new(&web.url("/channel"));
        let begin = Instant::now();
        succeeds(&mut bench.lock());
        assert!(begin.elapsed() >= Duration::from_secs(1), "{kind}: it did not wait");
        bench.forget();
        for (path, bytes) in only(kind) {
            web.set(
                &format!("/channel/{path}"),
                vec![Answer::Cut(bytes.clone(), bytes.len() / 2), Answer::Bytes(bytes)],
            );
        }
        succeeds(&mut bench.lock());
    }
}

#[test]
fn a_channel_that_never_answers_well_is_named_with_the_way_out() {
    let web = serving(&channel());
    let bench = Bench::new(&web.url("/channel"));
    for (answer, said) in [
        (Answer::Status(500), "500"),
        (Answer::Status(403), "403"),
        (Answer::Status(404), "noarch"),
        (Answer::Bytes(b"<html>not a channel</html>".to_vec()), ""),
    ] {
        web.set("/channel/noarch/repodata.json", vec![answer]);
        let message = fails(&mut bench.lock());
        assert!(message.contains("cannot read the channel") && message.contains(&web.url("/channel/")), "{message}");
        assert!(message.contains(said), "{message}");
        bench.forget();
    }
}

#[test]
fn off_line_the_cache_is_enough_and_what_it_lacks_is_named() {
    for kind in ["shards", "plain"] {
        let web = serving_only(kind);
        let bench = Bench::new(&web.url("/channel"));
        succeeds(&mut bench.lock());
        let lock = bench.lock_text();
        let asked = web.asked().len();
        bench.write("work/.pixi/config.toml", "offline = true\n");
        succeeds(&mut bench.lock());
        assert_eq!(bench.lock_text(), lock);
        bench.forget();
        for command in [&mut bench.lock(), bench.command(&["lock", "--offline"]).env("PIXI_OFFLINE", "0")] {
            let message = fails(command);
            assert!(message.contains(&web.url("/channel/")) && message.contains("without `--offline`"), "{message}");
        }
        assert_eq!(web.asked().len(), asked, "nobody was asked");
    }
}

#[test]
fn a_channel_in_a_directory_is_locked_and_fetched() {
    let bench = Bench::new("../channel");
    for (path, bytes) in channel().files() {
        let place = bench.path("channel").join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
    succeeds(&mut bench.lock());
    let url = Url::from_directory_path(fs::canonicalize(bench.path("channel")).unwrap()).unwrap();
    let by_url = Bench::new(url.as_str());
    succeeds(&mut by_url.lock());
    let archives = fetch::packages(&by_url.packages(), &by_url.path("cache"), &Options::default(), &Silent).unwrap();
    for (package, archive) in by_url.packages().iter().zip(archives) {
        assert_eq!(Digest::of(&fs::read(archive.file.place()).unwrap()), package.sha256());
    }
}

#[test]
fn packages_of_one_name_from_two_channels_are_two_packages() {
    let web = Web::start();
    let (one, two) = (channel(), channel().package("linux-64", "base-2.0-h_0", &["other"]));
    let two = two.package("linux-64", "other-1.0-h_0", &[]).with_bytes("linux-64/base-2.0-h_0.conda", b"another base");
    one.serve_at(&web, "/one");
    two.serve_at(&web, "/two");
    let cache = tempfile::tempdir().unwrap();
    let fetched = |channel: &str| {
        let bench = Bench::new(&web.url(channel));
        succeeds(bench.lock().env("PIXI_IMAGE_CACHE", cache.path()));
        let packages = bench.packages();
        let archives = fetch::packages(&packages, cache.path(), &Options::default(), &Silent).unwrap();
        let at = packages.iter().position(|package| package.name() == "base").unwrap();
        (packages.len(), fs::read(archives[at].file.place()).unwrap())
    };
    let first = fetched("/one");
    assert_eq!(fetched("/two"), (3, b"another base".to_vec()));
    assert_eq!(fetched("/one"), first);
}

#[test]
fn a_channel_behind_a_companys_certificate_is_read_once_its_authority_is_named() {
    let authority = Authority::new();
    let web = authority.serve();
    channel().serve(&web);
    let bench = Bench::new(&web.url("/channel"));
    for config in ["", "tls-root-certs = \"webpki\"\n", "tls-root-certs = \"system\"\n"] {
        bench.write("work/.pixi/config.toml", config);
        let message = fails(&mut bench.lock());
        let unknown = message.contains("UnknownIssuer") && message.contains("SSL_CERT_FILE");
        // A bare system has no certificates of its own at all.
        assert!(unknown || (config.contains("system") && message.contains("No CA certificates")), "{message}");
    }
    bench.write("ca/company.pem", &authority.pem);
    bench.write("ca/README", "not a certificate");
    succeeds(bench.lock().env("SSL_CERT_FILE", bench.path("ca/company.pem")));
    bench.forget();
    succeeds(bench.lock().env("SSL_CERT_DIR", bench.path("ca")));
    let url = web.url("/channel/noarch/repodata.json");
    let probe = |bench: &Bench| bench.command(&["probe", "--timeout", "60", &url]);
    succeeds(probe(&bench).env("SSL_CERT_FILE", bench.path("ca/company.pem")));
    assert_eq!(probe(&bench).output().unwrap().status.code(), Some(1));
}

#[test]
fn proxies_of_the_configuration_are_asked_with_their_password_unless_the_environment_names_others() {
    let (proxy, other) = (Web::start(), Web::start());
    let credentials = "Proxy-Authorization: Basic bWU6c2VjLXJldA==";
    channel().serve_as(&proxy, FAR, |answer| Answer::Guarded(credentials, 407, Box::new(answer)));
    channel().serve_at(&other, FAR);
    let bench = Bench::new(FAR);
    bench.write("work/.pixi/config.toml", &format!("[proxy-config]\nhttp = \"{}\"\n", proxy.url("")));
    let message = fails(&mut bench.lock());
    assert!(message.contains("407"), "{message}");
    let with_password = proxy.url("").replace("://", "://me:sec-ret@");
    bench.write("work/.pixi/config.toml", &format!("[proxy-config]\nhttp = \"{with_password}\"\n"));
    let said = succeeds(&mut bench.lock());
    assert!(!said.contains("sec-ret") && !bench.lock_text().contains("sec-ret"), "{said}");
    bench.forget();
    let asked = proxy.asked().len();
    succeeds(bench.lock().env("http_proxy", other.url("")));
    assert_eq!(proxy.asked().len(), asked);
    bench.forget();
    let direct = format!("[proxy-config]\nhttp = \"{with_password}\"\nnon-proxy-hosts = [\"conda.invalid\"]\n");
    bench.write("work/.pixi/config.toml", &direct);
    fails(&mut bench.lock());
    assert_eq!(proxy.asked().len(), asked, "the host is asked directly, and is not there");
}

#[test]
fn a_probe_counts_a_mirror_as_what_it_mirrors() {
    let (web, private) = (serving(&channel()), Web::start());
    let bench = Bench::new(FAR);
    let url = format!("{FAR}/noarch/repodata.json.zst");
    let probe = |bench: &Bench, arguments: &[&str]| {
        let output = bench.command(&["probe", "--timeout", "60", &url]).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    // The mirror has the plain form only, and the first is empty.
    bench.write("work/.pixi/config.toml", &mirrors(FAR, &[&private, &web]));
    assert_eq!(probe(&bench, &["--workspace", "."]), (true, format!("reachable\t{url}\n")));
    bench.write("work/.pixi/config.toml", &mirrors(FAR, &[&private]));
    let (reachable, said) = probe(&bench, &["--workspace", "."]);
    assert!(!reachable && said.starts_with(&format!("unreachable\t{url}\t{}", private.url("/channel/"))), "{said}");
    private.set("/channel/noarch/repodata.json.zst", vec![Answer::Bytes(b"x".to_vec()).for_who_sends(BASIC)]);
    assert!(!probe(&bench, &["--workspace", "."]).0);
    bench.write("home/.netrc", "machine 127.0.0.1 login me password sec-ret");
    assert!(probe(&bench, &["--workspace", "."]).0);
    bench.write("home/.pixi/config.toml", &mirrors(FAR, &[&web]));
    assert!(probe(&bench, &[]).0, "the user's own needs no workspace");
}

#[test]
fn what_packages_ask_of_the_machine_and_of_each_other_is_heard() {
    let web = Web::start();
    let both = |version: &str, depends: &[&str]| channel().package("linux-64", &format!("base-{version}-h_0"), depends);
    let solved = |channel: &Channel| {
        channel.serve(&web);
        let bench = Bench::new(&web.url("/channel"));
        let output = bench.lock().output().unwrap();
        let names = |bench: &Bench| bench.packages().iter().map(LockedPackage::identity).collect::<Vec<_>>();
        if output.status.success() { Ok(names(&bench)) } else { Err(stderr(&output)) }
    };
    let older = Ok(vec!["base-2.0-h_0".to_owned(), "tool-1.0-h_0".to_owned()]);
    let newer = Ok(vec!["base-3.0-h_0".to_owned(), "tool-1.0-h_0".to_owned()]);
    assert_eq!(solved(&both("3.0", &["__glibc >=2.17"])), newer);
    assert_eq!(solved(&both("3.0", &["__glibc >=2.99"])), older);
    assert_eq!(solved(&both("3.0", &["__cuda"])), older, "no CUDA is promised");
    let constrained = both("3.0", &[]).with("noarch/tool-1.0-h_0.conda", "constrains", serde_json::json!(["base <3"]));
    assert_eq!(solved(&constrained), older);
    let never = channel().with("linux-64/base-2.0-h_0.conda", "constrains", serde_json::json!(["tool >1"]));
    let message = solved(&never).unwrap_err();
    assert!(message.contains("cannot be solved for linux-64") && message.contains("base"), "{message}");
}
