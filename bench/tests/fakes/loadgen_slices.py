"""loadgen.sh with --slices: answers commands, and writes a record of all slices at the end.

Port 1001 gives 120,000/s, any other 100,000/s, both give or take a percent; 1003 kills its server in the third stretch of load. A file
`stay-in-slice`: the fourth stretch of whoever comes to it first does not end; `die-in-pause`: 1001 ends after its third."""

import json
import random
import sys
import time
from pathlib import Path

here = Path(sys.argv[0]).parent
arguments = sys.argv[1:]
url = arguments[1]
record = Path(arguments[arguments.index("--json") + 1])
rate = arguments[arguments.index("--rate") + 1] if "--rate" in arguments else None
per_s = float(rate or (120_000 if ":1001/" in url else 100_000))


def say(event):
    print(json.dumps(event), flush=True)


def seconds(text):
    return float(text.removesuffix("ms")) / 1e3


def fill(count, **others):
    text = (here / "record.json").read_text().replace('"COUNT"', str(count))
    for name, value in others.items():
        text = text.replace(f'"{name}"', str(value))
    return json.loads(text)


say({"event": "up", "connections": 10, "threads": 1, "pid": 1})
started, first = time.time_ns(), time.monotonic_ns()
count = length = number = 0
for line in sys.stdin:
    command = line.split()
    if command[0] == "stop":
        break
    settle, measure = map(seconds, command[1:])
    stays = here / "stay-in-slice"
    if number == 3 and stays.exists():
        stays.unlink()
        (here / "started").touch()
        time.sleep(30)
    time.sleep(settle)
    begun = time.monotonic_ns()
    if ":1003/" in url and number == 2:
        (here / "die").touch()
    time.sleep(measure)
    number += 1
    window = int(measure * 1e9)
    replies = int(per_s * measure * (1 if rate else random.uniform(0.99, 1.01)))
    count, length = count + replies, length + window
    of_slice = fill(replies, RATE="null", START=0, END=0, FROM=0, TO=0, LENGTH=1, PER_S=1)
    say(
        {
            "event": "slice",
            "number": number,
            "from_ns": begun,
            "to_ns": begun + window,
            "paused_ns": begun + window,
            "connections_up": 10,
            "messages": of_slice["messages"],
            "replies": replies,
            "latency_intended": of_slice["latency_intended"] if rate else None,
            "latency_actual": of_slice["latency_actual"],
            "cpu_user_ns": 1,
            "cpu_sys_ns": 1,
            "longest_stall_ns": 0,
        }
    )
    if number == 3 and (here / "die-in-pause").exists() and ":1001/" in url:
        sys.exit("no memory left")
whole = fill(
    count,
    RATE=rate or "null",
    START=started,
    END=time.time_ns(),
    FROM=first,
    TO=time.monotonic_ns(),
    LENGTH=length,
    PER_S=count / (length / 1e9) if length else 0,
)
record.write_text(json.dumps(whole))
