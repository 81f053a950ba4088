//! The lesson's own files, embedded: never the working copy, or a learner's edits would become the reference.

use include_dir::{Dir, include_dir};

static LESSON: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/lesson");

/// The text of a file of `xtask/lesson/`; none when there is no such file.
pub fn text(path: &str) -> Option<&'static str> {
    LESSON.get_file(path)?.contents_utf8()
}

/// The names of the files in a folder of `xtask/lesson/`, without their extension, in order.
pub fn names(folder: &str) -> Vec<&'static str> {
    let files = LESSON.get_dir(folder).into_iter().flat_map(Dir::files);
    let mut names: Vec<_> = files.filter_map(|file| file.path().file_stem()?.to_str()).collect();
    names.sort_unstable();
    names
}
