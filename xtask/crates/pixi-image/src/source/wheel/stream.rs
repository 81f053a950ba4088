//! Inflates the files of a wheel once and pushes them.

use std::io::Read;

use super::archive::Archive;
use super::places::{Places, Treatment};
use super::record::{self, Checksum, Hasher, Row};
use super::{File, MAX_IN_MEMORY, Problem, WheelError, WheelIndex};
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode, push_file};
use crate::model::Wheel;
use crate::publish::Readable;
use crate::source::placement::{Directories, GENERATED_MTIME, Placement};

/// What is copied at a time.
const PIECE: usize = 128 << 10;
/// The first line of a script for whatever python it is installed with; `#!pythonw` begins so too.
const SHEBANG: &[u8] = b"#!python";

/// Pushes everything that `wheel` installs: all directories, files in the order of the archive, commands, what installers
/// write, `RECORD`. The entries are a function of the archive and the placement alone.
pub fn stream(
    archive: &Readable,
    wheel: &Wheel,
    index: &WheelIndex,
    placement: &Placement<'_>,
    sink: &mut dyn EntrySink,
) -> Result<(), WheelError> {
    let installed = Places::new(index, wheel, placement.python).and_then(|places| {
        Installer { places: &places, placement, rows: Vec::new(), piece: vec![0; PIECE], sink }.install(archive, index)
    });
    installed.map_err(|problem| WheelError {
        wheel: wheel.file_name.clone(),
        archive: Some(archive.place().to_owned()),
        problem: problem.into(),
    })
}

/// Pushes one wheel.
struct Installer<'a> {
    places: &'a Places<'a>,
    placement: &'a Placement<'a>,
    /// The lines of the new `RECORD`.
    rows: Vec<Row>,
    piece: Vec<u8>,
    sink: &'a mut dyn EntrySink,
}

impl Installer<'_> {
    fn install(mut self, archive: &Readable, index: &WheelIndex) -> Result<(), Problem> {
        self.directories(index)?;
        let mut archive = Archive::open(archive)?;
        for (file, place) in index.files.iter().zip(&self.places.files) {
            let Some((place, treatment)) = place else { continue };
            if let Some(checksum) = self.left_to_another(file, place) {
                self.record(place, checksum, file.size);
                continue;
            }
            let mut content = archive.content(file.number)?;
            let mode = if file.executable { Mode::EXECUTABLE } else { Mode::FILE };
            match treatment {
                Treatment::Plain => self.file(file, place, mode, &mut content)?,
                Treatment::Script => self.script(file, place, &mut content)?,
            }
        }
        for (place, entry_point) in &self.places.commands {
            let script = entry_point.script(&self.places.python.shebang(self.placement.prefix));
            self.generated(place, Mode::EXECUTABLE, GENERATED_MTIME, script.as_bytes())?;
        }
        for (place, content) in &self.places.written {
            self.generated(place, Mode::FILE, GENERATED_MTIME, content)?;
        }
        let record = self.recorded(&self.places.record);
        self.rows.push(Row { path: record, digest: None, size: None });
        let text = record::write(std::mem::take(&mut self.rows)).map_err(|error| Problem::Record(error.to_string()))?;
        let path = self.placement.image_path(&self.places.record)?;
        push_file(self.sink, path, Mode::FILE, GENERATED_MTIME, &text).map_err(Problem::Sink)
    }

    /// Pushes the directories above all that comes, and the empty ones.
    fn directories(&mut self, index: &WheelIndex) -> Result<(), Problem> {
        let files = index.files.iter().zip(&self.places.files).filter_map(|(file, place)| {
            let (place, _) = place.as_ref()?;
            self.left_to_another(file, place).is_none().then_some(place)
        });
        let generated = self.places.commands.keys().chain(self.places.written.keys()).chain([&self.places.record]);
        let mut directories = Directories::default();
        for place in files.chain(generated) {
            directories.above(&self.placement.image_path(place)?);
        }
        for place in &self.places.empty_directories {
            directories.add(self.placement.image_path(place)?);
        }
        directories.push(self.sink).map_err(Problem::Sink)
    }

    /// The checksum of a file that a later wheel brings, too.
    fn left_to_another<'f>(&self, file: &'f File, place: &ImagePath) -> Option<&'f Checksum> {
        file.checksum.as_ref().filter(|_| self.placement.shared.contains(place))
    }

    /// Pushes a file as it stands in the archive.
    fn file(&mut self, file: &File, place: &ImagePath, mode: Mode, content: &mut dyn Read) -> Result<(), Problem> {
        let path = self.placement.image_path(place)?;
        let kind = EntryKind::File { size: file.size };
        self.sink.entry(&Entry { path, kind, mode, mtime: file.mtime }).map_err(Problem::Sink)?;
        let mut hasher = file.checksum.as_ref().map_or_else(Hasher::usual, Checksum::hasher);
        let mut left = file.size;
        loop {
            let length = content.read(&mut self.piece).map_err(Problem::Read)?;
            let bytes = &self.piece[..length];
            // Also where it goes on after its end, or ends before.
            left = match (left.checked_sub(length as u64), length) {
                (Some(0), 0) => break,
                (Some(left), 1..) => left,
                _ => return Err(Problem::OtherContent(file.path.clone())),
            };
            hasher.update(bytes);
            self.sink.data(bytes).map_err(Problem::Sink)?;
        }
        let found = hasher.finish();
        if file.checksum.as_ref().is_some_and(|checksum| *checksum != found) {
            return Err(Problem::OtherContent(file.path.clone()));
        }
        self.record(place, &found, file.size);
        Ok(())
    }

    /// Pushes a script. Some are programs: only one that begins as a script of python is read as a whole.
    fn script(&mut self, file: &File, place: &ImagePath, content: &mut dyn Read) -> Result<(), Problem> {
        let mut text = Vec::new();
        content.take(SHEBANG.len() as u64).read_to_end(&mut text).map_err(Problem::Read)?;
        if text != SHEBANG {
            return self.file(file, place, Mode::EXECUTABLE, &mut text.as_slice().chain(content));
        }
        if file.size > MAX_IN_MEMORY {
            return Err(Problem::TooLarge { what: format!("the script `{}`", file.path), limit: MAX_IN_MEMORY });
        }
        let left = file.size.saturating_sub(text.len() as u64);
        content.take(left.saturating_add(1)).read_to_end(&mut text).map_err(Problem::Read)?;
        let mut hasher = file.checksum.as_ref().map_or_else(Hasher::usual, Checksum::hasher);
        hasher.update(&text);
        let differs = |checksum: &Checksum| *checksum != hasher.finish();
        if text.len() as u64 != file.size || file.checksum.as_ref().is_some_and(differs) {
            return Err(Problem::OtherContent(file.path.clone()));
        }
        let rest = text.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &text[end + 1..]);
        let shebang = self.places.python.shebang(self.placement.prefix);
        self.generated(place, Mode::EXECUTABLE, file.mtime, &[shebang.as_bytes(), b"\n", rest].concat())
    }

    fn generated(&mut self, place: &ImagePath, mode: Mode, mtime: u32, content: &[u8]) -> Result<(), Problem> {
        let path = self.placement.image_path(place)?;
        push_file(self.sink, path, mode, mtime, content).map_err(Problem::Sink)?;
        self.record(place, &Checksum::of(content), content.len() as u64);
        Ok(())
    }

    fn record(&mut self, place: &ImagePath, checksum: &Checksum, size: u64) {
        let path = self.recorded(place);
        self.rows.push(Row { path, digest: Some(checksum.to_string()), size: Some(size) });
    }

    /// How `RECORD` writes a place: relative to where modules are, and where it ended up.
    fn recorded(&self, place: &ImagePath) -> String {
        record::relative(&self.places.python.site_packages, self.placement.settled(place))
    }
}
