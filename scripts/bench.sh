#!/usr/bin/env bash
# Builds everything in release, checks the machine and runs the bouts: scripts/bench.sh [--suite smoke|quick|standard|scale|peers] [--help]
# Arguments go to the referee (bench/). Needs a Rust toolchain and a C compiler (mimalloc), nothing else.
# The last line printed is the result folder.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
. "$root/scripts/common.sh"

if ! command -v cargo >/dev/null; then
    echo "missing: a Rust toolchain, 1.95 or newer: https://rustup.rs" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "missing: a C compiler. On Debian or Ubuntu: sudo apt-get install build-essential" >&2
    exit 1
fi

# The same build as in scripts/test.sh, so that it is made once.
echo "building (release; the first time takes some minutes)" >&2
(cd "$root" && cargo build --release --workspace --exclude peers --bins --locked >&2)
(cd "$root" && cargo build --release -p uring-net --example floor_tcp --locked >&2)
# Servers of other stacks, when a suite or a contestant of that name is asked for.
case "$*" in
    *peer*)
        (cd "$root" && cargo build --release -p peers --locked >&2)
        "$root/peers/uwebsockets/build.sh" >&2
        ;;
esac

target="$(cd "$root" && target_folder)"
out=(--out "$root/bench-results")
for argument in "$@"; do
    case $argument in
        --out | --out=*) out=() ;;
    esac
done
exec "$target/release/bench" --config-dir "$root/bench" --bin-dir "$target/release" "${out[@]}" "$@"
