#!/usr/bin/env bash
# Everything that must hold before a change is merged. Usage: scripts/test.sh
# Needs a Rust toolchain, a C compiler (mimalloc) and python3 with venv (the Autobahn cases);
# as root on Debian or Ubuntu what is missing is installed, elsewhere it is named.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

step="start"
workflows=""
workflows_log="$(mktemp)"

at_exit() {
    local status=$?
    if [ -n "$workflows" ]; then kill "$workflows" 2>/dev/null || true; fi
    rm -f "$workflows_log"
    if [ $status -ne 0 ]; then echo "test.sh: FAILED in step: $step" >&2; fi
}
trap at_exit EXIT

begin() {
    step=$1
    printf '\n== %s\n' "$step"
}

# need CHECK PACKAGE WHY: installs a Debian package when CHECK fails, or says which one to install.
need() {
    local check=$1 package=$2 why=$3
    if eval "$check" >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package ($why)"
        apt-get update -qq </dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" </dev/null
        if eval "$check" >/dev/null 2>&1; then return; fi
    fi
    echo "missing: $package ($why). On Debian or Ubuntu: sudo apt-get install $package" >&2
    exit 1
}

begin "needs"
if ! command -v cargo >/dev/null; then
    echo "missing: a Rust toolchain, 1.95 or newer: https://rustup.rs" >&2
    exit 1
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    echo "missing: rustfmt and clippy: rustup component add rustfmt clippy" >&2
    exit 1
fi
need 'command -v cc' build-essential "a C compiler and linker"
need 'command -v python3' python3 "runs the Autobahn cases"
need 'python3 -c "import venv, ensurepip"' python3-venv "runs the Autobahn cases"
# Elsewhere the tests that look at the report in a browser say that they were skipped.
case ",${RINGSIDE_REQUIRE:-}," in
*,browser,*)
    need 'command -v chromium || command -v chromium-browser || command -v google-chrome' \
        chromium "shows the report"
    ;;
esac

begin "format (cargo fmt --check)"
cargo fmt --all --check

# Beside the builds, for they mostly wait for the network.
scripts/lint_workflows.sh >"$workflows_log" 2>&1 </dev/null &
workflows=$!

begin "lints (cargo clippy)"
cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

begin "documentation (cargo doc)"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked

# The servers that the tests below start, too: no release build for what is judged by its answers.
begin "build of all tests"
cargo test --workspace --all-features --locked --no-run

begin "workflows (GitHub's schema, actionlint)"
wait "$workflows" || {
    cat "$workflows_log" >&2
    exit 1
}
workflows=""
cat "$workflows_log"

begin "Autobahn cases on every server"
target="$(target_folder)/debug"
scripts/autobahn.sh "$target/server-uring" "$target/server-uring --engine raw --direct=off" \
    "$target/server-uring --engine raw --direct=on" \
    "$target/server-tokio" "$target/server-tokio --flavor per-core"

# Its cases mostly wait for a server, so many run at a time.
begin "conformance (every engine)"
RUST_TEST_THREADS=8 cargo test --workspace --all-features --locked --test conformance

# Unit, property and documentation tests, and those of the tree itself (tidy).
begin "tests (cargo test)"
cargo test --workspace --all-features --locked -- --skip conformance::

begin "all steps passed"
