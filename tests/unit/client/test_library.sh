#!/usr/bin/env bash
# The shared library as its users get it: it exports kith.h and nothing else, with the project's codes and
# version; it depends on libc alone, and imports nothing with which a library could print, exit, abort or
# take hold of the process that it is in.
#
#   test_library.sh LIBKITH.SO
set -euo pipefail

library=$1
failed=0

fail() {
    echo "$*" >&2
    failed=1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# readelf, not nm: it reads files of every architecture.
readelf --wide --dyn-syms "$library" | awk '$1 ~ /^[0-9]+:$/ && NF >= 8 { print $5, $7, $8 }' |
    sed 's/@.*//' >"$scratch/symbols"
awk '$1 != "LOCAL" && $2 != "UND" && $2 != "ABS" { print $3 }' "$scratch/symbols" | sort -u >"$scratch/exported"
awk '$2 == "UND" { print $3 }' "$scratch/symbols" | sort -u >"$scratch/imported"

# One line first: a declaration may go over several.
tr '\n' ' ' <client/include/kith/kith.h | grep -oE 'KITH_API [^(]*\(' | grep -oE 'kith_[a-z_]+\($' | tr -d '(' |
    sort -u >"$scratch/header"
grep -oE '^ +kith_[a-z_]+;' client/src/kith.map | tr -d ' ;' | sort -u >"$scratch/map"

[ "$(wc -l <"$scratch/header")" -gt 40 ] || fail "kith.h was not understood"
diff "$scratch/header" "$scratch/map" || fail "kith.map and kith.h differ"
diff "$scratch/header" "$scratch/exported" || fail "the library and kith.h differ"

grep -oE 'KITH_E_[A-Z_]+ = -[0-9]+' client/include/kith/kith.h | sed 's/KITH_E_//; s/ = -/ /' | sort >"$scratch/codes"
grep -oE 'X\([A-Z_]+, +[0-9]+' shm/base/error.h | sed 's/X(//; s/, */ /' | sort | diff "$scratch/codes" - ||
    fail "kith.h and shm/base/error.h have different codes"

version=$(sed -n 's/^#define KITH_VERSION_[A-Z]* \([0-9]*\)$/\1/p' client/include/kith/kith.h | paste -sd .)
grep -q "^    VERSION $version$" CMakeLists.txt || fail "kith.h says version $version, the project another"

needed=$(readelf --wide -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for lib in $needed; do
    case $lib in
    libc.so.* | ld-linux*) ;;
    libm.so.*) ;; # a part of libc; only unoptimised builds need it
    *) fail "the library needs $lib" ;;
    esac
done

# vsnprintf and snprintf write to memory and are not on the list.
for name in printf fprintf vprintf vfprintf dprintf vdprintf puts fputs putchar putc fputc fwrite perror psignal \
    __printf_chk __fprintf_chk __vprintf_chk __vfprintf_chk stdout stderr stdin \
    abort exit _exit quick_exit _Exit __assert_fail error err errx warn warnx syslog \
    signal sigaction sigprocmask pthread_sigmask raise kill pthread_atfork __register_atfork atexit \
    setlocale setenv putenv chdir umask; do
    if grep -qx "$name" "$scratch/imported"; then
        fail "the library imports $name"
    fi
done

[ $failed = 0 ] && echo "$(wc -l <"$scratch/exported") functions exported, $(wc -l <"$scratch/imported") symbols imported"
exit $failed
