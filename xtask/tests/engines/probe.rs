//! What a program finds in a container, asked in the same words whatever way it was started.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::command::Outcome;

/// The environment of the exercise, in every image.
pub const PREFIX: &str = "/app/.pixi/envs/gpu";
/// Where PyTorch lies below it. Not imported: that takes seconds, and a module of that name elsewhere shows all the same.
const TORCH: &str = "lib/python3/dist-packages/torch/__init__.py";

/// Arguments that a careless shell script changes on their way.
const ARGUMENTS: &[&str] = &[
    "two words",
    "",
    "  ",
    "'single'",
    "\"double\"",
    "it's",
    "$HOME",
    "${PATH}",
    "$(exit 3)",
    "`exit 3`",
    "line\nbreak",
    "\ttab",
    "*",
    "/app/*",
    "[a-z]?",
    "{a,b}",
    "~",
    "back\\slash\\n",
    "!history",
    "#hash",
    "a;b|c>d&",
    "-c",
    "--help",
    "--",
    "NAME=value",
    "\u{e9}\u{1f512}",
    "",
];

/// Prints the facts, one a line, a NUL, and its arguments with a NUL between them. It holds no single quote: the text is
/// typed in shells too.
const PYTHON: &str = r#"
import importlib.util, os, sys
facts = {"sys.prefix": sys.prefix, "sys.executable": sys.executable}
facts["torch"] = importlib.util.find_spec("torch").origin
facts["first of PATH"] = os.environ["PATH"].split(":")[0]
for name, value in os.environ.items():
    # What was there before is kept by its level, and depends on who starts the container.
    if name.startswith("CONDA_ENV_SHLVL_"):
        continue
    if name.startswith(("CONDA_", "PIXI_")) or name in ("REHEARSAL_ACTIVATED", "PYTHONNOUSERSITE"):
        facts[name] = value
libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
facts["LD_LIBRARY_PATH"] = ":".join(p for p in libraries if p.startswith(sys.prefix + "/"))
lines = [name + "\t" + value for name, value in sorted(facts.items())]
sys.stdout.write("\n".join(lines) + "\0" + "\0".join(sys.argv[1:]))
"#;

/// The probe's command line.
pub fn words() -> Vec<&'static str> {
    ["python", "-c", PYTHON].into_iter().chain(ARGUMENTS.iter().copied()).collect()
}

/// The same, as it is typed in a POSIX shell.
pub fn typed() -> String {
    let quote = |word: &&str| format!("'{}'", word.replace('\'', r#"'"'"'"#));
    words().iter().map(quote).collect::<Vec<_>>().join(" ") + "\n"
}

/// What the ways into one image have shown so far.
#[derive(Default)]
pub struct Findings {
    first: Option<(String, BTreeMap<String, String>)>,
}

impl Findings {
    /// Adds what the probe found in a way into the container.
    ///
    /// # Errors
    /// When the environment is not active there, an argument was changed, something was said on stderr, or another way
    /// found something else.
    pub fn add(&mut self, way: &str, outcome: Outcome) -> anyhow::Result<()> {
        let facts = read(outcome).with_context(|| format!("the way `{way}`"))?;
        let expected = [
            ("sys.prefix", PREFIX.to_owned()),
            ("sys.executable", format!("{PREFIX}/bin/python")),
            ("first of PATH", format!("{PREFIX}/bin")),
            ("torch", format!("{PREFIX}/{TORCH}")),
            ("CONDA_PREFIX", PREFIX.to_owned()),
            ("REHEARSAL_ACTIVATED", "1".to_owned()),
            ("PYTHONNOUSERSITE", "1".to_owned()),
        ];
        for (name, value) in expected {
            let found = facts.get(name);
            ensure!(found == Some(&value), "the way `{way}`: {name} is {found:?}, not {value:?}");
        }
        let libraries = facts.get("LD_LIBRARY_PATH").map_or(0, |value| value.split(':').count());
        ensure!(libraries >= 4, "the way `{way}`: LD_LIBRARY_PATH of env_vars.d is not there: {facts:#?}");
        match &self.first {
            None => self.first = Some((way.to_owned(), facts)),
            Some((first, expected)) => {
                ensure!(*expected == facts, "`{first}` finds {expected:#?}\nbut `{way}` finds {facts:#?}");
            }
        }
        Ok(())
    }
}

fn read(outcome: Outcome) -> anyhow::Result<BTreeMap<String, String>> {
    let outcome = outcome.exits(0)?.quiet()?;
    let mut parts = outcome.stdout.split('\0');
    let facts = parts.next().unwrap_or_default().lines();
    let facts = facts.filter_map(|line| line.split_once('\t')).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let arguments: Vec<&str> = parts.collect();
    ensure!(arguments == ARGUMENTS, "the arguments arrived as {arguments:#?}\nand not as {ARGUMENTS:#?}");
    Ok(facts.collect())
}

/// Makes, in `directory`, a home full of traps (`home`) and another workspace of the same name (`other`).
///
/// # Errors
/// When a file cannot be written.
pub fn lay_traps(directory: &Path) -> anyhow::Result<()> {
    const TRAP: &str = "import sys\nsys.stderr.write('a module of the home directory was imported\\n')\n";
    let modules = "home/.local/lib/python3.13/site-packages";
    for module in ["torch.py", "usercustomize.py", "sitecustomize.py"] {
        write(directory, &format!("{modules}/{module}"), TRAP, 0o644)?;
    }
    let manifest = "[workspace]\nname = \"cuda-exercise\"\nchannels = []\nplatforms = [\"linux-64\"]\n\
                    [environments]\ngpu = []\n[dependencies]\n";
    write(directory, "other/pixi.toml", manifest, 0o644)?;
    let program = "#!/bin/sh\necho 'a program of the current directory was started' >&2\nexit 99\n";
    for name in ["python", "python3", "bash"] {
        write(directory, &format!("other/.pixi/envs/gpu/bin/{name}"), program, 0o755)?;
    }
    Ok(())
}

fn write(directory: &Path, file: &str, text: &str, mode: u32) -> anyhow::Result<()> {
    let path = directory.join(file);
    let parent = path.parent().context("a file lies in a directory")?;
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(&path, text))
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
        .with_context(|| format!("write {}", path.display()))
}
