//! Real shells are the oracle: what is evaluated must be what bash sets, and dash where it can read the script.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;

/// The files of this machine, which here is the image.
struct Machine;

impl Files for Machine {
    fn kind(&self, path: &str) -> Option<FileKind> {
        let data = fs::metadata(path).ok()?;
        let mode = (data.permissions().mode() & 0o7777) as u16;
        Some(if data.is_dir() { FileKind::Directory { mode } } else { FileKind::File { mode, size: data.len() } })
    }

    fn names(&self, directory: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_encoded_bytes()).collect()
    }
}

/// A directory with an environment in it, which is shown by a link, as in an image.
struct Place {
    directory: tempfile::TempDir,
    prefix: String,
    installed: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [prefix, installed] = ["envs/a b", "installed"].map(|place| directory.path().join(place));
        fs::create_dir_all(prefix.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("../installed", &prefix).unwrap();
        let [prefix, installed] = [prefix, installed].map(|place| place.to_str().unwrap().to_owned());
        let file = |path: &str, mode: u32, content: &str| {
            let path = Path::new(&installed).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        file("bin/tool", 0o755, "x");
        file("bin/empty", 0o644, "");
        file("ssl/cacert.pem", 0o644, "x");
        file("share/gdal/x", 0o644, "x");
        file("share/proj/copyright_and_licenses.csv", 0o644, "x");
        file("targets/x86_64-linux/include/x.h", 0o644, "x");
        file("lib/plugin-b/x", 0o644, "");
        file("lib/plugin-a/x", 0o644, "");
        file("lib/plugin-file", 0o644, "");
        file("lib/.plugin-hidden", 0o644, "");
        std::os::unix::fs::symlink("plugin-a", Path::new(&prefix).join("lib/plugin-link")).unwrap();
        Self { directory, prefix, installed }
    }

    /// A prefix without blanks for scripts that do not quote.
    fn plain() -> Self {
        let place = Self::new();
        let plain = place.directory.path().join("envs/plain").to_str().unwrap().to_owned();
        fs::rename(&place.prefix, &plain).unwrap();
        Self { prefix: plain, ..place }
    }

    fn prefixes(&self) -> [String; 2] {
        [self.prefix.clone(), self.installed.clone()]
    }

    fn env(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let path = format!("{}/bin:/usr/local/bin:/usr/bin:/bin", self.prefix);
        let env = [("PATH", path.as_str()), ("CONDA_PREFIX", &self.prefix), ("LANG", "C.UTF-8")];
        env.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn evaluate(&self, scripts: &[&str], env: &[(String, String)]) -> std::result::Result<Outcome, NotStatic> {
        let names: Vec<_> = (0..scripts.len()).map(|number| format!("/{number}.sh")).collect();
        let sources: Vec<_> =
            names.iter().zip(scripts).map(|(path, script)| Source { path, content: Some(script.as_bytes()) }).collect();
        evaluate(&sources, env, &self.prefixes(), &Machine)
    }

    /// What a real shell that was started with `env` has in its environment after the scripts.
    fn run(&self, shell: &[&str], scripts: &[&str], env: &[(String, String)]) -> BTreeMap<String, String> {
        let path = |name: String| -> PathBuf { self.directory.path().join(name) };
        let mut text = String::new();
        for (number, script) in scripts.iter().enumerate() {
            let file = path(format!("{number}.sh"));
            fs::write(&file, script).unwrap();
            text += &format!(". '{}' </dev/null\n", file.display());
        }
        let result = path("environment".to_owned());
        text += &format!("exec /usr/bin/env -0 >'{}'\n", result.display());
        let _ = fs::remove_file(&result);
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).args(["-c", &text]).env_clear().current_dir("/");
        command.envs(env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{shell:?} did not get to its end:\n{}", scripts.join("\n---\n"));
        let text = fs::read_to_string(result).unwrap();
        let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
        let own = ["_", "PWD", "OLDPWD", "SHLVL"];
        pairs.filter(|(name, _)| !own.contains(name)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    fn expected(env: &[(String, String)], outcome: &Outcome) -> BTreeMap<String, String> {
        let mut all: BTreeMap<_, _> = env.iter().cloned().collect();
        all.extend(outcome.set.clone());
        all.retain(|name, _| !outcome.unset.contains(name));
        all
    }

    /// Evaluates scripts and compares the outcome with that of real shells.
    fn agrees(
        &self,
        shells: &[&[&str]],
        scripts: &[&str],
        env: &[(String, String)],
    ) -> std::result::Result<Outcome, NotStatic> {
        let outcome = self.evaluate(scripts, env)?;
        for shell in shells {
            assert_eq!(
                Self::expected(env, &outcome),
                self.run(shell, scripts, env),
                "{shell:?} says otherwise of:\n{}",
                scripts.join("\n---\n")
            );
        }
        Ok(outcome)
    }
}

const BASH: &[&str] = &["bash", "--noprofile", "--norc"];
const DASH: &[&str] = &["dash"];

/// In the manner of real packages, and whether dash reads them too.
const STATIC: &[(&str, bool)] = &[
    (include_str!("scripts/catalogs.sh"), true),
    (include_str!("scripts/schemas.sh"), true),
    (include_str!("scripts/projections.sh"), true),
    (include_str!("scripts/rasters.sh"), false),
    (include_str!("scripts/certificates.sh"), true),
    (include_str!("scripts/nvcc.sh"), false),
    (include_str!("scripts/blas.sh"), true),
    (include_str!("scripts/paths.sh"), true),
    (include_str!("scripts/statistics.sh"), false),
];

#[test]
fn scripts_like_those_of_packages_have_the_outcome_that_real_shells_have() {
    let place = Place::plain();
    let settings: &[&[(&str, &str)]] = &[
        &[],
        &[
            ("XML_CATALOG_FILES", "file:///a  file:///b file:///a"),
            ("GSETTINGS_SCHEMA_DIR", "/s p"),
            ("PROJ_DATA", "/p"),
            ("GDAL_DATA", "/g"),
            ("GDAL_DRIVER_PATH", "/d"),
            ("SSL_CERT_FILE", ""),
            ("NVCC_PREPEND_FLAGS", "-v"),
            ("CXX", "g++"),
            ("CFLAGS", "-O2"),
            ("CUDAFLAGS", "-G"),
            ("MKL_INTERFACE_LAYER", "ILP64"),
            ("PKG_CONFIG_PATH", "/x"),
        ],
        &[("CONDA_BUILD", "1"), ("SSL_CERT_FILE", "/mine"), ("MKL_THREADING_LAYER", "SEQUENTIAL")],
    ];
    for settings in settings {
        let env = place.env(settings);
        for (script, posix) in STATIC {
            let shells: &[&[&str]] = if *posix { &[BASH, DASH] } else { &[BASH] };
            let outcome = place.agrees(shells, &[script], &env);
            assert!(outcome.is_ok(), "{}:\n{script}", outcome.unwrap_err());
        }
        let all: Vec<_> = STATIC.iter().map(|(script, _)| *script).collect();
        assert!(place.agrees(&[BASH], &all, &env).is_ok());
    }
    let outcome = place.evaluate(&[STATIC[7].0], &place.env(&[])).unwrap();
    assert_eq!(outcome.set["PLUGINS"], "plugin-a:plugin-b:plugin-link");
    assert_eq!(outcome.set["PATH"], format!("{0}/lib/tool/bin:{0}/bin:/usr/local/bin:/usr/bin:/bin", place.prefix));
}

#[test]
fn what_leaves_the_subset_is_named_with_its_line() {
    let place = Place::plain();
    for (script, line, what) in [
        (include_str!("scripts/compilers.sh"), 11, "a command substitution"),
        (include_str!("scripts/version.sh"), 4, "a command substitution"),
        (include_str!("scripts/cache.sh"), 2, "TOOL_CACHE the value of XDG_CACHE_HOME"),
        ("if [ -d /etc/no-such/vendors ]; then :; fi", 1, "may be mounted"),
        ("\n[ -e /dev/nvidia0 ]", 2, "only a running container has"),
        ("[ -w \"$CONDA_PREFIX\" ]", 1, "the test `-w`"),
        ("\n\neval \"export A=1\"", 3, "`eval`"),
        ("export A=`id`", 1, "a command substitution"),
        ("x=1 | y=2", 1, "a pipe"),
        ("x=1 &", 1, "in the background"),
        ("( export A=1 )", 1, "a subshell"),
        ("echo x > \"$CONDA_PREFIX/x\"", 1, "a redirection"),
        ("cat <<END\nx\nEND\n", 1, "a redirection"),
        ("mkdir -p /x", 1, "the command `mkdir`"),
        ("true\n. ./other.sh", 2, "another file"),
        ("export A=$((1 + 1))", 1, "arithmetic"),
        ("A=(1 2)", 1, "an array"),
        ("export A=$RANDOM", 1, "the value of RANDOM"),
        ("export A=$$", 1, "the value of $$"),
        ("case $- in *e*) export A=1 ;; esac\nB=$-\nexport B", 2, "the value of $-"),
        ("set -e", 1, "`set -e`"),
        ("cd /", 1, "`cd`"),
        ("exit 0", 1, "`exit`"),
        ("for f in *; do :; done", 1, "outside of the environment"),
        ("[ \"$HOME\" = /root ] && export A=1", 1, "HOME"),
        ("if [ -n \"$DISPLAY\" ]; then :; fi", 1, "DISPLAY"),
        ("unset HOME", 1, "unset HOME"),
        ("IFS=:", 1, "IFS"),
        ("export PIXI_IMAGE_ACTIVATED=x", 1, "PIXI_IMAGE_ACTIVATED"),
        ("export A=~/x", 1, "the value of HOME"),
        ("for x in $TERM; do :; done", 1, "TERM"),
        ("while :; do :; done", 1, "too many steps"),
        ("f() { f; }\nf", 1, "without end"),
        ("a() {", 1, "cannot be parsed"),
        ("A=1\nif [ ; fi", 2, "cannot be parsed"),
        ("[[ a =~ b ]]", 1, "`=~`"),
        ("export -f x", 1, "an option of `export`"),
        ("A=1 export B=2", 1, "in front of a command"),
        ("echo ${BASH_SOURCE[0]}", 1, "only bash has"),
        ("A=$'x'", 1, "$'...'"),
        (": ${GONE:?x}", 1, "may end the shell"),
        ("for f in {a,b}; do :; done", 1, "braces"),
    ] {
        let error = place.evaluate(&["A=1", script], &place.env(&[])).expect_err(script);
        assert_eq!((error.script.as_str(), error.line), ("/1.sh", line), "{error}\n{script}");
        assert!(error.what.contains(what), "{error}\n{script}");
    }
    for (content, what) in [
        (None, "no plain file"),
        (Some(b"A=\xff".as_slice()), "UTF-8"),
        (Some(b"A=\0"), "NUL"),
        (Some(&[b'#'; 70_000]), "longer"),
        (Some("A=\u{F0000}".as_bytes()), "private use"),
    ] {
        let source = Source { path: "/x.sh", content };
        let error = evaluate(&[source], &place.env(&[]), &place.prefixes(), &Machine).unwrap_err();
        assert!(error.what.contains(what), "{error}");
    }
}

#[test]
fn what_does_not_reach_the_image_may_be_unknown() {
    let place = Place::plain();
    let script = "
        mine=$HOME/x; old=${TMPDIR:-/tmp}
        case $- in *x*) set +x; traced=1 ;; esac
        if [ -n \"${mine}\" ] && [ -n \"$old\" ]; then export A=1; fi
        [ -n \"$BASH_VERSION\" ] && [ -z \"$ZSH_VERSION\" ] && export B=1
        if false; then eval x; y=$(z); fi
        [ \"$HOME/x\" != '' ] && export C=1
        f() { local TMPDIR=/x; D=$TMPDIR; }; f; export D
        export HOME USER
    ";
    let outcome = place.evaluate(&[script], &place.env(&[("HOME", "/root")])).unwrap();
    let set: Vec<_> = outcome.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!((set.join(" "), outcome.unset), ("A=1 B=1 C=1 D=/x".to_owned(), BTreeSet::new()));
    let outcome = place.evaluate(&["export TMPDIR=/x; unset GONE"], &place.env(&[("GONE", "1")])).unwrap();
    assert_eq!((outcome.set["TMPDIR"].as_str(), outcome.unset.contains("GONE")), ("/x", true));
}

#[test]
fn deep_nesting_ends_in_an_answer() {
    let place = Place::plain();
    let nested = |open: &str, middle: &str, close: &str| open.repeat(1900) + middle + &close.repeat(1900);
    for script in [
        nested("if true; then ", ":;", " fi;"),
        nested("{ ", ":;", " };"),
        nested("( ", ":", " )"),
        nested("x=$(", "a", ")"),
        nested("x=${a:-", "a", "}"),
        nested("[[ ( ", "a", " ) ]]"),
        "f() ".repeat(1000) + ":",
        "! ".repeat(20_000) + "true",
        "x=a".to_owned() + &"`".repeat(20_000),
        "A=aaaaaaaa\n".to_owned() + &"A=$A$A\n".repeat(40),
        "A=aaaaaaaa\n".to_owned() + &"A=$A$A\n".repeat(12) + &"B=${A##*b*b}\n".repeat(500),
        "if ".repeat(5000),
    ] {
        let _ = place.evaluate(&[&script], &place.env(&[]));
    }
}

/// Numbers that look random and are the same each time (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.roll(texts.len())]
    }

    fn name(&mut self) -> &'static str {
        self.pick(&["A", "B", "C", "D", "CONDA_PREFIX", "NONE"])
    }

    fn literal(&mut self) -> &'static str {
        self.pick(&["a", "b-c", "/usr", "x.y", "a:b", "\\$A", "\\\\", "\\'", "1", "=", "-n", "%", "+", ","])
    }

    fn pattern(&mut self) -> &'static str {
        self.pick(&[
            "*", "?", "a*", "*b", "*:*", "[ab]*", "[!a]?", "\"*\"", "\\*", "'a'*", "/*", "*/", "$A", "\"$B\"*", "-*",
        ])
    }

    fn quoted(&mut self, depth: usize) -> String {
        let mut text = String::new();
        for _ in 0..self.roll(4) {
            text += &match self.roll(6) {
                0 => " x  y".to_owned(),
                1 => self.pick(&["'", "*", "\\\"", "\\$", "\\\\", "\\a", "~", "#"]).to_owned(),
                2 => self.literal().replace("\\'", "q"),
                _ => self.parameter(depth, true),
            };
        }
        format!("\"{text}\"")
    }

    fn parameter(&mut self, depth: usize, quoted: bool) -> String {
        let name = self.name();
        let word = |dice: &mut Self| match (depth, quoted) {
            (0, _) => "w".to_owned(),
            (_, true) => dice.pick(&["", "w x", "$A", "${B-z}", "a:b"]).to_owned(),
            (_, false) => dice.word(depth - 1),
        };
        match self.roll(14) {
            0 => format!("${{{name}:-{}}}", word(self)),
            1 => format!("${{{name}-{}}}", word(self)),
            2 => format!("${{{name}:+{}}}", word(self)),
            3 => format!("${{{name}+{}}}", word(self)),
            4 => format!("${{{}:={}}}", self.pick(&["C", "D", "NONE"]), word(self)),
            5 => format!("${{{name}#{}}}", self.pattern()),
            6 => format!("${{{name}##{}}}", self.pattern()),
            7 => format!("${{{name}%{}}}", self.pattern()),
            8 => format!("${{{name}%%{}}}", self.pattern()),
            9 => format!("${{#{name}}}"),
            10 => format!("${{{name}}}"),
            _ => format!("${name}"),
        }
    }

    fn word(&mut self, depth: usize) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.roll(3) {
            text += &match self.roll(8) {
                0 | 1 => self.literal().to_owned(),
                2 => format!("'{}'", self.pick(&["", "a b", "$A", "*", "\"", "\\"])),
                3 | 4 => self.quoted(depth),
                _ => self.parameter(depth, false),
            };
        }
        text
    }

    fn test(&mut self) -> String {
        let (left, right) = (self.quoted(1), self.quoted(1));
        match self.roll(14) {
            0 => format!("[ -n {left} ]"),
            1 => format!("[ -z {left} ]"),
            2 => format!("[ {left} = {right} ]"),
            3 => format!("[ {left} != {right} ]"),
            4 => format!("test ! {left} = {right}"),
            5 => format!("test {left}"),
            6 => format!("[ -d \"$CONDA_PREFIX/{}\" ]", self.pick(&["bin", "bin/tool", "none", "lib/plugin-link", ""])),
            7 => format!("[ -f \"$CONDA_PREFIX/{}\" ]", self.pick(&["bin", "bin/tool", "bin/tool/", "none"])),
            8 => format!(
                "[ -{} \"$CONDA_PREFIX/bin/{}\" ]",
                self.pick(&["x", "r", "s", "e"]),
                self.pick(&["tool", "empty", "no"])
            ),
            9 => format!("[ -n {left} -{} -z {right} ]", self.pick(&["a", "o"])),
            10 => format!("[ \"${{#{}}}\" -{} {} ]", self.name(), self.pick(&["eq", "lt", "ge"]), self.roll(6)),
            11 => format!("! [ {left} = a ]"),
            12 => format!("[ {left} = {right} ] && [ -n \"$C\" ]"),
            _ => self.pick(&["true", "false", ":", "f a \"b c\"", "g"]).to_owned(),
        }
    }

    fn statement(&mut self, depth: usize, indent: usize) -> String {
        let pad = "  ".repeat(indent);
        let name = self.pick(&["A", "B", "C", "D"]);
        if depth == 0 {
            return pad
                + &match self.roll(8) {
                    0 | 1 => format!("{name}={}", self.word(1)),
                    2 => format!("export {name}={}", self.quoted(2)),
                    3 => format!("export {name}"),
                    4 => format!("unset {name}"),
                    5 => format!("{name}={}; export {name}", self.word(2)),
                    6 => format!("{} && {name}={}", self.test(), self.word(1)),
                    _ => format!(": {}", self.word(1)),
                };
        }
        let (one, two) = (self.block(depth - 1, indent + 1), self.block(depth - 1, indent + 1));
        match self.roll(8) {
            0 | 1 => format!("{pad}if {}; then\n{one}{pad}else\n{two}{pad}fi", self.test()),
            2 => format!("{pad}if {}; then\n{one}{pad}elif {}; then\n{two}{pad}fi", self.test(), self.test()),
            3 => format!(
                "{pad}case {} in\n{pad}{}) {name}=1\n{one}{pad};;\n{pad}{}|({}) \n{two}{pad};;\n{pad}esac",
                self.word(1),
                self.pattern(),
                self.pattern(),
                self.pattern()
            )
            .replace("|(", "|")
            .replace(") \n", ")\n"),
            4 => format!(
                "{pad}for i in {} {} \"$CONDA_PREFIX\"/lib/plugin-*; do\n{one}{pad}{name}=$i\n{pad}done",
                self.word(1),
                self.word(1)
            ),
            5 => format!("{pad}{} || {{\n{one}{pad}}}", self.test()),
            6 => format!(
                "{pad}for i in a b c; do\n{pad}  [ $i = b ] && {}\n{one}{pad}done",
                self.pick(&["continue", "break", ":"])
            ),
            _ => format!("{pad}n=x; until [ \"$n\" = xxx ]; do\n{one}{pad}n=x$n\n{pad}done"),
        }
    }

    fn block(&mut self, depth: usize, indent: usize) -> String {
        let mut statements = String::new();
        for _ in 0..1 + self.roll(2) {
            let depth = if self.roll(2) == 0 { depth } else { 0 };
            statements += &(self.statement(depth, indent) + "\n");
        }
        statements
    }

    fn script(&mut self) -> String {
        let functions = format!(
            "f() {{\n  local x\n  x=$1\n  shift\n{}  [ \"$x\" = a ] || return 3\n  B=\"$x-$#-$*\"\n}}\ng() {{ export C=$?; return {}; }}\n",
            self.block(0, 1),
            self.roll(2)
        );
        let body: String = (0..4).map(|_| self.statement(2, 0) + "\n").collect();
        format!("{functions}{body}export A B C D i x\n")
    }
}

#[test]
fn generated_scripts_have_the_outcome_that_real_shells_have() {
    let place = Place::new();
    let mut compared = 0;
    const SCRIPTS: u64 = 200;
    for seed in 1..=SCRIPTS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.roll(2);
        let script = dice.script();
        let env = place.env(&[
            ("A", dice.pick(&["", "a", "a b", "x:/usr/lib", "*b*"])),
            ("B", dice.pick(&["-n", "/a/b", "a'\"", "é"])),
        ]);
        compared += u64::from(place.agrees(&[BASH, DASH], &[&script], &env).is_ok());
    }
    // Else this test would say nothing.
    assert!(compared * 2 > SCRIPTS, "only {compared} of {SCRIPTS} scripts were evaluated");
}

#[test]
fn what_only_bash_reads_has_the_outcome_that_bash_has() {
    let place = Place::new();
    let env = place.env(&[("A", "a b"), ("E", "")]);
    for (script, name, value) in [
        ("export X=1; X+=2; Y+=3; export Y", "X", "12"),
        ("[[ $A == a* && -n $A ]] && export X=1", "X", "1"),
        ("[[ $A == \"a*\" ]] || export X=1", "X", "1"),
        ("[[ ! -v NONE && -v E ]] && export X=1", "X", "1"),
        ("[[ -d $CONDA_PREFIX/bin || x = y ]] && export X=$A", "X", "a b"),
        ("[[ ( a != b ) && 2 -lt 10 ]] && export X=yes", "X", "yes"),
        ("function f { local A=$1; export X=\"$A\"; }; f c", "X", "c"),
        ("export X=1 &>/dev/null", "X", "1"),
        ("set +euxv +o pipefail; hash -r; export X=$A", "X", "a b"),
        ("f() { local E=1; unset E; export X=${E-gone}; }; f", "X", "gone"),
        ("export X='a\\\nb' Y=a\\\nb", "X", "a\\\nb"),
        ("X=a; return 0\nexport X=2", "PATH", &env[0].1.clone()),
        ("export X=$(:) 2>/dev/null || true; export X=1", "", ""),
        ("export X=${A// /_}", "", ""),
        ("declare -x X=1", "", ""),
        ("[ -n ] && [ ! ] && ! [ ]; export X=$?", "X", "0"),
        ("for i in 1 2; do for j in a b; do continue 2; done; export X=no; done; export Y=$i$j", "Y", "2a"),
        ("export X=a:~nobody", "", ""),
        ("X=x; X=${X#x}; export X; [ $X ] || export Z=1", "Z", "1"),
        ("export X=\"${A%\" b\"}\"", "X", "a"),
        ("export X=\"${A:-'q'}\" Y=\"${NONE:-'q'}\"", "Y", "'q'"),
    ] {
        let outcome = place.agrees(&[BASH], &[script], &env);
        match (name, outcome) {
            ("", outcome) => assert!(outcome.is_err(), "{script}"),
            (name, outcome) => {
                let all = Place::expected(&env, &outcome.unwrap_or_else(|error| panic!("{error}: {script}")));
                assert_eq!(all.get(name).map(String::as_str), Some(value), "{script}");
            }
        }
    }
}
