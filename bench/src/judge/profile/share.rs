//! What a CPU did when a stack was sampled: rules on the names of functions, as data.

use super::stacks::{Frame, Origin};
use crate::record::Share;

/// A packet that is received in `softirq`: whatever runs below belongs to it.
const SOFTIRQ: [&str; 2] = ["do_softirq", "net_rx_action"];

/// Beginnings of the kernel's function names, without leading underscores and with `sys_` for the
/// entries of system calls. The longest that fits counts. A function that fits none (locks, lists,
/// timers, slabs, copies inside the kernel) works for its caller.
const KERNEL: [(Share, &[&str]); 8] = [
    (
        Share::Copy,
        &[
            "copy_from_iter",
            "copy_from_user",
            "copy_to_iter",
            "copy_to_user",
            "copy_user",
            "check_heap_object",
            "check_object_size",
            "check_stack_object",
            "csum_and_copy",
            "rep_movs",
            "simple_copy_to_iter",
            "skb_copy_datagram",
            "skb_datagram_iter",
            "tcp_copy_to_iter",
            "skb_do_copy_data",
            "virt_addr_valid",
            "arch_copy_from_user",
            "arch_copy_to_user",
        ],
    ),
    (Share::IoUring, &["io_", "sys_io_uring", "tctx_task_work"]),
    (
        Share::Poll,
        &[
            "do_epoll",
            "do_poll",
            "do_select",
            "core_sys_select",
            "ep_",
            "epoll_",
            "eventpoll",
            "poll_",
            "sock_poll",
            "sys_epoll",
            "sys_poll",
            "sys_ppoll",
            "sys_pselect",
            "sys_select",
            "tcp_poll",
            "tcp_stream_is_readable",
            "unix_poll",
            "vfs_poll",
        ],
    ),
    (
        Share::Tcp,
        &[
            "alloc_skb",
            "bbr_",
            "bictcp_",
            "bpf_",
            "cgroup_bpf",
            "consume_skb",
            "cubictcp_",
            "dev_",
            "dst_",
            "enqueue_to_backlog",
            "eth_",
            "fib_",
            "fq_",
            "inet",
            "ip6_",
            "ip_",
            "ipt_",
            "ipv4_",
            "ipv6_",
            "kfree_skb",
            "lock_sock",
            "loopback_",
            "napi_",
            "neigh_",
            "net",
            "nf_",
            "nft_",
            "pfifo_",
            "qdisc_",
            "raw_local_deliver",
            "release_sock",
            "sch_direct_xmit",
            "security_sock",
            "sk_",
            "skb_",
            "sock",
            "sys_accept",
            "sys_connect",
            "sys_recv",
            "sys_send",
            "sys_shutdown",
            "sys_sock",
            "tcp_",
            "tun_",
            "udp_",
            "unix_",
            "validate_xmit",
            "veth_",
            "virtnet_",
            "xt_",
        ],
    ),
    (
        Share::Syscall,
        &[
            "audit_",
            "do_syscall",
            "entry_",
            "exit_to_user",
            "fdget",
            "fget",
            "fput",
            "fsnotify",
            "ksys_",
            "rw_verify_area",
            "seccomp_",
            "security_file",
            "sys_",
            "syscall_",
            "vfs_",
        ],
    ),
    (
        Share::Scheduling,
        &[
            "autoremove_wake",
            "context_switch",
            "default_wake_function",
            "dequeue_task",
            "do_futex",
            "do_nanosleep",
            "enqueue_task",
            "finish_task_switch",
            "finish_wait",
            "futex_",
            "io_schedule",
            "load_balance",
            "newidle_balance",
            "pick_next_task",
            "prepare_to_wait",
            "preempt_schedule",
            "psi_",
            "resched_",
            "sched_",
            "schedule",
            "select_task_rq",
            "switch_",
            "sys_futex",
            "sys_nanosleep",
            "sys_sched_yield",
            "try_to_wake_up",
            "ttwu_",
            "update_load_avg",
            "wake_up",
        ],
    ),
    (
        Share::Memory,
        &[
            "asm_exc_page_fault",
            "do_madvise",
            "do_mmap",
            "do_munmap",
            "do_user_addr_fault",
            "exc_page_fault",
            "flush_tlb",
            "handle_mm_fault",
            "ksys_mmap",
            "mmap_",
            "sys_brk",
            "sys_madvise",
            "sys_mmap",
            "sys_mprotect",
            "sys_mremap",
            "sys_munmap",
            "tlb_",
            "unmap_",
            "vm_mmap",
            "zap_",
        ],
    ),
    (
        Share::Other,
        &[
            "asm_common_interrupt",
            "asm_sysvec",
            "common_interrupt",
            "irq_exit",
            "ret_from_fork",
            "sysvec_",
        ],
    ),
];

/// Beginnings of the names of allocators' functions: those that are linked into a program count as
/// a library.
const ALLOCATORS: [&str; 13] = [
    "_mi_",
    "__rdl_",
    "__rust_alloc",
    "__rust_dealloc",
    "__rust_realloc",
    "_int_free",
    "_int_malloc",
    "calloc",
    "cfree",
    "je_",
    "malloc",
    "mi_",
    "realloc",
];

/// What the CPU did, from a stack whose last frame is the function that ran: that function decides,
/// or the nearest of its callers that a rule names.
pub fn share_of(stack: &[Frame]) -> Share {
    let Some(inner) = stack.last() else {
        return Share::Other;
    };
    match inner.origin {
        Origin::Kernel => in_kernel(stack),
        Origin::Program if ALLOCATORS.iter().any(|name| inner.name.starts_with(name)) => {
            Share::Library
        }
        Origin::Program => Share::Program,
        Origin::Library => Share::Library,
        Origin::Thread | Origin::Unknown => Share::Other,
    }
}

fn in_kernel(stack: &[Frame]) -> Share {
    let outwards = stack.iter().rev();
    let kernel = outwards.take_while(|frame| frame.origin == Origin::Kernel);
    let names: Vec<String> = kernel.map(|frame| plain(&frame.name)).collect();
    let receives = |name: &String| SOFTIRQ.iter().any(|rule| name.starts_with(rule));
    if names.iter().any(receives) {
        return Share::Softirq;
    }
    names
        .iter()
        .find_map(|name| by_rule(name))
        .unwrap_or(Share::Other)
}

fn by_rule(name: &str) -> Option<Share> {
    let rules = KERNEL.iter();
    let rules = rules.flat_map(|(share, names)| names.iter().map(move |rule| (rule, *share)));
    let fitting = rules.filter(|(rule, _)| name.starts_with(**rule));
    let longest = fitting.max_by_key(|(rule, _)| rule.len());
    longest.map(|(_, share)| share)
}

/// As the rules name it: `sys_recvfrom` of `__x64_sys_recvfrom` and `__do_sys_recvfrom`.
fn plain(name: &str) -> String {
    let name = name.trim_start_matches('_');
    for entry in ["x64_sys_", "ia32_sys_", "arm64_sys_", "se_sys_", "do_sys_"] {
        if let Some(call) = name.strip_prefix(entry) {
            return format!("sys_{call}");
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack whose last frames are of the kernel, the outermost first.
    fn kernel(names: &str) -> Vec<Frame> {
        let frame = |name: &str, origin| Frame {
            name: name.to_owned(),
            origin,
        };
        let outer = [
            frame("worker-0", Origin::Thread),
            frame("syscall [libc.so.6]", Origin::Library),
        ];
        let inner = names.split(' ').map(|name| frame(name, Origin::Kernel));
        outer.into_iter().chain(inner).collect()
    }

    /// Sampled under Linux 6.18, some frames in the middle left out.
    #[test]
    fn the_innermost_function_with_a_rule_decides() {
        let send = "entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_sendto __sys_sendto \
                    sock_sendmsg tcp_sendmsg tcp_sendmsg_locked";
        let xmit = format!("{send} tcp_write_xmit __tcp_transmit_skb __ip_queue_xmit");
        let receive = "__local_bh_enable_ip do_softirq.part.0 handle_softirqs net_rx_action \
                       __napi_poll process_backlog";
        let ring = "entry_SYSCALL_64_after_hwframe do_syscall_64 __do_sys_io_uring_enter";
        let epoll =
            "entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_epoll_wait do_epoll_wait";
        let table = [
            (send.to_owned(), Share::Tcp),
            (format!("{xmit} ip_output"), Share::Tcp),
            (format!("{send} tcp_event_new_data_sent sk_reset_timer __mod_timer _raw_spin_unlock_irqrestore"), Share::Tcp),
            (format!("{send} tcp_stream_alloc_skb __alloc_skb kmem_cache_alloc_node_noprof ___slab_alloc"), Share::Tcp),
            (format!("{send} _copy_from_iter"), Share::Copy),
            (format!("{send} skb_do_copy_data_nocache __check_object_size check_stack_object"), Share::Copy),
            (format!("{send} _copy_from_iter asm_exc_page_fault exc_page_fault handle_mm_fault clear_page_erms"), Share::Memory),
            (format!("{xmit} ip_finish_output2 __dev_queue_xmit {receive}"), Share::Softirq),
            (format!("{xmit} __dev_queue_xmit {receive} ip_rcv tcp_v4_rcv tcp_ack"), Share::Softirq),
            (format!("{xmit} __dev_queue_xmit {receive} tcp_data_ready sock_def_readable ep_poll_callback try_to_wake_up"), Share::Softirq),
            (format!("{ring} io_submit_sqes io_issue_sqe"), Share::IoUring),
            (format!("{ring} __io_run_local_work llist_reverse_order"), Share::IoUring),
            (format!("{ring} io_submit_sqes io_send sock_sendmsg tcp_sendmsg"), Share::Tcp),
            (format!("{ring} io_poll_issue io_recv sock_recvmsg inet_recvmsg tcp_recvmsg_locked __skb_datagram_iter _copy_to_iter"), Share::Copy),
            (format!("{ring} io_poll_task_func tcp_poll"), Share::Poll),
            (format!("{ring} io_cqring_schedule_timeout schedule __schedule finish_task_switch.isra.0"), Share::Scheduling),
            (ring.to_owned(), Share::IoUring),
            (format!("{epoll} ep_poll ep_send_events ep_item_poll.isra.0 sock_poll tcp_poll"), Share::Poll),
            (format!("{epoll} ep_poll ep_send_events __put_user_nocheck_8"), Share::Poll),
            (format!("{epoll} ep_poll schedule_hrtimeout_range schedule __schedule"), Share::Scheduling),
            ("entry_SYSCALL_64_after_hwframe do_syscall_64".to_owned(), Share::Syscall),
            ("entry_SYSCALL_64_after_hwframe do_syscall_64 ksys_read vfs_read".to_owned(), Share::Syscall),
            ("entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_recvfrom __sys_recvfrom fdget".to_owned(), Share::Syscall),
            ("asm_exc_page_fault exc_page_fault do_user_addr_fault".to_owned(), Share::Memory),
            ("entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_madvise do_madvise".to_owned(), Share::Memory),
            ("asm_sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt __irq_exit_rcu handle_softirqs".to_owned(), Share::Other),
            ("asm_common_interrupt common_interrupt __irq_exit_rcu handle_softirqs net_rx_action virtnet_poll".to_owned(), Share::Softirq),
            ("el0t_64_sync invoke_syscall __arm64_sys_sendto".to_owned(), Share::Tcp),
            ("[unknown]".to_owned(), Share::Other),
        ];
        for (names, share) in table {
            assert_eq!(share_of(&kernel(&names)), share, "{names}");
        }
    }

    #[test]
    fn outside_the_kernel_the_file_decides() {
        let table = [
            (
                "server_uring::raw::event_loop::Loop::turn",
                Origin::Program,
                Share::Program,
            ),
            ("[peer-x]", Origin::Program, Share::Program),
            ("_mi_page_free_collect", Origin::Program, Share::Library),
            ("malloc", Origin::Program, Share::Library),
            ("mio::poll::Poll::poll", Origin::Program, Share::Program),
            ("free_connections", Origin::Program, Share::Program),
            (
                "__memmove_avx512_unaligned_erms [libc.so.6]",
                Origin::Library,
                Share::Library,
            ),
            ("[unknown]", Origin::Unknown, Share::Other),
            ("worker-0", Origin::Thread, Share::Other),
        ];
        for (name, origin, share) in table {
            let name = name.to_owned();
            assert_eq!(
                share_of(&[Frame {
                    name: name.clone(),
                    origin
                }]),
                share,
                "{name}"
            );
        }
        assert_eq!(share_of(&[]), Share::Other);
    }

    #[test]
    fn no_rule_is_named_twice_and_none_hides_another_share_of_the_same_name() {
        let mut rules: Vec<&str> = KERNEL
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let all = rules.len();
        rules.sort_unstable();
        rules.dedup();
        assert_eq!(rules.len(), all);
        assert!(
            rules.iter().all(|rule| !rule.starts_with('_')),
            "names are plain"
        );
    }
}
