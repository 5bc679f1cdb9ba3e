#!/usr/bin/env bash
# The Go package against a live kithd: formatted, vetted, tested, and its example service asked over HTTP.
#
#   test_go.sh GO SOURCES CACHE
#
# CGO_CFLAGS and CGO_LDFLAGS lead to the library, KITH_TEST_KITHD and KITH_TEST_KITH to the programs. No network: GOPROXY is off.
set -euo pipefail

go=$1
cd "$2"
export GOFLAGS=-mod=mod GOPROXY=off GOCACHE=$3 CGO_ENABLED=1
work=$(mktemp -d)
run=$(mktemp -d -p /dev/shm kith-go-XXXXXX)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work" "$run"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*"
    cat "$work"/*.log
    exit 1
}

# until WHAT COMMAND...: within a minute.
until_() {
    local what=$1 end=$((SECONDS + 60))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not within a minute: $what"
        read -rt 0.05 <> <(:) || true
    done
}

echo "-- gofmt, vet"
if [ -x "$(dirname "$(readlink -f "$go")")/gofmt" ]; then
    unformatted=$("$(dirname "$(readlink -f "$go")")/gofmt" -l .)
    [ -z "$unformatted" ] || fail "not formatted: $unformatted"
fi
"$go" vet ./...

echo "-- go test"
"$go" test -count=1 -v . 2>&1 | grep -v event= | tee "$work/test.log"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
if grep -q -- '--- SKIP' "$work/test.log"; then
    fail "tests were left out"
fi

echo "-- the example service"
"$go" build -o "$work/example" ./example
"$KITH_TEST_KITHD" --data "$work/data" --run "$run" 2>"$work/kithd.log" &
pids+=($!)
kith=("$KITH_TEST_KITH" --run "$run")
until_ "kithd serves" "${kith[@]}" stats --ready
"${kith[@]}" create docs --dim 2 --metric l2 >/dev/null
"${kith[@]}" put docs a --vector '[0, 0]' >/dev/null
"${kith[@]}" put docs b --vector '[1, 0]' --payload '{"lang": "en"}' >/dev/null
"${kith[@]}" put docs c --vector '[2, 0]' >/dev/null
"$work/example" -run "$run" -listen 127.0.0.1:0 >"$work/example.log" 2>&1 &
service=$!
pids+=("$service")
until_ "the service listens" grep -q 'listening on' "$work/example.log"
address=$(sed -n 's/^listening on //p' "$work/example.log")

# get PATH: status, then the body, by bash alone.
get() {
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}
get '/like?id=a&k=2' >"$work/like.log"
grep -q '"hits":\[{"ID":"b","Distance":1,"Payload":""},{"ID":"c","Distance":4,"Payload":""}\]' "$work/like.log" || fail "hits"
get '/like?id=a&filter=lang+%3D+%22en%22' >"$work/filter.log"
grep -q '"hits":\[{"ID":"b","Distance":1,"Payload":""}\]' "$work/filter.log" || fail "hits under a filter"
get '/like?id=nobody' >"$work/nobody.log"
grep -q '^HTTP/1.0 404' "$work/nobody.log" || fail "an id that is not there"
get '/like?id=a&filter=lang' >"$work/bad.log"
grep -q '^HTTP/1.0 400' "$work/bad.log" || fail "a bad filter"
kill "$service"
wait "$service" || fail "the service ended with $?"
echo "-- fine"
