//! Manifests as they come.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

/// A table of dependencies or constraints.
type Table = BTreeMap<&'static str, &'static str>;

/// What a feature, the whole manifest, or an environment says.
#[derive(Clone, Debug)]
struct Part {
    dependencies: Table,
    constraints: Table,
    linux: Table,
    settings: Vec<&'static str>,
}

/// An environment: its features, whether it leaves the default one out, its solve group.
#[derive(Clone, Debug)]
struct Environment {
    features: Vec<usize>,
    without_default: bool,
    group: Option<&'static str>,
}

/// A manifest.
#[derive(Clone, Debug)]
pub struct Written {
    platforms: &'static str,
    general: Vec<&'static str>,
    parts: Vec<Part>,
    environments: Vec<Environment>,
}

fn table() -> impl Strategy<Value = Table> {
    let pairs = [
        ("tool", ["*", ">=1", "1.*", "<3"]),
        ("lib", ["*", ">=2", ">=1,<3", "2.0"]),
        ("both", ["*", "*", "1.*", ">=2"]),
        ("only-extra", ["*"; 4]),
        ("native", ["*"; 4]),
        ("python", ["*", ">=3.12", "3.12.*", "<4"]),
        ("pytorch-cpu", ["*", ">=2", "2.8.*", "*"]),
    ];
    let pairs: Vec<_> = pairs.into_iter().flat_map(|(name, specs)| specs.map(|spec| (name, spec))).collect();
    prop::collection::vec(prop::sample::select(pairs), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn part() -> impl Strategy<Value = Part> {
    let settings = vec![
        "channel-priority = \"disabled\"",
        "solve-strategy = \"lowest\"",
        "solve-strategy = \"lowest-direct\"",
        "channels = [{ channel = \"{extra}\", priority = 1 }]",
        "platforms = [\"linux-64\"]",
    ];
    (table(), table(), table(), prop::sample::subsequence(settings, 0..2))
        .prop_map(|(dependencies, constraints, linux, settings)| Part { dependencies, constraints, linux, settings })
}

/// Any manifest of the supported language, or nearly so.
pub fn any_manifest() -> impl Strategy<Value = Written> {
    let platforms = prop::sample::select(vec![
        "\"linux-64\"",
        "\"linux-64\", \"osx-arm64\"",
        "\"linux-64\", { name = \"box\", platform = \"linux-64\", cuda = \"12\" }",
    ]);
    let general = vec!["exclude-newer = \"2021-01-01\"", "channel-priority = \"flexible\"", "exclude-newer = \"30d\""];
    let environment = (prop::sample::subsequence(vec![1, 2], 0..=2), any::<bool>(), prop::option::of(Just("g")))
        .prop_map(|(features, without_default, group)| Environment { features, without_default, group });
    let environments = prop::collection::vec(environment, 0..3);
    let general = prop::sample::subsequence(general, 0..2);
    (platforms, general, prop::collection::vec(part(), 3), environments)
        .prop_map(|(platforms, general, parts, environments)| Written { platforms, general, parts, environments })
}

impl Written {
    /// As text, in which `{main}` and `{extra}` stand for channels.
    pub fn text(&self) -> String {
        let mut text =
            format!("[workspace]\nchannels = [\"{{main}}\", \"{{extra}}\"]\nplatforms = [{}]\n", self.platforms);
        for line in &self.general {
            writeln!(text, "{line}").unwrap();
        }
        for (index, part) in self.parts.iter().enumerate() {
            let prefix = if index == 0 { String::new() } else { format!("feature.f{index}.") };
            if index > 0 {
                writeln!(text, "[feature.f{index}]\n{}", part.settings.join("\n")).unwrap();
            }
            let tables = [
                ("dependencies", &part.dependencies),
                ("constraints", &part.constraints),
                ("target.linux.dependencies", &part.linux),
            ];
            for (name, table) in tables {
                writeln!(text, "[{prefix}{name}]").unwrap();
                table.iter().for_each(|(name, spec)| writeln!(text, "{name} = \"{spec}\"").unwrap());
            }
        }
        text.push_str("[environments]\n");
        for (index, Environment { features, without_default, group }) in self.environments.iter().enumerate() {
            let features: Vec<_> = features.iter().map(|feature| format!("\"f{feature}\"")).collect();
            let group = group.map(|group| format!(", solve-group = \"{group}\"")).unwrap_or_default();
            let features = features.join(", ");
            writeln!(text, "e{index} = {{ features = [{features}], no-default-feature = {without_default}{group} }}")
                .unwrap();
        }
        text
    }
}
