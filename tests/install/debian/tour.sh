#!/usr/bin/env bash
# The tour of README.md as a script's input: the lines of its ```console blocks below "## Five minutes".
#
#   tour.sh README.md
set -euo pipefail

awk '/^## /{ in_it = $0 == "## Five minutes" } !in_it { next } /^```console$/{ block = 1; next } /^```$/{ block = 0 } block' "$1" |
    grep . || {
    echo "tour: README.md has no tour" >&2
    exit 1
}
