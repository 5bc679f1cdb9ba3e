#!/usr/bin/env bash
# The demonstration in one command: sets up what is missing, builds a release, runs the main job on the
# package descriptions of this machine. About a minute after the build.
set -euo pipefail

cd "$(dirname "$0")/../.."
tools/dev/setup.sh
cmake --preset release --no-warn-unused-cli -DKITH_TESTS=OFF -DKITH_BENCH=OFF >/dev/null
echo "demo: building into build/release"
cmake --build --preset release --target kith_demo | tail -n 1
exec build/release/bin/kith_demo
