"""Runs Autobahn's core cases against WebSocket servers and judges the reports. Called by scripts/autobahn.sh."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CASES = 301
# 12.* and 13.* are compression, which the servers decline.
NOT_CORE = ["-x", "12.*", "-x", "13.*"]
PASS = {"OK", "NON-STRICT", "INFORMATIONAL"}
START_SECONDS = 20
RUN_SECONDS = 300
STOP_SECONDS = 20
SHOWN = 30
# Servers that are run at a time: some cases wait for a second.
AT_ONCE = 2


class Failure(Exception):
    """What makes a run useless, in words for the reader."""


def read_index(index):
    """The verdicts of a report by case: behaviour, behaviour at the close, close code.

    >>> entry = {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000, "duration": 3}
    >>> read_index({"agent": {"1.1.1": entry}})
    {'1.1.1': ('OK', 'OK', 1000)}
    """
    cases = {}
    for entries in index.values():
        for case, entry in entries.items():
            cases[case] = (entry["behavior"], entry["behaviorClose"], entry["remoteCloseCode"])
    return cases


def complaints(cases, expected=CASES):
    """What is wrong with the verdicts of one server; nothing when every case was run and passed.

    >>> complaints({"1.1": ("OK", "OK", 1000), "1.2": ("NON-STRICT", "INFORMATIONAL", None)}, 2)
    []
    >>> complaints({"1.1": ("FAILED", "OK", 1000)}, 1)
    ['case 1.1: FAILED, at the close OK (code 1000)']
    >>> complaints({"1.1": ("OK", "UNCLEAN", None)}, 1)
    ['case 1.1: OK, at the close UNCLEAN (code None)']
    >>> complaints({}, 1)
    ['0 cases were run, not 1']
    """
    wrong = [] if len(cases) == expected else [f"{len(cases)} cases were run, not {expected}"]
    for case, (behavior, at_close, code) in cases.items():
        if behavior not in PASS or at_close not in PASS:
            wrong.append(f"case {case}: {behavior}, at the close {at_close} (code {code})")
    return wrong


def differences(first, second):
    """The cases on which two servers differ.

    >>> differences({"1.1": ("OK", "OK", 1000)}, {"1.1": ("OK", "OK", 1000)})
    []
    >>> differences({"1.1": ("OK", "OK", 1000)}, {"1.1": ("NON-STRICT", "OK", 1000)})
    ["case 1.1: ('OK', 'OK', 1000) against ('NON-STRICT', 'OK', 1000)"]
    >>> differences({"1.1": ("OK", "OK", 1000)}, {})
    ["case 1.1: ('OK', 'OK', 1000) against None"]
    """
    cases = list(first) + [case for case in second if case not in first]
    return [
        f"case {case}: {first.get(case)} against {second.get(case)}"
        for case in cases
        if first.get(case) != second.get(case)
    ]


class Server:
    """A server on a free port for the length of a `with`, ended by SIGTERM; it must exit 0."""

    def __init__(self, command):
        self.command = command

    def __enter__(self):
        words = shlex.split(self.command) + ["--listen", "127.0.0.1:0"]
        try:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Failure(f"cannot start: {error}") from error
        # A server that says nothing is ended, which ends the wait for its line.
        silence = threading.Timer(START_SECONDS, self.process.kill)
        silence.start()
        line = self.process.stdout.readline()
        silence.cancel()
        try:
            self.address = json.loads(line)["address"]
        except (ValueError, KeyError) as error:
            self.process.kill()
            self.process.wait()
            raise Failure(f"no ready line, but {line!r}") from error
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            if kind is None:
                raise Failure(f"still there {STOP_SECONDS} s after SIGTERM") from None
        if kind is None and self.process.returncode != 0:
            raise Failure(f"exit code {self.process.returncode} after the cases")


def run_cases(command, folder):
    """Verdicts by case of the server started by `command`."""
    kosoku = Path(sys.executable).with_name("kosoku")
    with Server(command) as server:
        url = f"ws://{server.address}/ws"
        log = folder / "kosoku.log"
        try:
            with open(log, "w") as output:
                # Its exit code says less than its report.
                subprocess.run(
                    [kosoku, url, "-o", folder, *NOT_CORE],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=RUN_SECONDS,
                )
        except subprocess.TimeoutExpired:
            raise Failure(f"the cases did not end within {RUN_SECONDS} s") from None
    try:
        return read_index(json.loads((folder / "index.json").read_text()))
    except OSError:
        raise Failure(f"no report; kosoku said:\n{log.read_text()[-2000:]}") from None


def shown(lines):
    """The first lines of a list that may be long, indented.

    >>> shown(["a", "b"])
    ['  a', '  b']
    """
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + more


def judge(command, folder):
    """Runs and judges one server: its verdicts, or None when they are useless, whether all is well, and what to print."""
    try:
        cases = run_cases(command, folder)
    except Failure as failure:
        return None, False, [f"autobahn: {command}: FAILED: {failure}"]
    wrong = complaints(cases)
    counts = {}
    for behavior, _, _ in cases.values():
        counts[behavior] = counts.get(behavior, 0) + 1
    summary = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items()))
    line = f"autobahn: {command}: {'FAILED' if wrong else 'passed'}: {len(cases)} cases: {summary}"
    return cases, not wrong, [line, *shown(wrong)]


def main(commands):
    """Exit code 0 when every server passes every case and all have the same verdicts."""
    top = Path(tempfile.mkdtemp(prefix="ringside-autobahn-"))
    folders = [top / str(number) for number in range(len(commands))]
    for folder in folders:
        folder.mkdir()
    well = True
    first = None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = list(pool.map(judge, commands, folders))
    for command, (cases, passed, lines) in zip(commands, judged):
        print("\n".join(lines))
        well = well and passed
        if cases is None:
            continue
        if first is None:
            first = (command, cases)
            continue
        unlike = differences(first[1], cases)
        if unlike:
            well = False
            print(f"autobahn: {command}: FAILED: verdicts differ from those of {first[0]}:")
            print("\n".join(shown(unlike)))
    sys.stdout.flush()
    if well:
        shutil.rmtree(top)
        return 0
    print(f"autobahn: reports are kept in {top}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    # A termination unwinds like Ctrl-C does, so that no server is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
