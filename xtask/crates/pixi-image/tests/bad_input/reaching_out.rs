//! Channels that lie, fail or cannot be reached.

use crate::machine::{skip, without_network};
use crate::small;
use crate::web::Answer;
use crate::workspace::{Workspace, stderr, succeeds};

#[test]
fn a_package_with_other_bytes_than_locked_is_refused() {
    let workspace = Workspace::new(&small());
    let expected = workspace.lock_text();
    let sha256 = expected.split("sha256: ").nth(1).unwrap()[..64].to_owned();
    workspace.answer("lib", |bytes| vec![Answer::Bytes(bytes.iter().map(|byte| byte ^ 1).collect())]);
    let parts = [
        "lib-1.2.3-h0_0",
        "/channel/linux-64/lib-1.2.3-h0_0.conda",
        "wrong content",
        "expected sha256:",
        &sha256,
        "got sha256:",
    ];
    workspace.fails(&mut workspace.build(), &parts);
}

#[test]
fn a_package_that_is_cut_short_is_refused() {
    let workspace = Workspace::new(&small());
    workspace.answer("lib", |bytes| vec![Answer::Bytes(bytes[..bytes.len() - 1].to_vec())]);
    workspace.fails(&mut workspace.build(), &["lib-1.2.3-h0_0", "wrong size"]);
    workspace.answer("lib", |bytes| vec![Answer::Cut(bytes, 100)]);
    workspace.fails(&mut workspace.build(), &["lib-1.2.3-h0_0", "cut short"]);
}

#[test]
fn a_package_that_is_gone_says_so() {
    let workspace = Workspace::new(&small());
    for (status, hint) in [(404, "lock again"), (403, "not public"), (503, "try again")] {
        workspace.answer("tool", |_| vec![Answer::Status(status)]);
        workspace.fails(&mut workspace.build(), &["tool-1.2.3-h0_0", &status.to_string(), hint]);
    }
}

#[test]
fn without_a_network_the_cache_is_enough_and_else_the_package_is_named() {
    let workspace = Workspace::new(&small());
    let (build, lock) = (workspace.build(), workspace.lock());
    let (Some(mut build), Some(mut lock)) = (without_network(&build), without_network(&lock)) else {
        return skip("this machine does not let tests take the network away");
    };
    workspace.fails(&mut build, &["cannot fetch", "h0_0", "unreachable", "PROXY"]);
    workspace.web.clear();
    std::fs::remove_dir_all(workspace.path("cache")).unwrap();
    workspace.fails(&mut lock, &["cannot read the channel", "/channel", "rehearsal"]);
    workspace.serve();
    succeeds(&mut workspace.build());
    let right = workspace.digests();
    workspace.forget_results();
    succeeds(&mut build);
    assert_eq!(workspace.digests(), right);
}

#[test]
fn off_line_all_that_is_missing_is_listed_at_once() {
    let workspace = Workspace::new(&small());
    let asked = workspace.web.asked().len();
    let parts = ["2 of 2 packages", "lib-1.2.3-h0_0", "tool-1.2.3-h0_0", "without `--offline`"];
    workspace.fails(workspace.build().arg("--offline"), &parts);
    let base = "registry.invalid/base:1";
    workspace.fails(workspace.build_on(base).arg("--offline"), &[base, "not in the cache", "without `--offline`"]);
    assert_eq!(workspace.web.asked().len(), asked);
    succeeds(&mut workspace.build());
    let right = workspace.digests();
    let asked = workspace.web.asked().len();
    workspace.forget_results();
    succeeds(workspace.build().arg("--offline"));
    assert_eq!((workspace.digests(), workspace.web.asked().len()), (right, asked));
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let workspace = Workspace::new(&small());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("{closed}/base:1");
    workspace.fails(&mut workspace.build_on(&base), &["cannot pull", &base, "refused"]);
    let base = format!("{}/base:1", workspace.web.url("").trim_start_matches("http://"));
    workspace.fails(&mut workspace.build_on(&base), &["cannot pull", &base]);
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_fail() {
    let workspace = Workspace::new(&small());
    let mut build = workspace.build();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    build.stdout(writer.try_clone().unwrap());
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut build = workspace.build();
    build.stdout(std::process::Stdio::null()).stderr(writer);
    assert!(build.status().unwrap().success());
    let mut build = workspace.build();
    build.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = build.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write to stdout: No space left"), "{}", stderr(&output));
}
