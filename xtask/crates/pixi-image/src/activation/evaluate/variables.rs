//! Variables: what is known of their values.

use super::{MAX_VALUE, Result, Shell};
use crate::activation::{ACTIVATED, is_name};
use brush_parser::ast;

/// A variable that is in the environment at the start, or that a script touched.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its value, in which marks of [`Unknowns`] may stand; none where it is not set.
    pub value: Option<String>,
    /// Whether programs see it.
    pub exported: bool,
    /// The script that set it last.
    pub script: usize,
    /// The line there.
    pub line: usize,
}

impl Variable {
    pub fn imported(value: &str) -> Self {
        Self { value: Some(value.to_owned()), exported: true, script: 0, line: 1 }
    }
}

/// What is known of a parameter.
pub enum Lookup {
    Unset,
    /// Set; marks may stand in the value.
    Set(String),
    /// Only the running container knows whether it is set.
    Maybe,
}

/// Values that only the running container knows. Each is one character for private use in the values that hold it: so a
/// value may be carried about, and is refused where it would decide something or get into the image.
#[derive(Default)]
pub struct Unknowns(Vec<(String, bool)>);

/// Supplementary Private Use Area-A.
const FIRST_MARK: u32 = 0xF_0000;
const LAST_MARK: u32 = 0xF_FFFD;

impl Unknowns {
    pub fn is_mark(character: char) -> bool {
        (FIRST_MARK..=LAST_MARK).contains(&u32::from(character))
    }

    /// The mark of a parameter's value, which may be known not to be empty.
    fn mark(&mut self, name: &str, filled: bool) -> Result<char> {
        let known = self.0.iter().position(|(known, same)| known == name && *same == filled);
        let at = known.unwrap_or_else(|| {
            self.0.push((name.to_owned(), filled));
            self.0.len() - 1
        });
        let mark = u32::try_from(at).ok().map(|at| FIRST_MARK + at).filter(|mark| *mark <= LAST_MARK);
        mark.and_then(char::from_u32).ok_or_else(|| "too many variables".to_owned())
    }

    pub fn of(&self, mark: char) -> Option<&(String, bool)> {
        let at = u32::from(mark).checked_sub(FIRST_MARK)?;
        self.0.get(usize::try_from(at).ok()?)
    }
}

/// What every shell sets, or bash does, whatever it was started with.
const OF_THE_SHELL: &[&str] = &[
    "_",
    "COLUMNS",
    "DIRSTACK",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "HOSTNAME",
    "HOSTTYPE",
    "IFS",
    "LINENO",
    "LINES",
    "MACHTYPE",
    "OPTERR",
    "OPTIND",
    "OSTYPE",
    "PIPESTATUS",
    "PPID",
    "PS4",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
    "EPOCHSECONDS",
    "EPOCHREALTIME",
];
/// What a container's runtime, scheduler or caller sets, or does not.
const OF_THE_CALLER: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "DISPLAY",
    "EDITOR",
    "ENV",
    "HOME",
    "LOGNAME",
    "MAIL",
    "OLDPWD",
    "PAGER",
    "PS1",
    "PS2",
    "SHELL",
    "TEMP",
    "TERM",
    "TMP",
    "TMPDIR",
    "USER",
    "USERNAME",
    "WAYLAND_DISPLAY",
];
const OF_THE_CALLERS: &[&str] = &[
    "APPTAINER_",
    "DBUS_",
    "KUBERNETES_",
    "LSB_",
    "OMPI_",
    "PBS_",
    "PMI_",
    "PMIX_",
    "SGE_",
    "SINGULARITY_",
    "SLURM_",
    "SSH_",
    "XDG_",
    "_CONDOR_",
    "_HTCONDOR_",
];
/// Setting these changes how a shell reads what follows, or is forbidden.
const SPECIAL: &[&str] = &["BASH_ENV", "ENV", "GLOBIGNORE", "IFS", "OLDPWD", "POSIXLY_CORRECT", "PS4", "PWD", "SHLVL"];

fn is_of_the_shell(name: &str) -> bool {
    OF_THE_SHELL.contains(&name) || name.starts_with("BASH") || name.starts_with("COMP_")
}

/// Whether only the running container knows the value, whatever the image's `Env` says.
pub fn is_of_the_container(name: &str) -> bool {
    is_of_the_shell(name)
        || OF_THE_CALLER.contains(&name)
        || OF_THE_CALLERS.iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses names that a script must not set here.
pub fn check_name(name: &str) -> Result<()> {
    if !is_name(name) {
        return Err("a variable without a plain name".to_owned());
    }
    if is_of_the_shell(name) || SPECIAL.contains(&name) || name == ACTIVATED {
        return Err(format!("it sets or unsets {name}"));
    }
    Ok(())
}

impl Shell<'_> {
    /// What a mark says to a reader; an error where the text holds one.
    pub fn known(&self, text: &str) -> Result<()> {
        let unknown = text.chars().filter(|character| Unknowns::is_mark(*character)).find_map(|m| self.unknowns.of(m));
        match unknown {
            None => Ok(()),
            Some((name, _)) if is_name(name) => {
                Err(format!("the value of {name}, which only a running container knows"))
            }
            Some((name, _)) => Err(format!("the value of ${name}, which only a running container knows")),
        }
    }

    /// Whether a text is empty, where that is known.
    pub fn emptiness(&self, text: &str) -> Option<bool> {
        let filled = |c| !Unknowns::is_mark(c) || self.unknowns.of(c).is_some_and(|(_, filled)| *filled);
        match text {
            "" => Some(true),
            text => text.chars().any(filled).then_some(false),
        }
    }

    pub fn unknown(&mut self, name: &str, filled: bool) -> Result<String> {
        Ok(self.unknowns.mark(name, filled)?.to_string())
    }

    /// A parameter by name, number or sign; `@` and `*` are the caller's to handle.
    pub fn lookup(&mut self, name: &str) -> Result<Lookup> {
        match name {
            "#" => return Ok(Lookup::Set(self.arguments.len().to_string())),
            "?" => return Ok(Lookup::Set(self.status.to_string())),
            "$" | "0" => return self.unknown(name, true).map(Lookup::Set),
            "-" => return self.unknown(name, false).map(Lookup::Set),
            "!" => return Ok(Lookup::Maybe),
            _ => {}
        }
        if let Ok(number) = name.parse::<usize>() {
            let argument = number.checked_sub(1).and_then(|at| self.arguments.get(at));
            return Ok(argument.map_or(Lookup::Unset, |argument| Lookup::Set(argument.clone())));
        }
        Ok(match self.variables.get(name) {
            Some(Variable { value: Some(value), .. }) => Lookup::Set(value.clone()),
            Some(_) => Lookup::Unset,
            // Of arrays nothing is known.
            None if ["DIRSTACK", "FUNCNAME", "GROUPS", "PIPESTATUS", "COLUMNS", "LINES"].contains(&name) => {
                Lookup::Maybe
            }
            None if name == "BASH_ENV" || name.starts_with("COMP_") => Lookup::Maybe,
            None if is_of_the_shell(name) => Lookup::Set(self.unknown(name, true)?),
            None if is_of_the_container(name) => Lookup::Maybe,
            None => Lookup::Unset,
        })
    }

    /// The name and the new value of an assignment.
    pub fn assignment(&mut self, assignment: &ast::Assignment) -> Result<(String, String)> {
        let (ast::AssignmentName::VariableName(name), ast::AssignmentValue::Scalar(word)) =
            (&assignment.name, &assignment.value)
        else {
            self.line = assignment.loc.start.line;
            return Err("an array".to_owned());
        };
        self.line = assignment.loc.start.line;
        let value = self.text(&word.value, true)?;
        if !assignment.append {
            return Ok((name.clone(), value));
        }
        match self.lookup(name)? {
            Lookup::Set(old) => Ok((name.clone(), old + &value)),
            Lookup::Unset => Ok((name.clone(), value)),
            Lookup::Maybe => Err(format!("it adds to {name}, which only a running container knows")),
        }
    }

    pub fn assign(&mut self, name: &str, value: String) -> Result<()> {
        check_name(name)?;
        if name.len() + 1 + value.len() > MAX_VALUE {
            return Err(format!("{name} gets longer than any process can have it"));
        }
        let exported = match self.variables.get(name) {
            Some(variable) => variable.exported,
            None if is_of_the_container(name) => return Err(format!("it sets {name} without `export`")),
            None => false,
        };
        let variable = Variable { value: Some(value), exported, script: self.script, line: self.line };
        self.variables.insert(name.to_owned(), variable);
        Ok(())
    }

    /// Makes a name local to the function that is called.
    pub fn localize(&mut self, name: &str) -> Result<()> {
        check_name(name)?;
        let call = self.calls.last_mut().ok_or("`local` outside of a function")?;
        if !call.iter().any(|(known, _)| known == name) {
            call.push((name.to_owned(), self.variables.get(name).cloned()));
        }
        let unset = Variable { value: None, exported: false, script: self.script, line: self.line };
        self.variables.insert(name.to_owned(), unset);
        Ok(())
    }
}
