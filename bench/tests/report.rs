//! The report in a real browser: headless Chromium loads the page and gives back what it made of
//! it. Without a browser these tests are skipped, except where `RINGSIDE_REQUIRE=browser` is set,
//! as in `.ci/run`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use bench::output::html;
use bench::store::load::Results;

const ROOM: &str = env!("CARGO_MANIFEST_DIR");
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A browser; `None`, said on stderr, where there is none and none is required.
fn browser() -> Option<&'static str> {
    let found = BROWSERS
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok());
    if found.is_none() {
        let required = std::env::var("RINGSIDE_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "browser"),
            "RINGSIDE_REQUIRE={required}, but none of {BROWSERS:?} is installed"
        );
        // Past the test harness, which keeps what `eprintln` says of a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: looking at the report: none of {BROWSERS:?} is installed"
        );
    }
    found
}

/// What a browser makes of a file.
fn load(browser: &str, file: &Path, profile: &Path) -> String {
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_browser_shows_the_report_of_a_committed_result() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    let status = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("report")
        .arg(committed::varied_result())
        .arg("--to")
        .arg(&page)
        .status()
        .unwrap();
    assert!(status.success());
    let Some(browser) = browser() else {
        return;
    };
    let profile = dir.path().join("profile");
    let dom = load(browser, &page, &profile);
    for part in [
        "<h3>Verdicts</h3>",
        "<h3>Where each loses</h3>",
        "<h3>What made this result</h3>",
        "</html>",
    ] {
        assert!(
            dom.contains(part),
            "no {part} in what {browser} made of the page"
        );
    }
    // A browser closes what is left open and drops what it does not know; a page it understood
    // comes back with all its drawings.
    let written = fs::read_to_string(&page).unwrap();
    for element in [
        "<svg", "<path", "<circle", "<figure", "<details", "<tr", "<article",
    ] {
        assert_eq!(
            dom.matches(element).count(),
            written.matches(element).count(),
            "{element}"
        );
    }
    let plot = Path::new(ROOM).join("../docs/plot.svg");
    assert!(
        load(browser, &plot, &profile).contains("class=\"estimate"),
        "{browser} shows no plot"
    );
}

/// A page in a frame as wide as a phone's screen; once it is loaded, what is wider than its place,
/// and text that leaves its drawing, is listed.
fn on_a_phone(page: &str) -> String {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        r#"<!doctype html><meta charset="utf-8"><output></output><iframe width="390" height="844" srcdoc="{page}" onload="
            const page = this.contentDocument;
            const parts = [page.documentElement, ...page.querySelectorAll('.cards, .drawing, li, p')];
            const wide = parts.filter(part => part.scrollWidth > part.clientWidth + 1);
            const cut = [...page.querySelectorAll('svg text')].filter(text => [text.getBBox()].some(box =>
                box.x < 0 || box.x + box.width > text.ownerSVGElement.viewBox.baseVal.width));
            document.querySelector('output').textContent = parts.length + ' parts, too wide: ' +
                [...wide, ...cut].map(part => part.outerHTML.slice(0, 120)).join(' ');
        "></iframe>"#
    )
}

#[test]
fn on_a_phone_verdicts_and_drawings_are_seen_without_scrolling_sideways() {
    let Some(browser) = browser() else {
        return;
    };
    let results: Vec<Results> = committed::results()
        .iter()
        .map(|folder| Results::load(folder).unwrap())
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("phone.html");
    fs::write(&file, on_a_phone(&html::page(&results, &[]).unwrap())).unwrap();
    let dom = load(browser, &file, &dir.path().join("profile"));
    let found = dom.split("<output>").nth(1).unwrap();
    let found = found.split("</output>").next().unwrap();
    let (parts, wide) = found.split_once(" parts, too wide: ").unwrap();
    assert!(parts.parse::<usize>().unwrap() > 100, "{found}");
    assert_eq!(wide, "");
}
