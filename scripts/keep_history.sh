#!/usr/bin/env bash
# Adds a result to the history on a branch of a git remote: scripts/keep_history.sh RESULT_FOLDER REMOTE [BRANCH]
# The branch (default: bench-history) holds history.jsonl and nothing else; it is made if it is missing. A copy of the file is left in
# the result folder. Another push in between is an error: what it added is not lost, run this again.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"

if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
folder="$1" remote="$2" branch="${3:-bench-history}"
bench="${BENCH:-$root/target/release/bench}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

git init --quiet --initial-branch "$branch" "$work"
if [ -n "$(git ls-remote "$remote" "refs/heads/$branch")" ]; then
    git -C "$work" fetch --quiet --depth 1 "$remote" "refs/heads/$branch"
    git -C "$work" reset --quiet --hard FETCH_HEAD
fi
"$bench" history "$work/history.jsonl" "$folder"
cp "$work/history.jsonl" "$folder/history.jsonl"
git -C "$work" add history.jsonl
if git -C "$work" diff --cached --quiet; then
    echo "nothing new"
    exit 0
fi
git -C "$work" -c user.name=bench -c user.email=bench@localhost commit --quiet --message "Add $(basename "$folder")"
git -C "$work" push --quiet "$remote" "HEAD:refs/heads/$branch"
