#!/usr/bin/env bash
# Instructions per message of the codec, counted by callgrind: scripts/instructions.sh [BASE] prints a Markdown table.
# With BASE (any git revision) that one is built and counted too, and a case with more than $LIMIT percent (default 2) more
# instructions than there ends it with 99. Both must be counted on one machine: the codec picks its instructions by CPU.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
. scripts/common.sh
limit="${LIMIT:-2}"

if ! command -v valgrind >/dev/null; then
    echo "instructions.sh: valgrind is missing. On Debian or Ubuntu: sudo apt-get install valgrind" >&2
    exit 1
fi
target="$(target_folder)"
make_work_folder

# collected PROGRAM CASE MESSAGES: all instructions of the process.
collected() {
    local log="$work/callgrind.log"
    if ! valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$log" "$1" "$2" "$3"; then
        cat "$log" >&2
        return 1
    fi
    awk '/Collected/ { print $NF; found = 1 } END { exit !found }' "$log"
}

# per_message PROGRAM CASE: the difference of two runs, so that start and end of the process do not count.
per_message() {
    local few many
    few="$(collected "$1" "$2" 1600)"
    many="$(collected "$1" "$2" 17600)"
    awk -v few="$few" -v many="$many" 'BEGIN { printf "%.2f", (many - few) / 16000 }'
}

cargo build --release --locked -p ws-proto --example instructions >&2
head="$target/release/examples/instructions"
base=""
if [ $# -gt 0 ]; then
    commit="$(git rev-parse --verify "$1^{commit}")"
    if git cat-file -e "$commit:ws-proto/examples/instructions.rs" 2>/dev/null; then
        git worktree add --quiet --detach "$work/source" "$commit" >&2
        (cd "$work/source" && CARGO_TARGET_DIR="$target/base" cargo build --release --locked -p ws-proto --example instructions >&2)
        base="$target/base/release/examples/instructions"
    else
        echo "instructions.sh: ${commit:0:7} has no such example; only this tree is counted" >&2
    fi
fi

status=0
echo "| codec, in place | instructions per message${base:+ | before | change} |"
echo "|---|---:${base:+|---:|---:}|"
for case in $("$head"); do
    now="$(per_message "$head" "$case")"
    if [ -z "$base" ]; then
        echo "| $case | $now |"
        continue
    fi
    if ! "$base" | grep -qx "$case"; then
        echo "| $case | $now | new | |"
        continue
    fi
    before="$(per_message "$base" "$case")"
    awk -v name="$case" -v now="$now" -v before="$before" -v limit="$limit" 'BEGIN {
        change = (now / before - 1) * 100
        broken = change > limit
        printf "| %s | %s | %s | %+.2f%%%s |\n", name, now, before, change, broken ? " **over " limit "%**" : ""
        exit broken
    }' || status=99
done
exit "$status"
