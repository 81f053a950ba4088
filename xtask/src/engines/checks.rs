//! What an image must hold, asked of it through the engine that runs it.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Output;
use crate::engine::{Desk, TestRequest};
use crate::plan::{Package, Plan};

/// How many missing packages are named.
const SHOWN: usize = 10;
/// Prints name and version of everything that python finds the metadata of.
const DISTRIBUTIONS: &str =
    "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]";

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
    let Some(listed) = desk.cx.ask(&way(&["ls", &format!("{prefix}/conda-meta")]))? else { return Ok(None) };
    if listed.code != 0 {
        return Ok(Some(Err(format!("there is no environment in {prefix}: {}", last_line(&listed)))));
    }
    let mut distributions = String::new();
    if plan.packages.iter().any(|package| package.from_pypi) {
        let Some(said) = desk.cx.ask(&way(&["python", "-c", DISTRIBUTIONS]))? else { return Ok(None) };
        if said.code != 0 {
            return Ok(Some(Err(format!("python cannot tell what is installed for it: {}", last_line(&said)))));
        }
        distributions = said.stdout;
    }
    let missing = missing(&plan.packages, &listed.stdout, &distributions);
    if missing.is_empty() {
        return Ok(Some(Ok(format!("{} packages are in {prefix}", plan.packages.len()))));
    }
    let shown: String = missing.iter().take(SHOWN).map(|package| format!("\n  {package}")).collect();
    let more = missing.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Ok(Some(Err(format!(
        "of {} packages, {} are missing:{shown}{more}\n  hint: the image was not built from this lock; build it again",
        plan.packages.len(),
        missing.len()
    ))))
}

/// The packages that are neither in the list of conda's records nor, for those from PyPI, among what python finds.
fn missing(packages: &[Package], records: &str, distributions: &str) -> Vec<String> {
    let records: BTreeSet<&str> = records.lines().filter_map(|name| name.strip_suffix(".json")).collect();
    let found = distributions.lines().filter_map(|line| line.rsplit_once(' '));
    let found: BTreeSet<_> = found.map(|(name, version)| (normalized(name), plain_version(version))).collect();
    let identity = |Package { name, version, build, from_pypi, .. }: &Package| match from_pypi {
        true => (!found.contains(&(normalized(name), plain_version(version)))).then(|| format!("{name} {version}")),
        false => Some(format!("{name}-{version}-{build}")).filter(|identity| !records.contains(identity.as_str())),
    };
    packages.iter().filter_map(identity).collect()
}

/// Names of projects are compared without case, and with `-`, `_` and `.` for the same (PyPA, "Names and normalization").
fn normalized(name: &str) -> String {
    let parts: Vec<_> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}

/// A version without what metadata may write or leave out: `2025.01.0` for `2025.1`, `2.0` for `2.0+cu12`.
fn plain_version(version: &str) -> String {
    let version = version.split('+').next().unwrap_or(version).to_lowercase();
    let parts: Vec<_> = version.split('.').map(|part| part.trim_start_matches('0')).collect();
    parts.join(".").trim_end_matches('.').to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_looked_for_where_their_kind_is_recorded() {
        let package = |name: &str, version: &str, from_pypi| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            build: if from_pypi { "-" } else { "h0_0" }.to_owned(),
            from_pypi,
            bytes: None,
            layer: "1".to_owned(),
        };
        let packages = [
            package("python", "3.13.5", false),
            package("ruamel-yaml", "0.18.10", true),
            package("certifi", "2025.1.31", true),
            package("rich", "14.0", true),
            package("flash-attn", "2.7.4+cu12", true),
        ];
        let records = "history\npython-3.13.5-h0_0.json\n";
        let distributions = "ruamel.yaml 0.18.10\nCertifi 2025.01.31\nrich 14.0.0\nflash_attn 2.7.4\n";
        assert_eq!(missing(&packages, records, distributions), Vec::<String>::new());
        assert_eq!(missing(&packages, "", "rich 13.0.0\n").len(), 5);
        assert_eq!(missing(&packages, records, "rich 14.0.0\ncertifi 2025.1.31\n").len(), 2);
    }
}
