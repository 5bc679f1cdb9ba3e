#!/usr/bin/env bash
# Checks which folder includes which: dependencies point one way, towards shm/.
#
#   tools/dev/layers.sh [ROOT]
#
# The table below is the whole rule. A line of it is: folder, then the prefixes that its sources may
# include ("x.h" from the root, or <x.h> for headers of outside packages). System headers are free.
# Tests and benchmarks may include anything. A *_priv.h is for siblings in its own folder. The one
# strict JSON reader lives in the library, which needs it, and serves the tools, too, as does what makes payloads of JSON. kith wal reads the data
# directory: the log and checkpoints by their own readers, the collection's configuration, and the name of the lock. The
# figures of what kithd needs stand with its plumbing, and kith doctor compares them with what is there.
# Prints path:line for every breach and exits 1.
set -euo pipefail

root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$root"

# The most specific folder comes first.
table='
shm/             shm/
client/examples/ <kith/kith.h>
client/          client/ shm/ <kith/kith.h>
server/base/     server/base/ shm/base/ <liburing.h>
server/wal/      server/wal/ server/base/ shm/
server/checkpoint/ server/checkpoint/ server/base/ shm/
server/index/    server/index/ server/base/ shm/
server/writer/   server/writer/ server/index/ server/wal/ server/checkpoint/ server/base/ shm/ <jemalloc/
server/gateway/  server/gateway/ server/base/ shm/base/ <kith/kith.h> <jansson.h> <openssl/ <nghttp2/
tools/           tools/ shm/ client/src/json.h client/src/payload.h server/wal/scan.h server/wal/files.h server/wal/salvage.h server/checkpoint/read.h server/writer/settings.h server/writer/dirs.h server/base/needs.h <kith/kith.h>
'

# Headers in <> that belong to the project or to an outside package; all others are the system's.
outside='^<(kith/|liburing|jansson|openssl/|nghttp2/|jemalloc/|cmocka|relacy/|hnswlib/)'

folders=()
for folder in shm client server tools; do
    [ -d "$folder" ] && folders+=("$folder")
done
if [ ${#folders[@]} -eq 0 ]; then
    echo "layers: $root has none of the folders shm, client, server, tools" >&2
    exit 1
fi

find "${folders[@]}" -type f \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.hpp' \) -print |
    LC_ALL=C sort |
    TABLE=$table OUTSIDE=$outside awk '
    function breach(text) {
        printf "%s:%d: %s\n", file, line, text
        bad++
    }
    function check(file, target,    i, n, own, dir, list, row, shown) {
        shown = target
        row = 0
        for (i = 1; i <= rows; i++)
            if (index(file, folder[i]) == 1) { row = i; break }
        if (!row) {
            breach("the folder is not in the table of tools/dev/layers.sh")
            return
        }
        if (target ~ /^"/) {
            target = substr(target, 2, length(target) - 2)
            if (target !~ /\// || target ~ /(^|\/)\.\.?\//) {
                breach("includes " shown ": includes are written from the root")
                return
            }
            if (target ~ /_priv\.h$/) {
                own = file
                sub(/[^\/]*$/, "", own)
                dir = target
                sub(/[^\/]*$/, "", dir)
                if (own != dir) {
                    breach("includes " shown ": a _priv.h is for the files of its own folder")
                    return
                }
            }
        } else if (target !~ ENVIRON["OUTSIDE"]) {
            return
        }
        n = split(allowed[row], list, " ")
        for (i = 1; i <= n; i++)
            if (index(target, list[i]) == 1)
                return
        breach("includes " shown ": " folder[row] " may include only " allowed[row])
    }
    BEGIN {
        count = split(ENVIRON["TABLE"], lines, "\n")
        for (i = 1; i <= count; i++) {
            if (lines[i] == "")
                continue
            rows++
            folder[rows] = lines[i]
            sub(/ .*/, "", folder[rows])
            allowed[rows] = lines[i]
            sub(/^[^ ]+ +/, "", allowed[rows])
        }
    }
    {
        file = $0
        files++
        line = 0
        while ((getline text < file) > 0) {
            line++
            if (text ~ /^[ \t]*#[ \t]*include[ \t]*["<]/) {
                edges++
                match(text, /["<][^">]*[">]/)
                check(file, substr(text, RSTART, RLENGTH))
            }
        }
        close(file)
    }
    END {
        if (bad) {
            printf "layers: %d forbidden includes\n", bad
            exit 1
        }
        printf "layers: %d includes in %d files, all allowed\n", edges, files
    }'
