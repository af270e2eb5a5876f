#!/usr/bin/env bash
# Builds both servers and loadgen with profile-guided optimisation (a few minutes): scripts/pgo.sh
# Needs an llvm-profdata that reads what rustc writes: $LLVM_PROFDATA, or rustup's component llvm-tools, or Debian's llvm-22.
# The last line printed is the folder of the binaries, for bench --bin-dir. No peers are in it: they are not built this way.
# LTO=fat adds link-time optimisation; $RUSTFLAGS is added to.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

for program in cargo cc; do
    command -v $program >/dev/null || {
        echo "pgo.sh: $program is missing; scripts/bench.sh says what to install" >&2
        exit 1
    }
done
host="$(rustc -vV | sed -n 's/^host: //p')"
llvm="$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
target="$(target_folder)/pgo"
profiles="$target/profiles"
work="$(mktemp -d)"
server=""
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

# fits TOOL: whether it reads the profiles of this rustc, and rustc what it makes of them.
echo 'fn main() {}' >"$work/probe.rs"
rustc -Cprofile-generate="$work/probe" -o "$work/program" "$work/probe.rs"
"$work/program"
fits() {
    "$1" merge -o "$work/probe.profdata" "$work/probe" &&
        rustc -Cprofile-use="$work/probe.profdata" -o "$work/program" "$work/probe.rs"
} >/dev/null 2>&1

candidates=("$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$llvm" llvm-profdata)
if [ -n "${LLVM_PROFDATA:-}" ]; then candidates=("$LLVM_PROFDATA"); fi
profdata=""
for candidate in "${candidates[@]}"; do
    if fits "$candidate"; then
        profdata="$candidate"
        break
    fi
done
if [ -z "$profdata" ]; then
    cat >&2 <<TEXT
pgo.sh: missing: an llvm-profdata that reads profiles of LLVM $llvm, which rustc writes here. Tried:
$(printf '    %s\n' "${candidates[@]}")
Install one:
    rustup component add llvm-tools
    sudo apt-get install llvm-$llvm
or name one: LLVM_PROFDATA=/path/to/llvm-profdata scripts/pgo.sh
TEXT
    exit 1
fi

# build FOLDER FLAG: with --target, build scripts are built without the flag.
build() {
    CARGO_TARGET_DIR="$target/$1" CARGO_PROFILE_RELEASE_LTO="${LTO:-off}" RUSTFLAGS="${RUSTFLAGS:-} $2" \
        cargo build --release --locked --target "$host" --bins -p server-uring -p server-tokio -p loadgen >&2
}

# load ARGUMENT...: loadgen for a second. That a run is no valid measurement (1) does not matter here; that nothing came back does.
load() {
    local status=0
    "$bin/loadgen" "$@" -d 1s --warmup 200ms --json "$work/record.json" --quiet >&2 || status=$?
    if [ $status -gt 1 ] || ! grep -q '"messages_per_s": [1-9]' "$work/record.json"; then
        echo "pgo.sh: loadgen $* failed" >&2
        exit 1
    fi
}

# train SERVER ARGUMENT...: the same loads for each engine. Profiles are written when a program ends.
train() {
    local address="" url
    echo "training: $*" >&2
    # Otherwise the address of the server before may be read.
    : >"$work/ready"
    "$bin/$1" "${@:2}" --listen 127.0.0.1:0 --workers 2 >"$work/ready" 2>"$work/log" &
    server=$!
    for _ in $(seq 200); do
        address="$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/ready")"
        if [ -n "$address" ] || ! kill -0 "$server" 2>/dev/null; then break; fi
        sleep 0.05
    done
    if [ -z "$address" ]; then
        cat "$work/log" >&2
        exit 1
    fi
    url="ws://$address/ws"
    load echo "$url" -c 500 -s 64
    load echo "$url" -c 200 -s 64 --window 16
    load echo "$url" -c 100 -s 4KiB
    load echo "$url" -c 100 -s 16KiB
    load echo "$url" -c 20 -s 128KiB
    load echo "$url" -c 8 -s 1MiB
    load broadcast "ws://$address/broadcast/room" -c 200 -s 64
    load connect "$url" -c 50 --messages 1
    kill "$server"
    wait "$server" || {
        cat "$work/log" >&2
        exit 1
    }
    server=""
}

echo "building with counters" >&2
build instrumented "-Cprofile-generate=$profiles"
bin="$target/instrumented/$host/release"
rm -rf "$profiles"
train server-uring --engine raw
train server-uring --engine monoio
train server-tokio --flavor multi
train server-tokio --flavor per-core
"$profdata" merge -o "$target/ringside.profdata" "$profiles"

echo "building with profiles" >&2
# Cargo sees the name of the profile and not what is in it.
rm -rf "${target:?}/optimised/$host"
build optimised "-Cprofile-use=$target/ringside.profdata"
bin="$target/optimised/$host/release"

# What is not measured is as it always is.
cargo build --release --locked --bins "${ringside[@]}" >&2
cp "$target/../release/bench" "$target/../release/conformance" "$bin"
"$bin/bench" built-from "$PWD" --build profile-guided
echo "$bin"
