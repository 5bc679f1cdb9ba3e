#!/usr/bin/env bash
# tools/dev/layers.sh finds each kind of forbidden include, names file and line, and lets the allowed ones pass.
set -euo pipefail

layers=$(cd "$(dirname "$0")/../../../.." && pwd)/tools/dev/layers.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failed=0

# write FILE INCLUDE: a source of two lines, the include on the second.
write() {
    mkdir -p "$tree/$(dirname "$1")"
    printf '/* a source */\n#include %s\n' "$2" >"$tree/$1"
}

allows() {
    write "$1" "$2"
    if ! out=$("$layers" "$tree" 2>&1); then
        echo "FAILED: $1 may include $2, but: $out"
        failed=1
    fi
    rm "$tree/$1"
}

forbids() {
    write "$1" "$2"
    if out=$("$layers" "$tree" 2>&1); then
        echo "FAILED: $1 must not include $2, but layers.sh is content"
        failed=1
    elif [[ $out != *"$1:2: "* ]]; then
        echo "FAILED: the breach of $1 is not named with its line: $out"
        failed=1
    fi
    rm "$tree/$1"
}

allows shm/graph/search.c '"shm/base/error.h"'
allows shm/graph/search.c '"shm/graph/search_priv.h"'
allows shm/graph/search.c '<stdint.h>'
allows client/src/open.c '<kith/kith.h>'
allows client/src/open.c '"shm/map/segment.h"'
allows server/base/io_uring.c '<liburing.h>'
allows server/wal/scan.c '"server/base/io.h"'
allows server/writer/kithd.c '"server/index/insert.h"'
allows tools/cmd_wal.c '"server/wal/scan.h"'
allows tools/cmd_wal.c '"server/wal/salvage.h"'
allows tools/cmd_wal.c '"server/writer/settings.h"'
allows tools/input.c '"client/src/json.h"'
allows tools/doctor/limits.c '"server/base/needs.h"'
allows tools/doctor/pages.c '"tools/doctor/mount_priv.h"'
allows tests/unit/test_x.c '"server/writer/pipeline_priv.h"'

forbids shm/graph/search.c '"client/src/open.h"'
forbids shm/graph/search.c '"server/base/log.h"'
forbids shm/graph/search.c '<kith/kith.h>'
forbids shm/graph/search.c '<liburing.h>'
forbids shm/graph/search.c '"search.h"'
forbids shm/graph/search.c '"../base/error.h"'
forbids shm/graph/search.c '"shm/map/segment_priv.h"'
forbids client/src/open.c '"server/wal/scan.h"'
forbids client/examples/search.c '"shm/base/error.h"'
forbids server/base/log.c '"shm/graph/search.h"'
forbids server/wal/append.c '"server/index/insert.h"'
forbids server/index/insert.c '"server/wal/append.h"'
forbids server/index/insert.c '"server/writer/pipeline.h"'
forbids server/writer/kithd.c '<kith/kith.h>'
forbids server/gateway/http.c '"shm/graph/search.h"'
forbids server/other/file.c '"shm/base/error.h"'
forbids tools/kith.c '"server/wal/append.h"'
forbids tools/kith.c '"server/base/conf.h"'
forbids tools/kith.c '"server/writer/collection.h"'
forbids tools/kith.c '"client/src/handle.h"'

exit $failed
