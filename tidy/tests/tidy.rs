//! Every rule of `tidy`: shown to report a planted fault, then applied to this repository.

#![expect(
    clippy::unwrap_used,
    reason = "a repository that cannot be read fails the test"
)]

use std::sync::LazyLock;

use tidy::{Fault, Tree, assert_none, calls, figures, links, orphans, width};

/// Files that may have more than [`width::LINES`] lines, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Files that read the wall clock: for the name of a folder, a seed, and when a run was started.
const WALL_CLOCKS: &[&str] = &[
    "bench/src/machine/proc.rs",
    "bench/src/plan/mod.rs",
    "bench/src/suite/mod.rs",
    "loadgen/src/run.rs",
    "loadgen/src/shard/parent.rs",
    "loadgen/src/slices.rs",
];

static REPOSITORY: LazyLock<Tree> = LazyLock::new(|| Tree::of_the_repository().unwrap());

/// What `rule` says about a tree of one file.
fn planted(rule: impl Fn(&Tree) -> Vec<Fault>, file: &str, text: &str) -> Vec<usize> {
    let faults = rule(&Tree::planted(&[(file, text)]));
    faults.iter().map(|fault| fault.line).collect()
}

#[test]
fn lines_are_not_wider_than_code() {
    let wide = format!(
        "fn a() {{}}\n// {}\nlet a = f({}1);",
        "x".repeat(98),
        "1, ".repeat(30)
    );
    assert_eq!(planted(width::wide_lines, "a.rs", &wide), [2, 3]);
    let literal = format!("    say(\"{}\", 1);", "x".repeat(200));
    assert_eq!(planted(width::wide_lines, "a.rs", &literal), []);
    let exact = format!("//{}\n//{}", "ä".repeat(98), "ä".repeat(99));
    assert_eq!(planted(width::wide_lines, "a.rs", &exact), [2]);

    assert_none(&width::wide_lines(&REPOSITORY));

    let (wide, row) = ("a ".repeat(51), format!("| {} |", "a".repeat(99)));
    let page = format!("{wide}\n{row}\n```\n{wide}\n```\n[a](b) {wide}\n- {wide}\n");
    assert_eq!(planted(width::wide_prose, "a.md", &page), [1, 7]);

    assert_none(&width::wide_prose(&REPOSITORY));
}

#[test]
fn files_are_not_longer_than_600_lines() {
    let long = "\n".repeat(601);
    let exempt = [("b.rs", "why"), ("c.rs", "why")];
    let tree = Tree::planted(&[
        ("a.rs", &long),
        ("b.rs", &long),
        ("c.rs", "\n"),
        ("d.rs", ""),
    ]);
    let faults = width::long_files(&tree, &exempt);
    let files: Vec<_> = faults.iter().map(|fault| fault.file.as_str()).collect();
    assert_eq!(
        files,
        ["a.rs", "c.rs"],
        "an exemption without need is a fault"
    );

    assert_none(&width::long_files(&REPOSITORY, LONG_FILES));
}

#[test]
fn nothing_is_left_unfinished() {
    let text = "fn a() { todo!() }\n// FIXME\n// todo!()\nlet a = \"dbg!(\";\n    dbg!(a);";
    assert_eq!(planted(calls::unfinished, "a.rs", text), [1, 5, 2]);

    assert_none(&calls::unfinished(&REPOSITORY));
}

#[test]
fn nothing_that_peers_reach_panics() {
    let text = "a.unwrap();\na.unwrap_or(b);\na.expect(\n// .unwrap()\n#[cfg(test)]\nmod tests {\n\
                a.unwrap();\n}";
    assert_eq!(planted(calls::panics, "ws-proto/src/a.rs", text), [1, 3]);
    assert_eq!(planted(calls::panics, "bench/src/a.rs", text), []);

    assert_none(&calls::panics(&REPOSITORY));
}

#[test]
fn tests_wait_for_a_condition_and_do_not_sleep() {
    let text = "// tidy: may sleep, a slow server.\nthread::sleep(a);\n\ntokio::time::sleep(b);\n\
                // tidy: may sleep, and does not.\nb();";
    assert_eq!(planted(calls::sleeps, "x/tests/a.rs", text), [4, 5]);
    assert_eq!(planted(calls::sleeps, "x/src/a.rs", text), [5]);

    assert_none(&calls::sleeps(&REPOSITORY));
}

#[test]
fn durations_are_of_a_clock_that_nobody_sets() {
    let text = "let a = SystemTime::now();\n// SystemTime::now()\n#[cfg(test)]\nmod tests {\n\
                SystemTime::now();\n}";
    let found = |allowed: &'static [&'static str]| {
        planted(
            |tree| calls::wall_clocks(tree, allowed),
            "bench/src/a.rs",
            text,
        )
    };
    assert_eq!(found(&[]), [1]);
    assert_eq!(found(&["bench/src/a.rs"]), []);
    assert_eq!(found(&["bench/src/a.rs", "bench/src/b.rs"]), [1]);

    assert_none(&calls::wall_clocks(&REPOSITORY, WALL_CLOCKS));
}

#[test]
fn links_in_markdown_lead_somewhere() {
    let page = "# A page, `b`-ed\n[a](b/c.md#top) [b](#a-page-b-ed) [c](b)\n`[d](e)`\n\
                ```\n[f](g)\n```\n[h](i.md)\n[j](#k)\n[l](../m) [n](https://o)\n[p]: q\n";
    let tree = Tree::planted(&[("a.md", page), ("b/c.md", "## Top\n[r](../a.md#s)\n")]);
    let faults = links::dead(&tree);
    let places: Vec<_> = faults
        .iter()
        .map(|fault| (&fault.file[..], fault.line))
        .collect();
    assert_eq!(
        places,
        [
            ("a.md", 7),
            ("a.md", 8),
            ("a.md", 9),
            ("a.md", 10),
            ("b/c.md", 2)
        ]
    );

    assert_none(&links::dead(&REPOSITORY));
}

#[test]
fn every_file_is_referred_to() {
    let tree = Tree::planted(&[
        (
            "a/src/lib.rs",
            "pub mod b;\n#[cfg(test)] mod c;\nconst D: &str = \"d.txt\";",
        ),
        ("a/src/b.rs", "mod e;"),
        ("a/src/b/e.rs", ""),
        ("a/src/c/mod.rs", ""),
        ("a/src/f.rs", "// f.rs names itself"),
        ("a/src/d.txt", ""),
        ("a/tests/g.rs", "mod support;"),
        ("a/tests/support/mod.rs", ""),
        ("a/tests/other/mod.rs", ""),
        ("bench-results/one/summary.md", "bench-results/two"),
        ("bench-results/two/summary.md", ""),
        ("scripts/h.sh", ""),
        ("README.md", "[one](bench-results/one), not the-h.sh"),
    ]);
    let faults = orphans::unreferenced(&tree);
    let files: Vec<_> = faults.iter().map(|fault| &fault.file[..]).collect();
    assert_eq!(
        files,
        [
            "a/src/f.rs",
            "a/tests/other/mod.rs",
            "bench-results/two",
            "scripts/h.sh"
        ]
    );

    assert_none(&orphans::unreferenced(&REPOSITORY));
}

#[test]
fn every_figure_is_of_a_committed_result() {
    let tree = Tree::planted(&[
        (
            "docs/results.md",
            "| **1.23x [1.10, 1.30]** | 0.97 [0.90, 1.04] |",
        ),
        (
            "bench-results/a/summary.md",
            "server-tokio 3.20x [1.50, 4.74]",
        ),
        (
            "README.md",
            "1.23x\n[1.10, 1.30], 0.97x [0.90, 1.04], 3.20x lower [1.50, 4.74] and 1.23x.\n\
             1.24x [1.10, 1.30]\n1.23x [1.10, 1.31]\n9.99x\n1.00 [0.90, 1.10]\n",
        ),
    ]);
    let lines: Vec<_> = figures::unfounded(&tree)
        .iter()
        .map(|fault| fault.line)
        .collect();
    assert_eq!(lines, [3, 4, 5, 6]);

    assert_none(&figures::unfounded(&REPOSITORY));
}
