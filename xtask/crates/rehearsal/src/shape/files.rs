//! Which files a made-up package has: of which kinds, how many and how large, by the package's name and build.

use super::content::{Content, Numbers};

/// Small files are about this large, in bytes: what Python modules and headers have on average.
const SMALL: u64 = 9 << 10;
/// A library that holds the placeholder is at most this large: installers have such a file in memory.
const PATCHED: u64 = 24 << 20;
/// Headers of one package take at most this much.
const HEADERS: u64 = 24 << 20;
/// Packages whose archive is smaller hold a few texts.
const TINY: u64 = 60_000;

/// What packages of NVIDIA's and those with code for GPUs begin with.
const DEVICE: [&str; 16] = [
    "cuda-",
    "cudnn",
    "libcublas",
    "libcuda",
    "libcudnn",
    "libcudss",
    "libcufft",
    "libcufile",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libmagma",
    "libnv",
    "libtorch",
    "magma",
    "nccl",
];

/// What decides about the files of a package.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its build string.
    pub build: &'a str,
    /// Whether it is pure Python, in the subdir noarch.
    pub noarch_python: bool,
    /// The size of the real archive in bytes.
    pub archive: u64,
}

/// A file that is to be made. Directories follow from the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it stands in the package.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Made-up content of so many bytes.
    Made(Content, u64),
    /// The same, with the placeholder in it as a C string of a binary has it.
    Patched(Content, u64),
    /// A text that names the placeholder.
    Script,
    /// A symbolic link.
    Link(String),
}

/// What kind of package it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tiny,
    PurePython,
    Extension,
    Device,
    Library,
}

impl Kind {
    fn of(subject: &Subject<'_>) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| subject.name.starts_with(prefix));
        match () {
            () if subject.noarch_python => Self::PurePython,
            () if subject.archive < TINY => Self::Tiny,
            () if subject.name == "python" || subject.build.contains("py3") => Self::Extension,
            () if starts(&DEVICE) => Self::Device,
            () => Self::Library,
        }
    }

    /// The shares of text, bytecode, headers and libraries in a package's uncompressed bytes, in percent.
    fn shares(self) -> [u64; 4] {
        match self {
            Self::Tiny | Self::PurePython => [100, 0, 0, 0],
            Self::Extension => [38, 24, 6, 32],
            Self::Device => [0, 0, 3, 97],
            Self::Library => [2, 0, 8, 90],
        }
    }
}

/// How many uncompressed bytes make an archive of `archive` bytes, roughly: the first guess.
pub fn guess(subject: &Subject<'_>, archive: u64) -> u64 {
    let kind = Kind::of(subject);
    let [text, bytecode, headers, libraries] = kind.shares();
    let library = if kind == Kind::Device { Content::Device } else { Content::Library };
    let parts = [(text + headers, Content::Text), (bytecode, Content::Bytecode), (libraries, library)];
    let permille: u64 = parts.iter().map(|(share, content)| share * content.ratio()).sum::<u64>() / 100;
    archive * 1000 / permille
}

/// The files of a package that has `bytes` uncompressed bytes.
pub fn files(subject: &Subject<'_>, bytes: u64) -> Vec<File> {
    let kind = Kind::of(subject);
    let [text, bytecode, headers, libraries] = kind.shares().map(|share| bytes / 100 * share);
    let surplus = headers.saturating_sub(HEADERS);
    let mut made = Files { numbers: Numbers::of(&format!("files of {}", subject.name)), files: Vec::new() };
    let name = subject.name;
    match kind {
        Kind::PurePython => {
            made.small(Content::Text, &|at| format!("site-packages/{name}/part{}/module{at}.py", at / 40), text);
            made.metadata(&format!("site-packages/{name}-{}.dist-info", subject.version));
        }
        Kind::Tiny => made.small(Content::Text, &|at| format!("share/{}/text{at}.txt", subject.name), bytes),
        Kind::Extension => {
            let place = match subject.name {
                "python" => "lib/python3.13".to_owned(),
                _ => format!("lib/python3.13/site-packages/{name}"),
            };
            made.small(Content::Text, &|at| format!("{place}/part{}/module{at}.py", at / 40), text);
            let cached = |at| format!("{place}/part{}/__pycache__/module{at}.cpython-313.pyc", at / 40);
            made.small(Content::Bytecode, &cached, bytecode);
            made.small(
                Content::Text,
                &|at| format!("{place}/include/{name}/part{}/h{at}.h", at / 60),
                headers - surplus,
            );
            made.libraries(Content::Library, &format!("{place}/lib{name}"), libraries + surplus);
            made.push(format!("bin/{name}-tool"), FileKind::Script);
        }
        Kind::Device | Kind::Library => {
            let content = if kind == Kind::Device { Content::Device } else { Content::Library };
            made.small(Content::Text, &|at| format!("share/{}/text{at}.txt", subject.name), text);
            made.small(Content::Text, &|at| format!("include/{name}/part{}/h{at}.h", at / 60), headers - surplus);
            // `curl` and `libcurl` are two packages.
            let library = if name.starts_with("lib") { name.to_owned() } else { format!("lib_{name}") };
            made.libraries(content, &format!("lib/{library}"), libraries + surplus);
            made.push(format!("lib/pkgconfig/{}.pc", subject.name), FileKind::Script);
        }
    }
    made.files
}

struct Files {
    numbers: Numbers,
    files: Vec<File>,
}

impl Files {
    fn push(&mut self, path: String, kind: FileKind) {
        self.files.push(File { path, kind });
    }

    /// Small files that have `bytes` in all.
    fn small(&mut self, content: Content, path: &dyn Fn(u64) -> String, mut bytes: u64) {
        for at in 0.. {
            if bytes == 0 {
                return;
            }
            let size = self.numbers.size(SMALL).min(bytes);
            bytes -= size;
            self.push(path(at), FileKind::Made(content, size));
        }
    }

    /// One to four libraries, of which the first is the largest, with the two links that each has.
    fn libraries(&mut self, content: Content, stem: &str, mut bytes: u64) {
        // Numbers of its own: how many small files there are must not decide what the libraries are like.
        let mut numbers = Numbers::of(stem);
        let (count, knows_prefix) = (1 + numbers.below(4), numbers.below(2) == 0);
        for at in 0..count {
            let size = if at + 1 == count { bytes } else { bytes * 2 / 3 };
            bytes -= size;
            if size == 0 {
                return;
            }
            let stem = if at == 0 { stem.to_owned() } else { format!("{stem}_{at}") };
            let file = stem.rsplit('/').next().unwrap_or(&stem).to_owned();
            // Where a library knows its prefix it is rarely one of the large ones.
            let is_patched = at == 0 && size <= PATCHED && content == Content::Library && knows_prefix;
            let kind = if is_patched { FileKind::Patched } else { FileKind::Made };
            self.push(format!("{stem}.so.1.2.3"), kind(content, size));
            self.push(format!("{stem}.so.1"), FileKind::Link(format!("{file}.so.1.2.3")));
            self.push(format!("{stem}.so"), FileKind::Link(format!("{file}.so.1.2.3")));
        }
    }

    fn metadata(&mut self, directory: &str) {
        for (name, size) in [("INSTALLER", 4), ("METADATA", 2600), ("RECORD", 900), ("WHEEL", 90)] {
            self.push(format!("{directory}/{name}"), FileKind::Made(Content::Text, size));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn subject(name: &'static str, build: &'static str, archive: u64) -> Subject<'static> {
        Subject { name, version: "1.0", build, noarch_python: name == "sympy", archive }
    }

    fn size(file: &File) -> u64 {
        match &file.kind {
            FileKind::Made(_, size) | FileKind::Patched(_, size) => *size,
            FileKind::Script | FileKind::Link(_) => 0,
        }
    }

    #[test]
    fn packages_have_the_files_of_their_kind() {
        for (subject, least, most, sign) in [
            (subject("sympy", "pyh_0", 4_600_000), 1500, 4000, "site-packages/sympy/part0/module0.py"),
            (subject("pytorch", "py313_1", 25_000_000), 5000, 16_000, ".cpython-313.pyc"),
            (subject("libcublas", "h_1", 467_000_000), 1000, 4000, "lib/libcublas.so.1.2.3"),
            (subject("openssl", "h_0", 3_000_000), 20, 400, "lib/pkgconfig/openssl.pc"),
            (subject("python_abi", "8_cp313", 7000), 1, 8, "share/python_abi/text0.txt"),
        ] {
            let bytes = guess(&subject, subject.archive);
            let files = files(&subject, bytes);
            let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths.len(), files.len(), "{}: no path comes twice", subject.name);
            assert!((least..=most).contains(&files.len()), "{}: {} files", subject.name, files.len());
            assert!(files.iter().any(|file| file.path.ends_with(sign)), "{}", subject.name);
            let total: u64 = files.iter().map(size).sum();
            assert!(total.abs_diff(bytes) < bytes / 50 + 5000, "{}: {total} of {bytes}", subject.name);
        }
    }

    #[test]
    fn large_libraries_hold_no_placeholder() {
        let files = files(&subject("mkl", "h_0", 125_000_000), 400 << 20);
        assert!(files.iter().all(|file| !matches!(file.kind, FileKind::Patched(_, size) if size > PATCHED)));
    }
}
