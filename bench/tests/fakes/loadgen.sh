#!/bin/sh
# A generator that only writes a record: `record.json` beside it with the window and the throughput of the target's port filled
# in. Port 1001 gives 120,000/s, 1002 gives 100,000/s; 1003 kills its server; 1004 stays until it is told to end;
# 1005 makes the record impossible to write.
here=$(dirname "$0")
case " $* " in
    *" --slices "*) exec python3 "$here/loadgen_slices.py" "$@" ;;
esac
url=$2
while [ $# -gt 0 ]; do
    case $1 in
        --json) json=$2; shift ;;
        --rate) rate=$2; shift ;;
    esac
    shift
done
# A file `stay-at` with N: the Nth run stays until it is told to end.
echo >>"$here/runs"
if [ -e "$here/stay-at" ] && [ "$(wc -l <"$here/runs")" -eq "$(cat "$here/stay-at")" ]; then
    touch "$here/started"
    exec sleep 30
fi
# A file `clock-set-back`: the wall clock goes back by 0.4 s before the window.
back=0
if [ -e "$here/clock-set-back" ]; then back=400000000; fi
monotonic() { python3 -c "import time; print(time.monotonic_ns())"; }
from=$(monotonic)
start=$(($(date +%s%N) - back))
case $url in
    *:1003/*) touch "$here/die"; exec sleep 30 ;;
    *:1004/*) touch "$here/started"; exec sleep 30 ;;
    *:1005/*) mkdir "${json%.loadgen.json}.json"; per_s=1 ;;
    *:1001/*) per_s=120000 ;;
    *) per_s=100000 ;;
esac
# A file `vary`: figures differ from run to run, as real ones do.
if [ -e "$here/vary" ]; then per_s=$((per_s + 1$(date +%N) % 9973)); fi
sleep 0.1
end=$(($(date +%s%N) - back))
to=$(monotonic)
per_s=${rate:-$per_s}
count=$((${per_s%.*} * (end - start) / 1000000000))
sed -e "s/\"FROM\"/$from/; s/\"TO\"/$to/" -e "s/\"START\"/$start/g; s/\"END\"/$end/; s/\"LENGTH\"/$((end - start))/; s/\"PER_S\"/$per_s/; s/\"COUNT\"/$count/g; s/\"RATE\"/${rate:-null}/" \
    "$here/record.json" >"$json"
