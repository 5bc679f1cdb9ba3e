#!/usr/bin/env bash
# States how much of the code that durability hangs on is run by tests: lines, and branches that were taken.
#
#   tools/dev/coverage.sh                 builds the coverage preset, runs the tests that matter, prints the table
#   tools/dev/coverage.sh --report        the table once more, from the counts that are there
#   tools/dev/coverage.sh --open FILE...  branches of these sources that were not taken, as line, number and source
#   tools/dev/coverage.sh --more REGEX    runs these tests as well, and adds their counts to those that are there
#
# Needs what tools/dev/setup.sh --tests installs: gcc, and gcov that comes with it. JOBS=N sets the parallel jobs (default: the
# number of CPUs). Counts are in build/coverage, the log of the tests in build/logs. The exit status says whether the tests passed.
set -euo pipefail

cd "$(dirname "$0")/../.." || exit 2
jobs=${JOBS:-$(nproc)}
build=build/coverage
logs=build/logs

# What belongs together. A word is a source or a pattern of sources.
areas=(
    "WAL|server/wal/*.c"
    "recovery|server/writer/recover.c server/writer/load.c server/writer/start.c server/checkpoint/*.c
        server/index/restore.c server/index/ahead.c server/index/image.c"
    "adoption|server/index/adopt.c server/index/census.c server/index/notes.c server/writer/census.c"
    "attach|shm/map/*.c shm/layout/geometry.c shm/graph/view.c client/src/open.c client/src/call.c
        client/src/rundir.c client/src/lock.c"
)

# Those that have something to do with the areas. Long runs that kill processes at random say little here: who is killed does not
# write its counts. The same over collections with codes runs the same branches.
tests='^(unit\.server\.wal\..*|unit\.server\.checkpoint\..*|unit\.server\.index\.(adopt|ahead|census|failing|image)'
tests+='|unit\.server\.writer\.(checkpointer|recover|start_failing)|unit\.shm\.map\..*|unit\.shm\.layout\..*'
tests+='|unit\.shm\.graph\.(lookup|scan)|unit\.client\.(failing|handle|write)'
tests+='|crash\.(points|checkpoints|ahead|crash_sim|crash_sweep)'
tests+='|proc\.(start|surroundings|client_life|backup|cli_wal)|golden\..*|fuzz\.(adopt|checkpoint|segment|wal))$'

# branches SOURCE: one line for each line of code and each branch of it, with how often it was run or taken:
#   L LINE COUNT           B LINE COUNT TEXT           a branch whose line was never run has a count of 0
# Lines of KITHI_ASSERT are left out up to the end of the statement.
branches() {
    local source=$1 notes
    notes=$(find "$build/${source%%/*}" -path "*.dir/${source#*/}.gcno")
    if [ -z "$notes" ] || [ "$(wc -l <<<"$notes")" -ne 1 ]; then
        echo "coverage: $source is not compiled once in $build" >&2
        return 1
    fi
    gcov --branch-probabilities --branch-counts --stdout "$notes" 2>/dev/null | SOURCE=$source awk '
        function ends_with(text, end) { return substr(text, length(text) - length(end) + 1) == end }
        /^ +-: +0:Source:/ { ours = ends_with($0, ENVIRON["SOURCE"]); next }
        !ours { next }
        /^ *[-0-9#=*]+: *[0-9]+:/ {
            text = $0
            count = text
            sub(/:.*/, "", count)
            gsub(/[ *]/, "", count)
            sub(/^[^:]*: */, "", text)
            number = text + 0
            sub(/^[0-9]+:/, "", text)
            if (text ~ /KITHI_(DEBUG_)?ASSERT\(/)
                inside = 1
            skipped = inside
            if (inside && text ~ /\);/)
                inside = 0
            if (count != "-" && !skipped)
                print "L", number, count ~ /^[#=]/ ? 0 : count
            next
        }
        /^branch / && !skipped { print "B", number, $3 == "taken" ? $4 : 0, text }'
}

# table: the areas, their sources, and how much of each was run.
table() {
    local area name source
    for area in "${areas[@]}"; do
        name=${area%%|*}
        # shellcheck disable=SC2086 # patterns
        for source in ${area#*|}; do
            echo "S $name $source"
            branches "$source"
        done
    done | awk '
        function percent(part, all) { return all ? sprintf("%.1f", 100 * part / all) : "-" }
        function row(what, l, ls, b, bs) {
            printf "| %s | %d | %s | %d | %s |\n", what, ls, percent(l, ls), bs, percent(b, bs)
        }
        function source_ends() {
            if (source != "")
                row("`" source "`", lines_run, lines, taken, branches)
        }
        function area_ends() {
            if (area != "")
                row("**" area "**", area_run, area_lines, area_taken, area_branches)
        }
        BEGIN { print "| source | lines | run, % | branches | taken, % |\n|---|---:|---:|---:|---:|" }
        $1 == "S" {
            source_ends()
            if ($2 != area) {
                area_ends()
                area_lines = area_run = area_branches = area_taken = 0
            }
            area = $2
            source = $3
            lines = lines_run = branches = taken = 0
        }
        $1 == "L" { lines++; area_lines++; if ($3 > 0) { lines_run++; area_run++ } }
        $1 == "B" { branches++; area_branches++; if ($3 > 0) { taken++; area_taken++ } }
        END { source_ends(); area_ends() }'
    echo
    echo "A branch is one way out of a condition, each operand of && and || being one; those of lines that are never run count"
    echo "as not taken, those of assertions (KITHI_ASSERT) do not count. Processes killed by a signal that they did not send"
    echo "themselves have not written their counts. gcc $(gcc -dumpfullversion), without optimisation."
}

run_tests() {
    mkdir -p "$logs"
    # Of the calls of a start, which fail one after the other, more than the short form lets fail.
    KITH_TEST_EVERY=7 ctest --preset coverage -j "$jobs" --no-tests=error -R "$1" >"$logs/coverage-tests.log" 2>&1 && return 0
    tail -n 40 "$logs/coverage-tests.log"
    echo "coverage: tests FAILED, whole log in $logs/coverage-tests.log" >&2
    return 1
}

build() {
    mkdir -p "$logs"
    cmake --preset coverage >"$logs/coverage-build.log" 2>&1 &&
        cmake --build --preset coverage -j "$jobs" >>"$logs/coverage-build.log" 2>&1 && return 0
    tail -n 40 "$logs/coverage-build.log"
    echo "coverage: the build FAILED, whole log in $logs/coverage-build.log" >&2
    return 1
}

case ${1:-} in
"")
    build
    find "$build" -name '*.gcda' -delete
    passed=0
    run_tests "$tests" || passed=1
    table
    exit $passed
    ;;
--report) table ;;
--open)
    shift
    for source in "$@"; do
        branches "$source" | awk -v source="$source" '
            $1 == "B" && $2 != line { line = $2; n = 0 }
            $1 == "B" { n++ }
            $1 == "B" && $3 == 0 {
                number = n
                text = $0
                sub(/^B [0-9]+ [0-9]+ /, "", text)
                printf "%s:%d:%d:%s\n", source, line, number, text
            }'
    done
    ;;
--more)
    build
    passed=0
    run_tests "${2:?a pattern of tests}" || passed=1
    table
    exit $passed
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    [ "$1" = --help ] || exit 2
    ;;
esac
