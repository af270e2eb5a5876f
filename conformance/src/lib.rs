//! The black-box conformance suite: written once, run against each server *binary* as a process.
//!
//! A case is a named function of a [`Target`]. It starts its own server on a free port, judges what
//! comes out of sockets, stdout, stderr and `/proc`, and panics with a reason when a rule is
//! broken. Nothing here uses `ws-proto`: well-behaved clients are tungstenite's, violations are
//! bytes written by hand.
//!
//! In a server crate, which has this one as a dev-dependency, one `#[test]` per case:
//!
//! ```text
//! mod multi {
//!     conformance::tests! {
//!         binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"]
//!     }
//! }
//! ```
//!
//! By hand, against any binary with the same options: `conformance [--smoke] [--unix] [--filter
//! TEXT] -- BINARY [ARGS...]`.

pub mod broadcast;
pub mod client;
pub mod floods;
pub mod frames;
pub mod harness;
pub mod http;
pub mod large;
pub mod lifecycle;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod processes;
pub mod slow;
pub mod unix;
pub mod usage;
pub mod violations;
pub mod wire;
pub mod work;
pub mod ws;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use harness::Target;

/// A case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// Whether it belongs to the subset that takes no more than a few seconds in all.
    pub smoke: bool,
    /// Whether it is about what a Unix socket does not have.
    pub needs_tcp: bool,
    /// The case itself; it panics when the server breaks the rule.
    pub run: fn(&Target),
}

impl Case {
    /// Runs the case; the reason when it fails.
    ///
    /// # Errors
    /// The text of the panic with which the case failed.
    pub fn judge(&self, target: &Target) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| (self.run)(target))).map_err(|cause| panic_text(&*cause))
    }
}

/// Hands the list of all cases, by module, to a macro. The one place to add a case to; `smoke` or
/// `full` says whether it is in the short subset; `alone` marks what needs a server of one process:
/// cases that use a room (none spans processes), or that fill up the one process there is (a hash
/// spreads connections unevenly), or that choose the number of processes themselves; `tcp` what a
/// Unix socket does not have: ports and families, processes that share them, and the reset by which
/// TCP says that a stream broke off (there its peer reads the end of the stream; a reset it gets
/// only where the server leaves bytes unread); `alone_tcp` both.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_list {
    ($($with:ident)::+, $($context:tt)*) => {
        $($with)::+! {
            $($context)*
            lifecycle {
                smoke ready_line_is_complete_and_true
                full ready_line_records_the_options
                full cpus_confine_the_server
                smoke sigterm_ends_with_the_final_line
                full sigint_ends_with_the_final_line
                smoke drain_closes_everyone_with_1001: alone
                full drain_does_not_wait_for_the_silent: alone
                full drain_does_not_wait_for_the_stuck: alone
                full signals_in_quick_succession_are_one
                full a_second_signal_ends_at_once
                full drain_does_not_wait_for_handshakes
                full drain_accepts_nobody_new
                full drain_sends_what_is_due_first
                full address_in_use_is_a_clear_error: tcp
                full second_server_on_an_address_is_refused
                full restart_on_the_same_address
                full listens_on_ipv6: tcp
                full listens_on_several_addresses: tcp
                full listens_on_both_families: tcp
                full listens_on_what_people_write: tcp
                full bad_usage_exits_2
                full help_lists_every_option
            }
            http {
                smoke healthz_answers_ok
                smoke metrics_are_openmetrics
                smoke metrics_count_what_happens
                full metrics_count_violations
                full demo_page_is_html
                full unknown_paths_are_404
                full bad_room_names_are_404: alone
                smoke plain_get_on_ws_is_426: alone
                full wrong_version_is_426
                full head_has_no_body
                full other_methods_are_405
                full a_body_on_an_upgrade_is_400
                full duplicate_headers_are_400
                full missing_or_bad_headers_are_400
                full garbage_is_400
                full too_many_headers_are_431
                full too_long_heads_are_431
                full http_1_0_is_refused
                smoke extension_offers_are_declined
                full subprotocols_are_never_made_up
                full odd_but_valid_upgrades_are_served
                full handshake_and_frames_byte_at_a_time
                full frames_pipelined_with_the_handshake: alone
                full a_client_that_gives_up_mid_handshake
            }
            frames {
                smoke echo_of_every_size
                full echo_frames_are_well_formed
                smoke thousand_pipelined_frames_in_order
                full pipelined_frames_cut_anywhere
                full pings_between_messages_keep_their_place
                smoke pong_repeats_the_ping
                full fragments_with_a_ping_between
                full characters_cut_by_fragments
                full a_payload_later_than_its_header
                smoke close_code_is_echoed: alone
                full close_without_a_code
                full messages_around_a_close: alone
                full half_closed_client_gets_its_answers
                full half_closed_member_gets_its_messages: alone
                full echo_pushes_back_on_a_client_that_does_not_read
                full connections_do_not_mix
            }
            large {
                full sizes_around_every_boundary: alone
                full fragments_around_every_boundary
                full long_messages_right_behind_the_request: alone
                full messages_cut_at_every_boundary
                full fragments_cut_at_every_boundary
                full characters_across_every_boundary
                full announcements_cost_no_memory: alone
                full bad_utf8_late_in_a_text_gets_1007
            }
            violations {
                smoke framing_violations_get_1002: alone
                full length_violations_get_1002
                full close_violations_get_1002
                smoke bad_utf8_gets_1007: alone
                full too_big_messages_get_1009: alone
                full default_message_limit_is_16_mib
                full too_many_fragments_get_1009
                full messages_around_a_violation: alone
                full violations_byte_at_a_time
                full violations_leave_others_alone: alone
            }
            broadcast {
                smoke every_member_gets_every_message: alone
                full messages_of_every_size: alone
                smoke rooms_are_isolated: alone
                full a_new_member_misses_nothing: alone
                full members_come_and_go: alone
                smoke order_per_sender_for_every_receiver: alone
                full two_hundred_members_over_all_workers: alone
                full thousand_pipelined_publishes: alone
                full fragmented_publish_arrives_whole: alone
                full slow_reader_is_closed: alone
                full slow_reader_cannot_linger: alone
                full slow_reader_loses_messages: alone
                full slow_reader_costs_bounded_memory: alone
            }
            limits {
                full handshake_timeout_closes_the_silent
                full handshake_timeout_stops_a_drip
                full idle_timeout_keeps_who_answers: alone
                full idle_timeout_closes_the_silent: alone
                full idle_timeout_closes_who_does_not_read
                smoke max_connections_refuses_and_recovers: alone
                full file_limit_is_raised
                full out_of_files_is_survived: alone
                full out_of_files_is_said_twice: alone
                full resets_leave_the_count_right: alone
                full churn_leaves_nothing_behind: alone
            }
            floods {
                full pings_cost_bounded_memory: alone
                full empty_pings_cost_bounded_memory: alone
                full pings_between_fragments_cost_bounded_memory: alone
                full short_messages_cost_bounded_memory: alone
                full pongs_cost_bounded_memory: alone
            }
            slow {
                full slow_readers_are_not_idle: alone
                full slow_writers_are_not_idle: alone
                full stopped_readers_are_reset: alone_tcp
                full stopped_consumers_are_reset: alone_tcp
                full drain_waits_for_slow_readers: alone
                full drain_resets_who_has_half_a_message: alone_tcp
                full a_killed_server_resets_who_has_half_a_message: alone_tcp
            }
            work {
                full every_message_costs_the_handler_work
                full every_publication_costs_the_handler_work: alone
                full a_client_may_lower_the_work_and_not_raise_it
                full a_member_may_lower_the_work: alone
            }
            processes {
                full several_processes_are_one_server: alone_tcp
                full there_are_no_rooms_over_several_processes: alone_tcp
                full max_connections_is_shared_out: alone_tcp
                full a_killed_process_ends_the_server: alone_tcp
                full a_process_that_ends_by_itself_ends_the_server: alone_tcp
                full a_child_without_its_parent_does_not_begin: alone_tcp
                full a_killed_parent_takes_all_along: alone_tcp
                full a_second_signal_ends_all_processes: alone_tcp
                full processes_do_not_share_with_a_second_server: alone_tcp
            }
            unix {
                full serves_over_a_unix_socket_too: alone
                full workers_take_turns_on_a_unix_socket: alone
                full a_unix_socket_goes_with_its_server: alone
                full a_dead_servers_socket_is_replaced: alone
                full what_is_no_socket_is_left_alone: alone
            }
        }
    };
}

/// Makes every case of the suite a `#[test]` against one server binary.
#[macro_export]
macro_rules! tests {
    (binary: $binary:expr, args: $args:tt $(,)?) => {
        $crate::conformance_list! { $crate::conformance_as_tests, new ($binary) $args {} {} }
    };
}

/// The same over a Unix socket, without the cases for which there must be TCP.
#[macro_export]
macro_rules! tests_over_unix {
    (binary: $binary:expr, args: $args:tt $(,)?) => {
        $crate::conformance_list! {
            $crate::conformance_as_tests, over_unix ($binary) $args {} { #[cfg(any())] }
        }
    };
}

/// The same for a server of several processes, without the cases for which there must be one.
#[macro_export]
macro_rules! tests_of_processes {
    (binary: $binary:expr, args: $args:tt $(,)?) => {
        $crate::conformance_list! {
            $crate::conformance_as_tests, new ($binary) $args { #[cfg(any())] } {}
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_as_tests {
    (
        $new:ident ($binary:expr) $args:tt $alone:tt $tcp:tt
        $($module:ident { $($kind:ident $case:ident $(: $needs:ident)?)* })*
    ) => {
        $(mod $module {
            $($crate::conformance_as_test! { $(($needs) $alone $tcp)?
            #[test]
            fn $case() {
                let args: &[&str] = &$args;
                let target = $crate::Target::$new($binary, args);
                $crate::$module::$case(&target);
            }})*
        })*
    };
}

/// One test, with the attributes for those that need a server of one process, or TCP.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_as_test {
    ((alone) { $($alone:tt)* } $tcp:tt $($test:tt)*) => { $($alone)* $($test)* };
    ((tcp) $alone:tt { $($tcp:tt)* } $($test:tt)*) => { $($tcp)* $($test)* };
    ((alone_tcp) { $($alone:tt)* } { $($tcp:tt)* } $($test:tt)*) => {
        $($alone)* $($tcp)* $($test)*
    };
    ($($test:tt)*) => { $($test)* };
}

macro_rules! as_table {
    ($($module:ident { $($kind:ident $case:ident $(: $needs:ident)?)* })*) => {
        &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            smoke: matches!(stringify!($kind).as_bytes(), b"smoke"),
            needs_tcp: false $(|| matches!(stringify!($needs).as_bytes(), b"tcp" | b"alone_tcp"))?,
            run: $module::$case,
        },)*)*]
    };
}

/// All cases.
pub const CASES: &[Case] = conformance_list!(as_table,);

/// The text a panic was raised with.
pub fn panic_text(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("failed without a word")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_smoke_subset_is_a_real_subset() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        let smoke = CASES.iter().filter(|case| case.smoke).count();
        assert!(
            smoke > 10 && smoke * 2 < CASES.len(),
            "{smoke} of {}",
            CASES.len()
        );
    }
}
