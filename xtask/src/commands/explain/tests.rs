use std::collections::BTreeSet;

use super::*;

/// The parts of a station's text, in order; the third goes through the lesson.
const PARTS: [&str; 6] =
    ["What it does", "Why", "The lesson, piece by piece", "What can go wrong", "What to look at", "A question"];
const WRONG: usize = 3;
const WIDTH: usize = 100;

/// The recipes and workflows that are explained line by line: the station, ours, and the lesson's.
const FILES: [(&str, &[&str], &str); 4] = [
    ("recipe-docker", &["recipes/Dockerfile", "recipes/.dockerignore"], "exact/Dockerfile"),
    ("recipe-apptainer", &["recipes/apptainer.def"], "exact/apptainer.def"),
    ("workflows-docker", &["workflows/docker.yaml"], "exact/docker.yaml"),
    ("workflows-apptainer", &["workflows/apptainer.yaml"], "exact/apptainer.yaml"),
];

fn page(name: &str) -> Page {
    Page::read(name).unwrap_or_else(|| panic!("there is no lesson/explain/{name}.md"))
}

fn stations() -> impl Iterator<Item = (&'static Station, Page)> {
    STATIONS.iter().map(|station| (station, page(&station.word())))
}

/// What stands before the first heading, and each heading with its text.
fn sections(text: &'static str) -> (&'static str, Vec<(&'static str, &'static str)>) {
    let mut pieces = text.split("\n## ");
    let head = pieces.next().unwrap();
    (head, pieces.map(|piece| piece.split_once("\n\n").unwrap_or((piece, ""))).collect())
}

/// The ids of traps in a text.
fn ids(text: &str) -> BTreeSet<String> {
    let is_id = |word: &&str| word.len() == 3 && word.starts_with('T') && word[1..].bytes().all(|b| b.is_ascii_digit());
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).map(str::to_owned).collect()
}

/// The lines of the code that follows a line of these words.
fn quoted(text: &'static str, words: &str) -> Vec<&'static str> {
    let words = format!("\n{words}\n\n");
    let starts = text.match_indices(&words).map(|(at, found)| at + found.len());
    let code = |at: usize| text[at..].lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    starts.flat_map(code).map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Whether the quoted line is the file's, which may break off.
fn is_line(quoted: &str, line: &str) -> bool {
    let line = line.trim();
    quoted.strip_suffix("...").map_or(quoted == line, |beginning| line.starts_with(beginning.trim_end()))
}

fn lesson(path: &str) -> &'static str {
    lesson::text(path).unwrap_or_else(|| panic!("there is no lesson/{path}"))
}

#[test]
fn every_station_has_a_text_with_all_its_parts_in_order() {
    for (station, page) in stations() {
        let (head, sections) = sections(page.text);
        let headings: Vec<_> = sections.iter().map(|(heading, _)| *heading).collect();
        assert_eq!(headings, PARTS, "{}", page.name);
        assert!(sections.iter().all(|(_, text)| text.len() > 80), "{}: a part is all but empty", page.name);
        assert!(head.starts_with(&format!("# {}: ", station.name)), "{head}");
        let command = match station.command().as_str() {
            command if command.starts_with("cargo xtask explain") => "by hand, as told here".to_owned(),
            command => format!("`{command}`"),
        };
        let section =
            if station.section.is_empty() { "not there".to_owned() } else { format!("\"{}\"", station.section) };
        assert!(head.ends_with(&format!("\n\nIn the lesson: {section}\nDo it: {command}\n")), "{head}");
    }
}

#[test]
fn every_station_asks_a_question_whose_answer_is_folded() {
    for (_, page) in stations() {
        let (question, answer) = page.text.split_once(FOLD[0]).unwrap_or_else(|| panic!("{}", page.name));
        assert!(question.split_once(QUESTION).unwrap().1.contains('?'), "{}", page.name);
        assert!(answer.ends_with(FOLD[1]) && answer.matches("details").count() == 1, "{}", page.name);
        let (folded, answer) = (page.folded(), page.parts().1.unwrap());
        assert!(answer.len() > 80 && !folded.contains(answer) && !folded.contains("details"), "{}", page.name);
        assert!(folded.ends_with(&format!("`cargo xtask explain {} --answer`", page.name)), "{folded}");
        let answered = page.answered().unwrap();
        assert!(answered.starts_with(QUESTION) && answered.ends_with(answer), "{answered}");
    }
}

#[test]
fn each_trap_bites_at_a_station_and_none_is_made_up() {
    let all: BTreeSet<_> = (1..=21).map(|number| format!("T{number:02}")).collect();
    assert_eq!(ids(page(TRAPS).text), all);
    let mut told = BTreeSet::new();
    for (_, page) in stations() {
        let wrong = sections(page.text).1[WRONG].1;
        for id in ids(wrong) {
            assert!(wrong.contains(&format!("- {id}: ")), "{}: {id} begins no line", page.name);
            told.insert(id);
        }
        assert!(ids(page.text).is_subset(&all), "{}", page.name);
    }
    assert_eq!(told, all, "each trap is told where it bites");
}

#[test]
fn what_is_quoted_stands_in_the_files() {
    for (name, ours, exact) in FILES {
        let text = page(name).text;
        for (words, files) in [("Ours:", ours), ("The lesson:", &[exact] as &[_])] {
            let lines = quoted(text, words);
            assert!(!lines.is_empty(), "{name}: {words}");
            let stands =
                |quoted: &&str| files.iter().any(|path| lesson(path).lines().any(|line| is_line(quoted, line)));
            let made_up: Vec<_> = lines.into_iter().filter(|line| !stands(line)).collect();
            assert!(made_up.is_empty(), "{name}: {words} {made_up:#?}");
        }
    }
}

#[test]
fn the_start_is_shown_as_it_is() {
    let manifest = lesson("exercise/pixi.toml").lines();
    let indented = manifest.map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") });
    assert!(page("start").text.contains(&indented.collect::<String>()));
}

#[test]
fn no_line_of_ours_and_of_the_lessons_recipes_is_left_unexplained() {
    // The second workflow explains what differs from the first.
    let shared: Vec<_> = ["Ours:", "The lesson:"].map(|words| quoted(page("workflows-docker").text, words)).concat();
    for (name, ours, exact) in FILES {
        let files = if name.starts_with("recipe") { [ours, &[exact]].concat() } else { ours.to_vec() };
        let text = page(name).text;
        let quoted: Vec<_> = ["Ours:", "The lesson:"].map(|words| quoted(text, words)).concat();
        for path in files {
            let lines = lesson(path)
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && *line != "#" && !line.starts_with("# "));
            let is_told = |line: &&str| quoted.iter().chain(&shared).any(|quoted| is_line(quoted, line));
            let left: Vec<_> = lines.filter(|line| !is_told(line)).collect();
            assert!(left.is_empty(), "{path}: {left:#?}");
        }
    }
}

#[test]
fn the_map_names_all_and_fits_a_terminal() {
    let map = map();
    let mut rest = map.as_str();
    for (station, page) in stations().filter(|(station, _)| !station.section.is_empty()) {
        let line = rest.lines().find(|line| line.starts_with(&format!("  {} ", station.name))).unwrap();
        assert!(line.contains(page.title()) && line.ends_with(&station.command()), "{line}");
        assert!(map.contains(&format!("\n## {}\n", station.section)), "{}", station.section);
        rest = rest.split_once(line).unwrap().1;
    }
    for topic in topics().into_iter().chain(["rehearse"]) {
        assert!(rest.contains(&format!("\n  {topic} ")), "{topic}");
    }
    assert!(map.lines().all(|line| line.chars().count() <= WIDTH), "{map}");
}

#[test]
fn every_text_has_a_title_and_fits_a_terminal() {
    for name in lesson::names(FOLDER) {
        let text = page(name).text;
        assert!(text.starts_with("# "), "{name}");
        let wide = text.lines().find(|line| line.chars().count() > WIDTH);
        assert!(wide.is_none(), "{name}: {wide:?}");
    }
}

#[test]
fn a_text_is_found_by_what_learners_call_it() {
    let name = |words| Page::find(words).map(|page| page.name);
    for words in ["build docker", "build-docker", "Build Docker", "build oci"] {
        assert_eq!(name(words).as_deref(), Some("build docker"), "{words}");
    }
    for (words, found) in [
        ("Dockerfile", "recipe docker"),
        ("apptainer.def", "recipe apptainer"),
        ("test sif", "run apptainer"),
        ("version control", "commit"),
        ("traps", "traps"),
        ("Locking", "locking"),
        ("T05", "t05"),
    ] {
        assert_eq!(name(words).as_deref(), Some(found), "{words}");
    }
    assert!(Page::find("t21").unwrap().text.starts_with("## T21: ") && Page::find("T22").is_none());
    assert_eq!(name("Slurm").as_deref(), Some("submit"));
    assert!(topics().into_iter().all(|topic| stations::find(topic).is_none()), "a topic hides behind a step");
    assert!(["build", "nothing", ""].iter().all(|words| name(words).is_none()));
}

#[test]
fn every_trap_says_once_what_exact_does_and_what_ours_does() {
    let text = page(TRAPS).text;
    let traps: Vec<_> = text.split("\n## ").skip(1).collect();
    assert_eq!(traps.len(), 21);
    for (index, trap) in traps.iter().enumerate() {
        assert!(trap.starts_with(&format!("T{:02}: ", index + 1)), "{trap}");
        for side in ["\n- exact: ", "\n- ours: "] {
            assert_eq!(trap.matches(side).count(), 1, "{trap}");
        }
    }
}
