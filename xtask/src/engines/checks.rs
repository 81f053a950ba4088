//! What an image must hold, asked of it through the engine that runs it.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Output;
use crate::engine::{Desk, TestRequest};
use crate::plan::Plan;

/// How many missing packages are named.
const SHOWN: usize = 10;

/// One way into a container: the words, and the command line that goes that way.
pub type Way<'a> = (&'a str, &'a dyn Fn(&[&str]) -> CommandLine);

/// Checks that every package of the lock is in the image, that each way into it finds the environment active, and that
/// the command succeeds through the first way. All that is wrong is said before it fails.
pub fn check(desk: &Desk<'_>, request: &TestRequest, ways: &[Way<'_>]) -> Result<()> {
    let Some((_, main)) = ways.first() else { return Ok(()) };
    let prefix = format!("/app/.pixi/envs/{}", request.environment);
    let mut verdicts = vec![complete(desk, request, &prefix, *main)?];
    for (words, way) in ways {
        verdicts.push(activated(desk, words, *way, &prefix)?);
    }
    for verdict in verdicts.iter().flatten() {
        match verdict {
            Ok(text) => desk.cx.ui.note(format_args!("ok: {text}")),
            Err(text) => desk.cx.ui.announce(format_args!("failed: {text}")),
        }
    }
    if verdicts.iter().flatten().any(|verdict| verdict.is_err()) {
        bail!("the image {} is not what its lock says; what is wrong stands above", request.image.reference);
    }
    let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
    desk.cx.execute(&main(&words))
}

/// What a check says when it holds, or what is wrong.
type Verdict = Result<String, String>;

fn complete(
    desk: &Desk<'_>,
    request: &TestRequest,
    prefix: &str,
    way: &dyn Fn(&[&str]) -> CommandLine,
) -> Result<Option<Verdict>> {
    let Some(plan) = Plan::read(desk.cx, desk.programs, &request.lock, &request.environment)? else { return Ok(None) };
    let wanted: Vec<String> =
        plan.packages.iter().map(|[name, version, build]| format!("{name}-{version}-{build}")).collect();
    let Some(listed) = desk.cx.ask(&way(&["ls", &format!("{prefix}/conda-meta")]))? else { return Ok(None) };
    if listed.code != 0 {
        return Ok(Some(Err(format!("there is no environment in {prefix}: {}", last_line(&listed)))));
    }
    let found: BTreeSet<&str> = listed.stdout.lines().filter_map(|name| name.strip_suffix(".json")).collect();
    let missing: Vec<&String> = wanted.iter().filter(|package| !found.contains(package.as_str())).collect();
    if missing.is_empty() {
        return Ok(Some(Ok(format!("{} packages are in {prefix}", wanted.len()))));
    }
    let shown: String = missing.iter().take(SHOWN).map(|package| format!("\n  {package}")).collect();
    let more = missing.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Ok(Some(Err(format!(
        "of {} packages, {} are missing:{shown}{more}\n  hint: the image was not built from this lock; build it again",
        wanted.len(),
        missing.len()
    ))))
}

fn activated(
    desk: &Desk<'_>,
    words: &str,
    way: &dyn Fn(&[&str]) -> CommandLine,
    prefix: &str,
) -> Result<Option<Verdict>> {
    let Some(output) = desk.cx.ask(&way(&["env"]))? else { return Ok(None) };
    if output.code != 0 {
        return Ok(Some(Err(format!("{words}: {}", last_line(&output)))));
    }
    let value = |name: &str| output.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let bin = format!("{prefix}/bin");
    let first = value("PATH").and_then(|path| path.split(':').next());
    Ok(Some(match (value("CONDA_PREFIX"), first) {
        (Some(found), Some(first)) if found == prefix && first == bin => Ok(format!("{words}: {prefix} is active")),
        (Some(found), first) if found == prefix => {
            Err(format!("{words}: PATH begins with {}, not with {bin}", first.unwrap_or("nothing")))
        }
        (found, _) => Err(format!("{words}: CONDA_PREFIX is {}, not {prefix}", found.unwrap_or("not set"))),
    }))
}

/// The last thing that a failed command said.
pub fn last_line(output: &Output) -> &str {
    output.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim()
}
