#!/usr/bin/env bash
# Makes the bare Debian 12 that packages are installed in: a tar file of a minbase root, with the archives that Kith's packages
# depend on downloaded and not installed, so that apt needs no network then.
#
#   root.sh FILE.tar         needs root, by sudo if need be; one that is complete is left alone
set -euo pipefail

if [ "$(id -u)" -ne 0 ]; then
    exec sudo -n -- "$0" "$@"
fi

tar=$1
archives="liburing2 libjemalloc2 libjansson4 adduser"

if [ "$(cat "$tar.packages" 2>/dev/null)" = "$archives" ] && [ -s "$tar" ]; then
    exit 0
fi
mkdir -p "$(dirname "$tar")"
log=$tar.log
: >"$log"

# make [MIRROR]: with no mirror mmdebstrap takes Debian's own. curl is for the tour, as anybody has it.
make() {
    rm -f "$tar"
    mmdebstrap --variant=minbase --include=curl --skip=cleanup/apt/lists,cleanup/apt/cache \
        --customize-hook="chroot \"\$1\" apt-get -q -y --download-only --no-install-recommends install $archives" \
        bookworm "$tar" "$@" </dev/null >>"$log" 2>&1
}

made=
for sources in "" /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    # The host's own sources come second: they may name a nearer mirror.
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
    echo "root: mmdebstrap failed, see above" >&2
    exit 1
fi
printf '%s\n' "$archives" >"$tar.packages"
