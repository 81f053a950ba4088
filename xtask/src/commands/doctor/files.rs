//! The files that may be in a trap.

use std::path::Path;

use crate::context::Context;
use crate::traps::{File, Files, Tree, is_looked_at};

/// The largest file that is read; locks are larger than anything that people write.
const LARGEST: u64 = 32 << 20;

/// Reads what a learner may have written, in the workspace and among the workflows.
pub fn read(cx: &Context) -> Files {
    let workspace = cx.resolve(&cx.options.workspace);
    let workflows = cx.resolve(".github/workflows");
    let of_pixi = ["pixi.toml", "pixi.lock", ".dockerignore"];
    let wanted = |name: &str| of_pixi.contains(&name) || name.ends_with(".dockerignore") || is_looked_at(name);
    let mut files = Vec::new();
    for directory in [&workspace, &workflows] {
        let is_workflow = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
        for name in sorted(cx, directory) {
            let path = directory.join(&name);
            let is_wanted =
                if *directory == workflows { is_workflow(&name) } else { wanted(&name) && !is_workflow(&name) };
            if is_wanted && path.is_file() && cx.size(&path).is_some_and(|size| size <= LARGEST) {
                // What is no text is nobody's recipe.
                files.extend(cx.read_file(&path).ok().map(|text| File { path: cx.typed(&path), text }));
            }
        }
    }
    let tree = Tree {
        workspace: cx.typed(&workspace),
        names: sorted(cx, &workspace),
        sources: sorted(cx, &workspace.join("src")),
    };
    Files { files, tree: Some(tree) }
}

fn sorted(cx: &Context, directory: &Path) -> Vec<String> {
    let mut names = cx.names(directory);
    names.sort();
    names
}
