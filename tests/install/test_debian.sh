#!/usr/bin/env bash
# The Debian packages on a bare Debian 12, without the sources: made by CPack, judged by lintian, installed, started as the units
# say, toured as README.md prints it, upgraded beneath a reader, removed and purged with nothing left.
#
#   test_debian.sh BUILD_DIR ROOT.tar
#
# In namespaces of its own: mounts, processes, and a network that has nothing but itself. Needs root, by sudo if need be.
set -euo pipefail

if [ "$(id -u)" -ne 0 ]; then
    exec sudo -n -- "$0" "$@"
fi
build=$(cd "$1" && pwd)
tar=$2
top=$(pwd)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

step() {
    printf -- '-- [%2d s] %s\n' $SECONDS "$*"
}

# quietly COMMAND...: what it says matters only when it fails.
quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        tail -n 60 "$work/log"
        echo "FAILED: $*"
        exit 1
    fi
}

step "packages"
umask 022
quietly cpack --config "$build/CPackConfig.cmake" -G DEB -B "$work/packages"
debs=$work/debs
mkdir "$debs"
find "$work/packages" -maxdepth 1 -name '*.deb' -exec mv {} "$debs" \;
rm -r "$work/packages"
for name in libkith0 libkith-dev kith-server kith-gateway kith-tools; do
    [ "$(find "$debs" -name "${name}_*.deb" | wc -l)" = 1 ] || {
        echo "FAILED: there is no package $name"
        exit 1
    }
done

# field PACKAGE FIELD TEXT: it has this in it.
field() {
    local has
    has=$(dpkg-deb -f "$debs/$1"_*.deb "$2")
    [[ $has == *"$3"* ]] || {
        echo "FAILED: $2 of $1 is \"$has\", without $3"
        exit 1
    }
}
field kith-server Depends liburing2
field kith-server Depends libjemalloc2
field kith-server Depends adduser
field kith-gateway Depends libjansson4
field kith-gateway Depends "kith-server (= "
field libkith-dev Depends "libkith0 (= "
field libkith0 Depends libc6
control=$(dpkg-deb -I "$debs"/libkith0_*.deb shlibs symbols)
[[ $control == *"libkith 0 libkith0 (>= "* && $control == *"kith_search@KITH_0.1 0.1.0"* ]] || {
    echo "FAILED: libkith0 has no shlibs, or no symbols: $control"
    exit 1
}

step "lintian"
# No address answers for packages that a build made: a distributor gives KITH_PACKAGE_MAINTAINER. There is no bug that asked for
# them, either. What is overridden in one package alone is explained there (tools/package/*.lintian).
quietly lintian --allow-root --fail-on error,warning --profile debian --tag-display-limit 0 \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$debs"/*.deb

step "a bare Debian 12"
"$top/tests/install/root.sh" "$tar"
mkdir "$root"
tar -xf "$tar" -C "$root" --exclude='./dev/*'
mkdir -p "$root/home/me/packages"
cp "$debs"/*.deb "$root/home/me/packages"
# The same once more as the next revision, for the upgrade.
mkdir "$root/home/me/next"
for deb in "$debs"/*.deb; do
    quietly dpkg-deb -R "$deb" "$work/one"
    sed -i -E 's/^(Version: .*)/\1+next/; s/\(= ([^)]*)\)/(= \1+next)/g' "$work/one/DEBIAN/control"
    quietly dpkg-deb -b --root-owner-group -Znone "$work/one" "$root/home/me/next/$(basename "$deb")"
    rm -r "$work/one"
done
cp "$top/tests/install/debian/inside.sh" "$top/tests/install/debian/manager.pl" "$root/root"
"$top/tests/install/debian/tour.sh" "$top/README.md" >"$root/root/tour"

step "inside"
cat >"$work/enter" <<'ENTER'
set -e
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/shm"
for node in null zero full random urandom; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir -p "$root/run/lock"
# The loopback interface of the new network is down.
python3 -c '
import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))'
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    chroot "$root" /bin/bash /root/inside.sh
ENTER
unshare --mount --pid --ipc --net --uts --fork --kill-child bash "$work/enter" "$root"
step "done"
