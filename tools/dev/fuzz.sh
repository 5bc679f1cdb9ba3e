#!/usr/bin/env bash
# Runs the fuzz targets one after the other until each has been executed so often, and sums up what was done.
#
#   tools/dev/fuzz.sh DIR [--build BUILD] [--runs N] [--slice SECONDS] [TARGET...]
#   tools/dev/fuzz.sh DIR --sum
#
# DIR holds a corpus for each target (what tests/fuzz/corpus has is read as well), what a target found as TARGET-crash-* and the like,
# the output of the last slices, and `tally`, a line for each slice: when, commit, target, executions, seconds. Begun again with
# the same DIR it goes on where it was; it may be ended at any time by SIGTERM, and N may be another one. The targets take turns of
# SECONDS (60). N is 5,000,000. A target that finds something is left alone from then on, and the exit status is 1.
#
# BUILD (build/fuzz) is a build of the fuzz preset: cmake --preset fuzz && cmake --build --preset fuzz
set -euo pipefail

usage() {
    sed -n '2,5p' "$0" >&2
    exit 2
}

source=$(cd "$(dirname "$0")/../.." && pwd)
build=$source/build/fuzz
runs=5000000 slice=60 sum=
[ $# -gt 0 ] || usage
dir=$1
shift
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2 && shift 2 ;;
    --runs) runs=$2 && shift 2 ;;
    --slice) slice=$2 && shift 2 ;;
    --sum) sum=yes && shift ;;
    -*) usage ;;
    *) targets+=("$1") && shift ;;
    esac
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
tally=$dir/tally
touch "$tally"

print_sum() {
    awk 'NF == 5 { n[$3] += $4; s[$3] += $5; all += $4 }
        END { for (t in n) printf "%-12s %12d executions %8d s %8d a second\n", t, n[t], s[t], n[t] / (s[t] ? s[t] : 1)
              printf "%-12s %12d\n", "all", all }' "$tally" | sort
    for found in "$dir"/*-{crash,leak,timeout,oom}-*; do
        [ ! -e "$found" ] || echo "found: $found"
    done
}

if [ "$sum" ]; then
    print_sum
    exit 0
fi
if [ ${#targets[@]} -eq 0 ]; then
    for file in "$source"/tests/fuzz/fuzz_*.c; do
        name=${file##*/fuzz_}
        targets+=("${name%.c}")
    done
fi
commit=$(git -C "$source" rev-parse --short HEAD 2>/dev/null || echo -)

# Of what was freed last 16 MiB are kept from being used again: an input frees less, and 256 MiB, as is usual, are never in a cache.
export ASAN_OPTIONS=quarantine_size_mb=16:thread_local_quarantine_size_kb=64${ASAN_OPTIONS:+:$ASAN_OPTIONS}

child=
stop=
trap 'stop=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT

# slice TARGET LEFT: lets it run; libFuzzer prints its figures also when it is interrupted.
slice() {
    local target=$1 left=$2 log=$dir/$1.log begun status=0 done_now
    local corpora=("$dir/$target") options=()
    [ ! -f "$source/tests/fuzz/$target.options" ] || mapfile -t options <"$source/tests/fuzz/$target.options"
    mkdir -p "$dir/$target"
    [ ! -d "$source/tests/fuzz/corpus/$target" ] || corpora+=("$source/tests/fuzz/corpus/$target")
    begun=$(date +%s)
    "$build/tests/fuzz.$target" -runs="$left" -max_total_time="$slice" -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -print_funcs=0 -entropic=0 -reload=0 -artifact_prefix="$dir/$target-" "${options[@]}" \
        "${corpora[@]}" >"$log" 2>&1 </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" && status=0 || status=$?
    done
    child=
    done_now=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $commit $target ${done_now:-0} $(($(date +%s) - begun))" >>"$tally"
    [ "$status" -ne 0 ] && [ -z "$stop" ] || return 0
    # Time that a machine was busy with something else, or the process stopped, counts as time that an input took.
    local found ended=yes
    for found in "$dir/$target"-timeout-*; do
        [ -e "$found" ] || continue
        if "$build/tests/fuzz.$target" -timeout=20 "$found" >/dev/null 2>&1 </dev/null; then
            rm "$found"
            ended=
        fi
    done
    [ "$ended" ] || return 0
    cp "$log" "$dir/$target-found.log"
    echo "$target: ended with status $status, see $dir/$target-found.log" >&2
    return 1
}

status=0
while [ ${#targets[@]} -gt 0 ] && [ -z "$stop" ]; do
    left_over=()
    for target in "${targets[@]}"; do
        [ -z "$stop" ] || break
        left=$((runs - $(awk -v t="$target" '$3 == t { n += $4 } END { printf "%d", n }' "$tally")))
        [ "$left" -gt 0 ] || continue
        if slice "$target" "$left"; then
            left_over+=("$target")
        else
            status=1
        fi
    done
    targets=("${left_over[@]}")
done
print_sum
exit "$status"
