#!/usr/bin/env bash
# Formats the sources, or with --check says which ones are not formatted.
#
#   tools/dev/format.sh [--check] [FILE...]
set -euo pipefail

cd "$(dirname "$0")/../.."

check=
if [ "${1:-}" = --check ]; then
    check=1
    shift
fi
# The rules are written for the version of Debian 12; others format a few lines differently.
formatter=clang-format
if command -v clang-format-14 >/dev/null; then
    formatter=clang-format-14
fi

if ! command -v "$formatter" >/dev/null; then
    echo "format: clang-format is missing; run tools/dev/setup.sh --tests" >&2
    exit 1
fi

files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    mapfile -t files < <(find shm client server tools tests bench -type f \
        \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.hpp' \) | LC_ALL=C sort)
fi
if [ -z "$check" ]; then
    "$formatter" -i "${files[@]}"
    exit 0
fi

bad=$("$formatter" --dry-run "${files[@]}" 2>&1 |
    sed -n 's/:[0-9]*:[0-9]*: warning: code should be clang-formatted.*//p' | LC_ALL=C sort -u)
if [ -n "$bad" ]; then
    printf '%s\n' "$bad"
    echo "format: $(wc -l <<<"$bad") of ${#files[@]} files are not formatted; tools/dev/format.sh puts them right"
    exit 1
fi
echo "format: ${#files[@]} files are fine"
