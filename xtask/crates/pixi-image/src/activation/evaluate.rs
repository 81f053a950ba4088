//! What activation scripts set, worked out without running them.
//!
//! Nothing may be executed while an image is built, and `docker exec` passes no entrypoint: only values that are known at
//! build time reach it. Nearly all scripts of conda packages stay inside a small part of the shell's language, whose
//! outcome follows from the image alone. That part is evaluated here, as bash reads it; what leaves it is refused with its
//! line, never guessed at: other programs, substitutions of commands, what only a running container knows.

mod conditions;
mod expansion;
mod files;
mod pattern;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod variables;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use brush_parser::ast::{self, SourceLocation};

pub use files::{FileKind, Files};
use variables::{Unknowns, Variable};

/// A script of an environment.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its absolute path in the image.
    pub path: &'a str,
    /// Its content; none where that is not known, as of a link.
    pub content: Option<&'a [u8]>,
}

/// What scripts change in the environment of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Variables with a new value.
    pub set: BTreeMap<String, String>,
    /// Variables that were there and are no more.
    pub unset: BTreeSet<String>,
}

/// Why the outcome of scripts is not known before they run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{script}, line {line}: {what}")]
pub struct NotStatic {
    /// The script's path in the image.
    pub script: String,
    /// The line, from 1.
    pub line: usize,
    /// What stands there, as the end of a sentence.
    pub what: String,
}

/// What a script holds that is not evaluated; the place is known one level up.
type Result<T> = std::result::Result<T, String>;

/// Scripts of packages have some kB; one that is longer is not parsed.
const MAX_SCRIPT: usize = 1 << 16;
/// What may open a level of nesting: it bounds the depth of recursion in the parser and here.
const MAX_OPENERS: usize = 2000;
/// Enough for that depth in a build without optimisation; touched only as far as it is used.
const STACK: usize = 256 << 20;
/// The longest string that Linux hands to a program (execve(2), MAX_ARG_STRLEN).
const MAX_VALUE: usize = (1 << 17) - 1;
/// How deep functions may call each other.
const MAX_CALLS: usize = 50;
/// Bounds loops, and all work on characters.
const FUEL: u64 = 100_000_000;
/// What one command costs of it.
const COMMAND_COST: u64 = 1000;

/// Works out what `scripts` change, read one after the other by one shell that was started with `env`. `prefixes`
/// are the environment's, where it is shown and where it is installed, and `files` is what the image holds.
pub fn evaluate(
    scripts: &[Source<'_>],
    env: &[(String, String)],
    prefixes: &[String],
    files: &dyn Files,
) -> std::result::Result<Outcome, NotStatic> {
    let unreadable = || NotStatic {
        script: scripts.first().map(|script| script.path.to_owned()).unwrap_or_default(),
        line: 1,
        what: "it cannot be parsed".to_owned(),
    };
    std::thread::scope(|scope| {
        let shell = || Shell::new(env, prefixes, files).run(scripts);
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, shell);
        // A parser that panics is no reason to stop a build.
        thread.map_err(|_| unreadable())?.join().unwrap_or_else(|_| Err(unreadable()))
    })
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break(usize),
    Continue(usize),
    Return,
}

/// The state of the shell that is not there.
struct Shell<'a> {
    prefixes: &'a [String],
    files: &'a dyn Files,
    initial: BTreeMap<String, String>,
    variables: BTreeMap<String, Variable>,
    unknowns: Unknowns,
    functions: HashMap<String, Rc<ast::FunctionBody>>,
    arguments: Vec<String>,
    /// For each function that is being called: what its local variables hid.
    calls: Vec<Vec<(String, Option<Variable>)>>,
    loops: usize,
    status: i64,
    script: usize,
    line: usize,
    fuel: u64,
}

impl<'a> Shell<'a> {
    fn new(env: &[(String, String)], prefixes: &'a [String], files: &'a dyn Files) -> Self {
        let initial: BTreeMap<_, _> = env.iter().filter(|(name, _)| super::is_name(name)).cloned().collect();
        let known = initial.iter().filter(|(name, _)| !variables::is_of_the_container(name));
        let variables = known.map(|(name, value)| (name.clone(), Variable::imported(value))).collect();
        Self {
            prefixes,
            files,
            initial,
            variables,
            unknowns: Unknowns::default(),
            functions: HashMap::new(),
            arguments: Vec::new(),
            calls: Vec::new(),
            loops: 0,
            status: 0,
            script: 0,
            line: 1,
            fuel: FUEL,
        }
    }

    fn run(mut self, scripts: &[Source<'_>]) -> std::result::Result<Outcome, NotStatic> {
        let place = |script: usize, line, what| NotStatic { script: scripts[script].path.to_owned(), line, what };
        for value in self.initial.values() {
            if value.chars().any(Unknowns::is_mark) {
                let what = "the image's variables hold characters for private use".to_owned();
                return Err(place(0, 1, what));
            }
        }
        for (number, script) in scripts.iter().enumerate() {
            (self.script, self.line) = (number, 1);
            self.source(script).map_err(|what| place(number, self.line, what))?;
        }
        self.outcome().map_err(|(script, line, what)| place(script, line, what))
    }

    fn source(&mut self, script: &Source<'_>) -> Result<()> {
        let content = script.content.ok_or("what it holds is not known: it is no plain file of a package")?;
        let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8")?;
        if text.len() > MAX_SCRIPT {
            return Err(format!("it is longer than {MAX_SCRIPT} bytes"));
        }
        if text.contains('\0') || text.chars().any(Unknowns::is_mark) {
            return Err("it holds NUL bytes, or characters for private use".to_owned());
        }
        let brackets = text.chars().filter(|character| "({[".contains(*character)).count();
        let words = text.split(|c: char| !c.is_ascii_alphabetic());
        let openers = words.filter(|word| ["if", "case", "for", "while", "until", "select"].contains(word)).count();
        if brackets + openers > MAX_OPENERS {
            return Err("it is nested too much to be parsed".to_owned());
        }
        let options = brush_parser::ParserOptions::default();
        let mut parser = brush_parser::Parser::new(text.as_bytes(), &options, &brush_parser::SourceInfo::default());
        let program = parser.parse_program().map_err(|error| {
            use brush_parser::ParseError;
            match error {
                ParseError::ParsingNearToken(token) => self.line = token.location().start.line,
                ParseError::Tokenizing { position: Some(position), .. } => self.line = position.line,
                _ => self.line = text.lines().count().max(1),
            }
            "what stands there cannot be parsed".to_owned()
        })?;
        for list in &program.complete_commands {
            if self.list(list)? != Flow::Next {
                break; // `return` ends the script that is read, not the shell
            }
        }
        Ok(())
    }

    /// What is exported in the end and was not at the start, or the script and line where an unknown value was set.
    fn outcome(&self) -> std::result::Result<Outcome, (usize, usize, String)> {
        let mut outcome = Outcome::default();
        for (name, variable) in &self.variables {
            match &variable.value {
                Some(value) if variable.exported => {
                    let what = |known| format!("it gives {name} {known}");
                    self.known(value).map_err(|known| (variable.script, variable.line, what(known)))?;
                    if self.initial.get(name) != Some(value) {
                        outcome.set.insert(name.clone(), value.clone());
                    }
                }
                _ if self.initial.contains_key(name) => drop(outcome.unset.insert(name.clone())),
                _ => {}
            }
        }
        Ok(outcome)
    }

    fn spend(&mut self, cost: u64) -> Result<()> {
        self.fuel = self.fuel.checked_sub(cost).ok_or("it takes too many steps")?;
        Ok(())
    }

    fn list(&mut self, list: &ast::CompoundList) -> Result<Flow> {
        for ast::CompoundListItem(commands, separator) in &list.0 {
            if matches!(separator, ast::SeparatorOperator::Async) {
                self.at(commands);
                return Err("a command in the background".to_owned());
            }
            let mut flow = self.pipeline(&commands.first)?;
            for next in &commands.additional {
                let (wanted, pipeline) = match next {
                    ast::AndOr::And(pipeline) => (true, pipeline),
                    ast::AndOr::Or(pipeline) => (false, pipeline),
                };
                if flow == Flow::Next && (self.status == 0) == wanted {
                    flow = self.pipeline(pipeline)?;
                }
            }
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline) -> Result<Flow> {
        let [command] = pipeline.seq.as_slice() else {
            self.at(pipeline);
            return Err("a pipe".to_owned());
        };
        if pipeline.timed.is_some() {
            return Err("`time`".to_owned());
        }
        let flow = self.command(command)?;
        if pipeline.bang && flow == Flow::Next {
            self.status = i64::from(self.status == 0);
        }
        Ok(flow)
    }

    fn at(&mut self, place: &impl SourceLocation) {
        if let Some(location) = place.location() {
            self.line = location.start.line;
        }
    }

    fn command(&mut self, command: &ast::Command) -> Result<Flow> {
        self.spend(COMMAND_COST)?;
        match command {
            ast::Command::Simple(simple) => self.simple(simple),
            ast::Command::Compound(compound, redirects) => {
                self.at(compound);
                self.redirects(redirects.iter().flat_map(|redirects| &redirects.0))?;
                self.compound(compound)
            }
            ast::Command::Function(function) => {
                let name = &function.fname.value;
                if !super::is_name(name) || BUILTINS.contains(&name.as_str()) {
                    self.at(&function.fname);
                    return Err(format!("a function with the name `{name}`"));
                }
                self.functions.insert(name.clone(), Rc::new(function.body.clone()));
                self.status = 0;
                Ok(Flow::Next)
            }
            ast::Command::ExtendedTest(test) => {
                self.at(test);
                self.status = i64::from(!self.extended_test(&test.expr)?);
                Ok(Flow::Next)
            }
        }
    }

    fn compound(&mut self, compound: &ast::CompoundCommand) -> Result<Flow> {
        match compound {
            ast::CompoundCommand::BraceGroup(group) => self.list(&group.list),
            ast::CompoundCommand::IfClause(clause) => self.if_clause(clause),
            ast::CompoundCommand::CaseClause(clause) => self.case_clause(clause),
            ast::CompoundCommand::ForClause(clause) => self.for_clause(clause),
            ast::CompoundCommand::WhileClause(clause) => self.while_clause(clause, true),
            ast::CompoundCommand::UntilClause(clause) => self.while_clause(clause, false),
            ast::CompoundCommand::Subshell(_) => Err("a subshell".to_owned()),
            ast::CompoundCommand::Arithmetic(_) | ast::CompoundCommand::ArithmeticForClause(_) => {
                Err("arithmetic".to_owned())
            }
        }
    }

    fn if_clause(&mut self, clause: &ast::IfClauseCommand) -> Result<Flow> {
        let mut branches = vec![(Some(&clause.condition), &clause.then)];
        branches.extend(clause.elses.iter().flatten().map(|branch| (branch.condition.as_ref(), &branch.body)));
        for (condition, body) in branches {
            if let Some(condition) = condition {
                let flow = self.list(condition)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                if self.status != 0 {
                    continue;
                }
            }
            return self.list(body);
        }
        self.status = 0;
        Ok(Flow::Next)
    }

    fn case_clause(&mut self, clause: &ast::CaseClauseCommand) -> Result<Flow> {
        self.at(&clause.value);
        let value = self.text(&clause.value.value, false)?;
        for case in &clause.cases {
            for pattern in &case.patterns {
                self.at(pattern);
                if !self.matches(&value, &pattern.value)? {
                    continue;
                }
                if !matches!(case.post_action, ast::CaseItemPostAction::ExitCase) {
                    return Err("`;&` or `;;&`".to_owned());
                }
                self.status = 0;
                return case.cmd.as_ref().map_or(Ok(Flow::Next), |list| self.list(list));
            }
        }
        self.status = 0;
        Ok(Flow::Next)
    }

    fn for_clause(&mut self, clause: &ast::ForClauseCommand) -> Result<Flow> {
        let mut values = Vec::new();
        match &clause.values {
            None => values.clone_from(&self.arguments),
            Some(words) => {
                for word in words {
                    self.at(word);
                    values.extend(self.fields(&word.value)?);
                }
            }
        }
        self.status = 0;
        for value in values {
            self.assign(&clause.variable_name, value)?;
            if let Some(flow) = self.turn(&clause.body.list)? {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn while_clause(&mut self, clause: &ast::WhileOrUntilClauseCommand, wanted: bool) -> Result<Flow> {
        let ast::WhileOrUntilClauseCommand(condition, body, _) = clause;
        let mut status = 0;
        loop {
            self.spend(COMMAND_COST)?;
            let flow = self.list(condition)?;
            if flow != Flow::Next {
                return Err("a jump out of a loop's condition".to_owned());
            }
            if (self.status == 0) != wanted {
                self.status = status;
                return Ok(Flow::Next);
            }
            if let Some(flow) = self.turn(&body.list)? {
                return Ok(flow);
            }
            status = self.status;
        }
    }

    /// One turn of a loop; some flow where the loop ends with it.
    fn turn(&mut self, body: &ast::CompoundList) -> Result<Option<Flow>> {
        self.loops += 1;
        let flow = self.list(body);
        self.loops -= 1;
        Ok(match flow? {
            Flow::Next | Flow::Continue(1) => None,
            Flow::Break(1) => Some(Flow::Next),
            Flow::Break(levels) => Some(Flow::Break(levels - 1)),
            Flow::Continue(levels) => Some(Flow::Continue(levels - 1)),
            Flow::Return => Some(Flow::Return),
        })
    }

    /// Output that goes nowhere changes nothing; any other redirection is refused.
    fn redirects<'r>(&mut self, redirects: impl Iterator<Item = &'r ast::IoRedirect>) -> Result<()> {
        for redirect in redirects {
            let harmless = match redirect {
                ast::IoRedirect::File(_, kind, ast::IoFileRedirectTarget::Filename(word)) => {
                    word.value == "/dev/null" && !matches!(kind, ast::IoFileRedirectKind::ReadAndWrite)
                }
                ast::IoRedirect::File(_, _, ast::IoFileRedirectTarget::Fd(number)) => matches!(number, 1 | 2),
                ast::IoRedirect::File(
                    _,
                    ast::IoFileRedirectKind::DuplicateOutput,
                    ast::IoFileRedirectTarget::Duplicate(word),
                ) => matches!(word.value.as_str(), "1" | "2"),
                ast::IoRedirect::OutputAndError(word, _) => word.value == "/dev/null",
                _ => false,
            };
            if !harmless {
                return Err("a redirection, or a here-document".to_owned());
            }
        }
        Ok(())
    }

    fn simple(&mut self, simple: &ast::SimpleCommand) -> Result<Flow> {
        use ast::CommandPrefixOrSuffixItem as Item;
        self.at(simple);
        let prefix = simple.prefix.iter().flat_map(|prefix| &prefix.0);
        let suffix: Vec<_> = simple.suffix.iter().flat_map(|suffix| &suffix.0).collect();
        let both = prefix.clone().chain(suffix.iter().copied());
        self.redirects(both.filter_map(|item| match item {
            Item::IoRedirect(redirect) => Some(redirect),
            _ => None,
        }))?;
        let assignments: Vec<_> = prefix.filter(|item| !matches!(item, Item::IoRedirect(_))).collect();
        let Some(name) = &simple.word_or_name else {
            for item in assignments {
                let Item::AssignmentWord(assignment, _) = item else { return Err("a process substitution".to_owned()) };
                let (name, value) = self.assignment(assignment)?;
                self.assign(&name, value)?;
            }
            self.status = 0;
            return Ok(Flow::Next);
        };
        if !assignments.is_empty() {
            return Err("an assignment in front of a command".to_owned());
        }
        let declares = matches!(name.value.as_str(), "export" | "local");
        let mut words = self.fields(&name.value)?;
        let mut declared = Vec::new();
        for item in suffix {
            match item {
                Item::IoRedirect(_) => {}
                Item::ProcessSubstitution(..) => return Err("a process substitution".to_owned()),
                Item::AssignmentWord(assignment, _) if declares => {
                    let (name, value) = self.assignment(assignment)?;
                    declared.push((name, Some(value)));
                }
                Item::AssignmentWord(_, word) | Item::Word(word) => {
                    let fields = self.fields(&word.value)?;
                    if declares {
                        declared.extend(fields.into_iter().filter(|field| field != "--").map(|field| {
                            match field.split_once('=') {
                                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                                None => (field, None),
                            }
                        }));
                    } else {
                        words.extend(fields);
                    }
                }
            }
        }
        let Some((name, arguments)) = words.split_first() else {
            self.status = 0;
            return Ok(Flow::Next);
        };
        self.known(name).map_err(|known| format!("a command whose name is {known}"))?;
        match name.as_str() {
            "export" | "local" if declares => self.declare(name == "local", declared),
            name => self.builtin(name, arguments),
        }
    }

    fn declare(&mut self, local: bool, declared: Vec<(String, Option<String>)>) -> Result<Flow> {
        for (name, value) in declared {
            if name.starts_with('-') {
                return Err(format!("an option of `{}`", if local { "local" } else { "export" }));
            }
            if local {
                self.localize(&name)?;
            } else if value.is_none() && variables::is_of_the_container(&name) && !self.variables.contains_key(&name) {
                continue; // where it is set at all, it is exported
            } else {
                variables::check_name(&name)?;
                let origin = Variable { value: None, exported: true, script: self.script, line: self.line };
                self.variables.entry(name.clone()).or_insert(origin).exported = true;
            }
            if let Some(value) = value {
                self.assign(&name, value)?;
            }
        }
        self.status = 0;
        Ok(Flow::Next)
    }

    fn builtin(&mut self, name: &str, arguments: &[String]) -> Result<Flow> {
        let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call(&body, arguments);
        }
        self.status = match (name, texts.as_slice()) {
            (":" | "true", _) => 0,
            ("false", _) => 1,
            ("echo", _) => 0,
            ("printf", [format, ..]) if !format.starts_with('-') => 0,
            ("hash", ["-r"]) => 0,
            ("[", [words @ .., "]"]) | ("test", words) => i64::from(!self.test(words)?),
            ("set", options) if !options.is_empty() => self.set(options)?,
            ("unset", words) => self.unset(words)?,
            ("return", []) if self.status >= 0 => return Ok(Flow::Return),
            ("return", [status]) => {
                let status = status.parse::<u8>().map_err(|_| "`return` with something else than a number")?;
                self.status = status.into();
                return Ok(Flow::Return);
            }
            ("break" | "continue", levels) if levels.len() < 2 => {
                let levels = levels.first().map_or(Ok(1), |levels| levels.parse::<usize>());
                let levels = levels.ok().filter(|levels| (1..=self.loops).contains(levels));
                let levels = levels.ok_or_else(|| format!("`{name}` outside of its loops"))?;
                self.status = 0;
                return Ok(if name == "break" { Flow::Break(levels) } else { Flow::Continue(levels) });
            }
            ("shift", []) if !self.arguments.is_empty() => {
                self.arguments.remove(0);
                0
            }
            ("." | "source", _) => return Err("another file is read".to_owned()),
            _ if BUILTINS.contains(&name) => return Err(format!("`{name}` as it is used there")),
            _ => return Err(format!("the command `{name}`")),
        };
        Ok(Flow::Next)
    }

    fn call(&mut self, body: &ast::FunctionBody, arguments: &[String]) -> Result<Flow> {
        if self.calls.len() == MAX_CALLS {
            return Err("functions that call each other without end".to_owned());
        }
        let ast::FunctionBody(compound, redirects) = body;
        self.redirects(redirects.iter().flat_map(|redirects| &redirects.0))?;
        let hidden = std::mem::replace(&mut self.arguments, arguments.to_vec());
        let loops = std::mem::take(&mut self.loops);
        self.calls.push(Vec::new());
        let flow = self.compound(compound);
        for (name, variable) in self.calls.pop().into_iter().flatten().rev() {
            match variable {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
        (self.arguments, self.loops) = (hidden, loops);
        flow.map(|_| Flow::Next)
    }

    /// Options that are off may be turned off; the others change how all that follows is read.
    fn set(&mut self, options: &[&str]) -> Result<i64> {
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let harmless = match *option {
                "+o" => options.next().is_some_and(|name| HARMLESS_OPTIONS.contains(name)),
                option => {
                    option.len() > 1 && option.strip_prefix('+').is_some_and(|l| l.chars().all(|l| "euxv".contains(l)))
                }
            };
            if !harmless {
                return Err(format!("`set {option}`"));
            }
        }
        Ok(0)
    }

    fn unset(&mut self, words: &[&str]) -> Result<i64> {
        let (functions, names) = match words {
            ["-f", names @ ..] => (true, names),
            ["-v", names @ ..] => (false, names),
            names => (false, names),
        };
        for name in names {
            self.known(name).map_err(|known| format!("`unset` of {known}"))?;
            let is_variable = self.variables.contains_key(*name);
            if functions || (!is_variable && words[0] != "-v" && self.functions.contains_key(*name)) {
                self.functions.remove(*name);
            } else if variables::is_of_the_container(name) && !is_variable || *name == "PATH" {
                return Err(format!("`unset {name}`"));
            } else {
                variables::check_name(name)?;
                let unset = Variable { value: None, exported: false, script: self.script, line: self.line };
                self.variables.insert((*name).to_owned(), unset);
            }
        }
        Ok(0)
    }
}

/// Options that `set +o` may turn off.
const HARMLESS_OPTIONS: &[&str] = &["errexit", "nounset", "pipefail", "verbose", "xtrace"];

/// What is no program: the names of the shell's own commands.
const BUILTINS: &[&str] = &[
    ".", ":", "[", "alias", "bind", "break", "builtin", "case", "cd", "command", "continue", "declare", "dirs", "echo",
    "enable", "esac", "eval", "exec", "exit", "export", "false", "fi", "for", "getopts", "hash", "if", "let", "local",
    "mapfile", "popd", "printf", "pushd", "pwd", "read", "readonly", "return", "set", "shift", "shopt", "source",
    "test", "then", "trap", "true", "type", "typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
];
