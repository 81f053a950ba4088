use super::*;

fn read(texts: &[&str]) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for (number, text) in texts.iter().enumerate() {
        config.add(Path::new(&format!("/c/{number}.toml")), text)?;
    }
    Ok(config)
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[test]
fn what_no_file_says_is_what_an_empty_one_says() {
    assert_eq!(read(&[""]).unwrap(), *Config::none());
}

#[test]
fn a_file_is_read_and_what_is_pixis_own_business_is_passed_over() {
    let config = read(&[r#"
        default-channels = ["conda-forge"]
        pinning-strategy = "no-pin"
        something-new = { of = ["a", "later", "version"] }
        tls-root-certs = "native"
        authentication-override-file = "/a/b.json"
        run-post-link-scripts = "insecure"

        [mirrors]
        "https://conda.anaconda.org/conda-forge" = ["https://a.example/forge/", "https://b.example/forge"]

        [proxy-config]
        https = "http://p.example:3128"
        non-proxy-hosts = [".corp", "intra"]

        [concurrency]
        downloads = 5
        solves = 1

        [repodata-config]
        disable-jlap = true
        disable-zstd = true
        disable_sharded = false
        ["repodata-config"."https://b.example/forge"]
        disable-sharded = true
        disable-jlap = true

        [s3-options.bucket]
        region = "x"
    "#])
    .unwrap();
    let mirrors = &config.mirrors[&url("https://conda.anaconda.org/conda-forge/")];
    assert_eq!(*mirrors, [url("https://a.example/forge/"), url("https://b.example/forge/")]);
    assert_eq!(config.tls_root_certs, Some(TlsRootCerts::System));
    assert_eq!(config.authentication_override_file.as_deref(), Some(Path::new("/a/b.json")));
    assert_eq!(config.proxy.https, Some(Address(url("http://p.example:3128"))));
    assert_eq!((config.proxy.http.clone(), config.proxy.non_proxy_hosts.len()), (None, 2));
    assert_eq!((config.downloads, config.run_post_link_scripts, config.offline), (Some(5), true, false));
    assert_eq!(config.repodata.default.disable_zstd, Some(true));
    assert_eq!(config.repodata.default.disable_sharded, Some(false));
    let one = config.repodata.per_channel[&url("https://b.example/forge")];
    assert_eq!((one.disable_sharded, one.disable_zstd), (Some(true), None));
}

#[test]
fn the_more_important_file_wins_key_by_key() {
    let config = read(&[
        r#"
        tls-no-verify = true
        offline = true
        [mirrors]
        "https://a.example/" = ["https://old.example/"]
        "https://b.example" = ["https://kept.example/"]
        [proxy-config]
        http = "http://p.example"
        non-proxy-hosts = ["x"]
        [repodata-config]
        disable-zstd = true
        disable-bzip2 = true
        "#,
        r#"
        offline = false
        [mirrors]
        "https://a.example" = ["https://new.example/"]
        [repodata-config]
        disable-zstd = false
        "#,
        "[proxy-config]\nhttps = \"http://q.example\"\n",
    ])
    .unwrap();
    assert_eq!(config.mirrors[&url("https://a.example/")], [url("https://new.example/")]);
    assert_eq!(config.mirrors[&url("https://b.example/")], [url("https://kept.example/")]);
    assert_eq!(config.tls_no_verify.as_deref(), Some(Path::new("/c/0.toml")));
    assert!(!config.offline);
    assert_eq!(config.proxy.http, Some(Address(url("http://p.example"))));
    assert_eq!(config.proxy.https, Some(Address(url("http://q.example"))));
    assert_eq!(config.proxy.non_proxy_hosts, [""; 0], "the hosts belong to the proxies that are named with them");
    assert_eq!(config.repodata.default.disable_zstd, Some(false));
    assert_eq!(config.repodata.default.disable_bzip2, Some(true));
    assert_eq!(read(&["tls-no-verify = true", "tls-no-verify = false"]).unwrap().tls_no_verify, None);
}

#[test]
fn a_broken_file_is_named_with_line_and_column_and_no_secret_is_quoted() {
    for (text, place, reason) in [
        ("a = 1\nmirrors = 5\n", "2:11", "map"),
        ("[mirrors\n", "1:9", ""),
        ("[mirrors]\n\"https://a.example\" = [\"user:secret@nowhere\", \"//user:secret@h\"]\n", "2:", "no URL"),
        ("[proxy-config]\nhttps = \"secret\"\n", "2:9", "no URL"),
        ("tls-root-certs = \"mine\"\n", "1:18", "webpki"),
        ("[concurrency]\ndownloads = 0\n", "2:13", ""),
        ("[repodata-config]\ndisable-zstd = \"yes\"\n", "2:16", "boolean"),
        ("[repodata-config.\"https://a.example\"]\ndisable-zstd = 1\n", "1:", "boolean"),
        ("proxy-config = { x = \"äö\", https = 5 }\n", "1:36", "string"),
    ] {
        let error = read(&[text]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("/c/0.toml:{place}")), "{text}\n{error}");
        assert!(error.contains(reason) && error.contains("hint"), "{text}\n{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn files_are_read_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    std::fs::write(place("a.toml"), "[concurrency]\ndownloads = 3\n").unwrap();
    std::fs::write(place("b.toml"), b"\xff").unwrap();
    let read = |names: &[&str]| Config::read(names.iter().map(|name| place(name)));
    assert_eq!(read(&["nothing.toml", "a.toml", "a.toml/below.toml"]).unwrap().downloads, Some(3));
    let error = read(&["b.toml"]).unwrap_err().to_string();
    assert!(error.contains("b.toml"), "{error}");
    std::fs::write(place("c.toml"), "#".repeat(FILE_LIMIT as usize + 1)).unwrap();
    let error = read(&["c.toml"]).unwrap_err().to_string();
    assert!(error.contains("c.toml") && error.contains("too large"), "{error}");
}

#[test]
fn yes_and_no_are_the_words_that_pixi_takes() {
    assert!(is_yes("PIXI_OFFLINE", "True").unwrap() && !is_yes("PIXI_OFFLINE", "off").unwrap());
    assert!(is_yes("PIXI_OFFLINE", "maybe").unwrap_err().to_string().contains("PIXI_OFFLINE is `maybe`"));
}
