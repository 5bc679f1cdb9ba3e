#!/usr/bin/env bash
# Makes the arm64 root file system that the aarch64 preset builds against and qemu-user runs in.
#
#   tools/dev/sysroot.sh [DIR]        default: build/sysroot-arm64
#
# Packages are unpacked, nothing in it is run and the host's dpkg stays as it is. A complete one is
# left alone.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-$top/build/sysroot-arm64}
packages=libc6-dev,liburing-dev,libjemalloc-dev,libcmocka-dev,libjansson-dev,libssl-dev,libnghttp2-dev,libgcc-12-dev

if [ "$(cat "$dir.packages" 2>/dev/null)" = "$packages" ] && [ -d "$dir/usr/include" ]; then
    echo "sysroot: $dir is there"
    exit 0
fi
if ! command -v mmdebstrap >/dev/null; then
    echo "sysroot: mmdebstrap is missing; run tools/dev/setup.sh --tests" >&2
    exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
    root=(sudo)
fi

mkdir -p "$(dirname "$dir")"
log=$dir.log

# make [MIRROR]: with no mirror mmdebstrap takes Debian's own.
make() {
    "${root[@]}" rm -rf "$dir"
    "${root[@]}" mmdebstrap --architecture=arm64 --variant=extract --skip=check/qemu,chroot/mount \
        --include="$packages" bookworm "$dir" "$@" </dev/null >>"$log" 2>&1
}

echo "sysroot: unpacking $packages (arm64) into $dir"
: >"$log"
made=
for sources in "" /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    # The host's own sources come second: they may name a nearer mirror, or only amd64.
    if [ -z "$sources" ]; then
        make && made=1
    elif [ -s "$sources" ]; then
        make "$sources" && made=1
    fi
    if [ -n "$made" ]; then
        break
    fi
done
if [ -z "$made" ]; then
    tail -n 30 "$log" >&2
    echo "sysroot: mmdebstrap failed, see above" >&2
    exit 1
fi
if [ ${#root[@]} -gt 0 ]; then
    sudo chown -R "$(id -u):$(id -g)" "$dir"
fi
printf '%s\n' "$packages" >"$dir.packages"
