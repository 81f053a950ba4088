//! A workspace with everything that packages can hold and images must keep.

use std::fs;

use rattler_conda_types::package::FileMode;

use crate::packages::{Content, Format, Member, Package};
use crate::workspace::{Shelf, Workspace, base};

const PLACEHOLDER: &str = "/home/builder/placeholder_placeholder_placeholder_placeholder_placeholder_placeholder";

/// Bytes that do not compress, the same at each call.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub fn link(path: &str, target: &str) -> Member {
    Member::new(path, Content::Symlink(target.to_owned()))
}

/// Everything that packages can hold and images must keep.
fn varied() -> Shelf {
    let script = format!("#!{PLACEHOLDER}/bin/python\nprint('{PLACEHOLDER}')\n");
    let binary = [noise(500), format!("\0{PLACEHOLDER}/lib\0").into_bytes(), noise(200_000)].concat();
    let python = Package::new(
        "python",
        [
            Member::file("bin/python3.12", noise(9000)).executable(),
            link("bin/python", "python3.12"),
            Member::file("lib/python3.12/os.py", "import sys\n").mtime(1_600_000_000),
            Member::file("lib/libpython3.12.so", binary).patched(PLACEHOLDER, FileMode::Binary).executable(),
        ],
    )
    .version("3.12.4");
    let pure = Package::new(
        "pure",
        [
            Member::file("site-packages/pure/__init__.py", "def main(): pass\n"),
            Member::file("python-scripts/old", script.clone()).patched(PLACEHOLDER, FileMode::Text).executable(),
        ],
    )
    .noarch("python")
    .entry_points(&["pure = pure:main", "another = pure:main"])
    .depends(&["python"]);
    let large = Package::new(
        "large",
        [
            Member::file("lib/noise", noise(3_000_001)),
            Member::file("lib/zeros", vec![0; 1_000_000]),
            Member::file("lib/text", "all work and no play ".repeat(150_000)),
            Member::file("lib/blocks", noise(4 * 128 * 1024)),
            Member::file("lib/empty", ""),
            Member::file("bin/patched", script).patched(PLACEHOLDER, FileMode::Text).executable(),
            Member::file("etc/conda/activate.d/large.sh", "export LARGE=1\n"),
            Member::file("etc/conda/env_vars.d/large.json", r#"{"B": "2", "A": "1"}"#),
        ],
    );
    let links = Package::new(
        "links",
        [
            Member::file("lib/first", noise(300_000)),
            Member::new("lib/second", Content::Hardlink("lib/first".to_owned())),
            Member::new("lib/third", Content::Hardlink("lib/first".to_owned())),
            Member::file("lib/small", "small"),
            Member::new("lib/smaller", Content::Hardlink("lib/small".to_owned())),
            link("lib/away", "/usr/lib/libcuda.so"),
            link("lib/near", "first"),
        ],
    )
    .by_hand();
    let clash =
        Package::new("clash", [Member::file("lib/small", "another"), Member::new("share/nothing", Content::Directory)])
            .depends(&["links"]);
    let mut shelf = Shelf::default();
    for (package, format) in [python, pure, large, links, clash].iter().zip(Format::ALL.into_iter().cycle()) {
        shelf.add(package, format);
    }
    shelf
}

/// The same on a base, with application files.
pub fn workspace_on_a_base() -> Workspace {
    let workspace = Workspace::of(varied());
    base(&workspace.work("base.tar"), "amd64", &[("bin/bash", "#!"), ("etc/motd", "hello"), ("usr/lib/x", "x")]);
    fs::create_dir_all(workspace.work("app/sub/deep")).unwrap();
    for name in ["z.py", "a.py", "sub/m.py", "sub/deep/data"] {
        workspace.write(&format!("app/{name}"), name.as_bytes());
    }
    workspace
}
