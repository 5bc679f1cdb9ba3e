#!/usr/bin/env bash
# Checks that the texts which client/docs/troubleshooting.md explains are those of the sources.
#
#   tools/dev/texts.sh [ROOT]
#
# A text is what stands between the first two backticks of a table row. It has to be part of a string of the C or Python sources, where a
# string may go on in the next literal. Prints those that are not and exits 1.
set -euo pipefail

root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$root"
page=client/docs/troubleshooting.md

# All sources as one line, literals that follow each other joined.
sources=$(find shm client server tools -name '*.[ch]' -not -path '*/examples/*' -print0 | LC_ALL=C sort -z | xargs -0 cat |
    tr '\n' ' ' | sed 's/"[[:space:]]*"//g')
count=0
bad=0
while IFS= read -r text; do
    count=$((count + 1))
    if [[ $sources != *"$text"* ]]; then
        echo "$page: no source says: $text"
        bad=$((bad + 1))
    fi
done < <(sed -n 's/^| `\([^`]*\)` |.*/\1/p' "$page")
if [ "$count" -lt 20 ]; then
    echo "texts: only $count texts were found in $page: has its table another form?"
    exit 1
fi
if [ "$bad" -gt 0 ]; then
    echo "texts: $bad of $count texts are not in the sources"
    exit 1
fi
echo "texts: all $count are in the sources"
