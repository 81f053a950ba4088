//! The page: facts as HTML. What is drawn, its script draws from the data; all else stands without a script, too.

use std::time::Duration;

use super::changes::Difference;
use super::html::{data, escape, fill};
use super::{Changes, Facts, Inspected, Planned, Ran, Shown, Stop};
use crate::engine::Format;
use crate::plan::Package;
use crate::stamp::State;
use crate::ui;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The whole page.
pub fn render(facts: &Facts) -> String {
    let [workspace, environment] = [&facts.workspace, &facts.environment].map(|text| escape(text));
    let rehearsed = if facts.is_rehearsal { " (rehearsal)" } else { "" };
    fill(
        PAGE,
        &[
            ("title", &format!("{workspace}, environment {environment}{rehearsed}: report")),
            ("style", STYLE),
            ("script", SCRIPT),
            ("workspace", &workspace),
            ("environment", &environment),
            ("rehearsal", if facts.is_rehearsal { REHEARSAL } else { "" }),
            ("figures", &figures(facts)),
            ("next", &next(&facts.stations)),
            ("pipeline", &pipeline(&facts.stations)),
            ("packages", &packages(facts)),
            ("layers", &layers(facts)),
            ("images", &images(facts)),
            ("changes", &changes(&facts.changes)),
            ("output", &output(&facts.stations)),
            ("data", &embedded(facts)),
        ],
    )
}

const REHEARSAL: &str = "<p class=\"rehearsal\"><strong>Rehearsal.</strong> Python, PyTorch and the base image were made \
                         from Debian's packages, not taken from conda-forge. Nothing here can use a GPU, and sizes and \
                         times are not those of the lesson.</p>\n";

fn figures(facts: &Facts) -> String {
    let is_done = |stop: &&Stop| stop.state == State::Done;
    let spent: Duration =
        facts.stations.iter().filter(is_done).flat_map(|stop| &stop.runs).filter_map(|ran| ran.elapsed).sum();
    let plan = facts.plan.as_ref().ok().map(|planned| &planned.plan);
    let size = |image: &Shown<Inspected>| image.as_ref().ok().map(|image| ui::size(image.bytes));
    let figures = [
        ("Packages", plan.map(|plan| plan.packages.len().to_string())),
        ("To download", plan.map(|plan| ui::size(plan.download_bytes))),
        ("Docker image", size(&facts.docker)),
        ("Apptainer image", size(&facts.apptainer)),
        ("All steps took", (!spent.is_zero()).then(|| ui::duration(spent))),
    ];
    let figure = |(name, value): (&str, Option<String>)| {
        let value =
            value.map_or("<span class=\"none\">not yet</span>".to_owned(), |value| value.replace(' ', "\u{a0}"));
        format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")
    };
    format!("<dl class=\"figures\">\n{}</dl>\n", figures.into_iter().map(figure).collect::<String>())
}

fn next(stations: &[Stop]) -> String {
    match stations.iter().find(|stop| stop.state.is_outstanding()) {
        Some(stop) => format!("<p class=\"next\">Next: <code>{}</code></p>\n", escape(&stop.command)),
        None => "<p class=\"next\">Every step is done.</p>\n".to_owned(),
    }
}

fn pipeline(stations: &[Stop]) -> String {
    let done = stations.iter().filter(|stop| !stop.state.is_outstanding()).count();
    let times = stations.iter().flat_map(|stop| &stop.runs).filter_map(|ran| ran.elapsed);
    let longest = times.max().unwrap_or_default();
    let stops: String = stations.iter().map(|stop| one_stop(stop, longest)).collect();
    format!(
        "<p class=\"lead\">{done} of {} steps are settled. A bar shows how long a step took when it ran last.</p>\n\
         <ol class=\"stops\">\n{stops}</ol>\n",
        stations.len()
    )
}

fn one_stop(stop: &Stop, longest: Duration) -> String {
    let name = stop.state.name();
    let class = name.replace(' ', "-");
    let mut why = escape(stop.state.reason());
    if stop.state.is_outstanding() {
        why += &format!("{} <code>{}</code>", if why.is_empty() { "" } else { ":" }, escape(&stop.command));
    }
    let why = if why.is_empty() { String::new() } else { format!("<p class=\"why\">{why}</p>") };
    let runs: String = stop.runs.iter().map(|ran| run(ran, stop.runs.len() > 1, longest)).collect();
    let runs = if runs.is_empty() { String::new() } else { format!("<ul class=\"runs\">{runs}</ul>") };
    format!(
        "<li class=\"stop {class}\"><h3>{}</h3><span class=\"badge\">{name}</span><div class=\"what\">{why}{runs}</div></li>\n",
        escape(stop.name)
    )
}

fn run(ran: &Ran, is_one_of_several: bool, longest: Duration) -> String {
    let part = ran.elapsed.map(|elapsed| elapsed.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE));
    let time = ran.elapsed.map_or("in one go".to_owned(), ui::duration);
    let bar = part.map(|part| format!("<span class=\"bar\" style=\"--part:{part:.4}\"></span>")).unwrap_or_default();
    let title = if is_one_of_several { format!("{}: ", escape(&ran.title)) } else { String::new() };
    format!(
        "<li><span class=\"result\">{title}{}</span> <span class=\"by\">{}</span> <span class=\"time\">{time}</span>{bar}</li>",
        escape(&ran.result),
        escape(&ran.engine),
    )
}

fn packages(facts: &Facts) -> String {
    let Planned { plan, .. } = match &facts.plan {
        Ok(planned) => planned,
        Err(reason) => return absent(reason),
    };
    let largest = plan.packages.iter().filter(|package| package.bytes.is_some()).max_by_key(|package| package.bytes);
    let lead = largest.map(|largest| {
        let percent = 100 * largest.bytes.unwrap_or(0) / plan.download_bytes.max(1);
        format!(" The largest of them, {}, makes {percent} % of it.", escape(&largest.name))
    });
    let rows: String = by_size(&plan.packages).into_iter().map(package_row).collect();
    format!(
        "<p class=\"lead\">{} packages, {} to download.{}</p>\n\
         <div id=\"treemap-place\" class=\"drawn\"></div>\n\
         <details><summary>All packages as a table</summary>\n<table class=\"sortable\">\n<thead><tr>\
         <th scope=\"col\">Package</th><th scope=\"col\">Version, build</th><th scope=\"col\" class=\"number\">Layer</th>\
         <th scope=\"col\" class=\"number\">Download</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</details>\n",
        plan.packages.len(),
        ui::size(plan.download_bytes),
        lead.unwrap_or_default(),
    )
}

fn by_size(packages: &[Package]) -> Vec<&Package> {
    let mut packages: Vec<_> = packages.iter().collect();
    packages.sort_by_key(|package| (std::cmp::Reverse(package.bytes), package.name.clone()));
    packages
}

fn package_row(package: &Package) -> String {
    let [name, layer] = [&package.name, &package.layer].map(|text| escape(text));
    let (size, bytes) = (package.bytes.map_or("unknown".to_owned(), ui::size), package.bytes.unwrap_or(0));
    format!(
        "<tr><th scope=\"row\">{name}</th><td>{}</td><td class=\"number\">{layer}</td>\
         <td class=\"number\" data-value=\"{bytes}\">{size}</td></tr>\n",
        version(package)
    )
}

fn version(package: &Package) -> String {
    let build = if package.from_pypi { "from PyPI" } else { package.build.as_str() };
    format!("{} <small>{}</small>", escape(&package.version), escape(build))
}

fn layers(facts: &Facts) -> String {
    let mut html = format!(
        "<div id=\"layers-place\" class=\"drawn\" data-environment=\"{}\" data-other=\"{}\"></div>\n",
        escape(&facts.environment),
        escape(&facts.other)
    );
    for (environment, image) in [(&facts.environment, &facts.docker), (&facts.other, &facts.other_docker)] {
        let environment = escape(environment);
        html += &match image {
            // The one of this environment stands with the images.
            Ok(_) if environment == facts.environment => String::new(),
            Ok(image) => as_text(&format!("The {environment} image as text"), image),
            Err(reason) => absent(reason),
        };
    }
    html
}

fn images(facts: &Facts) -> String {
    let mut html =
        "<p class=\"lead\">The same files, packed in two ways. An OCI image is a stack of layers, which machines and \
                    registries share and keep apart. A SIF is one file with one file system, which is mounted as it \
                    is.</p>\n<div id=\"images-place\" class=\"drawn\"></div>\n"
            .to_owned();
    for (name, image) in [("Docker", &facts.docker), ("Apptainer", &facts.apptainer)] {
        html += &match image {
            Ok(image) => as_text(&format!("The {name} image as text"), image),
            Err(reason) => absent(reason),
        };
    }
    html
}

fn as_text(title: &str, image: &Inspected) -> String {
    format!("<details><summary>{title}</summary>\n<pre>{}</pre>\n</details>\n", escape(image.text.trim_end()))
}

fn changes(changes: &Shown<Changes>) -> String {
    let Changes { format, since_before, next } = match changes {
        Ok(changes) => changes,
        Err(reason) => return absent(reason),
    };
    let image = match format {
        Format::Docker => "Docker image",
        Format::Apptainer => "Apptainer image",
    };
    let mut html = match since_before {
        None => {
            format!("<p class=\"lead\">The {image} was built from nothing else before, as far as is known here.</p>\n")
        }
        Some(difference) if difference.is_empty() => {
            format!(
                "<p class=\"lead\">The last two builds of the {image} have the same packages and the same files.</p>\n"
            )
        }
        Some(difference) => {
            format!("<p class=\"lead\">In the last build of the {image}: {}.</p>\n", counted(difference))
                + &difference_table("Since the build before", difference)
        }
    };
    if let Some(next) = next {
        html += &format!("<h3>Not built yet</h3>\n<p>The next build brings: {}.</p>\n", counted(next));
        html += &difference_table("With the next build", next);
    }
    html
}

fn counted(difference: &Difference) -> String {
    let count = |wanted: fn(bool, bool) -> bool| {
        difference.packages.iter().filter(|(before, after)| wanted(before.is_some(), after.is_some())).count()
    };
    let added = count(|before, after| !before && after);
    let removed = count(|before, after| before && !after);
    let updated = count(|before, after| before && after);
    let files = difference.files.len();
    let said =
        [(added, "added"), (removed, "removed"), (updated, "changed")].into_iter().filter(|(count, _)| *count > 0);
    let mut said: Vec<String> = said.map(|(count, what)| format!("{} {what}", plural(count, "package"))).collect();
    if files > 0 {
        said.push(format!("{} of the application changed", plural(files, "file")));
    }
    said.join(", ")
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn difference_table(caption: &str, difference: &Difference) -> String {
    let none = "<span class=\"none\">none</span>";
    let row = |what: &str, name: &str, [before, after]: [Option<String>; 2], sizes: [Option<u64>; 2]| {
        let sign = match (&before, &after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let [before, after] = [before, after].map(|side| side.unwrap_or(none.to_owned()));
        format!(
            "<tr class=\"{sign}\"><th scope=\"row\">{}<small> {sign} {what}</small></th><td>{before}</td><td>{after}</td>\
             <td class=\"number\">{}</td></tr>\n",
            escape(name),
            growth(sizes)
        )
    };
    let packages = difference.packages.iter().map(|(before, after)| {
        let name = before.as_ref().or(after.as_ref()).map(|package| package.name.as_str()).unwrap_or_default();
        let sides = [before, after];
        row(
            "package",
            name,
            sides.map(|side| side.as_ref().map(version)),
            sides.map(|side| match side {
                Some(package) => package.bytes,
                None => Some(0),
            }),
        )
    });
    let files = difference.files.iter().map(|(before, after)| {
        let name = before.as_ref().or(after.as_ref()).map(|file| file.path.as_str()).unwrap_or_default();
        let sides = [before, after];
        let size = |side: &Option<crate::built::File>| side.as_ref().map(|file| ui::size(file.bytes));
        row("file", name, sides.map(size), sides.map(|side| Some(side.as_ref().map_or(0, |file| file.bytes))))
    });
    let rows: String = packages.chain(files).collect();
    let (more, less) = difference.bytes();
    let packages = match difference.packages.as_slice() {
        [] => String::new(),
        _ => format!(": {} of packages", growth([Some(less), Some(more)])),
    };
    format!(
        "<table>\n<caption>{caption}{packages}</caption>\n<thead><tr><th scope=\"col\">What</th><th scope=\"col\">Before\
         </th><th scope=\"col\">After</th><th scope=\"col\" class=\"number\">Difference</th></tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table>\n"
    )
}

/// How much larger or smaller something became.
fn growth(sizes: [Option<u64>; 2]) -> String {
    match sizes {
        [Some(before), Some(after)] if after == before => "the same".to_owned(),
        [Some(before), Some(after)] if after > before => format!("+{}", ui::size(after - before)),
        [Some(before), Some(after)] => format!("\u{2212}{}", ui::size(before - after)),
        _ => "unknown".to_owned(),
    }
}

fn output(stations: &[Stop]) -> String {
    let runs: Vec<(&Stop, &Ran)> = stations
        .iter()
        .flat_map(|stop| stop.runs.iter().map(move |ran| (stop, ran)))
        .filter(|(_, ran)| !ran.output.is_empty())
        .collect();
    let lead = match runs.as_slice() {
        [] => return absent("Nothing ran yet.\n  hint: cargo xtask all"),
        [(_, one), others @ ..] if !others.is_empty() && others.iter().all(|(_, other)| other.output == one.output) => {
            "<p class=\"lead\">Both images printed the same.</p>\n"
        }
        [_] => "",
        _ => "<p class=\"lead\">The images did not print the same.</p>\n",
    };
    let figure = |(stop, ran): &(&Stop, &Ran)| {
        let old = if stop.state == State::Done { "" } else { ", before the image changed" };
        format!(
            "<figure><figcaption>{} <small>{}{old}</small></figcaption>\n<pre>{}</pre></figure>\n",
            escape(&ran.title),
            escape(&ran.engine),
            escape(&ran.output.join("\n"))
        )
    };
    format!("{lead}<div class=\"outputs\">\n{}</div>\n", runs.iter().map(figure).collect::<String>())
}

/// Why something is not shown, and what to type.
fn absent(reason: &str) -> String {
    let (what, hint) = reason.split_once("\n  hint: ").unwrap_or((reason, ""));
    let hint = match hint {
        "" => String::new(),
        command if command.starts_with("cargo xtask ") => format!(" Type <code>{}</code>.", escape(command)),
        hint => format!(" {}", escape(hint)),
    };
    format!("<p class=\"absent\">{}{hint}</p>\n", escape(what))
}

fn embedded(facts: &Facts) -> String {
    let plans = [("plan", &facts.plan), ("other-plan", &facts.other_plan)];
    let plans = plans.into_iter().filter_map(|(id, plan)| Some((id, &plan.as_ref().ok()?.json)));
    let images = [("docker", &facts.docker), ("other-docker", &facts.other_docker), ("apptainer", &facts.apptainer)];
    let images = images.into_iter().filter_map(|(id, image)| Some((id, &image.as_ref().ok()?.json)));
    plans.chain(images).map(|(id, json)| data(id, json)).collect()
}
