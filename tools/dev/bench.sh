#!/usr/bin/env bash
# Builds the benchmarks, prepares the data, runs a table.
#
#   tools/dev/bench.sh TABLE [SET...] [-- OPTION...]
#
#   TABLE   search   recall and rate of one reader of a live kithd, beside hnswlib and FAISS
#           core     the same without a daemon: the graph alone
#           build    vectors a second, beside hnswlib
#           log      groups a second where only the log has work, beside the disk alone
#           mixed    reader processes beside a writer at full speed
#           scaling  two readers to one, and a reader beside a writer, each on a CPU of its own
#           attach   time and memory of an attached reader
#           counters what being counted costs a reader
#           recall   how well searches keep a recall that they ask for
#           restart  checkpoints, cold and warm starts
#           warm     restarts with the segment in place, a quarter of the set and all of it
#           durable  readers without a daemon, writing beside checkpoints, replay to writing
#           growth   rate, memory and building from 10,000 to 1,000,000 vectors
#           ceiling  growth from room for 1,000 vectors to 1,000,000, beside a writer and a reader
#           churn    a collection that is rewritten again and again, beside a fresh one; a sliding window
#           gateway  searches over REST and gRPC beside the same in process (wrk, h2load); reading vectors; a generated set
#           all      the tables of bench/README.md
#   SET     folders of $KITH_BENCH_DATA; without that variable vectors are generated
#   OPTION  of the program behind the table: tools/dev/bench.sh TABLE -- --help
#
# A packed set (manifest.json) is unpacked once into $KITH_BENCH_CACHE, by default below the build
# folder. KITH_BENCH_BUILD names a build folder to use instead of build/release. What is printed is kept in
# $KITH_BENCH_OUT, by default bench-results below the build folder: TABLE-SET.md (TABLE-SET-ood.md), and beside it the points
# as .json and the curves as .svg, where the table has them and no option names another file.
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit "$1"
}

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${KITH_BENCH_BUILD:-$root/build/release}
cache=${KITH_BENCH_CACHE:-$build/bench-data}
out=${KITH_BENCH_OUT:-$build/bench-results}
data=${KITH_BENCH_DATA:+$(cd "$KITH_BENCH_DATA" && pwd)}
[ $# -ge 1 ] || usage 2
case $1 in -h | --help) usage 0 ;; esac
table=$1
shift
sets=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    sets+=("$1")
    shift
done
[ $# -eq 0 ] || shift
options=("$@")

# A set as the programs read it: a folder of $cache with base.fvecs, query.fvecs, gt.ivecs, metric.
prepare() {
    local set=$1
    [ "$set" != generated ] || return 0
    if [ -f "$cache/$set/metric" ]; then
        return
    elif [ -f "$data/$set/base.fvecs" ]; then
        mkdir -p "$cache"
        ln -sfn "$data/$set" "$cache/$set"
    elif [ -f "$data/$set/manifest.json" ]; then
        rm -rf "${cache:?}/$set.part"
        mkdir -p "$cache"
        python3 "$data/unpack.py" "$data/$set" "$cache/$set.part" >&2
        python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["metric"])' \
            "$data/$set/manifest.json" >"$cache/$set.part/metric"
        rm -rf "${cache:?}/$set"
        mv "$cache/$set.part" "$cache/$set"
    else
        echo "bench.sh: $data/$set has neither base.fvecs nor manifest.json" >&2
        exit 1
    fi
}

run() { # TABLE SET [OPTION...]
    local name=$1 set=$2 files=() file=$out/$1-$2
    shift 2
    case " $* " in
    *" --queries ood "*) file=$file-ood ;;
    esac
    prepare "$set"
    mkdir -p "$out"
    case $name in
    search | core) files=(--json "$file.json" --svg "$file.svg") ;;
    build | log | scaling | growth | restart | warm | durable | churn) files=(--json "$file.json") ;;
    esac
    {
        echo
        echo "$ tools/dev/bench.sh $name $set${*:+ -- $*}"
        KITH_BENCH_DATA=$cache "$build/bin/bench_$name" "${files[@]}" "$@" "$set"
    } | tee "$file.md"
}

if [ ! -d "$build" ]; then
    (cd "$root" && cmake --preset release -B "$build" >/dev/null)
fi
grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Release' "$build/CMakeCache.txt" ||
    echo "bench.sh: $build is not a release build; its figures mean little" >&2
cmake --build "$build" >/dev/null

if [ "$table" = all ]; then
    if [ -n "$data" ]; then
        for set in glove-twitter-25 mlnotes-bge-micro labse-572-languages fashion-mnist sift-grocery; do
            run search "$set" --quantization auto,none,f16,sq8,bits,sq8-none "${options[@]}"
        done
        run search labse-572-languages --quantization auto,none --queries ood \
            --ef 100,200,500,1000,2000,5000 "${options[@]}"
        for set in fashion-mnist sift-grocery; do
            run build "$set" --quantization auto,none,f16,sq8,bits "${options[@]}"
            run scaling "$set" "${options[@]}"
        done
        for set in fashion-mnist sift-grocery; do
            run churn "$set" --peers hnswlib,hnswlib-replace,faiss "${options[@]}" || true
        done
        for name in mixed attach counters growth restart warm durable; do
            run "$name" sift-grocery "${options[@]}"
        done
        run log generated "${options[@]}"
    else
        for name in search build log mixed scaling attach counters growth restart warm durable; do
            run "$name" generated "${options[@]}"
        done
    fi
    exit 0
fi
if [ "$table" = gateway ]; then
    mkdir -p "$out"
    {
        echo
        echo "$ tools/dev/bench.sh gateway${options[*]:+ -- ${options[*]}}"
        python3 "$root/bench/gateway/bench_gateway.py" "$build/bin" "${options[@]}"
    } | tee "$out/gateway-generated.md"
    exit 0
fi
case $table in search | core | build | log | mixed | scaling | attach | counters | growth | ceiling | churn | recall | restart | warm | durable) ;; *) usage 2 ;; esac
if [ ${#sets[@]} -eq 0 ]; then
    case " ${options[*]} " in
    *" --help "*) exec "$build/bin/bench_$table" --help ;;
    esac
    [ -z "$data" ] || [ "$table" = log ] || { echo "bench.sh: name the sets of $data to measure" >&2; exit 2; }
    sets=(generated)
fi
for set in "${sets[@]}"; do
    run "$table" "$set" "${options[@]}"
done
