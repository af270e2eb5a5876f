#!/bin/sh
# Passes every server except those started with --rude.
case "$*" in
    "--smoke -- "*" --rude"*) echo "ok      starts (1 ms)"; echo "FAILED  masks (2 ms): no close code"; exit 1 ;;
    "--smoke -- "*) echo "ok      starts (1 ms)" ;;
    *) echo "wrong arguments: $*" >&2; exit 2 ;;
esac
