#!/usr/bin/env bash
# Autobahn's 301 core cases (kosoku) against each server given; all must pass, with the same verdicts on all servers.
# Usage: scripts/autobahn.sh SERVER...    A server with options is one word: "target/release/server-tokio --flavor per-core"
# The Python environment is made in $RINGSIDE_VENV (default: .venv in the repository) and used again.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
if ! command -v python3 >/dev/null; then
    echo "autobahn.sh: python3 is missing. On Debian or Ubuntu: sudo apt-get install python3 python3-venv" >&2
    exit 1
fi

venv="${RINGSIDE_VENV:-.venv}"
kosoku=0.1.0
installed='import importlib.metadata, sys; sys.exit(importlib.metadata.version("kosoku") != sys.argv[1])'

if ! "$venv/bin/python" -c "$installed" "$kosoku" 2>/dev/null; then
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        echo "autobahn.sh: $venv exists and is no Python environment; set RINGSIDE_VENV to another path" >&2
        exit 1
    fi
    # What other scripts have put there stays.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 && ! python3 -m venv --clear "$venv"; then
        rm -rf "$venv"
        echo "autobahn.sh: python3 -m venv does not work. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
        exit 1
    fi
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "kosoku==$kosoku"; then
        echo "autobahn.sh: pip could not install kosoku==$kosoku (no network, or no wheel for $(python3 -V))" >&2
        exit 1
    fi
fi

# The judge is tested by its own examples before it judges.
"$venv/bin/python" -B -m doctest scripts/autobahn_verdicts.py
exec "$venv/bin/python" -B scripts/autobahn_verdicts.py "$@"
