#!/usr/bin/env bash
# Machines that Kith cannot run on are refused when it is configured, in words that say what to do.
#
#   test_refused.sh CLANG
set -euo pipefail

clang=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# refused TARGET TEXT: clang makes objects for any machine, and no program is needed to know what machine that is.
refused() {
    local log=$work/$1.log
    if cmake -S . -B "$work/$1" -G Ninja -DCMAKE_C_COMPILER="$clang" -DCMAKE_C_COMPILER_TARGET="$1" -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_C_FLAGS=-ffreestanding -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY >"$log" 2>&1; then
        echo "FAILED: $1 was configured"
        exit 1
    fi
    tr -s ' \n' '  ' <"$log" | grep -q "$2" || {
        cat "$log"
        echo "FAILED: $1 is not refused by \"$2\""
        exit 1
    }
}

refused i386-linux-gnu "Kith is for 64-bit machines, and .* makes programs with pointers of 4 bytes: build it for x86_64 or aarch64"
refused powerpc64-linux-gnu "Kith is for little-endian machines, and .* BIG_ENDIAN: build it for x86_64 or aarch64"
