//! A suite that cannot fail proves nothing: here it meets a small honest server, which must pass
//! the smoke subset, and the same server with one defect at a time, which must fail the case that
//! is there for it.
//!
//! This test has no harness: the same binary is the judge and, with `--fake DEFECT`, the server.

mod fake;

use std::path::PathBuf;
use std::time::Duration;

use conformance::{CASES, Target};

/// A defect of the fake server and a case that must notice it.
const DEFECTS: &[(&str, &str)] = &[
    (
        "lies-about-pid",
        "lifecycle::ready_line_is_complete_and_true",
    ),
    (
        "ignores-sigterm",
        "lifecycle::sigterm_ends_with_the_final_line",
    ),
    (
        "no-final-line",
        "lifecycle::sigterm_ends_with_the_final_line",
    ),
    ("exits-1", "lifecycle::sigterm_ends_with_the_final_line"),
    (
        "talks-on-stdout",
        "lifecycle::sigterm_ends_with_the_final_line",
    ),
    ("panics", "lifecycle::sigterm_ends_with_the_final_line"),
    (
        "drains-with-1000",
        "lifecycle::drain_closes_everyone_with_1001",
    ),
    (
        "drains-without-close",
        "lifecycle::drain_closes_everyone_with_1001",
    ),
    (
        "waits-out-the-drain",
        "lifecycle::drain_closes_everyone_with_1001",
    ),
    ("unwell", "http::healthz_answers_ok"),
    ("no-eof", "http::metrics_are_openmetrics"),
    ("counts-nothing", "http::metrics_count_what_happens"),
    ("forgets-to-count-down", "http::metrics_count_what_happens"),
    ("serves-plain-get", "http::plain_get_on_ws_is_426"),
    ("keeps-open-after-error", "http::plain_get_on_ws_is_426"),
    ("wrong-accept", "frames::pong_repeats_the_ping"),
    ("accepts-extension", "http::extension_offers_are_declined"),
    ("flips-a-byte", "frames::echo_of_every_size"),
    (
        "loses-a-message",
        "frames::thousand_pipelined_frames_in_order",
    ),
    (
        "doubles-a-message",
        "frames::thousand_pipelined_frames_in_order",
    ),
    (
        "swaps-messages",
        "frames::thousand_pipelined_frames_in_order",
    ),
    ("wrong-pong", "frames::pong_repeats_the_ping"),
    ("no-pong", "frames::pong_repeats_the_ping"),
    ("masks", "frames::pong_repeats_the_ping"),
    ("wrong-close-code", "frames::close_code_is_echoed"),
    ("keeps-open-after-close", "frames::close_code_is_echoed"),
    (
        "wrong-violation-code",
        "violations::framing_violations_get_1002",
    ),
    (
        "silent-violation",
        "violations::framing_violations_get_1002",
    ),
    ("lenient", "violations::framing_violations_get_1002"),
    ("any-bytes-are-text", "violations::bad_utf8_gets_1007"),
    (
        "sender-gets-nothing",
        "broadcast::every_member_gets_every_message",
    ),
    ("all-is-text", "broadcast::every_member_gets_every_message"),
    ("one-room", "broadcast::rooms_are_isolated"),
    (
        "swaps-messages",
        "broadcast::order_per_sender_for_every_receiver",
    ),
    (
        "loses-a-message",
        "broadcast::order_per_sender_for_every_receiver",
    ),
    ("unlimited", "limits::max_connections_refuses_and_recovers"),
    (
        "full-for-ever",
        "limits::max_connections_refuses_and_recovers",
    ),
];

/// The one test of this binary.
const NAME: &str = "conformance_suite_can_fail";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((first, rest)) if first == "--fake" => fake::serve(rest),
        // What `cargo test -- --list` and `cargo test NAME` ask of a test without a harness.
        Some((first, _)) if first == "--list" => println!("{NAME}: test"),
        Some((first, _)) if !first.starts_with('-') && !NAME.contains(first.as_str()) => {}
        _ => check_the_suite(),
    }
}

fn check_the_suite() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut wrong = Vec::new();
    for case in CASES.iter().filter(|case| case.smoke) {
        if let Err(reason) = case.judge(&target("none", Duration::from_secs(20))) {
            wrong.push(format!("the honest server fails {}: {reason}", case.name));
        }
    }
    for (defect, name) in DEFECTS {
        let case = CASES.iter().find(|case| case.name == *name);
        // A short patience: what is missing never comes.
        match case.map(|case| case.judge(&target(defect, Duration::from_secs(2)))) {
            Some(Err(reason)) => println!("{defect}: {name}: {reason}"),
            Some(Ok(())) => wrong.push(format!("{name} does not notice the defect {defect}")),
            None => wrong.push(format!("there is no case {name}")),
        }
    }
    for line in &wrong {
        println!("WRONG: {line}");
    }
    println!("{} defects, {} wrong verdicts", DEFECTS.len(), wrong.len());
    std::process::exit(i32::from(!wrong.is_empty()));
}

fn target(defect: &str, patience: Duration) -> Target {
    let binary =
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("conformance_self_check"));
    let mut target = Target::new(binary, &["--fake", defect]);
    target.patience = patience;
    target
}
