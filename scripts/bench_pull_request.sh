#!/usr/bin/env bash
# The servers of another revision and those of this tree, interleaved in one suite: scripts/bench_pull_request.sh BASE [ARGUMENT...]
# BASE is any git revision; arguments go to the referee (bench/). Generator, referee and conformance cases are those of this tree for
# both. The last line printed is the result folder; judge it with: bench gate FOLDER --config bench/gate-pull-request.toml
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
. scripts/common.sh

if [ $# -eq 0 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
base="$(git rev-parse --verify "$1^{commit}")"
shift

target="$(target_folder)"
make_work_folder

echo "building the servers of ${base:0:7} (release)" >&2
git worktree add --quiet --detach "$work/source" "$base" >&2
# In a folder of its own, that stays: the next base is built on it.
(cd "$work/source" && CARGO_TARGET_DIR="$target/base" cargo build --release --locked -p server-uring -p server-tokio --bins >&2)
echo "building this tree (release)" >&2
cargo build --release --locked --bins "${ringside[@]}" >&2
"$target/release/bench" built-from "$root"

# A contestant of bench/contestants.toml: NAME PROGRAM OPTION VALUE [LINE]
contestant() {
    cat <<TOML
[$1-$side]
about = "$2 $3 $4: $about"
program = "$bin/$2"
args = ["$3", "$4"]
conformance = $conformance

TOML
}

# A base need not pass the conformance cases of a head that adds some.
for side in head base; do
    case $side in
        head) bin="$target/release" conformance=true about="this tree" ;;
        base) bin="$target/base/release" conformance=false about="revision ${base:0:7}" ;;
    esac
    contestant uring server-uring --engine monoio
    contestant raw server-uring --engine raw
    contestant tokio server-tokio --flavor multi
done >"$work/contestants.toml"

"$target/release/bench" --config-dir "$root/bench" --bin-dir "$target/release" --out "$root/bench-results" \
    --contestants-file "$work/contestants.toml" --contestants uring-head,uring-base,raw-head,raw-base,tokio-head,tokio-base \
    --suite pull-request "$@"
