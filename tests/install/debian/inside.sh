#!/bin/bash
# What test_debian.sh does inside of the bare Debian: nothing of the sources is here, and no network.
set -euo pipefail

cd /home/me
export DEBIAN_FRONTEND=noninteractive

step() {
    printf -- '-- [%2d s] %s\n' $SECONDS "$*"
}

fail() {
    echo "FAILED: $*"
    for log in /root/*.log; do
        echo "== $log"
        tail -n 25 "$log"
    done
    exit 1
}

quietly() {
    if ! "$@" >/root/quiet.log 2>&1; then
        fail "$*"
    fi
}

# files: everything there is, but for what apt and dpkg remember, and what was brought in.
files() {
    find / -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /root -o -path /home \
        -o -path /tmp -o -path /var/lib/systemd/deb-systemd-helper-enabled \) -prune -o -print | grep -vE '^/(proc|dev|run)(/|$)|^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^/etc/ld.so.cache$' |
        sort
}

# setting UNIT KEY: what the unit says last of it.
setting() {
    sed -n "s/^$2=//p" "/lib/systemd/system/$1" | tail -n 1
}

# start UNIT: its ExecStart, as its user, with its groups, without a privilege, told of readiness as systemd is.
start() {
    local unit=$1 name=${1%.service} groups
    groups=$(setting "$unit" SupplementaryGroups)
    rm -f "/run/notify-$name" "/root/$name.told"
    perl /root/manager.pl "/run/notify-$name" "/root/$name.told" &
    managers+=($!)
    until [ -S "/run/notify-$name" ]; do sleep 0.05; done
    # shellcheck disable=SC2046,SC2086
    NOTIFY_SOCKET=/run/notify-$name WATCHDOG_USEC=900000 setpriv --reuid "$(setting "$unit" User)" --regid "$(setting "$unit" Group)" \
        ${groups:+--groups "$groups"} $([ -n "$groups" ] || echo --clear-groups) --no-new-privs --inh-caps=-all --bounding-set=-all \
        $(setting "$unit" ExecStart) 2>>"/root/$name.log" &
    pids[$name]=$!
    wait_for "$unit is not ready" grep -q READY=1 "/root/$name.told"
}

# wait_for TEXT COMMAND...
wait_for() {
    local text=$1 i
    shift
    for ((i = 0; i < 600; i++)); do
        "$@" 2>/dev/null && return
        sleep 0.05
    done
    fail "$text"
}

stop() {
    kill -TERM "${pids[$1]}"
    wait "${pids[$1]}" || fail "$1 did not stop cleanly"
    grep -q STOPPING=1 "/root/$1.told" || fail "$1 did not say that it stops"
}

declare -A pids
managers=()
trap 'kill "${managers[@]}" 2>/dev/null || true' EXIT
files >/root/before

# What the tour's reader has, and a bare root has not: sudo, and a user.
printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo
chmod +x /usr/local/bin/sudo
useradd --home-dir /home/me --shell /bin/bash me
chown me /home/me
export USER=me

# ---- the tour, exactly as printed ----

# run COMMAND: as root what begins with sudo, else as the user, whose groups are those of a new login.
run() {
    case $1 in
    sudo\ *) bash -c "$1" 2>&1 ;;
    *) setpriv --reuid me --regid "$(id -g me)" --init-groups env HOME=/home/me bash -c "$1" 2>&1 ;;
    esac
}

# How much memory something takes is no promise.
plain() {
    sed -E 's/[0-9.]+ [KMG]iB/some memory/g' <<<"$1"
}

command='' expected=''
toured=0
started=
finish() {
    local got
    [ -n "$command" ] || return 0
    got=$(run "$command") || fail "tour: $command: $got"
    # What installing prints is apt's affair.
    if [[ $command != sudo\ * ]] && [ "$(plain "$got")" != "$(plain "$expected")" ]; then
        diff <(echo "$expected") <(echo "$got") || true
        fail "tour: $command: prints something else than README.md says"
    fi
    toured=$((toured + 1))
    # systemd does this in the scripts of the packages.
    if [ -z "$started" ] && [ -x /usr/bin/kithd ]; then
        started=1
        step "started as the units say"
        mkdir -m 0750 /run/kith
        mount -t tmpfs -o "$(setting run-kith.mount Options | sed 's/%%/%/g; s/,huge=advise//')" tmpfs /run/kith
        start kithd.service
        start kith-gateway.service
    fi
}
step "tour"
while IFS= read -r line; do
    case $line in
    '$ '*)
        finish
        command=${line#'$ '}
        expected=
        ;;
    '> '*) command+=$'\n'${line#'> '} ;;
    *) expected+=${expected:+$'\n'}$line ;;
    esac
done </root/tour
finish
[ $toured -ge 10 ] || fail "README.md has a tour of $toured commands"

step "rights"
[ "$(stat -c '%U:%G %a' /run/kith)" = "kith:kith 750" ] || fail "/run/kith is $(stat -c '%U:%G %a' /run/kith)"
[ "$(stat -c '%U:%G %a' /var/lib/kith)" = "kith:kith 700" ] || fail "/var/lib/kith is $(stat -c '%U:%G %a' /var/lib/kith)"
stranger=(setpriv --reuid nobody --regid nogroup --clear-groups)
said=$("${stranger[@]}" kith count docs 2>&1) && fail "nobody may read"
[[ $said == *ermission* || $said == *group* ]] || fail "nobody is told \"$said\""
wait_for "no watchdog signs" grep -q '^WATCHDOG=1' /root/kithd.told

step "upgrade with a reader attached"
# 400 vectors of 4 dimensions, and true neighbours that bench may compare with.
perl -e 'srand 7; open F, ">", "v.fvecs"; open T, ">", "t.ivecs"; for $i (0 .. 399) {
    print F pack("l<f<4", 4, map { rand() } 1 .. 4); print T pack("l<2", 1, $i) }; close F; close T'
quietly kith create live --dim 4 --metric l2
quietly kith load live v.fvecs
before=$(kith --json stats live | grep -o '"epoch":[0-9]*' | head -n 1)
kith --json bench live --queries v.fvecs --truth t.ivecs -k 1 --ef 64 --seconds 600 >/root/bench.log 2>&1 &
reader=$!
managers+=($reader)
wait_for "the reader does not read" bash -c "grep -q /run/kith/live/segment /proc/$reader/maps"
quietly apt-get -q -y --no-install-recommends install /home/me/next/*.deb
[[ $(dpkg-query -W -f '${Version}' kith-server) == *+next ]] || fail "not upgraded"
# The scripts restart services under systemd, which is not here.
stop kith-gateway
stop kithd
start kithd.service
start kith-gateway.service
after=$(kith --json stats live | grep -o '"epoch":[0-9]*' | head -n 1)
[ "$before" = "$after" ] || fail "$before before the upgrade, $after after it"
quietly kith put live more --vector '[1, 2, 3, 4]'
# It goes on, by its own counts, which kithd reads every now and then, and none of its searches has failed.
searches() {
    kith --json stats live | grep -o '"searches":[0-9]*,"failures":[0-9]*' | sed -n '1{s/[^0-9]\{1,\}/ /g; s/^ //p}'
}
read -r some failed <<<"$(searches)"
wait_for "the reader stands still" bash -c "$(declare -f searches); [ \"\$(searches | cut -d ' ' -f 1)\" -gt $some ]"
kill -0 $reader || fail "the reader has ended: $(cat /root/bench.log)"
read -r some failed <<<"$(searches)"
[ "$failed" = 0 ] || fail "$failed of the reader's $some searches failed"
kill $reader
curl -sf localhost:8080/readyz >/dev/null || fail "the gateway is not ready after the upgrade"

step "remove"
stop kith-gateway
stop kithd
umount /run/kith
quietly apt-get -q -y remove libkith0 libkith-dev kith-server kith-gateway kith-tools
[ ! -e /usr/bin/kithd ] || fail "kithd is still there"
[ -e /etc/kith/kithd.conf ] && [ -d /var/lib/kith/docs ] || fail "a removal took configuration or data along"

step "purge"
userdel me # a group that somebody made members of is not taken away
quietly apt-get -q -y purge kith-server kith-gateway # the others have nothing left
quietly apt-get -q -y autoremove --purge
rm /usr/local/bin/sudo
files >/root/after
diff /root/before /root/after || fail "purging left something, or took something away"
! grep -i kith /etc/passwd /etc/group || fail "purging left a user or a group"
[ ! -e /run/kith ] || fail "purging left /run/kith"
