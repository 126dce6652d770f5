#!/usr/bin/env bash
# If a program takes a library that its image lacks, the image builds and its container dies at the first start.
# The packages that a Containerfile installs beside the programs are held to what the built programs ask for.
#
#   containers.sh BUILD_DIR     exit 77: not Debian 12, whose package names the images have
set -euo pipefail
build=$1
cd "$(dirname "$0")/../.."
grep -q '^VERSION_CODENAME=bookworm' /etc/os-release || { echo "skipped: this is not Debian 12"; exit 77; }

asked() { # PROGRAM…: the packages of the libraries that they name
    local library path
    for library in $(readelf -d "$@" | sed -n 's/.*NEEDED.*\[\(.*\)\].*/\1/p' | sort -u); do
        path=$(ldd "$@" | sed -n "s|.*$library => \([^ ]*\) .*|\1|p" | head -n 1)
        dpkg -S "$path" "/usr$path" 2>/dev/null | head -n 1 | sed 's/:.*//'
    done | grep -vx 'libc6\|libstdc++6\|libgcc-s1' | sort -u # Debian itself has these
}

installed() { # CONTAINERFILE: of its last stage
    sed -n 'H; /^FROM/h; ${g; p}' "$1" | sed -n '/apt-get install/,/&& *\\$/p' |
        grep -oE '(^| )(lib|ca-)[a-z0-9.+-]+' | tr -d ' ' | grep -vx ca-certificates | sort -u
}

hold() { # CONTAINERFILE PROGRAM…
    local file=$1 difference
    shift
    difference=$(diff <(installed "$file") <(asked "$@") | sed -n 's/^</not needed:/p; s/^>/missing:/p' || true)
    [[ -z $difference ]] || { echo "$file"; echo "$difference"; exit 1; }
    echo "$file: $(installed "$file" | wc -l) packages, all that its programs need"
}
hold containers/longtake.Containerfile "$build/longtake" "$build/longtake-worker"
hold containers/worker-cuda.Containerfile "$build/longtake-worker"
