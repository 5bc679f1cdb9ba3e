#!/usr/bin/env bash
# Lays out the root file system of an image: programs, the libraries that they load, and what else they open.
#
#   tools/deploy/image/rootfs.sh DIR PROGRAM...
#
# Makes DIR/rootfs, which becomes / of the image, and DIR/state, the directories in it that kithd's user owns. Programs and
# libraries are stripped. Symbolic links are resolved, so that the image has files and directories only.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

if [ $# -lt 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
out=${1%/}
shift
root=$out/rootfs
rm -rf "$root" "$out/state"
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/etc" "$root/usr/share/doc/kith" "$root/proc" "$root/dev" "$root/sys" \
    "$root/run/kith" "$root/var/lib/kith" "$root/tmp" "$out/state/run/kith" "$out/state/var/lib/kith"

# put FILE PATH: once, stripped.
put() {
    [ -e "$root$2" ] && return 0
    mkdir -p "$(dirname "$root$2")"
    cp -L "$1" "$root$2"
    chmod 0755 "$root$2"
    strip --strip-unneeded "$root$2"
}

libraries=()
for program in "$@"; do
    if [ ! -x "$program" ]; then
        echo "rootfs: there is no program $program" >&2
        exit 1
    fi
    put "$program" "/usr/bin/$(basename "$program")"
    loads=$(ldd "$program")
    if grep 'not found' <<<"$loads" >&2; then
        echo "rootfs: libraries of $program are missing" >&2
        exit 1
    fi
    # "libx.so => /lib/libx.so (0x...)", and the loader, which stands alone.
    while read -r library; do
        case $library in
        /lib/* | /lib64/* | /usr/lib/*)
            put "$library" "$library"
            libraries+=("$library" "/usr$library") # merged or not, dpkg knows one of the two spellings
            ;;
        *) put "$library" "/usr/lib/$(basename "$library")" ;; # libkith of a build directory
        esac
    done < <(sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' <<<"$loads")
done

# Licences of the packages that libraries are of.
if command -v dpkg-query >/dev/null; then
    for package in $(dpkg-query -S "${libraries[@]}" 2>/dev/null | cut -d: -f1 | sort -u); do
        if [ -f "/usr/share/doc/$package/copyright" ]; then
            install -D -m 0644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
        fi
    done
fi

# For the names of --read-group and --write-group, and for kith doctor.
cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/nonexistent
kith:x:10001:10001:kithd:/var/lib/kith:/nonexistent
kith-gateway:x:10011:10003:kith-gateway:/:/nonexistent
END
cat >"$root/etc/group" <<'END'
root:x:0:
kith:x:10001:
kith-read:x:10002:kith,kith-gateway
kith-write:x:10003:
END
chmod 0644 "$root/etc/passwd" "$root/etc/group"
install -m 0644 "$here/../../../LICENSE" "$root/usr/share/doc/kith/LICENSE"
chmod 0755 "$root" "$root/usr" "$root/usr/bin"
if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
    find "$root" "$out/state" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
fi
