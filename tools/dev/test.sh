#!/usr/bin/env bash
# Builds and runs every test, on a machine that may have nothing installed.
#
#   tools/dev/test.sh [STAGE...]
#
# Stages, in this order; without a name all of them run:
#   setup    the Debian packages that the others need (tools/dev/setup.sh --tests)
#   format   the sources are formatted
#   dev      gcc, warnings are errors: every test there is
#   asan     clang, AddressSanitizer and UndefinedBehaviorSanitizer: all but the statistical tests and the browser, and
#            the longest ones, which are three times as long here and whose parts have units of their own
#   tsan     clang, ThreadSanitizer: the protocol, by threads that share one mapping
#   aarch64  cross build, the unit tests under qemu-user
#   fuzz     clang, libFuzzer: a short run of every target
#
# Logs are kept in build/logs. JOBS=N sets the parallel jobs (default: the number of CPUs); of tests one more run
# beside each other, as they wait for something now and then. The last
# line is "N passed, M failed"; the exit status is 0 only when nothing failed.
set -uo pipefail

cd "$(dirname "$0")/../.." || exit 2
jobs=${JOBS:-$(nproc)}
logs=build/logs
mkdir -p "$logs"
exec </dev/null
export CTEST_OUTPUT_ON_FAILURE=1

stages=(setup format dev asan tsan aarch64 fuzz)
if [ $# -gt 0 ]; then
    for stage in "$@"; do
        if [[ " ${stages[*]} " != *" $stage "* ]]; then
            echo "test: no stage $stage; there are: ${stages[*]}" >&2
            exit 2
        fi
    done
    stages=("$@")
fi

passed=0
failed=0
failures=()
summary=()

say() {
    printf '[%3d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

# step NAME COMMAND...: one thing that passes or fails as a whole, its output in a log.
step() {
    local name=$1 log=$logs/${1// /-}.log
    shift
    say "$name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    failures+=("$name")
    tail -n 60 "$log"
    say "$name FAILED, whole log in $log"
    return 1
}

# tests STAGE [CTEST OPTION...]: runs the tests of a preset and counts them. While they run the
# finished ones are counted aloud now and then; failed ones are shown with their output.
tests() {
    local stage=$1 log=$logs/$1-tests.log done_before=-1 pid started line count bad
    shift
    say "$stage tests"
    ctest --preset "$stage" -j "$((jobs + 1))" --no-tests=error "$@" >"$log" 2>&1 &
    pid=$!
    started=$SECONDS
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if [ $(((SECONDS - started) % 20)) -eq 0 ]; then
            count=$(grep -cE '^ *[0-9]+/[0-9]+ Test ' "$log")
            if [ "$count" -ne "$done_before" ]; then
                done_before=$count
                say "$stage tests: $(grep -E '^ *[0-9]+/[0-9]+ Test ' "$log" | tail -n 1 | sed 's/  */ /g; s/^ //')"
            fi
        fi
    done
    wait "$pid"
    status=$?

    line=$(grep -E 'tests passed, [0-9]+ tests failed out of [0-9]+' "$log" | tail -n 1)
    if [[ $line =~ ([0-9]+)\ tests\ failed\ out\ of\ ([0-9]+) ]]; then
        bad=${BASH_REMATCH[1]}
        count=${BASH_REMATCH[2]}
    else
        bad=1
        count=1
    fi
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
    fi
    passed=$((passed + count - bad))
    failed=$((failed + bad))
    if [ "$bad" -gt 0 ]; then
        tail -n 150 "$log"
        while read -r line; do
            failures+=("$stage: $line")
        done < <(sed -n '/The following tests FAILED/,$s/^[^0-9]*[0-9]* - //p' "$log")
        say "$stage tests FAILED: $bad of $count, whole log in $log"
        return 1
    fi
    say "$stage tests: all $count passed"
}

# preset STAGE [CONFIGURE OPTION...]: configure and build.
preset() {
    local stage=$1
    shift
    step "$stage configure" cmake --preset "$stage" "$@" &&
        step "$stage build" cmake --build --preset "$stage" -j "$jobs"
}

run_setup() {
    # Not into a log: on a fresh machine this is minutes of downloading.
    if tools/dev/setup.sh --tests; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    failures+=("setup")
    return 1
}

run_format() {
    step "format" tools/dev/format.sh --check
}

run_dev() {
    # The root that packages are tried in is downloaded before, so that no test waits for that.
    preset dev && { step "dev bare Debian" tests/install/root.sh build/debian-12.tar; tests dev; }
}

run_asan() {
    preset asan && tests asan -LE "recall|browser" \
        -E '^(crash\.crash_kill(\.applied)?|proc\.(growth|backup)(\..*)?|proc\.cli_wal)$'
}

run_tsan() {
    preset tsan && tests tsan -E '^unit\.server\.index\.enlarge\.(sq8-none|f16-f16)$'
}

run_aarch64() {
    step "aarch64 sysroot" tools/dev/sysroot.sh &&
        preset aarch64 -DKITH_SYSROOT="$PWD/build/sysroot-arm64" && tests aarch64
}

run_fuzz() {
    preset fuzz && tests fuzz
}

for stage in "${stages[@]}"; do
    started=$SECONDS
    if "run_$stage"; then
        verdict=ok
    else
        verdict=FAILED
    fi
    summary+=("$(printf '%-8s %-6s %4d s' "$stage" "$verdict" $((SECONDS - started)))")
    if [ "$stage" = setup ] && [ "$verdict" = FAILED ]; then
        break
    fi
done

echo
printf '%s\n' "${summary[@]}"
if [ ${#failures[@]} -gt 0 ]; then
    echo
    echo "FAILED:"
    printf '  %s\n' "${failures[@]}"
else
    echo
    echo "everything passed"
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
