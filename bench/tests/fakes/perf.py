#!/usr/bin/env python3
"""A perf that samples nothing: `record` notes the time every few milliseconds until SIGINT, `script` prints a stack for each.

Files beside it: `refuse`: it may not sample the kernel; `die`: `record` ends by itself; `nameless`: functions of the kernel have no names.
`perf.pid` is the process id of the last `record`."""

import os
import signal
import sys
import time
from pathlib import Path

here = Path(sys.argv[0]).parent
command, arguments = sys.argv[1], sys.argv[2:]


def after(flag):
    return arguments[arguments.index(flag) + 1]


STACKS = [
    ["ffffffff81b02d1b _copy_to_iter (K)", "ffffffff82011393 tcp_recvmsg (K)", "101829 recv (/usr/lib/libc.so.6)"],
    ["ffffffff82026060 __tcp_transmit_skb (K)", "ffffffff8200ec5b tcp_sendmsg (K)", "101829 send (/usr/lib/libc.so.6)"],
    ["ffffffff81e66803 process_backlog (K)", "ffffffff81e6743b net_rx_action (K)", "ffffffff8200ec5b tcp_sendmsg (K)"],
    ["13f40 serve (/opt/server)", "1 [unknown] ([unknown])"],
]

if command == "version":
    print("perf version fake")
elif command == "record" and after("-o") == "-":
    if (here / "refuse").exists():
        sys.exit("Error:\nAccess to performance monitoring is limited.\nConsider this and that.")
elif command == "record":
    for flag, value in [("-e", "cpu-clock"), ("-F", "999"), ("-k", "CLOCK_MONOTONIC")]:
        assert after(flag) == value, flag
    # The server; further ones are children of the fake, which come and go.
    assert Path(f"/proc/{after('-p').split(',')[0]}").exists(), "no such server"
    times = []

    def end(_signal, _frame):
        Path(after("-o")).write_text("\n".join(map(str, times)))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, end)
    (here / "perf.pid").write_text(str(os.getpid()))
    if (here / "die").exists():
        sys.exit("no memory left")
    while True:
        times.append(time.monotonic_ns())
        time.sleep(0.002)
elif command == "script":
    for number, at in enumerate(Path(after("-i")).read_text().split()):
        print(f"worker 7 {int(at) // 10**9}.{int(at) % 10**9:09}: ")
        for frame in STACKS[number % len(STACKS)]:
            address, name, file = frame.split()
            name = "[unknown]" if file == "(K)" and (here / "nameless").exists() else name
            print(f"\t{address:>16} {name} {file.replace('K', '[kernel.kallsyms]')}")
        print()
else:
    sys.exit(f"wrong arguments: {sys.argv}")
