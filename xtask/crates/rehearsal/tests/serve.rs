//! `rehearsal serve` as its caller sees it: the URL line, the end with its stdin, and ports that are taken.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    url: String,
}

impl Server {
    /// Starts a server and reads its URL.
    fn start(channel: &Path, port: u16) -> Self {
        // Whoever runs the tests in the background has them ignore SIGINT.
        let mut child = Command::new("env")
            .args(["--default-signal", env!("CARGO_BIN_EXE_rehearsal")])
            .args(["serve", "--channel", channel.to_str().unwrap(), "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin, url: url.trim_end().to_owned() }
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Whether it ended well, and what it said on stderr.
    fn end(mut self) -> (bool, String) {
        drop(self.stdin.take());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().success(), said)
    }
}

fn channel(mark: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for subdir in ["linux-64", "noarch"] {
        std::fs::create_dir(dir.path().join(subdir)).unwrap();
        std::fs::write(dir.path().join(subdir).join("repodata.json"), format!("{{\"mark\":\"{mark}\"}}")).unwrap();
    }
    dir
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn files_are_served_and_the_server_ends_when_its_stdin_does() {
    let channel = channel("one");
    let server = Server::start(channel.path(), 0);
    let port = server.port();
    assert!(get(port, "/linux-64/repodata.json").ends_with("{\"mark\":\"one\"}"));
    assert!(get(port, "/rehearsal.json").contains("\"channel\":\"sha256:"));
    assert!(get(port, "/noarch/absent.conda").starts_with("HTTP/1.1 404"));
    assert!(get(port, "/../../../../etc/passwd").starts_with("HTTP/1.1 4"));
    assert!(server.end().0);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_server_of_the_same_channel_is_used_and_one_of_another_is_an_error() {
    let (one, two) = (channel("one"), channel("two"));
    let server = Server::start(one.path(), 0);
    let same = Server::start(one.path(), server.port());
    assert_eq!(same.url, server.url);
    let (ended_well, said) = same.end();
    assert!(ended_well && said.contains("served already"), "{said}");
    let other = Server::start(two.path(), server.port());
    assert_eq!(other.url, "");
    let (ended_well, said) = other.end();
    assert!(!ended_well && said.contains(&server.port().to_string()), "{said}");
    assert!(said.contains("another rehearsal channel") && said.contains("--port"), "{said}");
    assert!(get(server.port(), "/linux-64/repodata.json").contains("one"));
}

#[test]
fn a_port_that_another_program_holds_is_named() {
    let channel = channel("one");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ended_well, said) = Server::start(channel.path(), port).end();
    assert!(!ended_well && said.contains(&format!("port {port}")) && said.contains("another program"), "{said}");
}

#[test]
fn a_directory_without_a_channel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ended_well, said) = Server::start(dir.path(), 0).end();
    assert!(!ended_well && said.contains("is not a rehearsal channel"), "{said}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_server() {
    let channel = channel("one");
    let mut server = Server::start(channel.path(), 0);
    get(server.port(), "/rehearsal.json"); // it answers, so it listens to signals too
    assert!(Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
}
