//! The texts of `*.dist-info`: headers as in mail, and the list of entry points.

use std::collections::BTreeMap;

/// A command that a wheel wants made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryPoint {
    /// The command's name.
    pub command: String,
    /// The module to import.
    pub module: String,
    /// The function, maybe of a class, to call.
    pub function: String,
}

impl EntryPoint {
    /// The script that runs it with the python of this `#!` line: the text is the one of uv, which is what pixi writes.
    pub(super) fn script(&self, shebang: &str) -> String {
        let Self { module, function, .. } = self;
        let import = function.split('.').next().unwrap_or(function);
        format!(
            "{shebang}\n\
             # -*- coding: utf-8 -*-\n\
             import sys\n\
             from {module} import {import}\n\
             if __name__ == \"__main__\":\n    \
             if sys.argv[0].endswith(\"-script.pyw\"):\n        \
             sys.argv[0] = sys.argv[0][:-11]\n    \
             elif sys.argv[0].endswith(\".exe\"):\n        \
             sys.argv[0] = sys.argv[0][:-4]\n    \
             sys.exit({function}())\n"
        )
    }
}

/// The name by which projects are compared (PyPA, "Names and normalization"): lower case, one `-` for each run of `-`, `_`
/// and `.`.
pub fn normalized_name(name: &str) -> String {
    let parts: Vec<_> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}

/// The first value of a header (PyPA, "Core metadata specifications"; the names are compared without case).
pub(super) fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let headers = text.lines().take_while(|line| !line.trim().is_empty());
    headers
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

/// The commands of `entry_points.txt`, sorted by their names (PyPA, "Entry points specification"). Extras are ignored, as
/// every installer does. Of one name the last stays, and a graphical one before a console's.
///
/// The commands of pip have the version of their python in the name, and wheels fit any: `pip3.x` is made from `pip3`.
pub(super) fn commands(text: &str, python_minor: u64) -> Result<Vec<EntryPoint>, String> {
    let (mut console, mut graphical) = (BTreeMap::new(), BTreeMap::new());
    let mut section = "";
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let commands = match section {
            "console_scripts" => &mut console,
            "gui_scripts" => &mut graphical,
            _ => continue,
        };
        let entry_point = entry_point(line).ok_or_else(|| format!("`{line}` is no entry point"))?;
        commands.insert(entry_point.command.clone(), entry_point);
    }
    console.retain(|command, _| command.strip_prefix("pip3.").is_none_or(|minor| minor.parse::<u8>().is_err()));
    if let Some(pip) = console.get("pip3").cloned() {
        let command = format!("pip3.{python_minor}");
        console.insert(command.clone(), EntryPoint { command, ..pip });
    }
    console.append(&mut graphical);
    Ok(console.into_values().collect())
}

/// `name = package.module:function.of [extra, ...]`. Module and function become text of a script, so of what is in them
/// nothing but names and dots passes.
fn entry_point(line: &str) -> Option<EntryPoint> {
    let (command, reference) = line.split_once('=')?;
    let reference = reference
        .split_once('[')
        .map_or(Some(reference), |(reference, extras)| extras.trim_end().strip_suffix(']').map(|_| reference))?;
    let (module, function) = reference.split_once(':')?;
    let (command, module, function) = (command.trim(), module.trim(), function.trim());
    let is_dotted = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    let is_command = !command.is_empty() && !command.contains(char::is_control);
    (is_command && is_dotted(module) && is_dotted(function)).then(|| EntryPoint {
        command: command.to_owned(),
        module: module.to_owned(),
        function: function.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_specification_says() {
        for name in ["friendly-bard", "Friendly-Bard", "friendly.bard", "friendly_bard", "FrIeNdLy-._.-bArD"] {
            assert_eq!(normalized_name(name), "friendly-bard");
        }
    }

    #[test]
    fn headers_end_at_the_first_empty_line_and_the_first_of_a_name_counts() {
        let text = "Metadata-Version: 2.1\nname: a\nName: b\nSummary: x: y\n\nVersion: 9\n";
        assert_eq!(header(text, "Name"), Some("a"));
        assert_eq!(header(text, "Summary"), Some("x: y"));
        assert_eq!(header(text, "Version"), None);
        assert_eq!(header("Name: a\r\n\r\nVersion: 9\r\n", "Version"), None);
    }

    #[test]
    fn commands_are_read_as_configparser_reads_them() {
        let text = "# a comment\n; another\n[other]\nx = not:this\n[console_scripts]\nb = pkg.cli:main\na=pkg:C.run [extra, more]\n\
                    \n[gui_scripts]\nGui   =   pkg : show\nb = pkg:window\n";
        let commands = commands(text, 12).unwrap();
        let shown: Vec<_> = commands.iter().map(|c| [c.command.as_str(), &c.module, &c.function]).collect();
        assert_eq!(shown, [["Gui", "pkg", "show"], ["a", "pkg", "C.run"], ["b", "pkg", "window"]]);
    }

    #[test]
    fn pip_gets_the_command_of_the_python_that_it_is_installed_for() {
        let text = "[console_scripts]\npip = p:m\npip3 = p:m\npip3.11 = p:m\nmem3.11 = m:m\n";
        let names: Vec<_> = commands(text, 13).unwrap().into_iter().map(|entry| entry.command).collect();
        assert_eq!(names, ["mem3.11", "pip", "pip3", "pip3.13"]);
    }

    #[test]
    fn what_is_no_entry_point_is_refused() {
        for value in [
            "x",
            "x = ",
            "x = pkg",
            "x = pkg:",
            "x = :main",
            "x = a:b[c",
            "= a:b",
            "x = a:b\u{1b}",
            "x = a:b;c",
            "x = a b:c",
        ] {
            let text = format!("[console_scripts]\n{value}\n");
            assert!(commands(&text, 12).is_err(), "{value:?}");
        }
    }
}
