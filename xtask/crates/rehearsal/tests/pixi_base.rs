//! `rehearsal add-pixi` and what `serve --image` answers of it, with this machine's own C library as the base.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use pixi_image::archive::{self, BaseConfig};
use pixi_image::entry::{EntrySink, ImagePath, Mode, push_file};
use pixi_image::layout::{Image, ImageSource};
use pixi_image::model::Digest;

/// A program that is linked to what ours is linked to.
const PROGRAM: &str = env!("CARGO_BIN_EXE_rehearsal");
const ENV: &str = "PATH=/usr/local/bin:/usr/bin";

/// The libraries of `PROGRAM` as the loader finds them here: name and file.
fn libraries() -> Vec<(String, PathBuf)> {
    let listed = Command::new("ldd").arg(PROGRAM).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let file = |line: &str| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some((Path::new(path).file_name()?.to_str()?.to_owned(), PathBuf::from(path)))
    };
    text.lines().filter_map(file).collect()
}

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// A base image with all libraries but `without`.
    fn new(without: &str) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        let config = BaseConfig {
            env: vec![ENV.to_owned()],
            cmd: vec!["bash".to_owned()],
            labels: BTreeMap::from([("kept".to_owned(), "yes".to_owned())]),
            architecture: "amd64".to_owned(),
            created: 1_700_000_000,
        };
        let mut fill = |sink: &mut dyn EntrySink| {
            for (name, file) in libraries().iter().filter(|(name, _)| name != without) {
                let path = ImagePath::new(format!("usr/lib/x86_64-linux-gnu/{name}")).unwrap();
                push_file(sink, path, Mode::EXECUTABLE, 5, &std::fs::read(file)?)?;
            }
            Ok(())
        };
        archive::single_layer(&bench.path("base.tar"), "base:one", &config, &mut fill).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn add(&self, pixi: &str, out: &str) -> Output {
        Command::new(PROGRAM)
            .args(["add-pixi", "--base", "base.tar", "--pixi", pixi, "--out", out])
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn image(&self, name: &str) -> (ImageSource, Image) {
        let source = ImageSource::open(&self.path(name)).unwrap();
        let image = source.image("amd64").unwrap();
        (source, image)
    }

    /// A directory that is enough of a channel to be served.
    fn channel(&self) -> PathBuf {
        let channel = self.path("channel");
        for subdir in ["linux-64", "noarch"] {
            std::fs::create_dir_all(channel.join(subdir)).unwrap();
            std::fs::write(channel.join(subdir).join("repodata.json"), "{}").unwrap();
        }
        channel
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_image_is_the_base_and_one_layer_with_a_program_that_runs() {
    let bench = Bench::new("");
    let made = bench.add(PROGRAM, "out/pixi.tar");
    assert!(made.status.success(), "{}", stderr(&made));
    let (source, image) = bench.image("out/pixi.tar");
    assert_eq!(String::from_utf8_lossy(&made.stdout), format!("oci\t{}\tout/pixi.tar\n", image.digest));
    let (_, base) = bench.image("base.tar");
    assert_eq!(image.manifest.layers()[..1], base.manifest.layers()[..]);
    let config = image.config.config().clone().unwrap();
    assert_eq!(
        (config.env().clone().unwrap(), config.cmd().clone().unwrap()),
        (vec![ENV.to_owned()], vec!["bash".into()])
    );
    let labels = config.labels().clone().unwrap();
    assert_eq!(labels["kept"], "yes");
    assert_eq!(labels["org.opencontainers.image.base.digest"], base.digest.to_string());

    let mut found = Vec::new();
    for entry in tar::Archive::new(source.layer(&image.manifest.layers()[1]).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap() & 0o7777);
        if path.ends_with("pixi") {
            entry.unpack(bench.path("pixi")).unwrap();
        }
        assert_eq!((entry.header().uid().unwrap(), mode), (0, 0o755), "{path}");
        found.push(path.trim_end_matches('/').to_owned());
    }
    assert_eq!(found, ["usr/local", "usr/local/bin", "usr/local/bin/pixi"]);
    let program = bench.path("pixi");
    assert!(program.metadata().unwrap().len() < Path::new(PROGRAM).metadata().unwrap().len());
    let ran = Command::new(program).arg("--version").output().unwrap();
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).starts_with("rehearsal "));
}

#[test]
fn the_same_base_and_program_give_the_same_bytes_and_are_not_written_twice() {
    let bench = Bench::new("");
    bench.add(PROGRAM, "one.tar");
    bench.add(PROGRAM, "two.tar");
    assert!(std::fs::read(bench.path("one.tar")).unwrap() == std::fs::read(bench.path("two.tar")).unwrap());
    let before = bench.path("one.tar").metadata().unwrap().modified().unwrap();
    let again = bench.add(PROGRAM, "one.tar");
    assert!(again.status.success() && stderr(&again).contains("nothing to do"), "{}", stderr(&again));
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("oci\tsha256:"));
    assert_eq!(bench.path("one.tar").metadata().unwrap().modified().unwrap(), before);
    let other = bench.add("/bin/true", "one.tar");
    assert!(other.status.success() && !stderr(&other).contains("nothing to do"), "{}", stderr(&other));
    std::fs::write(bench.path("two.tar"), "cut short").unwrap();
    assert!(bench.add(PROGRAM, "two.tar").status.success());
    bench.image("two.tar");
}

#[test]
fn a_program_that_could_not_run_there_is_refused_and_nothing_is_written() {
    let bench = Bench::new("libc.so.6");
    let refused = |pixi: &str, said: &str| {
        let output = bench.add(pixi, "out.tar");
        let text = stderr(&output);
        assert!(output.status.code() == Some(1) && text.contains(said) && text.contains("\n  hint: "), "{text}");
        assert!(!bench.path("out.tar").exists());
    };
    refused(PROGRAM, "lacks libc.so.6");
    refused("absent", "cannot read the program absent");
    std::fs::write(bench.path("script"), "#!/bin/sh\n").unwrap();
    refused("script", "it is no ELF file, wanted is a program for linux/amd64");
    let mut foreign = std::fs::read(PROGRAM).unwrap();
    foreign[18] = 183; // e_machine: AArch64
    std::fs::write(bench.path("foreign"), foreign).unwrap();
    refused("foreign", "it is a program for linux/arm64");
}

/// A server that ends with the test.
struct Server(Child, u16);

impl Server {
    fn start(bench: &Bench, image: Option<&str>, port: u16) -> Result<Self, String> {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--port", &port.to_string(), "--channel"]).arg(bench.channel());
        if let Some(image) = image {
            command.arg("--image").arg(bench.path(image));
        }
        let pipe = || Stdio::piped();
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        match url.trim_end().rsplit(':').next().and_then(|port| port.parse().ok()) {
            Some(port) => Ok(Self(child, port)),
            None => {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                child.wait().unwrap();
                Err(said)
            }
        }
    }

    /// Head and body of an answer.
    fn ask(&self, method: &str, path: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn the_image_is_served_as_a_registry_serves_it() {
    let bench = Bench::new("");
    bench.add(PROGRAM, "pixi.tar");
    let (_, image) = bench.image("pixi.tar");
    let server = Server::start(&bench, Some("pixi.tar"), 0).unwrap();
    assert!(server.ask("GET", "/v2/").0.starts_with("http/1.1 200"));
    for reference in ["trixie".to_owned(), image.digest.to_string()] {
        let path = format!("/v2/rehearsal/pixi/manifests/{reference}");
        let (head, body) = server.ask("GET", &path);
        assert!(head.starts_with("http/1.1 200") && head.contains(&format!("docker-content-digest: {}", image.digest)));
        assert!(head.contains("content-type: application/vnd.oci.image.manifest.v1+json"), "{head}");
        assert_eq!(Digest::of(&body), image.digest);
        let (only, nothing) = server.ask("HEAD", &path);
        assert!(only.contains(&format!("content-length: {}", body.len())) && nothing.is_empty(), "{only}");
    }
    let blobs = image.manifest.layers().iter().chain([image.manifest.config()]);
    for blob in blobs {
        let (head, body) = server.ask("GET", &format!("/v2/rehearsal/pixi/blobs/{}", blob.digest()));
        assert!(head.contains(&format!("content-length: {}", blob.size())), "{head}");
        assert_eq!(Digest::of(&body).to_string(), blob.digest().to_string());
    }
    // What it is asked for is what it serves, also when another image has taken the file's place.
    std::fs::rename(bench.path("base.tar"), bench.path("pixi.tar")).unwrap();
    let (_, body) = server.ask("GET", "/v2/rehearsal/pixi/manifests/trixie");
    assert_eq!(Digest::of(&body), image.digest);

    for (method, path, status, code) in [
        ("GET", "/v2/rehearsal/pixi/manifests/latest", 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/rehearsal/pixi/manifests/{}", image.manifest.config().digest()), 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/rehearsal/pixi/blobs/{}", Digest::of(b"other")), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/rehearsal/pixi/blobs/sha256:../../../etc/passwd", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/library/other/manifests/trixie", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/rehearsal/pixi/blobs/uploads/", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/rehearsal/pixi/manifests/trixie", 405, "UNSUPPORTED"),
    ] {
        let (head, body) = server.ask(method, path);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["errors"][0]["code"], code, "{path}");
    }
    assert_eq!(server.ask("GET", "/noarch/repodata.json").1, b"{}");
}

#[test]
fn a_server_is_used_if_it_has_the_channel_and_the_wanted_image() {
    let bench = Bench::new("");
    bench.add(PROGRAM, "one.tar");
    bench.add("/bin/true", "two.tar");
    let server = Server::start(&bench, Some("one.tar"), 0).unwrap();
    let port = server.1;
    for image in [None, Some("one.tar")] {
        assert_eq!(Server::start(&bench, image, port).unwrap().1, port);
    }
    let refused = Server::start(&bench, Some("two.tar"), port).err().unwrap();
    assert!(refused.contains("has another base image") && refused.contains("--port"), "{refused}");
    drop(server);
    let without = Server::start(&bench, None, 0).unwrap();
    assert!(without.ask("GET", "/v2/").0.starts_with("http/1.1 404"));
    let refused = Server::start(&bench, Some("one.tar"), without.1).err().unwrap();
    assert!(refused.contains("has another base image, or none"), "{refused}");
    let refused = Server::start(&bench, Some("absent.tar"), 0).err().unwrap();
    assert!(refused.contains("absent.tar") && refused.contains("hint:"), "{refused}");
}
