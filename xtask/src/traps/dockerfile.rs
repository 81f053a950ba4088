//! Reads a Dockerfile: instructions over several lines, comments between them, documents, stages.

use crate::traps::recipe::{Base, CopyLine, Kind, Recipe, Stage, Variable};
use crate::traps::shell::{Line, end_of_document, is_name, variables};

/// One instruction.
struct Instruction {
    line: usize,
    keyword: String,
    /// Its lines without the keyword and what joins them.
    lines: Vec<Line>,
    /// The documents (`<<END`) that follow it.
    documents: Vec<Line>,
}

impl Instruction {
    fn text(&self) -> String {
        self.lines.iter().map(|line| line.text.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// Reads it.
pub fn parse(path: &str, text: &str) -> Recipe {
    let mut stages: Vec<Stage> = Vec::new();
    let mut global: Vec<Variable> = Vec::new();
    let mut declared: Vec<String> = Vec::new();
    for instruction in instructions(text) {
        let is_first = stages.is_empty() || instruction.keyword == "FROM";
        match instruction.keyword.as_str() {
            "ARG" if stages.is_empty() => global.extend(assignments(&instruction)),
            "FROM" => {
                let stage = from(&instruction, &global, &stages);
                declared = stage.from_stage.map_or(Vec::new(), |index: usize| {
                    stages.get(index).map_or(Vec::new(), |earlier: &Stage| earlier.arguments.clone())
                });
                declared.extend(stage.sets.iter().map(|variable| variable.name.clone()));
                stages.push(stage);
            }
            _ => {}
        }
        let Some(stage) = stages.last_mut().filter(|_| !is_first) else { continue };
        note_undeclared(stage, &instruction, &declared, &global);
        match instruction.keyword.as_str() {
            "ARG" => {
                let names = assignments(&instruction).into_iter().map(|variable| variable.name);
                stage.arguments.extend(names.clone());
                declared.extend(names);
            }
            "ENV" => {
                let variables = assignments(&instruction);
                declared.extend(variables.iter().map(|variable| variable.name.clone()));
                stage.sets.extend(variables);
            }
            "RUN" => run(stage, instruction),
            "COPY" | "ADD" => copy(stage, instruction),
            "ENTRYPOINT" => {
                stage.entry = Some((instruction.line, instruction.text()));
                stage.has_command = false;
            }
            "CMD" => stage.has_command = true,
            _ => {}
        }
    }
    mend_commands(&mut stages, text);
    // A global argument is one that may be given, even where no stage asks for it.
    if let Some(first) = stages.first_mut() {
        first.arguments.extend(global.into_iter().map(|variable| variable.name));
    }
    Recipe { path: path.to_owned(), kind: Kind::Dockerfile, stages }
}

/// An ENTRYPOINT removes only the base's command: one of the same stage holds, wherever it stands.
fn mend_commands(stages: &mut [Stage], text: &str) {
    let last = instructions(text).into_iter().rev().take_while(|instruction| instruction.keyword != "FROM");
    let has_command = last.filter(|instruction| instruction.keyword == "CMD").count() > 0;
    if let Some(stage) = stages.last_mut() {
        stage.has_command = has_command;
    }
}

fn instructions(text: &str) -> Vec<Instruction> {
    let escape = escape(text);
    let mut instructions: Vec<Instruction> = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, text)| (index + 1, text));
    while let Some((number, first)) = lines.next() {
        let Some((keyword, rest)) = keyword(first) else { continue };
        let mut instruction = Instruction {
            line: number,
            keyword: keyword.to_ascii_uppercase(),
            lines: Vec::new(),
            documents: Vec::new(),
        };
        let mut piece = Some((number, rest));
        while let Some((number, text)) = piece {
            let trimmed = text.trim_end();
            let is_comment =
                number != instruction.line && (trimmed.is_empty() || trimmed.trim_start().starts_with('#'));
            let joined = trimmed.strip_suffix(escape);
            if !is_comment {
                instruction.lines.push(Line { number, text: joined.unwrap_or(trimmed).to_owned() });
            }
            piece = if is_comment || joined.is_some() { lines.next() } else { None };
        }
        if ["RUN", "COPY", "ADD"].contains(&instruction.keyword.as_str()) {
            let text = instruction.text();
            let ends = text.match_indices("<<").filter_map(|(at, _)| end_of_document(&text[at + 2..]));
            for end in ends.collect::<Vec<_>>() {
                for (number, text) in lines.by_ref() {
                    if text.trim() == end {
                        break;
                    }
                    instruction.documents.push(Line { number, text: text.to_owned() });
                }
            }
        }
        instructions.push(instruction);
    }
    instructions
}

/// What joins lines: a directive at the top may name another character than the backslash.
fn escape(text: &str) -> char {
    let directives = text.lines().map_while(|line| line.trim().strip_prefix('#'));
    let mut values = directives.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.trim() == "escape");
    values.next().and_then(|(_, value)| value.trim().chars().next()).filter(|c| *c == '`').unwrap_or('\\')
}

fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    (!keyword.is_empty() && (rest.is_empty() || rest.starts_with([' ', '\t', '\\'])))
        .then(|| (keyword, rest.trim_start()))
}

fn from(instruction: &Instruction, global: &[Variable], stages: &[Stage]) -> Stage {
    let words: Vec<String> = words(&instruction.text()).into_iter().filter(|word| !word.starts_with("--")).collect();
    let reference = words.first().and_then(|word| expand(word, global));
    let name = match words.get(1..) {
        Some([word, name, ..]) if word.eq_ignore_ascii_case("as") => name.to_ascii_lowercase(),
        _ => String::new(),
    };
    let earlier = |reference: &String| {
        let index = stages.iter().rposition(|stage| stage.name == reference.to_ascii_lowercase());
        index.filter(|_| !reference.is_empty())
    };
    let from_stage = reference.as_ref().and_then(earlier);
    let mut stage = Stage { line: instruction.line, name, from_stage, ..Stage::default() };
    match from_stage.and_then(|index| stages.get(index)) {
        Some(earlier) => {
            stage.base.clone_from(&earlier.base);
            stage.sets.clone_from(&earlier.sets);
            stage.build.clone_from(&earlier.build);
            stage.entry.clone_from(&earlier.entry);
        }
        None => stage.base = reference.map(|reference| Base { line: instruction.line, reference }),
    }
    // Where the reference is an argument, its default is what has to be changed.
    let named = variables(words.first().map_or("", String::as_str));
    let default = named.first().and_then(|name| global.iter().rfind(|variable| variable.name == *name));
    if let (Some(base), Some(default)) = (stage.base.as_mut().filter(|_| from_stage.is_none()), default) {
        base.line = default.line;
    }
    stage
}

/// The text with its arguments replaced; none where one of them has no value.
fn expand(text: &str, global: &[Variable]) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at + 1..];
        let (inner, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}')?,
            None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
        };
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        let value = global.iter().rfind(|variable| variable.name == name).map(|variable| variable.value.as_str());
        result += value.filter(|value| !value.is_empty()).or(default)?;
        rest = after;
    }
    Some(result + rest)
}

fn run(stage: &mut Stage, instruction: Instruction) {
    let mut lines = instruction.lines;
    // `--mount` and the like belong to Docker, not to the shell.
    let mut is_option = true;
    for line in &mut lines {
        while is_option {
            let text = line.text.trim_start();
            if text.is_empty() {
                break;
            }
            is_option = text.starts_with("--");
            if is_option {
                line.text = text.split_once([' ', '\t']).map_or(String::new(), |(_, rest)| rest.to_owned());
            }
        }
    }
    let text = lines.iter().map(|line| line.text.trim()).collect::<Vec<_>>().join(" ");
    if text.starts_with('[') {
        stage.build.push(Line { number: instruction.line, text: words(&text).join(" ") });
        return;
    }
    let last = lines.len().saturating_sub(1);
    for (index, line) in lines.into_iter().enumerate() {
        // The shell reads one line where Docker's are joined.
        let text = if index < last { format!("{} \\", line.text) } else { line.text };
        stage.build.push(Line { text, ..line });
    }
    let is_script = text.starts_with("<<");
    if is_script {
        stage.build.pop();
    }
    let end = text.split_once("<<").and_then(|(_, rest)| end_of_document(rest)).filter(|_| !is_script);
    stage.build.extend(instruction.documents);
    stage.build.extend(end.map(|text| Line { number: instruction.line, text }));
}

fn copy(stage: &mut Stage, instruction: Instruction) {
    let text = instruction.text();
    let (mut options, mut rest) = (Vec::new(), text.trim());
    while rest.starts_with("--") {
        let (option, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        options.push(option);
        rest = after.trim_start();
    }
    let mut words = words(rest);
    let Some(to) = words.pop() else { return };
    let has = |name: &str| options.iter().any(|option| option.starts_with(name));
    // A document is a file that is written, as by a script.
    stage.build.extend(instruction.documents.into_iter().map(|line| Line { text: format!(": {}", line.text), ..line }));
    words.retain(|word| !word.starts_with("<<"));
    let (is_inner, has_modes) = (has("--from="), has("--chmod="));
    stage.copies.push(CopyLine { line: instruction.line, sources: words, to, is_inner, has_modes });
}

/// An argument that another stage declares is empty in one that does not.
fn note_undeclared(stage: &mut Stage, instruction: &Instruction, declared: &[String], global: &[Variable]) {
    let is_expanded =
        ["RUN", "COPY", "ADD", "ENV", "WORKDIR", "USER", "LABEL", "ARG"].contains(&instruction.keyword.as_str());
    for line in instruction.lines.iter().filter(|_| is_expanded) {
        for name in variables(&line.text) {
            let is_set = stage.build.iter().chain(&instruction.lines).any(|line| {
                let sets = |text: &str| text.starts_with(&format!("{name}="));
                line.text.split([' ', '\t', ';', '"']).any(sets)
            });
            let is_known = declared.iter().any(|known| known == name) || is_set;
            if !is_known && global.iter().any(|variable| variable.name == name) {
                stage.undeclared.push((line.number, name.to_owned()));
            }
        }
    }
}

/// `NAME=value` pairs, or the old form `NAME value`.
fn assignments(instruction: &Instruction) -> Vec<Variable> {
    let mut found = Vec::new();
    for Line { number, text } in &instruction.lines {
        let words = words(text);
        let is_old = instruction.keyword == "ENV" && words.first().is_some_and(|word| !word.contains('='));
        if is_old && found.is_empty() {
            let name = words.first().cloned().unwrap_or_default();
            let value = words.get(1..).unwrap_or_default().join(" ");
            found.push(Variable { line: *number, name, value });
            continue;
        }
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            if is_name(name) {
                found.push(Variable { line: *number, name: name.to_owned(), value: value.to_owned() });
            }
        }
    }
    found
}

/// The words of a text, or of a list as JSON has it, without their quotes.
fn words(text: &str) -> Vec<String> {
    let list = text.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let spaced = list.map(|list| list.replace("\",", "\" ").replace("' ,", "' "));
    let text = spaced.as_deref().unwrap_or(text);
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', _) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_with_lines_that_are_joined_and_comments_between_them() {
        let text = "# x\nARG BASE=\"h/b:1\"\nFROM ${BASE} AS build\nRUN --mount=type=cache,target=/x \\\n    pixi install \\\n    # why\n    && echo '$@'\n\
                    from build\nENV A=1 \\\n    B=\"2 3\"\nENV C 4 5\ncopy --from=build --chmod=0755 [\"a b\", \"c\"]\nENTRYPOINT [ \"/e\" ]\n";
        let recipe = parse("Dockerfile", text);
        let [build, last] = recipe.stages.as_slice() else { panic!("{}", recipe.stages.len()) };
        assert_eq!(build.base.as_ref().map(|base| (base.line, base.reference.as_str())), Some((2, "h/b:1")));
        assert_eq!(build.installs(), Some(5));
        assert_eq!((last.line, last.from_stage), (8, Some(0)));
        let sets: Vec<_> = last.sets.iter().map(|one| (one.line, one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(sets, [(9, "A", "1"), (10, "B", "2 3"), (11, "C", "4 5")]);
        let copy = &last.copies[0];
        assert_eq!((copy.sources.as_slice(), copy.to.as_str()), (["a b".to_owned()].as_slice(), "c"));
        assert!(copy.is_inner && copy.has_modes && !last.has_command);
        assert_eq!(last.entry, Some((13, "[ \"/e\" ]".to_owned())));
    }

    #[test]
    fn a_document_is_a_script_or_a_file_that_one_writes() {
        let recipe = parse("Dockerfile", "FROM x\nRUN <<EOF\npixi install\nEOF\nRUN cat <<'E' >f\npixi lock\nE\n");
        let commands: Vec<_> =
            recipe.stages[0].commands().into_iter().map(|command| (command.line, command.words.join(" "))).collect();
        assert_eq!(commands[0], (3, "pixi install".to_owned()));
        assert!(!commands.iter().any(|(_, text)| text == "pixi lock"), "{commands:?}");
    }

    #[test]
    fn an_argument_belongs_to_the_stages_that_declare_it() {
        let text = "ARG A=1\nARG B=2\nFROM x AS y\nARG A\nRUN echo $A $B $C '$B'\nFROM y\nCOPY $A /x\n";
        let recipe = parse("Dockerfile", text);
        assert_eq!(recipe.stages[0].undeclared, [(5, "B".to_owned())]);
        assert!(recipe.stages[1].undeclared.is_empty());
    }

    #[test]
    fn what_is_no_dockerfile_reads_as_something() {
        for text in ["", "FROM", "FROM \\", "RUN \\\n\\\n", "COPY <<E\n", "\u{feff}FROM x", "FROM ${", "ENV =", "[["] {
            parse("Dockerfile", text);
        }
    }
}
