#!/usr/bin/env bash
# Units as systemd reads them: without a complaint, as closed as they are said to be, and in agreement with the rest.
#
#   test_units.sh BUILD_DIR KITHD [GATEWAY]
set -euo pipefail

build=$1
kithd=$2
gateway=${3-}
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

fail() {
    echo "FAILED: $*"
    failed=1
}

# A root with what the units speak of: systemd looks at programs, and at units that theirs want.
units=$root/usr/lib/systemd/system
mkdir -p "$units" "$root/usr/bin" "$root/etc"
cp "$build"/tools/systemd/*.service "$build"/tools/systemd/*.mount "$units"
for program in kithd kith-gateway mount sh; do
    printf '#!/bin/sh\n' >"$root/usr/bin/$program"
    chmod +x "$root/usr/bin/$program"
done
for unit in local-fs sysinit basic shutdown umount network multi-user; do
    printf '[Unit]\nDescription=%s\n' "$unit" >"$units/$unit.target"
done
for unit in -.slice system.slice; do
    printf '[Unit]\nDescription=%s\n[Slice]\n' "$unit" >"$units/$unit"
done
printf 'kith:x:900:900::/:/bin/false\nkith-gateway:x:901:901::/:/bin/false\n' >"$root/etc/passwd"
printf 'kith:x:900:\nkith-gateway:x:901:\n' >"$root/etc/group"

services=(kithd.service)
if [ -n "$gateway" ]; then
    services+=(kith-gateway.service)
fi
for unit in "${services[@]}" run-kith.mount; do
    said=$(systemd-analyze verify --root="$root" --man=no --generators=no --recursive-errors=no "$unit" 2>&1) || fail "$unit: $said"
    grep -E "kith.*(Unknown|Invalid|Failed|ignoring|not executable)" <<<"$said" && fail "$unit: $said"
done
# 0 is closed, 10 open; what is left is what they need: sockets, and for the gateway the network.
for unit in "${services[@]}"; do
    limit=20
    [ "$unit" = kithd.service ] || limit=35
    systemd-analyze security --offline=yes --root="$root" --threshold=$limit --no-pager "$unit" >"$work/security" 2>&1 || {
        tail -n 60 "$work/security"
        fail "$unit is more open than $limit tenths"
    }
    tail -n 1 "$work/security"
done

# That the filter lets io_uring through: what it comes to, by systemd's own sets.
expand() {
    local word
    for word in "$@"; do
        if [[ $word == @* ]]; then
            # shellcheck disable=SC2046
            expand $(systemd-analyze syscall-filter "$word" | sed -n 's/^    \([-@a-z0-9_]*\)$/\1/p')
        else
            echo "$word"
        fi
    done
}
: >"$work/allowed"
sed -n 's/^SystemCallFilter=//p' "$units/kithd.service" | while read -r words; do
    if [[ $words == ~* ]]; then
        # shellcheck disable=SC2086
        expand ${words#"~"} | sort -u >"$work/some"
        sort -u "$work/allowed" | comm -23 - "$work/some" >"$work/next"
    else
        # shellcheck disable=SC2086
        { cat "$work/allowed" && expand $words; } | sort -u >"$work/next"
    fi
    mv "$work/next" "$work/allowed"
done
for call in io_uring_setup io_uring_enter io_uring_register madvise fallocate futex fchown mlock signalfd4; do
    grep -qx $call "$work/allowed" || fail "kithd.service does not allow $call"
done
for call in mount ptrace bpf setuid init_module; do
    ! grep -qx $call "$work/allowed" || fail "kithd.service allows $call"
done

for setting in Type=notify WatchdogSec=60 RuntimeDirectoryPreserve=yes ProtectSystem=strict NoNewPrivileges=yes MemoryDenyWriteExecute=yes \
    PrivateTmp=yes User=kith; do
    grep -qx "$setting" "$units/kithd.service" || fail "kithd.service has no $setting"
done
grep -q '^Options=.*size=50%%.*huge=advise' "$units/run-kith.mount" || fail "run-kith.mount has neither size nor huge=advise"

# Every key of the samples is one that the program knows, those that are commented out as well: with a last line that is
# wrong it refuses that one and no other.
try_conf() {
    local program=$1 sample=$2 said
    sed 's/^#\([a-z_]* = \)/\1/' "$sample" >"$work/all.conf"
    grep -qE '^[a-z_]+ = ' "$work/all.conf" || fail "$sample has no keys"
    echo 'no_such_key = 1' >>"$work/all.conf"
    said=$("$program" --config "$work/all.conf" 2>&1) && fail "$program took a key that there is not"
    [[ $said == *no_such_key* ]] || fail "$sample: $said"
}
try_conf "$kithd" tools/package/kithd.conf
if [ -n "$gateway" ]; then
    try_conf "$gateway" tools/package/gateway.conf
fi
exit $failed
