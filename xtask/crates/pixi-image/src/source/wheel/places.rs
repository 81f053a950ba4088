//! Where the files of a wheel go in its environment.

use std::collections::BTreeMap;

use super::metadata::{EntryPoint, commands, normalized_name};
use super::{File, Problem, WheelError, WheelIndex};
use crate::entry::ImagePath;
use crate::model::{Digest, WHEEL_INSTALLER, Wheel};
use crate::source::placement::{self, InstalledPath};
use crate::source::python::Python;

impl WheelIndex {
    /// Every path that `wheel` takes: its files where its python wants them, its commands, what installers write.
    ///
    /// Paths that would clash within the wheel are refused here, before anything is written.
    pub fn installed_paths(&self, wheel: &Wheel, python: Option<&Python>) -> Result<Vec<InstalledPath>, WheelError> {
        let places = Places::new(self, wheel, python).map_err(|problem| WheelError {
            wheel: wheel.file_name.clone(),
            archive: None,
            problem: problem.into(),
        })?;
        let Places { files, empty_directories, commands, written, record, .. } = places;
        let files = self.files.iter().zip(files).filter_map(|(file, place)| {
            let (path, treatment) = place?;
            let content = file.checksum.as_ref().filter(|_| treatment == Treatment::Plain);
            let content = content.map(|checksum| Digest::of(format!("{checksum} {}", file.executable).as_bytes()));
            Some(InstalledPath { content, ..InstalledPath::file(path) })
        });
        let generated = commands.into_keys().chain(written.into_keys()).chain([record]).map(InstalledPath::file);
        let directories = empty_directories.into_iter();
        let directories = directories.map(|path| InstalledPath { directory: true, ..InstalledPath::file(path) });
        let files = files.chain(generated);
        Ok(files.chain(directories).collect())
    }
}

/// How a file gets to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// As it is.
    Plain,
    /// As a script: it can be run, and its `#!python` line is rewritten.
    Script,
}

/// The places of everything that a wheel installs, relative to the environment.
pub(super) struct Places<'a> {
    pub python: &'a Python,
    /// For each of [`WheelIndex::files`]; none where something that is generated takes the place.
    pub files: Vec<Option<(ImagePath, Treatment)>>,
    pub empty_directories: Vec<ImagePath>,
    pub commands: BTreeMap<ImagePath, EntryPoint>,
    /// What installers write beside the metadata, with its content.
    pub written: BTreeMap<ImagePath, Vec<u8>>,
    pub record: ImagePath,
}

impl<'a> Places<'a> {
    pub fn new(index: &WheelIndex, wheel: &Wheel, python: Option<&'a Python>) -> Result<Self, Problem> {
        let python = python.ok_or(Problem::NoPython)?;
        check_identity(index, wheel)?;
        let scheme = Scheme::new(index, python)?;
        let commands = commands_of(index, python)?;
        let metadata =
            |file: &str| Ok::<_, Problem>(scheme.site_packages.join(&index.dist_info).join(&ImagePath::new(file)?));
        let mut written = BTreeMap::from([
            (metadata("INSTALLER")?, WHEEL_INSTALLER.as_bytes().to_vec()),
            (metadata("REQUESTED")?, Vec::new()),
        ]);
        if wheel.direct {
            written.insert(metadata("direct_url.json")?, direct_url(wheel));
        }
        let place = |file: &File| {
            let (place, treatment) = scheme.place(&file.path)?;
            let superseded =
                written.contains_key(&place) || treatment == Treatment::Script && is_command(&place, &commands);
            Ok((!superseded).then_some((place, treatment)))
        };
        let files = index.files.iter().map(place).collect::<Result<_, Problem>>()?;
        let empty_directories = index.empty_directories.iter().map(|path| scheme.directory(path));
        let empty_directories = empty_directories.filter_map(Result::transpose).collect::<Result<_, Problem>>()?;
        let record = metadata("RECORD")?;
        let places = Self { python, files, empty_directories, commands, written, record };
        places.check()?;
        Ok(places)
    }

    fn check(&self) -> Result<(), Problem> {
        let files = self.files.iter().flatten().map(|(place, _)| (place, false));
        let generated = self.commands.keys().chain(self.written.keys()).chain([&self.record]);
        let directories = self.empty_directories.iter().map(|place| (place, true));
        placement::check(files.chain(generated.map(|place| (place, false))).chain(directories))?;
        // Records tell who owns what: nobody writes another's.
        let metadata = self.record.parent();
        let site_packages = metadata.as_ref().and_then(ImagePath::parent);
        let is_foreign = |place: &ImagePath| {
            let mut above = std::iter::successors(Some(place.clone()), ImagePath::parent);
            let top = above.find(|path| path.parent() == site_packages);
            let record = top.filter(|path| path.file_name().ends_with(b".dist-info"));
            place.parts().next() == Some(b"conda-meta") || record.is_some() && record != metadata
        };
        let all = self.files.iter().flatten().map(|(place, _)| place).chain(&self.empty_directories);
        match all.chain(self.commands.keys()).find(|place| is_foreign(place)) {
            Some(place) => Err(Problem::ForeignRecord(place.clone())),
            None => Ok(()),
        }
    }
}

/// Both what the metadata say and the name of their directory: by that one everybody tells later what is installed.
fn check_identity(index: &WheelIndex, wheel: &Wheel) -> Result<(), Problem> {
    if !is_identity_of(&index.name, &index.version, wheel) {
        return Err(Problem::OtherPackage(format!("{} {}", index.name, index.version)));
    }
    if !is_metadata_of(&index.dist_info.lossy(), wheel) {
        return Err(Problem::OtherPackage(format!("`{}`", index.dist_info)));
    }
    Ok(())
}

/// Whether this is the package that the lock means. Versions are compared as PEP 440 has it: `1.0` is `1.0.0`. The lock has
/// the version of the file name; builds that differ in what they were built with often say so only there (`1.0+cu12`).
fn is_identity_of(name: &str, version: &str, wheel: &Wheel) -> bool {
    let parsed = |text: &str| text.parse::<pep440_rs::Version>().ok();
    let (Some(found), Some(wanted)) = (parsed(version), parsed(&wheel.version)) else { return false };
    normalized_name(name) == wheel.name && (found == wanted || found == wanted.without_local())
}

/// Whether a directory beside the modules has the name of this wheel's metadata.
pub fn is_metadata_of(directory: &str, wheel: &Wheel) -> bool {
    let stem = directory.strip_suffix(".dist-info").and_then(|stem| stem.rsplit_once('-'));
    stem.is_some_and(|(name, version)| is_identity_of(name, version, wheel))
}

fn commands_of(index: &WheelIndex, python: &Python) -> Result<BTreeMap<ImagePath, EntryPoint>, Problem> {
    let file = index.dist_info.join(&ImagePath::new("entry_points.txt")?);
    let commands = commands(&index.entry_points, python.minor);
    let commands = commands.map_err(|reason| Problem::BadMetadata { file, reason })?;
    let mut places = BTreeMap::new();
    for entry_point in commands {
        let bad = || Problem::BadCommand(entry_point.command.clone());
        let name = ImagePath::new(&entry_point.command).map_err(|_| bad())?;
        let is_python = |name: &[u8]| {
            let version = name.strip_prefix(b"python3.").map(|rest| rest.iter().all(u8::is_ascii_digit));
            [b"python".as_slice(), b"python3", b"pythonw"].contains(&name) || version == Some(true)
        };
        if name.parts().count() != 1 || is_python(name.as_bytes()) {
            return Err(bad());
        }
        places.insert(python.bin_dir.join(&name), entry_point);
    }
    Ok(places)
}

/// Scripts of this name are what older tools made of an entry point.
fn is_command(place: &ImagePath, commands: &BTreeMap<ImagePath, EntryPoint>) -> bool {
    let bare = |suffix: &[u8]| ImagePath::new(place.as_bytes().strip_suffix(suffix)?).ok();
    let same = [b".exe".as_slice(), b"-script.py", b".pya"].into_iter().filter_map(bare);
    commands.contains_key(place) || same.into_iter().any(|place| commands.contains_key(&place))
}

/// What is written for a wheel that the manifest names by its URL (PyPA, "Recording the direct URL origin of installed
/// distributions"): credentials stay out.
fn direct_url(wheel: &Wheel) -> Vec<u8> {
    serde_json::json!({ "url": wheel.public_url().as_str(), "archive_info": {} }).to_string().into_bytes()
}

/// Where the parts of a wheel go, relative to the environment (PyPA, "Binary distribution format", "The .data directory").
struct Scheme<'a> {
    /// The name of the `.data` directory.
    data: Vec<u8>,
    site_packages: &'a ImagePath,
    scripts: &'a ImagePath,
    headers: ImagePath,
}

impl<'a> Scheme<'a> {
    fn new(index: &WheelIndex, python: &'a Python) -> Result<Self, Problem> {
        let name = index.dist_info.as_bytes();
        let stem = name.strip_suffix(b".dist-info").unwrap_or(name);
        Ok(Self {
            data: [stem, b".data"].concat(),
            site_packages: &python.site_packages,
            scripts: &python.bin_dir,
            headers: python.include_dir()?.join(&ImagePath::new(normalized_name(&index.name))?),
        })
    }

    fn place(&self, path: &ImagePath) -> Result<(ImagePath, Treatment), Problem> {
        let unknown = || Problem::UnknownScheme(path.clone());
        let mut parts = path.parts();
        if parts.next() != Some(self.data.as_slice()) {
            return Ok((self.site_packages.join(path), Treatment::Plain));
        }
        let key = parts.next().ok_or_else(unknown)?;
        let rest: Vec<&[u8]> = parts.collect();
        let rest = ImagePath::new(rest.join(&b'/')).map_err(|_| unknown())?;
        match key {
            b"purelib" | b"platlib" => Ok((self.site_packages.join(&rest), Treatment::Plain)),
            b"headers" => Ok((self.headers.join(&rest), Treatment::Plain)),
            b"data" => Ok((rest, Treatment::Plain)),
            b"scripts" if rest.parts().count() == 1 => Ok((self.scripts.join(&rest), Treatment::Script)),
            _ => Err(unknown()),
        }
    }

    /// The place of an empty directory; none for those of the `.data` directory itself.
    fn directory(&self, path: &ImagePath) -> Result<Option<ImagePath>, Problem> {
        let is_data = path.parts().next() == Some(self.data.as_slice());
        match path.parts().count() {
            1 | 2 if is_data => Ok(None),
            _ => self.place(path).map(|(place, _)| Some(place)),
        }
    }
}
