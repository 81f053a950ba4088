//! Wheels that are damaged, lie, reach out of their place or are no wheels.

use pixi_image::model::Digest;

use crate::packages::{Member, Package};
use crate::web::Answer;
use crate::wheels::{self, File, MadeWheel};
use crate::workspace::{OLDER, Workspace};

const FILE: &str = "evil-1.2.3-py3-none-any.whl";

/// A workspace with a python, whose lock is the one without wheels.
struct Bench {
    workspace: Workspace,
    lock: String,
}

impl Bench {
    fn new() -> Self {
        let python = Package::new("python", [Member::file("bin/python3.12", "python")]).version("3.12.4");
        let workspace = Workspace::new(&[python]);
        Self { lock: workspace.lock_text(), workspace }
    }

    /// Builds with a wheel of these bytes, which must fail, say whose fault it is, and touch nothing.
    #[track_caller]
    fn refuses(&self, bytes: Vec<u8>, parts: &[&str]) {
        let path = format!("/wheels/{}/{FILE}", Digest::of(&bytes).hex());
        let wheel = (self.workspace.web.url(&path), "evil", "1.2.3", Digest::of(&bytes));
        self.workspace.web.set(&path, vec![Answer::Bytes(bytes)]);
        self.workspace.write("pixi.lock", wheels::lock_with(&self.lock, &[wheel]).as_bytes());
        let said = self.workspace.fails(&mut self.workspace.build(), parts);
        assert!(said.contains(FILE), "{said}");
        assert_eq!(self.workspace.read(crate::workspace::OCI), OLDER);
    }
}

fn evil(files: impl Into<Vec<File>>) -> MadeWheel {
    MadeWheel::new("evil", files)
}

fn with(path: &str) -> Vec<u8> {
    evil([File::new("evil.py", "good\n"), File::new(path, "evil\n")]).bytes()
}

#[test]
fn a_path_that_leads_out_of_its_place_is_refused() {
    let bench = Bench::new();
    for (path, why) in [
        ("../evil.py", "`..`"),
        ("evil/../../evil.py", "`..`"),
        ("/etc/evil", "is absolute"),
        ("evil-1.2.3.data/data/../../../../etc/evil", "`..`"),
        ("evil-1.2.3.data/scripts/../evil", "`..`"),
        ("evil-1.2.3.data/scripts/sub/evil", "goes to no known place"),
        ("evil-1.2.3.data/evil/evil", "goes to no known place"),
        ("evil-1.2.3.data/evil", "goes to no known place"),
        ("evil-1.2.3.data/data/conda-meta/python-3.12.4-h0_0.json", "the records of other packages"),
        ("evil-1.2.3.data/purelib/other-1.dist-info/RECORD", "the records of other packages"),
        ("evil-1.2.3.data/data/lib/python3.12/site-packages/other-1.dist-info/METADATA", "the records of other"),
        ("evil-1.2.3.data/purelib/evil.py", "two of its files"),
        ("evil-1.2.3.data/platlib/evil.py/x", "`lib/python3.12/site-packages/evil.py`"),
    ] {
        bench.refuses(with(path), &[path.trim_start_matches("evil-1.2.3.data/").rsplit('/').next().unwrap(), why]);
    }
}

#[test]
fn a_member_that_no_wheel_holds_is_refused() {
    let bench = Bench::new();
    let plain = with("zz.py");
    // Offsets in a central directory header (APPNOTE.TXT 4.3.12).
    let patched = |at: usize, change: fn(u8) -> u8| {
        let mut bytes = plain.clone();
        let header = header_of(&bytes, b"zz.py");
        bytes[header + at] = change(bytes[header + at]);
        bytes
    };
    bench.refuses(patched(8, |flags| flags | 1), &["`zz.py` is encrypted"]);
    bench.refuses(patched(10, |_| 12), &["`zz.py` is compressed in another way"]);
    bench.refuses(patched(41, |_| 0o120 << 1), &["`zz.py` is a symbolic link"]);
    bench.refuses(patched(41, |_| 0o020 << 1), &["`zz.py` is neither a file nor a directory"]);
    bench.refuses(patched(24, |size| size + 1), &["zz.py"]);
    bench.refuses(patched(24, |size| size - 1), &["zz.py"]);

    // The same name twice, in the same and in different words.
    let twice = evil([File::new("aa.py", "1\n"), File::new("ab.py", "1\n")]).bytes();
    bench.refuses(replaced(&twice, b"ab.py", b"aa.py"), &["holds a name twice"]);
    bench.refuses(evil([File::new("a/b.py", "1\n"), File::new("a//b.py", "1\n")]).bytes(), &["`a/b.py`", "twice"]);

    // Two entries of the directory for the same bytes.
    let mut overlapping = twice.clone();
    let (from, to) = (header_of(&twice, b"aa.py") + 42, header_of(&twice, b"ab.py") + 42);
    let offset: Vec<u8> = twice[from..from + 4].to_vec();
    overlapping[to..to + 4].copy_from_slice(&offset);
    bench.refuses(overlapping, &["overlap"]);
}

/// Where the header of a member is in the central directory.
fn header_of(archive: &[u8], name: &[u8]) -> usize {
    let at = archive.windows(4 + name.len()).enumerate().filter(|(_, window)| window.starts_with(b"PK\x01\x02"));
    let mut headers = at.map(|(at, _)| at);
    headers.find(|at| archive[at + 46..].starts_with(name)).unwrap()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn what_record_does_not_vouch_for_is_refused() {
    let bench = Bench::new();
    let file = || File::new("evil.py", "evil\n");
    let said = |line: &str| evil([file().line(Some(line))]).bytes();
    let right = wheels::checksum(b"evil\n");
    bench.refuses(evil([file().line(None)]).bytes(), &["`evil.py` is not in its RECORD"]);
    let wrong = wheels::checksum(b"good\n");
    bench.refuses(said(&format!("evil.py,{wrong},5")), &["`evil.py` is not what its RECORD says"]);
    bench.refuses(said(&format!("evil.py,{right},6")), &["`evil.py` is not what its RECORD says"]);
    bench.refuses(said("evil.py,,5"), &["`evil.py`", "no digest that can be checked: there is none"]);
    bench.refuses(said("evil.py,md5=7GURRzHgCrrNf-dmZ6Y0uQ,5"), &["`evil.py`", "`md5` is none of sha256"]);
    bench.refuses(said("evil.py,sha256=!,5"), &["`evil.py`", "no digest that can be checked"]);
    bench.refuses(said(&format!("evil.py,{right},five")), &["RECORD` cannot be understood", "`five` is no length"]);
    let twice = format!("evil.py,{right},5\n./evil.py,{wrong},5");
    bench.refuses(said(&twice), &["RECORD` cannot be understood", "lists `evil.py` twice"]);
    let outside = format!("evil.py,{right},5\n../../x,{right},5");
    bench.refuses(said(&outside), &["RECORD` cannot be understood", "`..`"]);
    // Also a script, which is read as a whole.
    let script = File::new("evil-1.2.3.data/scripts/evil", "#!python\n");
    let line = format!("evil-1.2.3.data/scripts/evil,{wrong},9");
    bench.refuses(evil([script.line(Some(&line))]).bytes(), &["`evil-1.2.3.data/scripts/evil` is not what"]);
}

#[test]
fn what_is_no_wheel_or_another_one_is_refused() {
    let bench = Bench::new();
    bench.refuses(b"<html>not found</html>".to_vec(), &["the archive cannot be read", "delete "]);
    bench.refuses(wheels::archive(&[File::new("evil.py", "x")], &[]), &["exactly one `*.dist-info`, but holds 0"]);
    bench.refuses(with("other-1.dist-info/METADATA"), &["exactly one `*.dist-info`, but holds 2"]);
    for file in ["METADATA", "WHEEL", "RECORD"] {
        let mut members = evil([]).members();
        members.retain(|member| !member.path.ends_with(file));
        bench.refuses(wheels::archive(&members, &[]), &[&format!("holds no `evil-1.2.3.dist-info/{file}`")]);
    }
    let version = |text: &str| MadeWheel { wheel: text.to_owned(), ..evil([]) }.bytes();
    bench.refuses(version("Wheel-Version: 2.0\n"), &["version 2.0 of the wheel format"]);
    bench.refuses(version("Generator: x\n"), &["WHEEL` cannot be understood", "no Wheel-Version"]);
    let metadata = |text: &str| MadeWheel { metadata: text.to_owned(), ..evil([]) }.bytes();
    bench.refuses(metadata("Name: other\nVersion: 1.2.3\n"), &["holds other 1.2.3 instead", "lock again"]);
    bench.refuses(metadata("Name: evil\nVersion: 1.2.4\n"), &["holds evil 1.2.4 instead"]);
    let mut members = evil([]).members();
    members.iter_mut().for_each(|member| member.path = member.path.replace("evil-1.2.3.", "numpy-2.0."));
    let record = members
        .iter()
        .filter(|member| !member.path.ends_with("RECORD"))
        .map(|member| format!("{},{},{}\n", member.path, wheels::checksum(&member.content), member.content.len()));
    let record: String = record.collect();
    members.last_mut().unwrap().content = record.into_bytes();
    bench.refuses(wheels::archive(&members, &[]), &["holds `numpy-2.0.dist-info` instead"]);
    bench.refuses(metadata("Name: evil\n"), &["METADATA` cannot be understood", "it has no Version"]);
}

#[test]
fn commands_that_would_take_another_place_are_refused() {
    let bench = Bench::new();
    let command = |text: &str| evil([]).entry_points(&format!("[console_scripts]\n{text}\n")).bytes();
    for name in ["python", "python3", "python3.12", "pythonw", "../evil", "sub/evil", "..", "/evil"] {
        bench.refuses(command(&format!("{name} = evil:main")), &[&format!("`{name}`"), "no command may have"]);
    }
    for value in ["evil", "evil:", "evil:main; import os", "evil:main\\n"] {
        bench.refuses(
            command(&format!("evil = {value}")),
            &["entry_points.txt` cannot be understood", "no entry point"],
        );
    }
}

#[test]
fn any_cut_of_a_wheel_is_refused() {
    let bench = Bench::new();
    let bytes = with("zz.py");
    for end in (0..bytes.len()).step_by(bytes.len() / 7) {
        bench.refuses(bytes[..end].to_vec(), &["the archive cannot be read"]);
    }
}
