//! What holds for every manifest: edits of generated ones, in all forms that TOML has for the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use toml_edit::{Document, Item, TableLike, Value};

use crate::manifest_edit::{Dependency, Edited, ManifestError, PlatformStyle, Request, finish, for_rehearsal};

/// One section of a manifest: its header, where it has one, and its lines.
type Section = Vec<String>;

/// What a manifest is made of, before comments and blank lines go between.
#[derive(Clone, Debug)]
struct Parts {
    /// Dotted keys and inline tables in front of all headers.
    root: Vec<String>,
    sections: Vec<Section>,
}

fn lines(text: &str) -> Section {
    text.lines().map(str::to_owned).collect()
}

/// An array on one line, or on several with and without a comma at its end.
fn array(values: Vec<String>, form: u8) -> String {
    match form {
        0 => format!("[{}]", values.join(", ")),
        1 => format!("[ {} ]", values.join(" , ")),
        2 if !values.is_empty() => format!("[\n    {},\n]", values.join(",\n    ")),
        3 if !values.is_empty() => format!("[\n  {}\n]", values.join(",\n  ")),
        _ => format!("[{}\n]", values.join(",\n   ")),
    }
}

fn platforms(rich: bool) -> impl Strategy<Value = String> {
    let plain = ["linux-64", "osx-arm64", "win-64", "linux-aarch64", "osx-64"].map(|name| format!("\"{name}\""));
    let with_cuda = [
        r#"{ name = "linux-64-cuda", platform = "linux-64", cuda = "12" }"#,
        r#"{name="win-64-cuda",platform="win-64",cuda="12"}"#,
        r#"{ platform = "linux-64", cuda = "12.4" }"#,
        r#"{ name = "jetson", platform = "linux-aarch64", cuda = "12.8", glibc = "2.31" }"#,
        r#"{ name = "board", platform = "linux-riscv64" }"#,
    ];
    let most = if rich { with_cuda.len() } else { 0 };
    let rows = subsequence(with_cuda.map(str::to_owned).to_vec(), usize::from(rich)..=most);
    (subsequence(plain.to_vec(), 0..=5).prop_shuffle(), rows, 0..5u8)
        .prop_map(|(plain, rows, form)| array(plain.into_iter().chain(rows).collect(), form))
}

fn workspace(rich: bool) -> impl Strategy<Value = Parts> {
    (platforms(rich), select(vec!["workspace", "project"]), 0..3u8).prop_map(|(platforms, name, form)| {
        let keys = ["name = \"x\"", "channels = [\"conda-forge\"]", &format!("platforms = {platforms}")];
        match form {
            0 => Parts { root: Vec::new(), sections: vec![lines(&format!("[{name}]\n{}", keys.join("\n")))] },
            1 => Parts { root: keys.map(|key| format!("{name}.{key}")).to_vec(), sections: Vec::new() },
            // An inline table has no line breaks of its own; an array in it may have some.
            _ => Parts { root: vec![format!("{name} = {{ {} }}", keys.join(", "))], sections: Vec::new() },
        }
    })
}

/// A table with one key in each way that TOML has; empty for none.
fn table(path: &str, line: &str, form: u8) -> Parts {
    let parts = |root: Vec<String>, sections| Parts { root, sections };
    let (parent, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    let (key, value) = line.split_once(" = ").unwrap();
    match form {
        0 => parts(Vec::new(), vec![lines(&format!("[{path}]\n{line}"))]),
        1 if !parent.is_empty() => parts(Vec::new(), vec![lines(&format!("[{parent}]\n{leaf}.{line}"))]),
        2 if !parent.is_empty() => parts(Vec::new(), vec![lines(&format!("[{parent}]\n{leaf} = {{ {line} }}"))]),
        3 => parts(vec![format!("{path}.{line}")], Vec::new()),
        4 => parts(vec![format!("{path} = {{{key}={value}}}")], Vec::new()),
        5 if path.ends_with("dependencies") => {
            parts(Vec::new(), vec![lines(&format!("[{path}]\n  {line}\n  \"quoted\" = '*'"))])
        }
        _ => parts(Vec::new(), Vec::new()),
    }
}

/// Tables of the features, of the workspace and of the environments. No two of them define the same table.
fn tables(rich: bool) -> impl Strategy<Value = Vec<Parts>> {
    let gpu = if rich {
        vec![("feature.gpu.dependencies", "pytorch-gpu = '>=2.8'"), ("feature.gpu", "platforms = ['linux-64-cuda']")]
    } else {
        vec![
            ("feature.gpu.system-requirements", "cuda = '12.4'"),
            ("feature.gpu.target.linux-64.dependencies", "pytorch-gpu = '2.*'"),
            ("feature.gpu.target.win-64.dependencies", "numpy = '2.*'"),
            ("feature.gpu.dependencies", "python = '3.13.*'"),
        ]
    };
    let common = [
        ("dependencies", "python = \"3.13.*\""),
        ("feature.cpu.dependencies", "pytorch-cpu = { version = \">=2\", channel = \"conda-forge\" }"),
        ("feature.test.dependencies", "PyTest = '*'"),
        ("environments", "cpu = [\"cpu\", \"test\"]"),
        ("environments.gpu", "features = ['test']"),
        ("tasks", "say = \"echo '# no comment' \\\" # nor this\""),
        ("tool.notes", "text = '''\n# no comment\n  '' neither ''''"),
    ];
    let all: Vec<_> = common.into_iter().chain(gpu).collect();
    let count = all.len();
    (subsequence(all, 0..=count), prop::collection::vec(0..7u8, count)).prop_map(|(chosen, forms)| {
        chosen.into_iter().zip(forms).map(|((path, line), form)| table(path, line, form)).collect()
    })
}

/// A manifest with comments, each with a number of its own, in the places where TOML takes one.
fn manifest() -> impl Strategy<Value = String> {
    let parts = any::<bool>().prop_flat_map(|rich| (workspace(rich), tables(rich)));
    let decor = prop::collection::vec(0..8u8, 64);
    (parts, decor, any::<u64>(), 0..4u8).prop_filter_map(
        "a table is there twice",
        |((workspace, tables), decor, seed, ends)| {
            let mut root = workspace.root;
            let mut sections = workspace.sections;
            let (dotted, others): (Vec<_>, Vec<_>) =
                tables.into_iter().map(|table| (table.root, table.sections)).unzip();
            sections.extend(others.into_iter().flatten());
            // The dotted keys of one table stand together; where they do not, an edit is refused.
            let mut dotted: Vec<_> = dotted.into_iter().flatten().collect();
            dotted.sort();
            root.extend(dotted);
            let root = root.iter().flat_map(|entry| lines(entry)).collect();
            let turn = usize::try_from(seed % 7).unwrap_or(0) % sections.len().max(1);
            sections.rotate_left(turn);
            let text = decorate(std::iter::once(root).chain(sections), &decor);
            let text = match ends {
                0 => text.replace('\n', "\r\n"),
                1 => format!("\u{feff}{text}"),
                2 => text.trim_end().to_owned(),
                _ => text,
            };
            // Some forms of two tables do not go together; the parser knows which.
            Document::parse(text.clone()).is_ok().then_some(text)
        },
    )
}

fn decorate(sections: impl Iterator<Item = Section>, decor: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0;
    let mut decor = decor.iter().copied().cycle();
    let mut open = 0i32;
    let mut quoted = false;
    for line in sections.flatten() {
        let kind = decor.next().unwrap_or_default();
        let inside = quoted;
        quoted ^= line.contains("'''") && line.matches("'''").count() % 2 == 1;
        if kind == 1 && !inside && open == 0 {
            text.push_str("\n\n");
        }
        if kind == 2 && !inside {
            number += 1;
            text.push_str(&format!("# c{number}.\n"));
        }
        text.push_str(&line);
        if kind >= 6 && !quoted {
            number += 1;
            text.push_str(&format!(" # c{number}."));
        }
        text.push('\n');
        open += i32::try_from(line.matches('[').count()).unwrap() - i32::try_from(line.matches(']').count()).unwrap();
    }
    if decor.next() > Some(3) {
        text.push_str(&format!("\n# c{}.\n", number + 1));
    }
    text
}

fn request() -> impl Strategy<Value = Request> {
    let dependencies =
        ["numpy", "python>=3.12", "pytorch-gpu>=2.9", "pytest=8"].map(|spec| spec.parse::<Dependency>().unwrap());
    let some = |values: &[&str]| {
        subsequence(values.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), 0..=values.len())
    };
    (
        some(&["bioconda", "https://prefix.dev/x"]),
        some(&["linux-aarch64", "linux-64"]),
        select(vec![None, None, Some("12"), Some("12.9")]),
        select(vec![None, Some("gpu"), Some("test"), Some("new")]),
        subsequence(dependencies.to_vec(), 0..=4),
    )
        .prop_map(|(channels, platforms, cuda, feature, dependencies)| Request {
            style: None,
            channels,
            platforms,
            cuda: cuda.map(str::to_owned),
            feature: feature.map(str::to_owned),
            dependencies,
        })
}

fn comments(text: &str) -> Vec<&str> {
    let end = |part: &str| part.find('.').map_or(0, |end| end + 1);
    text.split("# c").skip(1).map(|part| &part[..end(part)]).filter(|part| part.len() > 1 && part.len() < 5).collect()
}

/// Every value below a table that is neither a table nor an array, by its path; and the values of arrays.
fn leaves(table: &dyn TableLike, path: &str, into: &mut BTreeMap<String, String>) {
    for (key, item) in table.iter() {
        let path = format!("{path}.{key}");
        match (item.as_table_like(), item.as_array()) {
            (Some(below), _) => leaves(below, &path, into),
            (None, Some(array)) => array.iter().for_each(|value| {
                into.insert(format!("{path} has {}", bare(value)), String::new());
            }),
            (None, None) => {
                into.insert(path, item.as_value().map(bare).unwrap_or_default());
            }
        }
    }
}

fn bare(value: &Value) -> String {
    value.clone().decorated("", "").to_string().replace("\r\n", "\n")
}

fn all_leaves(text: &str) -> BTreeMap<String, String> {
    let document = Document::parse(text).unwrap();
    let mut found = BTreeMap::new();
    leaves(document.as_table(), "", &mut found);
    found
}

fn blank_lines(text: &str) -> usize {
    text.lines().filter(|line| line.trim().is_empty()).count()
}

/// Edits twice: the second edit has nothing to do.
fn settled(text: &str, request: &Request) -> Result<Edited, ManifestError> {
    let edited = finish(text, request)?;
    let again = finish(&edited.text, request).unwrap_or_else(|error| panic!("{error}\n{}", edited.text));
    assert_eq!(again.text, edited.text, "the second edit changes nothing");
    assert!(again.changes.is_empty(), "{:?} in\n{}", again.changes, edited.text);
    assert_eq!(
        edited.text == text,
        edited.changes.is_empty(),
        "what changed is said: {:?}\n{}",
        edited.changes,
        edited.text
    );
    Ok(edited)
}

fn sorted(mut comments: Vec<&str>) -> Vec<&str> {
    comments.sort_unstable();
    comments
}

/// The words of TOML and of manifests, to be put together without sense.
fn words() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "\r\n",
        "#",
        " ",
        "'",
        "\"",
        "'''",
        "\"\"\"",
        "\\",
        "workspace",
        "project",
        "platforms",
        "channels",
        "feature",
        "gpu",
        "cpu",
        "dependencies",
        "system-requirements",
        "cuda",
        "target",
        "linux-64",
        "\"linux-64\"",
        "\"12\"",
        "environments",
        "features",
        "pytorch-gpu",
        "name",
        "platform",
        "[workspace]\n",
        "[feature.gpu]\n",
        "[environments]\n",
        "platforms = [\"linux-64\"]\n",
        "x = 1\n",
        "1",
        "true",
        "ä",
        "\u{feff}",
    ];
    prop::collection::vec(select(words.to_vec()), 0..40).prop_map(|words| words.concat())
}

fn adds_and_takes_nothing_away(text: &str) {
    let before = all_leaves(text);
    let Edited { text: edited, .. } =
        settled(text, &Request::default()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(comments(text), comments(&edited), "comments, in their order:\n{text}\n{edited}");
    let after = all_leaves(&edited);
    for (path, value) in &before {
        assert_eq!(Some(value), after.get(path), "{path} in\n{text}\n{edited}");
    }
    assert!(blank_lines(text) <= blank_lines(&edited), "blank lines:\n{text}\n{edited}");
    assert!(!text.contains("\r\n") || !edited.replace("\r\n", "").contains('\n'), "line ends: {edited:?}");
    assert_eq!(text.starts_with('\u{feff}'), edited.starts_with('\u{feff}'));
}

fn has_what_was_asked_for(text: &str, request: &Request) {
    let edited = match settled(text, request) {
        Ok(edited) => edited.text,
        Err(ManifestError::Refused { reason, .. }) if reason.contains("would be the same") => return,
        Err(error) => panic!("{error}\n{text}"),
    };
    assert_eq!(comments(text), comments(&edited), "{text}\n{edited}");
    let after = all_leaves(&edited);
    let owner = request.feature.as_ref().map(|feature| format!(".feature.{feature}")).unwrap_or_default();
    for dependency in &request.dependencies {
        let key = format!("dependencies.{}", dependency.name);
        let is_owned =
            |path: &str| path.starts_with(&owner) && (request.feature.is_some() || !path.starts_with(".feature"));
        let is_it = |path: &str| is_owned(path) && path.to_lowercase().ends_with(&key);
        let mut found = after.iter().filter(|(path, _)| is_it(path)).map(|(_, value)| value.trim_matches(['"', '\'']));
        let fits = |version: &str| dependency.version == "*" || version == dependency.version;
        // One that stands there as a table with a key for the version fits any.
        let is_table = after.keys().any(|path| is_it(path.trim_end_matches(".version")));
        assert!(found.any(fits) || (dependency.version == "*" && is_table), "{dependency} in {owner}:\n{edited}");
    }
    for channel in &request.channels {
        let entry = format!("channels has \"{channel}\"");
        assert!(after.keys().any(|path| path.ends_with(&entry)), "{edited}");
    }
}

fn changes_style_or_is_refused(text: &str, rich: bool, request: Request) {
    let style = Some(if rich { PlatformStyle::Rich } else { PlatformStyle::Legacy });
    let edited = match settled(text, &Request { style, ..request }) {
        Ok(edited) => edited.text,
        Err(ManifestError::Refused { .. }) => return,
        Err(error) => panic!("{error}\n{text}"),
    };
    assert_eq!(sorted(comments(text)), sorted(comments(&edited)), "{text}\n{edited}");
    let after = all_leaves(&edited);
    assert_eq!(after.keys().any(|path| path.contains("platforms has {")), rich, "{edited}");
    assert_eq!(after.keys().any(|path| path.contains("system-requirements")), !rich, "{edited}");
}

fn is_refused_with_a_place_or_edited(damaged: &str) {
    let (line, column) = match finish(damaged, &Request::default()) {
        Ok(edited) => {
            let text = edited.text;
            let document = Document::parse(text.as_str()).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let gpu = document.get("feature").and_then(|feature| feature.get("gpu"));
            assert!(gpu.is_some_and(Item::is_table_like), "{text}");
            // It looks at all features, an edit at those of the exercise.
            let rehearsed = for_rehearsal(&text, "http://127.0.0.1:8765");
            assert!(matches!(rehearsed, Ok(_) | Err(ManifestError::Shape { .. })), "{rehearsed:?}\n{text}");
            return;
        }
        Err(ManifestError::Syntax { line, column, .. }) => (line, column),
        Err(ManifestError::Shape { line, column, .. }) => (line, column),
        Err(ManifestError::Refused { line, column, .. }) => (line, column),
        Err(ManifestError::NoWorkspace | ManifestError::NoImagePlatform) => return,
    };
    assert!((1..=damaged.lines().count() + 1).contains(&line) && column >= 1, "{line}:{column}\n{damaged}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_adds_and_takes_nothing_away(text in manifest()) {
        adds_and_takes_nothing_away(&text);
    }

    #[test]
    fn what_is_asked_for_is_there_afterwards_and_the_comments_are_too(text in manifest(), request in request()) {
        has_what_was_asked_for(&text, &request);
    }

    #[test]
    fn a_change_of_style_keeps_every_comment_or_is_refused(
        text in manifest(),
        rich in any::<bool>(),
        request in request(),
    ) {
        changes_style_or_is_refused(&text, rich, request);
    }

    #[test]
    fn a_text_without_sense_is_refused_or_edited_but_never_ends_in_a_panic(text in words(), request in request()) {
        if let Ok(edited) = finish(&text, &request) {
            prop_assert!(Document::parse(edited.text.clone()).is_ok(), "{}", edited.text);
            prop_assert_eq!(finish(&edited.text, &request).map(|again| again.text), Ok(edited.text.clone()));
        }
        let _ = for_rehearsal(&text, "http://127.0.0.1:8765");
    }

    #[test]
    fn a_manifest_that_was_damaged_is_refused_with_a_place_or_edited(
        text in manifest(),
        at in any::<prop::sample::Index>(),
        word in words(),
    ) {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
        let place = places[at.index(places.len())];
        is_refused_with_a_place_or_edited(&format!("{}{word}{}", &text[..place], &text[place..]));
    }
}
