//! What shows in `pixi.toml`.

use crate::manifest_edit;
use crate::traps::Spot;
use crate::traps::files::View;

/// T09: the lesson's own form is none yet, for it works with every version. For all environments at once, or beside what
/// replaces it, it does harm.
pub fn old_section(view: &View<'_>) -> Vec<Spot> {
    let Some(file) = view.file("pixi.toml") else { return Vec::new() };
    let found = manifest_edit::old_requirements(&file.text).into_iter();
    let spot = |section: manifest_edit::OldRequirements| {
        let what = if section.is_mixed {
            format!("[{}] is given up, and pixi takes none beside platforms that say the same", section.name)
        } else {
            format!("[{}] is given up; it asks CUDA of every environment, of cpu too", section.name)
        };
        let spot = Spot::new(&file.path, section.line, what);
        if section.is_mixed { spot.mend("remove this section: the platforms say it") } else { spot }
    };
    found.map(spot).collect()
}
