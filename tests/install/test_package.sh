#!/usr/bin/env bash
# The installed package is usable from outside, by find_package and by pkg-config, and exports what it says.
#
#   test_package.sh BUILD_DIR GENERATOR CC CXX
set -euo pipefail

build=$1
generator=$2
cc=$3
cxx=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
export KITH_RUN=$work/run
mkdir "$KITH_RUN"

step() {
    echo "-- $*"
}

# quietly COMMAND...: what it says matters only when it fails.
quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log"
        exit 1
    fi
}

step "install"
quietly cmake --install "$build" --prefix "$prefix"
library=$(find "$prefix" -name libkith.so)
pc=$(find "$prefix" -name kith.pc)
libdir=$(dirname "$library")

step "find_package, C and C++, shared and static"
quietly cmake -G "$generator" -S "$here/outside" -B "$work/outside" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx"
quietly cmake --build "$work/outside"
for program in use_c use_c_static use_cpp; do
    "$work/outside/$program"
done

step "pkg-config, shared and static"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
read -ra flags <<<"$(pkg-config --cflags --libs kith)"
"$cc" -std=c11 -o "$work/use_pc" "$here/outside/use.c" "${flags[@]}" -Wl,-rpath,"$libdir"
"$work/use_pc"
read -ra flags <<<"$(pkg-config --cflags --libs --static kith)"
"$cc" -std=c11 -static -o "$work/use_pc_static" "$here/outside/use.c" "${flags[@]}"
"$work/use_pc_static"
read -ra flags <<<"$(pkg-config --cflags --libs kith)"
"$cxx" -std=c++11 -o "$work/use_pc_cpp" "$here/outside/use.cpp" "${flags[@]}" -Wl,-rpath,"$libdir"
"$work/use_pc_cpp"

step "another minor version is refused, whose interface may differ"
pkg-config --exists 'kith >= 0.1' && ! pkg-config --exists 'kith >= 99'
cat >"$work/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.20)
project(later LANGUAGES C)
find_package(kith 0.99 REQUIRED)
EOF
if cmake -G "$generator" -S "$work" -B "$work/later" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" >"$work/log" 2>&1; then
    echo "FAILED: find_package(kith 0.99) took this version"
    exit 1
fi
tr -s ' \n' '  ' <"$work/log" | grep -q 'compatible with requested version "0.99"' || {
    cat "$work/log"
    exit 1
}

step "the library needs libc alone and exports kith_ names alone"
needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for name in $needed; do
    case $name in
    libc.so.* | libm.so.* | ld-linux*) ;;
    *)
        echo "FAILED: libkith needs $name"
        exit 1
        ;;
    esac
done
readelf -d "$library" | grep -q 'SONAME.*\[libkith\.so\.0\]' || {
    echo "FAILED: the soname is not libkith.so.0"
    exit 1
}
others=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | grep -v '^kith_' || true)
if [ -n "$others" ]; then
    echo "FAILED: libkith exports $others"
    exit 1
fi
