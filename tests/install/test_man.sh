#!/usr/bin/env bash
# Man pages: every function of the library has one, with all that a page of section 3 says, and an example that compiles; every
# option that a program tells of with --help stands in its page; pages are well-formed.
#
#   test_man.sh BUILD_DIR CC [GATEWAY]
set -euo pipefail

build=$1
cc=$2
gateway=${3-}
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
man=$work/prefix/share/man

fail() {
    echo "FAILED: $*"
    failed=1
}

cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}

# What a page looks like for people, without line breaks and hyphens at their ends.
text_of() {
    MANWIDTH=1000 LC_ALL=C.UTF-8 man --no-hyphenation --no-justification -l "$1" 2>/dev/null | col -bx | tr -s ' \n' '  '
}

functions=$(sed -n 's/^ *\(kith_[a-z_]*\);.*/\1/p' client/src/kith.map)
[ "$(wc -w <<<"$functions")" -gt 80 ] || fail "kith.map was not understood"
for function in $functions; do
    page=$man/man3/$function.3
    if [ ! -e "$page" ]; then
        fail "$function of kith.map has no page: name it in an @functions line of tools/man/*.3.scd"
        continue
    fi
    read -r to <"$page"
    if [[ $to == ".so "* ]]; then
        page=$man/${to#.so }
        [ -e "$page" ] || fail "$function.3 leads to $to, which is not there"
    fi
    [[ $(<"$page") == *[\ \*]"$function("* ]] || fail "$page has no prototype of $function"
done

for source in tools/man/kith_*.3.scd; do
    page=$(<"$source")
    for section in NAME SYNOPSIS DESCRIPTION "RETURN VALUE" ERRORS THREADS EXAMPLE "SEE ALSO"; do
        [[ $page == *$'\n'"# $section"$'\n'* ]] || fail "$source has no section $section"
    done
    for function in $(sed -n 's/^@functions //p' "$source"); do
        # Where apropos looks.
        [[ ${page%%# SYNOPSIS*} =~ [^_a-z]$function[^_a-z] ]] ||
            fail "$source: NAME does not name $function"
    done
    # The example is the body of a function with a collection and two vectors.
    name=$(basename "$source" .3.scd)
    {
        printf '#include <errno.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
        printf '#include <kith/kith.h>\n_Noreturn void die(const char *text);\n'
        printf 'void example(kith *index, const float *query, const float *vector);\n'
        printf 'void example(kith *index, const float *query, const float *vector)\n{\n(void)index, (void)query, (void)vector;\n'
        sed -n '/^# EXAMPLE/,/^# SEE ALSO/p' "$source" | sed -n '/^```/,/^```/p' | sed '/^```/d; s/\\\\/\\/g'
        printf '}\n'
    } >"$work/$name.c"
    [ "$(wc -l <"$work/$name.c")" -gt 14 ] || fail "$source has no example"
    "$cc" -std=c11 -Wall -Wextra -Werror -fsyntax-only -I"$work/prefix/include" "$work/$name.c" ||
        fail "the example of $source does not compile"
done

# options PROGRAM-WITH-HELP...: what it tells of.
options() {
    "$@" --help | grep -oE -- '(^|[^-a-z])--?[a-z][-a-z]*' | grep -oE -- '--?[a-z].*' | sort -u
}

# expect TEXT PAGE OPTION...: TEXT has each.
expect() {
    local text=$1 page=$2 option
    shift 2
    for option in "$@"; do
        [[ " $text " =~ [^-a-z]$option[^-a-z] ]] || fail "$page does not speak of $option"
    done
}

kith=$build/bin/kith
whole=$(text_of "$man/man1/kith.1")
mapfile -t known < <(options "$kith")
expect "$whole" "kith(1)" "${known[@]}"
commands=$("$kith" --help | sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 24 ] || fail "kith --help was not understood"
for command in $commands; do
    # Its entries under COMMANDS: from a line that begins with its name to the next one that begins with another's.
    entry=$(awk -v c="$command" '/^# /{ in_it = 0 } /^\*[a-z]+\*/{ split($0, w, "*"); in_it = w[2] == c } in_it' tools/man/kith.1.scd)
    [ -n "$entry" ] || fail "kith(1) has no entry of $command"
    mapfile -t known < <(options "$kith" "$command" | grep -vxE -- '--run|--json|--help')
    expect "$entry" "kith(1), $command," "${known[@]}"
done
mapfile -t known < <(options "$build/bin/kithd")
expect "$(text_of "$man/man8/kithd.8")" "kithd(8)" "${known[@]}"
if [ -n "$gateway" ]; then
    mapfile -t known < <(options "$build/bin/kith-gateway")
    expect "$(text_of "$man/man8/kith-gateway.8")" "kith-gateway(8)" "${known[@]}"
fi

for page in "$man"/man*/*; do
    if grep -q '^\.so ' "$page"; then
        continue
    fi
    warnings=$(MANROFFSEQ='' MANWIDTH=100 LC_ALL=C.UTF-8 man --warnings=mac,syntax,font,escape -E UTF-8 -l "$page" 2>&1 >/dev/null) || true
    [ -z "$warnings" ] || fail "$page: $warnings"
done
[ $failed = 0 ] && echo "$(find "$man" -type f | wc -l) pages"
exit $failed
