//! Every requirement of RFC 6455 has code and a test, and the table in `docs/` says where.

use tidy::{Tree, assert_none, rfc};

const LIST: &str = r#"
[[requirement]]
id = "a"
section = "5.1"
role = "client"
level = "MUST"
text = "A."

[[requirement]]
id = "b"
section = "5.2"
role = "both"
level = "MUST NOT"
text = "B."
exempt = "Why."
"#;

/// The lines of a file, each `@` of which is the beginning of a tag.
fn tree(code: &str, test: &str) -> Tree {
    let tag = |text: &str| text.replace('@', concat!("// RFC 6455", " section "));
    Tree::planted(&[
        (rfc::LIST, LIST),
        ("ws-proto/src/a.rs", &tag(code)),
        ("ws-proto/tests/a.rs", &tag(test)),
    ])
}

fn gaps(code: &str, test: &str) -> Vec<String> {
    let faults = rfc::gaps(&tree(code, test));
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_requirement_without_code_or_test_is_a_gap() {
    let (code, test) = ("@5.1: a\nfn f() {}", "fn t() {\n    g(); @5.1: a\n}");
    assert_eq!(gaps(code, test), [""; 0]);
    let missing = |what: &str| [format!("tidy/rfc6455.toml: `a` has no tag {what}")];
    assert_eq!(gaps("", test), missing("beside code"));
    assert_eq!(gaps(code, ""), missing("in the function of a test"));
    assert_eq!(
        gaps(code, "@5.1: a\n\nconst A: u8 = 1;"),
        missing("in the function of a test"),
        "a tag beside no test"
    );
    let module = "@5.1: a\nfn f() {}\n#[cfg(test)]\nmod tests {\n    @5.1: a\n    fn t() {}\n}";
    assert_eq!(gaps(module, ""), [""; 0]);
}

#[test]
fn tags_that_are_wrong_are_named() {
    let test = "fn t() {} @5.1: a, c\n@5.1: b\nfn u() {}";
    assert_eq!(
        gaps("@5.2: a\n@5.2: b\nfn f() {}", test),
        [
            "ws-proto/src/a.rs:1: `a` is of section 5.1",
            "ws-proto/tests/a.rs:1: `c` is no requirement in tidy/rfc6455.toml",
            "ws-proto/tests/a.rs:2: `b` is of section 5.2",
            "tidy/rfc6455.toml: `b` is exempt, but there are code and a test: remove `exempt`",
        ]
    );
}

#[test]
fn the_table_says_where() {
    let table = rfc::table(&tree("@5.1: a\nfn f() {}", "@5.1: a\nfn t() {}")).unwrap();
    assert!(
        table.contains(
            "| A. `a` | MUST | client | `ws-proto/src/a.rs` f | `ws-proto/tests/a.rs` t |\n"
        ),
        "{table}"
    );
    assert!(
        table.contains("| B. `b` | MUST NOT | both |  | exempt: Why. |\n"),
        "{table}"
    );
    assert!(
        table.contains("2 requirements, 1 of them exempt"),
        "{table}"
    );
}

#[test]
fn every_requirement_has_code_and_a_test() {
    assert_none(&rfc::gaps(&Tree::of_the_repository().unwrap()));
}

#[test]
fn the_table_is_what_list_and_tags_make() {
    let tree = Tree::of_the_repository().unwrap();
    assert!(
        tree.text(rfc::TABLE) == Some(&rfc::table(&tree).unwrap()),
        "{} differs from the list and the tags: run `cargo run -p tidy`",
        rfc::TABLE
    );
}
