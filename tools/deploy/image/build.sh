#!/usr/bin/env bash
# Builds the image of Kith, or that of the example application, and writes it to a file.
#
#   tools/deploy/image/build.sh [--target kith|example] [--base IMAGE] [--programs DIR] [--docker] [--output FILE]
#
#   --target    what: kith (kithd, kith-gateway, kith; the default), or the example application of the manifests
#   --base      an image of Debian 12 to compile in; without it one is made by mmdebstrap, and no registry is asked
#   --programs  take the programs of DIR (build/dev/bin, say) instead of compiling: seconds instead of minutes
#   --docker    a Docker archive, whose format has a place for HEALTHCHECK, instead of an OCI archive
#   --output    default: build/image/TARGET.oci.tar or TARGET.docker.tar
#
# Needs buildah, and mmdebstrap without --base and --programs, as root or in a user namespace ("buildah unshare"). No daemon.
# Load the file by: podman load -i FILE; docker load -i FILE (--docker); skopeo copy oci-archive:FILE docker://REGISTRY/kith;
# ctr -n k8s.io images import FILE (on a node).
#
# The same sources and the same base give the same image, byte by byte: times are those of the last commit, or
# SOURCE_DATE_EPOCH.
set -euo pipefail

cd "$(dirname "$0")/../../.."
target=kith base='' programs='' format=oci output=''

while [ $# -gt 0 ]; do
    case $1 in
    --target | --base | --programs | --output)
        if [ $# -lt 2 ]; then
            echo "build: $1 needs a value" >&2
            exit 2
        fi
        case $1 in
        --target) target=$2 ;;
        --base) base=$2 ;;
        --programs) programs=$2 ;;
        --output) output=$2 ;;
        esac
        shift 2
        ;;
    --docker)
        format=docker
        shift
        ;;
    -h | --help)
        sed -n '2,18s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "build: unknown option $1; --help lists them" >&2
        exit 2
        ;;
    esac
done
case $target in
kith | example) ;;
*)
    echo "build: --target is kith or example, not $target" >&2
    exit 2
    ;;
esac
for tool in buildah $([ -n "$base$programs" ] || echo mmdebstrap); do
    if ! command -v "$tool" >/dev/null; then
        echo "build: $tool is missing: apt-get install $tool" >&2
        exit 1
    fi
done

output=${output:-build/image/$target.$format.tar}
mkdir -p build/image "$(dirname "$output")"
version=$(sed -n 's/^    VERSION \([0-9.]*\)$/\1/p' CMakeLists.txt)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
work=$(mktemp -d "$PWD/build/image/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Storage of its own: neither engine nor earlier images are needed or touched. vfs needs no right to mount.
storage=(--root "$work/storage" --runroot "$work/runroot" --storage-driver vfs)
policy=$work/policy.json
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$policy"

options=(--isolation chroot --format "$format" --timestamp "$SOURCE_DATE_EPOCH" --target "$target" --identity-label=false
    --signature-policy "$policy" --file tools/deploy/image/Containerfile --ignorefile tools/deploy/image/ignore
    --tag "kith-build:$target")
if [ "$target" = kith ]; then
    options+=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created")
fi

if [ -n "$programs" ]; then
    # What the first stage would have left, in its place.
    mkdir "$work/build"
    tools/deploy/image/rootfs.sh "$work/build" "$programs/kithd" "$programs/kith-gateway" "$programs/kith"
    if [ "$target" = example ]; then
        tools/deploy/image/rootfs.sh "$work/build/example" "$programs/kith-example-app"
    fi
    options+=(--build-context "build=$work/build")
elif [ -n "$base" ]; then
    options+=(--build-arg "BASE=$base")
else
    # A Debian with all that compiling needs, so that nothing is fetched later.
    mmdebstrap --quiet --variant=minbase --include="ca-certificates,$(tools/dev/setup.sh --list | paste -sd,)" \
        bookworm "$work/base.tar"
    container=$(buildah "${storage[@]}" from --signature-policy "$policy" scratch)
    buildah "${storage[@]}" add "$container" "$work/base.tar" / >/dev/null
    buildah "${storage[@]}" commit --quiet --signature-policy "$policy" --rm "$container" localhost/kith-base >/dev/null
    rm "$work/base.tar"
    options+=(--build-arg BASE=localhost/kith-base --pull-never)
fi

buildah "${storage[@]}" build "${options[@]}" . >&2
rm -f "$output"
buildah "${storage[@]}" push --quiet --signature-policy "$policy" "kith-build:$target" \
    "$format-archive:$output:localhost/$([ "$target" = kith ] && echo kith || echo kith-example-app):$version"

# What a node holds is the sum of the unpacked layers; this is without tar's padding.
mount=$(buildah "${storage[@]}" from --signature-policy "$policy" --pull-never "kith-build:$target")
unpacked=$(du -sb "$(buildah "${storage[@]}" mount "$mount")" | cut -f1)
printf '%s: %s, %.1f MB unpacked, %.1f MB packed, version %s\n' "$output" "$target" \
    "$(awk "BEGIN { print $unpacked / 1e6 }")" "$(awk "BEGIN { print $(stat -c %s "$output") / 1e6 }")" "$version"
