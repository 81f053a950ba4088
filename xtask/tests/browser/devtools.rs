//! A browser in the hands of a test: chromium without a window, told what to do over its debugging pipe.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use saphyr::{LoadableYamlNode, YamlOwned};
use tempfile::TempDir;

use crate::page::quoted;

/// A browser that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// What keeps it from the network, and from what a machine without a screen lacks.
const OPTIONS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
];

/// How a page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    /// The width of the window in pixels.
    pub width: u32,
    /// `light` or `dark`.
    pub colours: &'static str,
    /// Whether scripts run.
    pub scripts: bool,
}

/// The browser with one page in it.
pub struct Browser {
    process: Child,
    pipe: ChildStdin,
    messages: Receiver<String>,
    session: String,
    calls: u64,
    /// What the page complained about, or asked of the network.
    complaints: Vec<String>,
    requests: Vec<String>,
    loaded: bool,
    _profile: TempDir,
}

impl Browser {
    /// Starts one that remembers nothing.
    pub fn start(program: &Path) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // It reads from 3 and writes to 4, zero bytes between the messages.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (pipe, out) = (process.stdin.take().context("stdin")?, process.stdout.take().context("stdout")?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut bytes = Vec::new();
            while out.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
                bytes.pop();
                if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let (session, complaints, requests) = (String::new(), Vec::new(), Vec::new());
        let mut browser =
            Self { process, pipe, messages, session, calls: 0, complaints, requests, loaded: false, _profile: profile };
        let target = browser.call("Target.createTarget", "\"url\": \"about:blank\"")?;
        let target = text(&target, &["targetId"])?;
        let attached =
            browser.call("Target.attachToTarget", format!("\"targetId\": {}, \"flatten\": true", quoted(&target)))?;
        browser.session = text(&attached, &["sessionId"])?;
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), "")?;
        }
        Ok(browser)
    }

    /// Opens a page.
    pub fn open(&mut self, page: &Path, look: Look) -> Result<()> {
        let Look { width, colours, scripts } = look;
        let size = format!("\"width\": {width}, \"height\": 900, \"deviceScaleFactor\": 1, \"mobile\": false");
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let feature = format!("\"features\": [{{\"name\": \"prefers-color-scheme\", \"value\": \"{colours}\"}}]");
        self.call("Emulation.setEmulatedMedia", feature)?;
        self.call("Emulation.setScriptExecutionDisabled", format!("\"value\": {}", !scripts))?;
        (self.complaints, self.requests, self.loaded) = (Vec::new(), Vec::new(), false);
        self.call("Page.navigate", format!("\"url\": {}", quoted(&format!("file://{}", page.display()))))?;
        while !self.loaded {
            self.receive()?;
        }
        Ok(())
    }

    /// The value of an expression, as text.
    pub fn value(&mut self, expression: &str) -> Result<String> {
        let expression = format!("(async () => String(await ({expression})))()");
        let question =
            format!("\"expression\": {}, \"awaitPromise\": true, \"returnByValue\": true", quoted(&expression));
        let answer = self.call("Runtime.evaluate", question)?;
        ensure!(at(&answer, &["exceptionDetails"]).is_none(), "{expression}: {answer:?}");
        text(&answer, &["result", "value"])
    }

    /// Runs a script in the page; what it gives is of no use.
    pub fn inject(&mut self, script: &str) -> Result<()> {
        let answer = self.call("Runtime.evaluate", format!("\"expression\": {}", quoted(&format!("{script};0"))))?;
        ensure!(at(&answer, &["exceptionDetails"]).is_none(), "{answer:?}");
        Ok(())
    }

    /// Presses a key and lets it go.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, typed) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\\r"),
            "ArrowLeft" => (37, ""),
            "ArrowRight" => (39, ""),
            "Home" => (36, ""),
            other => bail!("no code for {other}"),
        };
        let text = if typed.is_empty() { String::new() } else { format!(", \"text\": \"{typed}\"") };
        for kind in ["keyDown", "keyUp"] {
            let event = format!(
                "\"type\": \"{kind}\", \"key\": \"{key}\", \"code\": \"{key}\", \"windowsVirtualKeyCode\": {code}"
            );
            let text = if kind == "keyDown" { &text } else { "" };
            self.call("Input.dispatchKeyEvent", event + text)?;
        }
        Ok(())
    }

    /// A picture of the whole page.
    pub fn picture(&mut self, place: &Path) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", "\"format\": \"png\", \"captureBeyondViewport\": true")?;
        let bytes = decoded(&text(&answer, &["data"])?)?;
        std::fs::create_dir_all(place.parent().context("a place in a directory")?)?;
        std::fs::write(place, &bytes)?;
        Ok(bytes)
    }

    /// What the page complained about since it was opened, in the console or by failing.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        // What was said before this answer was sent before it.
        self.value("0")?;
        Ok(self.complaints.clone())
    }

    /// What was asked of the network since the page was opened, itself apart.
    pub fn requests(&mut self) -> Result<Vec<String>> {
        self.value("0")?;
        Ok(self
            .requests
            .iter()
            .filter(|url| !url.starts_with("file://") && !url.starts_with("data:"))
            .cloned()
            .collect())
    }

    fn call(&mut self, method: &str, parameters: impl Display) -> Result<YamlOwned> {
        self.calls += 1;
        let id = self.calls;
        let session = match self.session.as_str() {
            "" => String::new(),
            session => format!(", \"sessionId\": {}", quoted(session)),
        };
        let message = format!("{{\"id\": {id}, \"method\": \"{method}\", \"params\": {{{parameters}}}{session}}}\0");
        self.pipe.write_all(message.as_bytes()).with_context(|| format!("tell the browser to {method}"))?;
        loop {
            if let Some(answer) = self.receive().with_context(|| method.to_owned())?
                && at(&answer, &["id"]).and_then(YamlOwned::as_integer) == i64::try_from(id).ok()
            {
                if let Some(error) = at(&answer, &["error"]) {
                    bail!("{method}: {error:?}");
                }
                return at(&answer, &["result"]).cloned().with_context(|| format!("{method}: no result"));
            }
        }
    }

    /// The next answer; events are noted.
    fn receive(&mut self) -> Result<Option<YamlOwned>> {
        let message = self.messages.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("the browser says nothing"),
            RecvTimeoutError::Disconnected => anyhow!("the browser has ended"),
        })?;
        let documents =
            YamlOwned::load_from_str(&message).with_context(|| message.chars().take(200).collect::<String>())?;
        let message = documents.into_iter().next().context("an empty message")?;
        let Some(method) = at(&message, &["method"]).and_then(YamlOwned::as_str) else { return Ok(Some(message)) };
        let said = |keys: &[&str]| at(&message, keys).and_then(YamlOwned::as_str).unwrap_or_default().to_owned();
        match method {
            "Page.loadEventFired" => self.loaded = true,
            "Runtime.exceptionThrown" => self.complaints.push(format!("{message:?}")),
            "Runtime.consoleAPICalled" if ["error", "warning"].contains(&said(&["params", "type"]).as_str()) => {
                self.complaints.push(format!("{message:?}"));
            }
            "Log.entryAdded" if said(&["params", "entry", "level"]) != "verbose" => {
                self.complaints.push(said(&["params", "entry", "text"]));
            }
            "Network.requestWillBeSent" => self.requests.push(said(&["params", "request", "url"])),
            _ => {}
        }
        Ok(None)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn at<'y>(node: &'y YamlOwned, keys: &[&str]) -> Option<&'y YamlOwned> {
    keys.iter().try_fold(node, |node, key| node.as_mapping_get(key))
}

fn text(node: &YamlOwned, keys: &[&str]) -> Result<String> {
    at(node, keys).and_then(YamlOwned::as_str).map(str::to_owned).with_context(|| format!("no {keys:?} in {node:?}"))
}

/// Bytes as base64 (RFC 4648) has them.
fn decoded(base64: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(base64.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in base64.bytes().filter(|digit| *digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{other} in base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}

/// A program named by a variable, or else on PATH.
pub fn find(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable).map(PathBuf::from) {
        return named.is_file().then_some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).flat_map(|directory| names.iter().map(move |name| directory.join(name)));
    places.into_iter().find(|place| place.is_file())
}

/// Reads a script.
pub fn script(path: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
