//! What is asked of the machine and the network, all at the same time, and each for a moment only.

use std::path::PathBuf;
use std::time::Duration;

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::Engine;
use crate::engines::{self, ENGINES, namespaces};
use crate::external::{Program, Programs};
use crate::pins;

/// How long an address may take.
const NETWORK: Duration = Duration::from_secs(2);

/// Something that is asked.
enum Question {
    Engine(&'static dyn Engine),
    Version(CommandLine),
    Free(PathBuf),
    Namespaces,
    Network,
}

/// What came of it.
enum Answer {
    Said(Result<String, String>),
    Free(Option<u64>),
    Namespaces(Option<namespaces::Forbidden>),
    Network(Vec<Reach>),
}

/// An address, and whether it answers.
pub struct Reach {
    /// The host.
    pub host: String,
    /// What came of it.
    pub state: Reached,
}

/// Whether an address answers.
pub enum Reached {
    /// It does.
    Answers,
    /// It does not: why.
    Silent(String),
    /// It was not asked: why.
    Unknown(String),
}

impl Reach {
    /// Why it does not answer.
    pub fn failed(&self) -> Option<&str> {
        if let Reached::Silent(reason) = &self.state { Some(reason) } else { None }
    }
}

/// All answers.
pub struct Answers {
    /// What each engine says of itself.
    pub engines: Vec<(&'static str, Result<String, String>)>,
    /// pixi, cargo, rustc.
    pub versions: Vec<(&'static str, Result<String, String>)>,
    /// What is free below the target directory, and where Apptainer unpacks.
    pub free: [Option<u64>; 2],
    /// Why there are no user namespaces.
    pub forbidden: Option<namespaces::Forbidden>,
    /// The network; none where it was not asked.
    pub network: Option<Vec<Reach>>,
}

/// Asks.
pub fn ask(cx: &Context) -> Answers {
    let mut questions: Vec<Question> = ENGINES.iter().map(|engine| Question::Engine(*engine)).collect();
    let cargo = cx.env("CARGO").unwrap_or_else(|| PathBuf::from("cargo"));
    let version = |line: CommandLine| Question::Version(line.arg("--version"));
    questions.push(version(CommandLine::new("pixi")));
    questions.push(version(CommandLine::with_executable("cargo", &cargo)));
    questions.push(version(CommandLine::new("rustc")));
    questions.push(Question::Free(cx.target().to_owned()));
    questions.push(Question::Free(temporary(cx).1));
    questions.push(Question::Namespaces);
    if !cx.options.offline {
        questions.push(Question::Network);
    }
    let answers = cx.at_once(&questions, |cx, question| match question {
        Question::Engine(engine) => Answer::Said(engine.probe(cx)),
        Question::Version(line) => Answer::Said(version_of(cx, line)),
        Question::Free(place) => Answer::Free(free(cx, place)),
        Question::Namespaces => Answer::Namespaces(namespaces::forbidden(cx)),
        Question::Network => Answer::Network(network(cx)),
    });
    let mut names = ENGINES.iter().map(|engine| engine.name()).chain(["pixi", "cargo", "rustc"]);
    let (mut said, mut frees, mut forbidden, mut network) = (Vec::new(), Vec::new(), None, None);
    for answer in answers {
        match answer {
            Answer::Said(answer) => said.extend(names.next().map(|name| (name, answer))),
            Answer::Free(bytes) => frees.push(bytes),
            Answer::Namespaces(answer) => forbidden = answer,
            Answer::Network(answer) => network = Some(answer),
        }
    }
    let versions = said.split_off(ENGINES.len());
    let free = [0, 1].map(|index| frees.get(index).copied().flatten());
    Answers { engines: said, versions, free, forbidden, network }
}

/// Where Apptainer or Singularity unpacks, and the variable that says so.
pub fn temporary(cx: &Context) -> (String, PathBuf) {
    let prefix = if !cx.on_path("apptainer") && cx.on_path("singularity") { "SINGULARITY" } else { "APPTAINER" };
    engines::temporary(cx, prefix)
}

/// The second word of the first line, as programs say their version.
fn version_of(cx: &Context, line: &CommandLine) -> Result<String, String> {
    if line.executable().components().count() == 1 && !cx.on_path(&line.executable().display().to_string()) {
        return Err("it is not installed".to_owned());
    }
    let output = cx.glance(line).map_err(|error| error.to_string())?;
    match output.stdout.split_whitespace().nth(1) {
        Some(version) if output.code == 0 => Ok(version.to_owned()),
        _ => Err(format!("`{line}` ended with exit code {}", output.code)),
    }
}

/// What is free where a directory is, or will be.
fn free(cx: &Context, place: &std::path::Path) -> Option<u64> {
    let there = place.ancestors().find(|path| path.is_dir())?;
    let output = cx.glance(&CommandLine::new("df").args(["-P", "-k"]).arg(there.display().to_string())).ok()?;
    engines::free_bytes(&output.stdout)
}

/// Asks with pixi-image where it is compiled, for it knows proxies and certificates; else whether the hosts are there.
fn network(cx: &Context) -> Vec<Reach> {
    let program = Programs::new(cx).path(Program::PixiImage);
    if program.is_file() {
        let line = CommandLine::with_executable(&cx.typed(&program), &program).arg("probe").args(pins::REACHABLE);
        let line = line.option("--timeout", NETWORK.as_secs().to_string());
        let line = line.option("--workspace", cx.typed(&cx.resolve(&cx.options.workspace)));
        if let Ok(output) = cx.look_within(&line, NETWORK * 2) {
            let reach = |line: &str| {
                let mut fields = line.split('\t');
                let (state, address) = (fields.next()?, fields.next()?);
                let reason = fields.next().unwrap_or("it does not answer").to_owned();
                let state = if state == "reachable" { Reached::Answers } else { Reached::Silent(reason) };
                Some(Reach { host: host(address).to_owned(), state })
            };
            let said: Vec<Reach> = output.stdout.lines().filter_map(reach).collect();
            if !said.is_empty() {
                return said;
            }
        }
    }
    let proxies = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let proxy = proxies.iter().find(|name| cx.env(name).is_some());
    cx.at_once(&pins::REACHABLE, |cx, address| {
        let host = host(address).to_owned();
        let state = match proxy {
            Some(name) => Reached::Unknown(format!("not asked: {name} is set, which pixi-image will follow")),
            None => cx.connects(&host, 443, NETWORK).map_or_else(Reached::Silent, |()| Reached::Answers),
        };
        Reach { host, state }
    })
}

fn host(address: &str) -> &str {
    address.split("://").last().and_then(|rest| rest.split('/').next()).unwrap_or(address)
}
