//! The report in a real browser: that it fits, is whole without a network, and keeps nobody out.
//!
//! `.ci/browser` installs Debian's chromium and axe-core, and names them in `XTASK_BROWSER` and `XTASK_AXE`. Where they are
//! not there the tests are skipped; with `XTASK_REQUIRE_ENGINES=1`, as in CI, they fail. The pictures that are looked at
//! stay in `target/tmp/pictures`.
#![cfg_attr(not(unix), allow(dead_code))]

#[cfg(unix)]
mod devtools;
#[cfg(unix)]
#[allow(dead_code)]
mod page;
#[cfg(unix)]
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

#[cfg(not(unix))]
fn main() -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(unix)]
fn main() -> ExitCode {
    checks::run()
}

#[cfg(unix)]
mod checks {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use anyhow::{Context as _, Result, ensure};
    use libtest_mimic::{Arguments, Completion, Failed, Trial};

    use crate::devtools::{Browser, Look, find, script};
    use crate::page::{HOSTILE, answer_plan, finish, fresh, packages};

    struct Check {
        name: &'static str,
        run: fn(&mut Browser) -> Result<()>,
    }

    const CHECKS: &[Check] = &[
        Check { name: "a_report_of_nothing_yet_fits_and_keeps_nobody_out", run: of_nothing_yet },
        Check { name: "a_report_of_many_packages_fits_and_keeps_nobody_out", run: of_many_packages },
        Check { name: "a_report_with_changes_fits_and_keeps_nobody_out", run: of_changes },
        Check { name: "the_keyboard_reaches_everything", run: keyboard },
        Check { name: "hostile_names_and_output_are_shown_as_text", run: hostile },
        Check { name: "without_scripts_the_tables_are_there", run: without_scripts },
        Check { name: "what_is_known_to_be_wrong_is_found", run: control },
    ];

    pub fn run() -> ExitCode {
        libtest_mimic::run(&Arguments::from_args(), CHECKS.iter().map(trial).collect()).exit_code()
    }

    fn trial(check: &'static Check) -> Trial {
        Trial::ignorable_test(check.name, move || {
            let required = std::env::var_os("XTASK_REQUIRE_ENGINES").is_some_and(|value| value == "1");
            let needs = [("chromium", chromium()), ("axe.min.js (XTASK_AXE)", axe())];
            match needs.iter().find(|(_, place)| place.is_none()) {
                Some((name, _)) if required => Err(Failed::from(format!("no {name}, but it is required here"))),
                Some((name, _)) => Ok(Completion::ignored_with(format!("skipped: no {name}"))),
                None => {
                    let program = chromium().unwrap_or_default();
                    let done = Browser::start(&program).and_then(|mut browser| (check.run)(&mut browser));
                    done.map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
                }
            }
        })
    }

    fn chromium() -> Option<PathBuf> {
        find("XTASK_BROWSER", &["chromium", "chromium-browser", "google-chrome"])
    }

    fn axe() -> Option<PathBuf> {
        find("XTASK_AXE", &[])
    }

    fn look(width: u32, colours: &'static str) -> Look {
        Look { width, colours, scripts: true }
    }

    /// What is wrong with a page as it is open now.
    fn faults(browser: &mut Browser, width: u32) -> Result<Vec<String>> {
        let mut faults = browser.complaints()?;
        faults.extend(browser.requests()?);
        let widths = browser.value("`${innerWidth} ${document.scrollingElement.scrollWidth}`")?;
        if widths != format!("{width} {width}") {
            faults.push(format!("the window and the page are {widths} wide, not {width}"));
        }
        browser.inject(&script(&axe().context("axe")?)?)?;
        let serious = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations \
                       .filter((one) => ['serious', 'critical'].includes(one.impact)) \
                       .map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`).join('\\n'))";
        let serious = browser.value(serious)?;
        faults.extend(serious.lines().map(str::to_owned));
        Ok(faults)
    }

    /// Looks at a page in both widths and both colours, all that is folded unfolded.
    fn all_looks(browser: &mut Browser, name: &str, page: &Path) -> Result<()> {
        let mut pictures = Vec::new();
        for width in [1280, 400] {
            for colours in ["light", "dark"] {
                browser.open(page, look(width, colours))?;
                let what = format!("{name}-{width}-{colours}");
                let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures").join(format!("{what}.png"));
                let picture = browser.picture(&place)?;
                ensure!(!pictures.contains(&picture), "{what} looks as another does");
                pictures.push(picture);
                browser.inject("document.querySelectorAll('details').forEach((one) => { one.open = true; })")?;
                let faults = faults(browser, width)?;
                ensure!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
            }
        }
        Ok(())
    }

    fn of_nothing_yet(browser: &mut Browser) -> Result<()> {
        let repository = fresh("browser-nothing", &packages(5));
        repository.xtask(&["report"]).ends(0);
        all_looks(browser, "nothing", &repository.path("target/report.html"))
    }

    fn of_many_packages(browser: &mut Browser) -> Result<()> {
        let repository = fresh("browser-many", &packages(120));
        finish(&repository);
        repository.xtask(&["report", "--source", "rehearsal"]).ends(0);
        let page = repository.path("target/report.html");
        all_looks(browser, "many", &page)?;
        browser.open(&page, look(400, "light"))?;
        // All packages are in the picture: those that are too small for it together.
        let cells = browser.value("document.querySelectorAll('.treemap .cell').length")?.parse::<usize>()?;
        ensure!((6..=60).contains(&cells), "{cells} cells");
        let smallest = "Math.min(...[...document.querySelectorAll('.cell')].flatMap((one) => [one.offsetWidth, one.offsetHeight]))";
        ensure!(browser.value(smallest)?.parse::<u32>()? >= 24, "a cell is too small to be pointed at");
        let drawn = browser.value("document.querySelectorAll('.stack').length")?;
        ensure!(drawn == "2", "{drawn} stacks of layers");
        Ok(())
    }

    fn of_changes(browser: &mut Browser) -> Result<()> {
        let repository = fresh("browser-changes", &packages(12));
        finish(&repository);
        answer_plan(&repository, "gpu-before", &packages(9)[1..]);
        repository.write("target/rehearsal/cuda-exercise/pixi.lock", "another lock\n");
        repository.xtask(&["build", "docker", "--source", "rehearsal"]).ends(0);
        repository.write("target/rehearsal/cuda-exercise/app/more.py", "print()\n");
        repository.xtask(&["report", "--source", "rehearsal"]).ends(0);
        all_looks(browser, "changes", &repository.path("target/report.html"))
    }

    fn keyboard(browser: &mut Browser) -> Result<()> {
        let repository = fresh("browser-keyboard", &packages(12));
        finish(&repository);
        repository.xtask(&["report", "--source", "rehearsal"]).ends(0);
        browser.open(&repository.path("target/report.html"), look(1280, "light"))?;
        let focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent";
        let said = "document.querySelector('.panel').textContent";

        browser.press("Tab")?;
        ensure!(browser.value(focused)? == "Skip to the content");
        browser.press("Tab")?;
        ensure!(browser.value(focused)? == "Dark colours");
        browser.press("Enter")?;
        ensure!(browser.value("document.documentElement.dataset.theme")? == "dark");
        ensure!(browser.value(focused)? == "Light colours");
        browser.press("Enter")?;

        let mut stops = 0;
        while !browser.value(focused)?.starts_with("libtorch, 0.0.0: ") {
            stops += 1;
            ensure!(stops < 20, "Tab does not come to the packages");
            browser.press("Tab")?;
        }
        ensure!(browser.value(said)?.contains("libtorch 0.0.0 h0_0"), "{}", browser.value(said)?);
        let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")?;
        ensure!(outline == "solid", "the focus cannot be seen: {outline}");
        browser.press("ArrowRight")?;
        ensure!(browser.value(said)?.contains("python 2.2.0"), "{}", browser.value(said)?);
        ensure!(browser.value(said)?.contains("another version or build in cpu"), "{}", browser.value(said)?);
        browser.press("Enter")?;
        ensure!(browser.value("document.activeElement.getAttribute('aria-pressed')")? == "true");
        browser.press("Home")?;
        ensure!(browser.value(said)?.contains("libtorch 0.0.0"), "{}", browser.value(said)?);

        // The packages are one stop, the next is the table.
        browser.press("Tab")?;
        ensure!(browser.value(focused)? == "All packages as a table", "{}", browser.value(focused)?);
        browser.press("Enter")?;
        browser.press("Tab")?;
        browser.press("Enter")?;
        let first = "document.querySelector('#packages tbody th').textContent";
        ensure!(browser.value(first)? == "cudnn", "{}", browser.value(first)?);
        let order = "document.querySelector('#packages thead th').getAttribute('aria-sort')";
        ensure!(browser.value(order)? == "ascending");
        browser.press("Enter")?;
        ensure!(browser.value(first)? == "python", "{}", browser.value(first)?);
        let faults = browser.complaints()?;
        ensure!(faults.is_empty(), "{faults:?}");
        Ok(())
    }

    fn hostile(browser: &mut Browser) -> Result<()> {
        let mut packages = packages(6);
        packages[1].name = HOSTILE.to_owned();
        packages[3].version = HOSTILE.to_owned();
        let repository = fresh("browser-hostile", &packages);
        repository.write("programs/printed", &format!("{HOSTILE}\u{1b}[31m\n"));
        finish(&repository);
        repository.xtask(&["report", "--source", "rehearsal"]).ends(0);
        browser.open(&repository.path("target/report.html"), look(1280, "light"))?;
        browser.press("Tab")?;
        browser.inject("document.querySelectorAll('.cell').forEach((one) => one.click())")?;
        browser.inject("document.querySelectorAll('details').forEach((one) => { one.open = true; })")?;
        let faults = faults(browser, 1280)?;
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        ensure!(browser.value("window.pwned")? == "undefined", "something of a name ran");
        ensure!(browser.value("document.images.length")? == "0");
        let shown = "[document.querySelector('#output pre'), ...document.querySelectorAll('#packages th, .cell .name, .card dd')] \
                     .filter((one) => one.textContent.includes('<img/src=x/onerror=')).length";
        let shown = browser.value(shown)?.parse::<usize>()?;
        ensure!(shown >= 4, "{shown} of output, table, picture and labels");
        Ok(())
    }

    fn without_scripts(browser: &mut Browser) -> Result<()> {
        let repository = fresh("browser-scripts", &packages(7));
        finish(&repository);
        repository.xtask(&["report", "--source", "rehearsal"]).ends(0);
        let page = repository.path("target/report.html");
        browser.open(&page, Look { scripts: false, ..look(400, "light") })?;
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures/without-scripts.png");
        browser.picture(&place)?;
        let rows = "document.querySelectorAll('#packages tbody tr').length";
        ensure!(browser.value(rows)? == "7" && browser.value("document.querySelectorAll('.cell').length")? == "0");
        ensure!(browser.value("document.getElementById('theme').checkVisibility()")? == "false");
        ensure!(browser.value("document.querySelectorAll('#layers pre, #images pre').length")? == "3");
        Ok(())
    }

    /// The checks are awake: each finds what is known to be wrong.
    fn control(browser: &mut Browser) -> Result<()> {
        let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.html");
        let text = "<!doctype html><html><head><meta name='viewport' content='width=device-width'></head><body>\
                    <div style='width: 2000px'>wide</div><img src='http://localhost:9/x.png'><button></button>\
                    <script>console.error('it complains'); nothing.at.all()</script></body></html>";
        fs::write(&page, text)?;
        browser.open(&page, look(400, "light"))?;
        let faults = faults(browser, 400)?.join("\n");
        for found in ["it complains", "nothing is not defined", "localhost:9", "2000", "image-alt", "button-name"] {
            ensure!(faults.contains(found), "{found} was not found:\n{faults}");
        }
        Ok(())
    }
}
