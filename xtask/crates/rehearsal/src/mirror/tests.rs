use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use pixi_image::progress::Silent;

/// A mirror on loopback whose root is at the returned URL; requests are counted.
async fn serve(routes: Router) -> MirrorRoot {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/debian", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().nest("/debian", routes)).await });
    MirrorRoot { url, from_apt: false }
}

fn remote(path: &str, content: &[u8]) -> Remote {
    Remote { paths: vec![path.to_owned()], digest: Digest::of(content), size: content.len() as u64 }
}

fn kept(cache: &Cache) -> usize {
    std::fs::read_dir(cache.directory().join("sha256")).map_or(0, |entries| entries.count())
}

#[tokio::test]
async fn what_is_in_the_cache_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let one = get(async move || {
        count.fetch_add(1, Ordering::Relaxed);
        "one"
    });
    let root = serve(Router::new().route("/pool/one.deb", one).route("/pool/two.deb", get("two"))).await;
    let mirror = Arc::new(Mirror::new(Some(&root), Cache::new(dir.path())).unwrap());
    let wanted = [remote("pool/two.deb", b"two"), remote("pool/one.deb", b"one")];
    for _ in 0..2 {
        let places = mirror.fetch(&wanted, &Silent).await.unwrap();
        let contents: Vec<_> = places.iter().map(|place| std::fs::read(place).unwrap()).collect();
        assert_eq!(contents, [b"two", b"one"]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let offline = Arc::new(Mirror::new(None, Cache::new(dir.path())).unwrap());
    assert_eq!(offline.fetch(&wanted, &Silent).await.unwrap().len(), 2);
    let message = offline.fetch(&[remote("pool/three.deb", b"3")], &Silent).await.unwrap_err().to_string();
    assert!(message.contains("pool/three.deb") && message.contains("--offline"), "{message}");
}

#[tokio::test]
async fn a_deb_with_another_digest_or_size_is_refused_by_name_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let root = serve(
        Router::new()
            .route("/pool/changed.deb", get("CHANGED"))
            .route("/pool/short.deb", get("cut"))
            .route("/pool/long.deb", get("far too long")),
    )
    .await;
    let cache = Cache::new(dir.path());
    let mirror = Arc::new(Mirror::new(Some(&root), cache.clone()).unwrap());
    for (path, content, reason) in [
        ("pool/changed.deb", "changed", "its digest is sha256:"),
        ("pool/short.deb", "cut off", "3 bytes came instead of 7"),
        ("pool/long.deb", "not so", "more than 6 bytes came"),
    ] {
        let message = mirror.fetch(&[remote(path, content.as_bytes())], &Silent).await.unwrap_err().to_string();
        assert!(message.contains(path) && message.contains(reason) && message.contains("hint:"), "{message}");
        assert_eq!(kept(&cache), 0, "{path}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_one_that_lacks_the_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (busy, missing) = (Arc::clone(&asked), Arc::clone(&asked));
    let busy = get(async move || match busy.fetch_add(1, Ordering::Relaxed) {
        0 => (StatusCode::SERVICE_UNAVAILABLE, ""),
        _ => (StatusCode::OK, "here"),
    });
    let missing = get(async move || {
        missing.fetch_add(100, Ordering::Relaxed);
        StatusCode::NOT_FOUND
    });
    let root = serve(Router::new().route("/busy", busy).route("/missing", missing).route("/plain", get("plain"))).await;
    let mirror = Arc::new(Mirror::new(Some(&root), Cache::new(dir.path())).unwrap());
    mirror.fetch(&[remote("busy", b"here")], &Silent).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let error = mirror.fetch(&[remote("missing", b"x")], &Silent).await.unwrap_err();
    assert!(matches!(error, MirrorError::Status { .. }), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 102);
    // A mirror without the by-hash tree has the file at its plain path.
    let two = Remote { paths: vec!["missing".into(), "plain".into()], ..remote("", b"plain") };
    mirror.fetch(&[two], &Silent).await.unwrap();
}

#[test]
fn a_mirror_on_loopback_is_asked_without_a_proxy() {
    let root = |url: &str| MirrorRoot { url: url.to_owned(), from_apt: false };
    for url in ["http://127.0.0.1:3142/debian", "http://localhost/debian", "http://[::1]:80/debian"] {
        assert!(is_on_loopback(&root(url)), "{url}");
    }
    assert!(!is_on_loopback(&root("http://mirror.example.org/debian")));
}

#[tokio::test]
async fn a_mirror_that_cannot_be_reached_is_named_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = MirrorRoot { url: format!("http://{}/debian", listener.local_addr().unwrap()), from_apt: false };
    drop(listener);
    let mirror = Mirror::new(Some(&root), Cache::new(dir.path())).unwrap();
    let message = mirror.in_release("trixie").await.unwrap_err().to_string();
    assert!(message.contains("dists/trixie/InRelease") && message.contains("refused"), "{message}");
}
