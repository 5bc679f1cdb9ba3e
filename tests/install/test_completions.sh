#!/usr/bin/env bash
# Completions: in a bash without a terminal what would be offered, with the real programs and a run directory that has two
# collections; zsh's by its syntax, and with a stand-in for the shell's own compadd.
#
#   test_completions.sh BUILD_DIR
set -euo pipefail

build=$(cd "$1" && pwd)
here=$(pwd)/tools/completions
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH=$build/bin:$PATH
export KITH_RUN=$work/run
mkdir -p "$work/run/docs" "$work/run/notes" "$work/run/.aside-x" "$work/other/third"
touch "$work/run/docs/segment" "$work/run/notes/segment" "$work/other/third/segment" "$work/more.jsonl"
cd "$work"

# offered SHELL WORD...: what the shell offers for the last word, sorted, on one line.
offered() {
    local shell=$1
    shift
    if [ "$shell" = bash ]; then
        # shellcheck disable=SC2016
        bash --norc -c '
            source "$1"
            shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            completer=$(complete -p "$1" | sed "s/.*-F \([^ ]*\).*/\1/")
            $completer "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf "%s\n" "${COMPREPLY[@]}"' bash "$here/kith.bash" "$@"
    else
        # shellcheck disable=SC2016
        zsh -f -c '
            compadd() { shift; for w in "$@"; do [[ $w == ${words[CURRENT]}* ]] && print -r -- $w; done }
            _files() { for w in ${words[CURRENT]}*(N); do print -r -- $w; done }
            _groups() { print -r -- root }
            file=$1; shift
            words=("$@") CURRENT=$#
            source $file' zsh "$here/_kith" "$@" || true
    fi | sort | tr '\n' ' ' | sed 's/^ *//; s/ *$//'
}

# expect SHELL EXPECTED WORD...
expect() {
    local shell=$1 wanted=$2 got
    shift 2
    got=$(offered "$shell" "$@")
    if [ "$got" != "$wanted" ]; then
        echo "FAILED: $shell, \"$*\": offered \"$got\", not \"$wanted\""
        failed=1
    fi
}

bash -n "$here/kith.bash"
zsh -n "$here/_kith"
all=$(kith --help | sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p' | sort | tr '\n' ' ' | sed 's/ $//')
[ "$(wc -w <<<"$all")" -ge 24 ] || { echo "FAILED: kith --help was not understood"; failed=1; }
for shell in bash zsh; do
    expect $shell "$all" kith ""
    expect $shell "scroll search stats" kith s
    expect $shell "--help --json --run --version" kith --
    expect $shell "docs notes" kith search ""
    expect $shell "docs" kith search d
    expect $shell "third" kith --run "$work/other" count ""
    expect $shell "docs notes" kith top docs ""
    expect $shell "" kith create ""
    expect $shell "" kith search docs ""
    expect $shell "cosine ip l2" kith create new --metric ""
    expect $shell "--ef --exact" kith search docs --e
    expect $shell "auto bits f16 none sq8" kith create new --quantization ""
    expect $shell "applied durable none" kith put docs a --durability ""
    expect $shell "more.jsonl" kith load docs m
    expect $shell "" kith search docs --ef ""
    expect $shell "--read-group --run" kithd --r
    expect $shell "no yes" kithd --huge-pages ""
    expect $shell "--keys" kith-gateway --k
done

# Each option that a command tells of is offered.
for command in $all; do
    wanted=$({ printf '%s\n' --run --json --help
        kith "$command" --help | grep -oE -- '(^|[^-a-z])--?[a-z][-a-z]*' | grep -oE -- '--?[a-z].*'; } | sort -u | tr '\n' ' ' | sed 's/ $//')
    expect bash "$wanted" kith "$command" -
done
exit $failed
