//! Reads a definition file of Apptainer or Singularity: stages, each a header and sections.

use crate::traps::recipe::{Base, CopyLine, Kind, Recipe, Stage, Variable};
use crate::traps::shell::{Line, is_name};

/// Reads it.
pub fn parse(path: &str, text: &str) -> Recipe {
    let mut stages: Vec<Stage> = Vec::new();
    let mut section: Option<String> = None;
    let mut defaults: Vec<Vec<Variable>> = Vec::new();
    let mut used: Vec<Vec<(usize, String)>> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let (number, trimmed) = (index + 1, text.trim());
        let header = header(trimmed);
        if header.is_some_and(|(key, _)| key == "bootstrap") {
            stages.push(Stage { line: number, ..Stage::default() });
            defaults.push(Vec::new());
            used.push(Vec::new());
            section = None;
        }
        let (Some(stage), Some(defaults), Some(used)) = (stages.last_mut(), defaults.last_mut(), used.last_mut())
        else {
            continue;
        };
        let is_comment = trimmed.is_empty() || trimmed.starts_with('#') && !trimmed.starts_with("#!");
        if is_comment {
            continue;
        }
        used.extend(placeholders(trimmed).into_iter().map(|name| (number, name)));
        if let Some(rest) = trimmed.strip_prefix('%') {
            begin(stage, number, rest);
            section = Some(rest.to_owned());
            continue;
        }
        let line = || Line { number, text: text.to_owned() };
        match section.as_deref().map(|section| section.split_whitespace().next().unwrap_or_default()) {
            None => match header {
                Some(("from", value)) => stage.base = Some(Base { line: number, reference: value.to_owned() }),
                Some(("stage", value)) => stage.name = value.to_owned(),
                _ => {}
            },
            Some("arguments") => {
                if let Some((name, value)) = trimmed.split_once('=').filter(|(name, _)| is_name(name.trim())) {
                    let (name, value) = (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
                    defaults.push(Variable { line: number, name, value });
                }
            }
            Some("files") => stage.copies.extend(copy(number, trimmed, section.as_deref().unwrap_or_default())),
            Some("post" | "setup") => stage.build.push(line()),
            Some("environment") => {
                let assigned = trimmed.strip_prefix("export ").unwrap_or(trimmed).split_once('=');
                if let Some((name, value)) = assigned.filter(|(name, _)| is_name(name)) {
                    stage.sets.push(Variable { line: number, name: name.to_owned(), value: value.to_owned() });
                }
                stage.environment.get_or_insert_default().push(line());
            }
            Some("runscript" | "startscript") => stage.start.push(line()),
            Some("test") => stage.test.get_or_insert((number, Vec::new())).1.push(line()),
            _ => {}
        }
    }
    for ((stage, defaults), used) in stages.iter_mut().zip(defaults).zip(used) {
        settle(stage, &defaults, used);
    }
    Recipe { path: path.to_owned(), kind: Kind::Definition, stages }
}

/// `Bootstrap: docker`, as the head of a stage has it. A colon within a script is none.
fn header(line: &str) -> Option<(&'static str, &str)> {
    let (key, value) = line.split_once(':')?;
    let key = ["bootstrap", "from", "stage"].into_iter().find(|known| known.eq_ignore_ascii_case(key.trim()))?;
    Some((key, value.trim()))
}

fn begin(stage: &mut Stage, number: usize, section: &str) {
    match section.split_whitespace().next().unwrap_or_default() {
        "environment" => {
            stage.environment.get_or_insert_default();
        }
        "runscript" => stage.entry = Some((number, String::new())),
        "test" => {
            stage.test.get_or_insert((number, Vec::new()));
        }
        _ => {}
    }
}

fn copy(number: usize, line: &str, section: &str) -> Option<CopyLine> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let source = words.next()?;
    let is_inner = section.split_whitespace().nth(1) == Some("from");
    let to = words.next().unwrap_or_else(|| source.clone());
    Some(CopyLine { line: number, sources: vec![source], to, is_inner, has_modes: false })
}

/// The names in `{{ NAME }}`.
fn placeholders(text: &str) -> Vec<String> {
    let parts = text.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    parts.map(|(name, _)| name.trim().to_owned()).filter(|name| is_name(name)).collect()
}

/// Puts the defaults of the build arguments where the base names one, and notes those that have none.
fn settle(stage: &mut Stage, defaults: &[Variable], used: Vec<(usize, String)>) {
    let find = |name: &str| defaults.iter().rfind(|default| default.name == name);
    if let Some(base) = &mut stage.base {
        for name in placeholders(&base.reference) {
            let Some(default) = find(&name) else {
                stage.base = None;
                break;
            };
            base.line = default.line;
            let (before, rest) = base.reference.split_once("{{").unwrap_or((&base.reference, ""));
            let after = rest.split_once("}}").map_or("", |(_, after)| after);
            base.reference = format!("{before}{}{after}", default.value);
        }
    }
    stage.arguments = used.iter().map(|(_, name)| name.clone()).collect();
    for (line, name) in used {
        let is_noted = stage.undeclared.iter().any(|(_, noted)| *noted == name);
        if find(&name).is_none() && !is_noted {
            stage.undeclared.push((line, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_and_sections_are_read() {
        let text = "# c\nBootstrap: docker\nFrom: {{ BASE }}\nStage: build\n%arguments\n    BASE=h/b:1\n%files\n  a /app/a\n%post\n  #!/bin/sh\n  # no\n  pixi install -e {{ENV}}\n\
                    bootstrap: docker\nfrom: h/c\n%files from build\n/x\n%environment\n  export A=1\n%runscript\n  exec \"$@\"\n%test\n";
        let recipe = parse("a.def", text);
        let [build, last] = recipe.stages.as_slice() else { panic!("{}", recipe.stages.len()) };
        assert_eq!(build.base.as_ref().map(|base| (base.line, base.reference.as_str())), Some((6, "h/b:1")));
        assert_eq!((build.installs(), build.undeclared.clone()), (Some(12), vec![(12, "ENV".to_owned())]));
        assert_eq!((build.copies[0].is_inner, last.copies[0].is_inner), (false, true));
        assert_eq!(last.copies[0].to, "/x");
        assert_eq!(last.variable("A").map(|variable| variable.line), Some(18));
        assert_eq!((last.start.len(), last.entry.clone()), (1, Some((19, String::new()))));
        assert_eq!(last.test.as_ref().map(|(line, lines)| (*line, lines.len())), Some((21, 0)));
    }

    #[test]
    fn what_is_no_definition_file_reads_as_something() {
        for text in ["", "%post\nx", "Bootstrap:", "Bootstrap: docker\nFrom: {{ A }}{{", "Bootstrap: docker\n%"] {
            parse("a.def", text);
        }
    }
}
