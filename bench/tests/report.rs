//! The report in a real browser: headless Chromium loads the page and gives back what it made of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;

use std::path::Path;
use std::process::Command;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

fn browser() -> Option<&'static str> {
    BROWSERS
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}

#[test]
fn a_browser_shows_the_report_of_a_committed_result() {
    let dir = tempfile::tempdir().unwrap();
    let (page, plot) = (dir.path().join("report.html"), dir.path().join("plot.svg"));
    let status = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("report")
        .arg(committed::result_of_readme())
        .arg("--to")
        .arg(&page)
        .arg("--svg")
        .arg(&plot)
        .status()
        .unwrap();
    assert!(status.success());
    let Some(browser) = browser() else {
        eprintln!("not looked at in a browser: none of {BROWSERS:?} is installed");
        return;
    };
    let load = |file: &Path| {
        let output = Command::new(browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
            ])
            .arg(format!(
                "--user-data-dir={}",
                dir.path().join("profile").display()
            ))
            .arg(format!("file://{}", file.display()))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let dom = load(&page);
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
    // A browser closes what is left open and drops what it does not know; a page it understood comes back with all its drawings.
    let written = std::fs::read_to_string(&page).unwrap();
    for element in [
        "<svg", "<path", "<circle", "<figure", "<details", "<tr", "<article",
    ] {
        assert_eq!(
            dom.matches(element).count(),
            written.matches(element).count(),
            "{element}"
        );
    }
    assert!(
        load(&plot).contains("class=\"estimate"),
        "{browser} shows no plot"
    );
}
