#!/usr/bin/env bash
# What libkith exports against the list of its released versions (tools/package/library/symbols): nothing has gone, nothing has
# another version, the soname is the one of the list, and what is new stands in the version node of the release it came with.
#
#   test_symbols.sh LIBKITH.SO
set -euo pipefail

library=$1
list=tools/package/library/symbols
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    failed=1
}

soname=$(readelf --wide -d "$library" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ "$(head -n 1 "$list")" = "$soname libkith0 #MINVER#" ] ||
    fail "the soname is $soname: that is another package, libkith<N>, with a list of its own, and an entry in CHANGELOG.md"

readelf --wide --dyn-syms "$library" | awk '$1 ~ /^[0-9]+:$/ && $5 == "GLOBAL" && $7 != "UND" && NF >= 8 { print $8 }' |
    sed 's/@@*/@/; /^KITH_[0-9.]*$/d' | LC_ALL=C sort >"$work/now"
sed -n 's/^ \(kith_[^ ]*\) .*/\1/p' "$list" | LC_ALL=C sort >"$work/listed"
[ "$(wc -l <"$work/now")" -gt 80 ] || fail "$library was not understood"

while read -r symbol; do
    fail "$symbol was released and is not exported any more: programs that use it would not start. Bring it back, or change the soname"
done < <(LC_ALL=C comm -13 "$work/now" "$work/listed")
while read -r symbol; do
    fail "$symbol is new: put it into a node of client/src/kith.map named after the version to be released, and into $list"
done < <(LC_ALL=C comm -23 "$work/now" "$work/listed")

# A symbol's node is that of the version it came with, and none is of a version that is not there yet.
version=$(sed -n 's/^    VERSION \([0-9.]*\)$/\1/p' CMakeLists.txt)
while read -r symbol since; do
    node=${symbol#*@KITH_}
    [ "${since%.*}" = "$node" ] || fail "$symbol is listed as of $since: its node has to be KITH_${since%.*}"
    [ "$(printf '%s\n' "$since" "$version" | sort -V | tail -n 1)" = "$version" ] || fail "$symbol is listed as of $since, and this is $version"
done < <(sed -n 's/^ \([^ ]*\) \([^ ]*\)$/\1 \2/p' "$list")

[ $failed = 0 ] && echo "$(wc -l <"$work/now") symbols, $soname"
exit $failed
