//! What a build may take of a machine, however large the environment: little memory, no tree of files beside the results.
//!
//! It takes a minute and some gigabytes: it runs where `XTASK_REQUIRE_ENGINES=1`, as in CI, and is skipped elsewhere.

#[cfg(target_os = "linux")]
#[allow(dead_code)] // each test uses its part of it
#[path = "support/packages.rs"]
mod packages;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "support/web.rs"]
mod web;
#[cfg(target_os = "linux")]
#[allow(dead_code)]
#[path = "support/workspace.rs"]
mod workspace;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: what a process takes is measured on Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Completion, Trial};
    let name = "an_environment_of_gigabytes_and_100000_files_takes_little_memory_and_no_staging_tree";
    let trial = Trial::ignorable_test(name, || {
        if std::env::var_os("XTASK_REQUIRE_ENGINES").is_none_or(|value| value != "1") {
            return Ok(Completion::ignored_with("skipped: XTASK_REQUIRE_ENGINES=1 asks for the large tests"));
        }
        linux::check().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{Cursor, Write};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use anyhow::{Context as _, ensure};
    use serde_json::json;

    use crate::packages::{Format, Member, Package, tar_of};
    use crate::workspace::{OCI, SIF, Shelf, Workspace};

    const MIB: u64 = 1 << 20;
    /// The most memory that a build may have in use, in KiB.
    const MEMORY: u64 = 256 * 1024;
    /// Packages of many small files, and how many each has.
    const SMALL: (usize, usize) = (100, 1000);
    /// Packages of one large file, and its size: some that compress well, some that do not.
    const TEXT: (usize, u64) = (4, 500 * MIB);
    const NOISE: (usize, u64) = (3, 140 * MIB);
    /// As packages of conda-forge have it: what a reader of one must keep in memory. The highest level of zstd has the other.
    const WINDOW: u32 = 23;
    const LARGEST_WINDOW: u32 = 27;
    /// A library that knows its prefix.
    const PATCHED: u64 = 400 * MIB;
    const PLACEHOLDER: &str = "/build/placehold_placehold_placehold_placehold_placehold_placehold";

    pub fn check() -> anyhow::Result<()> {
        let workspace = Workspace::of(shelf()?);
        for jobs in ["2", "16"] {
            let mut build = workspace.build();
            let cache = workspace.path(&format!("cache-{jobs}"));
            build.args(["--jobs", jobs]).env("PIXI_IMAGE_CACHE", &cache);
            let taken = watch(&mut build, &workspace, &cache)?;
            let output: u64 = [OCI, SIF].iter().map(|name| workspace.read_length(name)).sum();
            eprintln!(
                "--jobs {jobs}: {} MiB of memory; results of {} MiB, {} MiB beside them, {} directories",
                taken.memory / 1024,
                output / MIB,
                taken.temporary / MIB,
                taken.directories
            );
            ensure!(taken.memory <= MEMORY, "--jobs {jobs} takes {} KiB of memory", taken.memory);
            ensure!(taken.temporary * 10 <= output * 11, "{} bytes beside {output} bytes of results", taken.temporary);
            ensure!(taken.directories <= 16, "{} directories are made", taken.directories);
            fs::remove_dir_all(cache)?;
        }
        Ok(())
    }

    fn shelf() -> anyhow::Result<Shelf> {
        let mut shelf = Shelf::default();
        for number in 0..SMALL.0 {
            let content = |file: usize| format!("{number} {file} all work and no play\n").repeat(file % 30);
            let members: Vec<_> = (0..SMALL.1)
                .map(|file| Member::file(&format!("lib/small-{number}/{file}.py"), content(file)))
                .collect();
            shelf.add(&Package::new(&format!("small-{number}"), members).by_hand(), Format::Conda);
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = move |piece: &mut [u8]| {
            for bytes in piece.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.copy_from_slice(&state.to_le_bytes()[..bytes.len()]);
            }
        };
        for number in 0..NOISE.0 {
            // Two of the largest windows at once would be as much as a build may have in all.
            let name = format!("noise-{number}");
            Large { window: LARGEST_WINDOW, ..Large::new(&name, NOISE.1) }.add(&mut shelf, &mut noise)?;
        }
        let mut nth = 0u64;
        let patched = Large { placeholder: true, ..Large::new("patched", PATCHED) };
        patched.add(&mut shelf, &mut |piece| {
            nth += 1;
            for (line, bytes) in piece.chunks_mut(64).enumerate() {
                bytes.copy_from_slice(&format!("{nth:032}{line:032}").as_bytes()[..bytes.len()]);
            }
            piece[1000..][..PLACEHOLDER.len()].copy_from_slice(PLACEHOLDER.as_bytes());
            piece[2000] = 0;
        })?;
        for number in 0..TEXT.0 {
            let mut lines = 0u64;
            Large::new(&format!("text-{number}"), TEXT.1).add(&mut shelf, &mut |piece| {
                for line in piece.chunks_mut(64) {
                    lines += 1;
                    let text =
                        format!("{number} {lines:020} all work and no play makes jack a dull boy\n..............");
                    line.copy_from_slice(&text.as_bytes()[..line.len()]);
                }
            })?;
        }
        Ok(shelf)
    }

    /// A package of one file that is never in memory.
    struct Large<'a> {
        name: &'a str,
        size: u64,
        window: u32,
        /// Whether the file holds the placeholder.
        placeholder: bool,
    }

    impl<'a> Large<'a> {
        fn new(name: &'a str, size: u64) -> Self {
            Self { name, size, window: WINDOW, placeholder: false }
        }

        fn add(&self, shelf: &mut Shelf, fill: &mut dyn FnMut(&mut [u8])) -> anyhow::Result<()> {
            let path = format!("lib/{}", self.name);
            let package = Package::new(self.name, [Member::file(&path, "")]).by_hand();
            let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
            encoder.window_log(self.window)?;
            let mut header = tar::Header::new_gnu();
            header.set_path(&path)?;
            header.set_mode(0o644);
            header.set_size(self.size);
            header.set_cksum();
            encoder.write_all(header.as_bytes())?;
            let mut piece = vec![0; MIB as usize];
            for _ in 0..self.size / MIB {
                fill(&mut piece);
                encoder.write_all(&piece)?;
            }
            encoder.write_all(&[0; 1024])?;
            let mut listed = json!({"_path": path, "path_type": "hardlink"});
            if self.placeholder {
                listed["prefix_placeholder"] = PLACEHOLDER.into();
                listed["file_mode"] = "binary".into();
            }
            let paths = json!({"paths": [listed], "paths_version": 1}).to_string();
            let mut info = package.info();
            info.retain(|member| member.path != "info/paths.json");
            info.push(Member::file("info/paths.json", paths));
            let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
            let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            let info = zstd::encode_all(tar_of(&info).as_slice(), 1)?;
            for (part, bytes) in [("info-large.tar.zst", info), ("pkg-large.tar.zst", encoder.finish()?)] {
                zip.start_file(part, stored)?;
                zip.write_all(&bytes)?;
            }
            shelf.add_bytes(&package, Format::Conda, zip.finish()?.into_inner());
            Ok(())
        }
    }

    /// The most that a process took.
    #[derive(Default)]
    struct Taken {
        /// In KiB.
        memory: u64,
        /// Bytes on the disk that are neither results nor packages.
        temporary: u64,
        /// Directories that were not there before.
        directories: usize,
    }

    /// Runs a build and looks at it all the time.
    fn watch(build: &mut Command, workspace: &Workspace, cache: &Path) -> anyhow::Result<Taken> {
        let root = workspace.directory.path();
        let (mut before, mut packages) = (BTreeSet::new(), 0);
        walk(root, cache, &mut before, &mut packages);
        let mut child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut error = child.stderr.take().context("a pipe")?;
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut error, &mut text);
            text
        });
        let (process, mut taken) = (PathBuf::from(format!("/proc/{}", child.id())), Taken::default());
        let status = loop {
            let (mut directories, mut bytes) = (BTreeSet::new(), 0);
            walk(root, cache, &mut directories, &mut bytes);
            taken.directories = taken.directories.max(directories.difference(&before).count());
            taken.temporary = taken.temporary.max(bytes + nameless(&process));
            taken.memory = taken.memory.max(peak_of_memory(&process).unwrap_or(0));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let said = said.join().unwrap_or_default();
        ensure!(status.success(), "{status}: {said}");
        Ok(taken)
    }

    /// The directories below `directory`, and the bytes of the cache's files that are not packages.
    fn walk(directory: &Path, cache: &Path, directories: &mut BTreeSet<PathBuf>, bytes: &mut u64) {
        directories.insert(directory.to_owned());
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => walk(&path, cache, directories, bytes),
                Ok(metadata) if path.starts_with(cache) && !path.starts_with(cache.join("packages")) => {
                    *bytes += metadata.blocks() * 512;
                }
                _ => {}
            }
        }
    }

    /// Bytes of open files that have no name and are no result: those will be called so.
    fn nameless(process: &Path) -> u64 {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let nameless = files.filter(|file| {
            let target = fs::read_link(file.path()).unwrap_or_default().to_string_lossy().into_owned();
            target.ends_with("(deleted)") && !target.contains("/out/")
        });
        nameless.filter_map(|file| Some(fs::metadata(file.path()).ok()?.blocks() * 512)).sum()
    }

    /// In KiB, of the process's whole life so far.
    fn peak_of_memory(process: &Path) -> Option<u64> {
        let status = fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    impl Workspace {
        fn read_length(&self, name: &str) -> u64 {
            fs::metadata(self.work(name)).map_or(0, |metadata| metadata.len())
        }
    }
}
