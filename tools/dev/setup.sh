#!/usr/bin/env bash
# Installs the Debian packages that Kith needs, those that are missing only.
#
#   tools/dev/setup.sh [--tests] [--bench] [--list]
#
# Without an option: what builds and runs kithd, kith and the demo. --tests adds what the whole test
# run needs (clang, sanitizers, cmocka, relacy, the aarch64 cross compiler, qemu); --bench adds the
# libraries and tools that bench/ compares with; --list prints their names and installs nothing. Works
# as root or through sudo, without a terminal.
set -euo pipefail

packages=(gcc libc6-dev cmake ninja-build pkg-config liburing-dev libjemalloc-dev libjansson-dev scdoc)
tests=(g++ clang clang-format libclang-rt-14-dev llvm libcmocka-dev relacy-dev
    gcc-aarch64-linux-gnu qemu-user mmdebstrap python3 python3-jsonschema python3-yaml buildah)
bench=(g++ fio libhnswlib-dev libfaiss-dev libblas-dev liblapack-dev gnuplot-nox python3)

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0"
}

list=no
for arg in "$@"; do
    case $arg in
    --list) list=yes ;;
    --tests) packages+=("${tests[@]}") ;;
    --bench) packages+=("${bench[@]}") ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "setup: unknown option $arg" >&2
        usage >&2
        exit 2
        ;;
    esac
done

if [ $list = yes ]; then
    printf '%s\n' "${packages[@]}"
    exit 0
fi

say() {
    printf 'setup: %s\n' "$*"
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "this is not a Debian system; install the equivalents of: ${packages[*]}" >&2
    exit 1
fi

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    say "all ${#packages[@]} packages are installed"
    exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "not root and no sudo; as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$SECONDS

# apt COMMAND ...: quiet; what it said is shown when it fails.
apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >"$log" 2>&1
}

say "missing: ${missing[*]}"
say "refreshing the package lists"
if ! apt update; then
    # A third-party source that is down does not matter as long as Debian's own lists are there.
    say "apt-get update complained; trying with the lists that there are"
    tail -n 5 "$log" >&2
fi
say "installing ${#missing[@]} packages and what they depend on"
if ! apt install --no-install-recommends "${missing[@]}"; then
    tail -n 30 "$log" >&2
    say "apt-get install failed, see above" >&2
    exit 1
fi
say "done in $((SECONDS - start)) s"
