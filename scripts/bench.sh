#!/usr/bin/env bash
# Builds in release what the suite needs, checks the machine and runs the bouts:
# scripts/bench.sh [--suite smoke|quick|standard|scale|peers|large|broadcast|questions] [--help]
# Arguments go to the referee (bench/). Needs a Rust toolchain and a C compiler (mimalloc).
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

# Who takes part decides what is built: servers of other stacks and the raw TCP echo only when a
# suite or a list of contestants names them.
packages=("${ringside[@]}")
peers=no
option=""
for argument in "$@"; do
    case $argument in
        --*=*) option="${argument%%=*}" value="${argument#*=}" ;;
        --*) option="$argument" value="" ;;
        *) value="$argument" ;;
    esac
    case "$option $value" in
        "--suite peers" | "--suite "*/peers.toml | "--suite large" | "--suite "*/large.toml | \
            "--suite questions" | "--suite "*/questions.toml | \
            "--suite broadcast" | "--suite "*/broadcast.toml | \
            "--contestants peer-"* | "--contestants "*,peer-*)
            peers=yes
            ;;
    esac
    case "$option $value" in
        "--suite peers" | "--suite "*/peers.toml | "--suite large" | "--suite "*/large.toml | \
            "--suite referee" | "--suite "*/referee.toml | \
            "--contestants floor-"* | "--contestants "*,floor-*)
            packages+=(-p uring-net --example floor_tcp)
            ;;
    esac
done
if [ $peers = yes ]; then
    packages+=(-p peers)
fi

echo "building (release; the first time takes a minute or two)" >&2
(cd "$root" && cargo build --release --locked --bins "${packages[@]}" >&2)
if [ $peers = yes ]; then
    "$root/peers/uwebsockets/build.sh" >&2
fi

target="$(cd "$root" && target_folder)"
"$target/release/bench" built-from "$root"
out=(--out "$root/bench-results")
for argument in "$@"; do
    case $argument in
        --out | --out=*) out=() ;;
    esac
done
exec "$target/release/bench" --config-dir "$root/bench" --bin-dir "$target/release" \
    "${out[@]}" "$@"
