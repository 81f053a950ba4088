//! A web server on loopback that can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a path is answered.
#[derive(Clone)]
pub enum Answer {
    /// With these bytes, and ranges of them.
    Bytes(Vec<u8>),
    /// With a status and no bytes.
    Status(u16),
    /// With a status, and the wish to be asked again after so many seconds.
    Later(u16, u64),
    /// With another address.
    Redirect(String),
    /// With a `Content-Length` for the whole, but the connection ends after so many bytes; ranges are honoured.
    Cut(Vec<u8>, usize),
    /// With these bytes, ignoring ranges.
    WithoutRanges(Vec<u8>),
    /// With nothing at all, for so long.
    Silence(Duration),
    /// With these bytes, and ranges of them, in pieces of 64 KiB with so long between them.
    Slow(Vec<u8>, Duration),
    /// With a status, unless the request has this line; then as the other says.
    Guarded(&'static str, u16, Box<Answer>),
}

impl Answer {
    /// Only for who sends this line, a name and password for example.
    pub fn for_who_sends(self, line: &'static str) -> Self {
        Self::Guarded(line, 401, Box::new(self))
    }
}

/// A running server; answers for a path are used up one by one, the last one stays.
#[derive(Clone)]
pub struct Web {
    scheme: &'static str,
    address: String,
    answers: Arc<Mutex<BTreeMap<String, Vec<Answer>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub fn start() -> Self {
        Self::listen("http", |web, stream| web.serve(stream))
    }

    /// A server whose connections are made into others before they are read.
    pub fn listen(scheme: &'static str, accept: impl Fn(&Self, TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let web = Self { scheme, address, answers: Arc::default(), asked: Arc::default(), heads: Arc::default() };
        let server = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, accept) = (server.clone(), accept.clone());
                std::thread::spawn(move || accept(&server, stream));
            }
        });
        web
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn set(&self, path: &str, answers: Vec<Answer>) {
        self.answers.lock().unwrap().insert(path.to_owned(), answers);
    }

    /// Takes all pages away: as if the server were another one.
    pub fn clear(&self) {
        self.answers.lock().unwrap().clear();
    }

    /// The requests so far: path and range.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests so far as they came: their first line and their headers.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn answer(&self, path: &str) -> Answer {
        match self.answers.lock().unwrap().get_mut(path) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => Answer::Status(404),
        }
    }

    pub fn serve(&self, mut stream: impl Read + Write) {
        let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let head_only = request.starts_with("HEAD ");
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let range = headers.iter().find_map(|line| {
            line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse::<usize>().ok()
        });
        let shown = range.map_or(path.clone(), |start| format!("{path} from {start}"));
        self.asked.lock().unwrap().push(shown);
        self.heads.lock().unwrap().push(format!("{request}\n{}\n", headers.join("\n")));
        let head = |status: u16, length: usize, more: String| {
            format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n").into_bytes()
        };
        let mut out = Vec::new();
        let mut answer = self.answer(&path);
        while let Answer::Guarded(line, status, then) = answer {
            // The names of headers have no case.
            let (name, value) = line.split_once(':').unwrap();
            let mut given = headers.iter().filter_map(|header| header.split_once(':'));
            let granted = given.any(|(n, v)| n.eq_ignore_ascii_case(name) && v.trim() == value.trim());
            answer = if granted { *then } else { Answer::Status(status) };
        }
        match answer {
            Answer::Guarded(..) => unreachable!(),
            Answer::Status(status) => out = head(status, 0, String::new()),
            Answer::Later(status, seconds) => out = head(status, 0, format!("Retry-After: {seconds}\r\n")),
            Answer::Redirect(to) => out = head(302, 0, format!("Location: {to}\r\n")),
            Answer::WithoutRanges(bytes) => out.extend([head(200, bytes.len(), String::new()), bytes].concat()),
            Answer::Silence(time) => std::thread::sleep(time),
            Answer::Bytes(bytes) => out = ranged(&head, &bytes, range, bytes.len()),
            Answer::Slow(bytes, pause) => {
                for piece in ranged(&head, &bytes, range, bytes.len()).chunks(1 << 16) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            }
            Answer::Cut(bytes, after) => out = ranged(&head, &bytes, range, after),
        }
        if head_only {
            let end = out.windows(4).position(|four| four == b"\r\n\r\n").map_or(out.len(), |at| at + 4);
            out.truncate(end);
        }
        let _ = stream.write_all(&out);
    }
}

fn ranged(head: &dyn Fn(u16, usize, String) -> Vec<u8>, bytes: &[u8], range: Option<usize>, after: usize) -> Vec<u8> {
    let tag = "ETag: \"one\"\r\n";
    let (start, mut out) = match range.filter(|start| *start < bytes.len()) {
        None => (0, head(200, bytes.len(), tag.to_owned())),
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n{tag}", bytes.len() - 1, bytes.len());
            (start, head(206, bytes.len() - start, range))
        }
    };
    let rest = &bytes[start..];
    out.extend_from_slice(&rest[..after.min(rest.len())]);
    out
}
