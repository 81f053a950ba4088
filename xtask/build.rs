//! `include_dir!` sees edits of the embedded files but not added ones; this line makes cargo look at the folder.

fn main() {
    println!("cargo::rerun-if-changed=lesson");
}
