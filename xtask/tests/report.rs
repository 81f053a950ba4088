//! `cargo xtask report`: one page that is whole, shows what there is, and lets nothing out of its place.
#![cfg(unix)]

#[path = "browser/page.rs"]
#[allow(dead_code)]
mod page;
mod support;

use page::{HOSTILE, Package, answer_plan, finish, fresh, packages};
use support::{Repository, golden};

const REPORT: &str = "target/report.html";

fn report(repository: &Repository) -> String {
    let said = repository.xtask(&["report", "--source", "rehearsal"]).stdout();
    assert!(said.starts_with("target/report.html ("), "{said}");
    repository.read(REPORT)
}

/// The text between two others.
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let (_, after) = text.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    after.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0
}

fn section<'t>(page: &'t str, id: &str) -> &'t str {
    between(page, &format!("<section id=\"{id}\""), "</section>")
}

#[test]
fn a_report_of_a_finished_lesson_holds_all_of_it() {
    let repository = fresh("report-finished", &packages(5));
    finish(&repository);
    let page = report(&repository);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n") && !page.contains("{{"), "{page}");
    assert!(page.contains("<strong>Rehearsal.</strong>"));
    assert!(section(&page, "pipeline").contains("<h3>run apptainer</h3><span class=\"badge\">done</span>"));
    let rows = section(&page, "packages");
    assert!(rows.contains("<tr><th scope=\"row\">libtorch</th><td>0.0.0 <small>h0_0</small></td>"), "{rows}");
    assert_eq!(rows.matches("<th scope=\"row\">").count(), 5);
    for id in ["plan", "other-plan", "docker", "other-docker", "apptainer"] {
        let json = between(&page, &format!("<script type=\"application/json\" id=\"{id}\">"), "</script>");
        assert!(json.starts_with('{') && json.ends_with('}') && !json.contains('<'), "{id}: {json}");
    }
    assert!(section(&page, "layers").contains("<pre>image  as text</pre>"));
    assert!(section(&page, "images").contains("<pre>sif  as text</pre>"));
    let output = section(&page, "output");
    assert!(
        output.contains("Both images printed the same.") && output.contains("<pre>PyTorch has no active GPU</pre>")
    );
    assert!(!page.contains("class=\"absent\""), "something is missing");
}

#[test]
fn nothing_of_a_report_comes_from_elsewhere() {
    let repository = fresh("report-alone", &packages(5));
    finish(&repository);
    let page = report(&repository).to_lowercase();
    assert!(page.contains("http-equiv=\"content-security-policy\" content=\"default-src 'none'; img-src data:;"));
    for loads in [
        "src=\"http",
        "href=\"http",
        "src=\"//",
        "href=\"//",
        "url(",
        "@import",
        "<link rel=\"style",
        "<iframe",
        "fetch(",
    ] {
        assert!(!page.contains(loads), "{loads}");
    }
    // Scripts without an address, and data.
    let scripts: Vec<_> = page.match_indices("<script").map(|(at, _)| between(&page[at..], "<script", ">")).collect();
    assert!(scripts.iter().all(|attributes| !attributes.contains("src")), "{scripts:?}");
}

#[test]
fn names_and_output_cannot_leave_their_place() {
    let mut hostile = packages(4);
    hostile[3].name = HOSTILE.to_owned();
    let repository = fresh("report-hostile", &hostile);
    repository.write("programs/printed", &format!("{HOSTILE}\u{1b}[31m {{{{script}}}}\n"));
    finish(&repository);
    let page = report(&repository);
    assert!(!page.contains("<img"), "markup came through");
    let shown = "&lt;/script&gt;&lt;img/src=x/onerror=&quot;window.pwned=1&quot;&gt;&amp;&#39;";
    assert!(section(&page, "packages").contains(shown));
    let output = section(&page, "output");
    assert!(output.contains(&format!("<pre>{shown}␛[31m {{{{script}}}}</pre>")), "{output}");
    // Of the script elements each ends where it should.
    assert_eq!(page.matches("<script").count(), 6);
    assert_eq!(page.matches("</script>").count(), 6);
}

#[test]
fn what_is_not_there_yet_is_said_with_the_command_that_makes_it() {
    let repository = fresh("report-fresh", &packages(3));
    let help = repository.xtask(&["report", "--help"]).stdout();
    golden("help-report", help.split("\nCommon options:").next().unwrap());
    let said = repository.xtask(&["report"]);
    assert!(repository.calls().is_empty(), "nothing is asked of the network");
    let page = {
        said.ends(0);
        repository.read(REPORT)
    };
    assert!(!page.contains("<strong>Rehearsal.</strong>"));
    let lock = "cuda-exercise/pixi.lock is not there yet. Type <code>cargo xtask lock</code>.";
    assert!(section(&page, "packages").contains(lock));
    for (id, command) in [
        ("layers", "build docker"),
        ("layers", "build docker --env cpu"),
        ("images", "build apptainer"),
        ("changes", "build docker"),
        ("output", "all"),
    ] {
        assert!(section(&page, id).contains(&format!("Type <code>cargo xtask {command}</code>.")), "{id}: {command}");
    }
    assert!(page.contains("<p class=\"next\">Next: <code>cargo xtask "));
}

#[test]
fn an_image_that_cannot_be_read_is_said_to_be_so() {
    let repository = fresh("report-damaged", &packages(3));
    finish(&repository);
    repository.write("programs/damaged", "");
    let page = report(&repository);
    assert!(section(&page, "images").contains("<p class=\"absent\">it is damaged</p>"), "{}", section(&page, "images"));
    assert!(section(&page, "pipeline").contains("<span class=\"badge\">done</span>"));
}

#[test]
fn what_changed_since_the_build_before_and_what_comes_next_are_told_apart() {
    let repository = fresh("report-changes", &packages(3));
    finish(&repository);
    assert!(section(&report(&repository), "changes").contains("built from nothing else before"));
    let lock = "target/rehearsal/cuda-exercise/pixi.lock";
    let build = || repository.xtask(&["build", "docker", "--source", "rehearsal"]);
    let before = repository.read(lock);

    // The same again is no news.
    build().ends(0);
    assert!(section(&report(&repository), "changes").contains("built from nothing else before"));

    repository.write(lock, "another lock\n");
    let older = [&packages(2)[..], &[Package { name: "gone".into(), version: "1".into(), bytes: 5_000_000 }]].concat();
    answer_plan(&repository, "gpu-before", &older);
    build().ends(0);
    let page = report(&repository);
    let changes = section(&page, "changes");
    assert!(changes.contains("1 package added, 1 package removed."), "{changes}");
    assert!(
        changes.contains("<tr class=\"removed\"><th scope=\"row\">gone<small> removed package</small></th>"),
        "{changes}"
    );
    assert!(changes.contains("\u{2212}5.0 MB") && !changes.contains("Not built yet"), "{changes}");
    assert!(repository.read("target/xtask/rehearsal/cuda-exercise/build-docker-gpu.before").ends_with(&before));

    repository.write("target/rehearsal/cuda-exercise/app/more.py", "print()\n");
    let page = report(&repository);
    let changes = section(&page, "changes");
    assert!(changes.contains("Not built yet") && changes.contains("1 file of the application changed"), "{changes}");
    assert!(changes.contains("more.py<small> added file</small>"), "{changes}");
}

#[test]
fn another_place_may_be_named_and_a_dry_run_writes_nothing() {
    let repository = fresh("report-out", &packages(3));
    let said = repository.xtask(&["report", "--out", "pages/a.html"]).stdout();
    assert!(said.starts_with("pages/a.html ("), "{said}");
    assert!(repository.read("pages/a.html").ends_with("</html>\n") && !repository.path(REPORT).exists());
    assert_eq!(repository.xtask(&["report", "--dry-run"]).stdout(), "# writes target/report.html\n");
    assert!(!repository.path(REPORT).exists());
}
