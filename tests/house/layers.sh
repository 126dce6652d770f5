#!/usr/bin/env bash
# If a layer reaches for one above it, the two programs grow together and model code starts to see sockets.
# Every #include "layer/…" line is held to the picture in docs/architecture.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

declare -A may=(
    [common]="common"
    [kernels]="common kernels"
    [proto]="common proto"
    [worker]="common kernels proto worker"
    [coordinator]="common proto coordinator"
    [client]="common proto coordinator client"
)
failures=0
lines=0
for layer in "${!may[@]}"; do
    while IFS=: read -r file number include; do
        target=$(sed -E 's/.*"([a-z_]+)\/.*/\1/' <<<"$include")
        lines=$((lines + 1))
        if [[ " ${may[$layer]} " != *" $target "* ]]; then
            echo "$file:$number: $layer may not include $target"
            failures=$((failures + 1))
        fi
    done < <(grep -rnE '^#include "[a-z_]+/' --include='*.c' --include='*.h' --include='*.cu' "$layer" || true)
done
# Model code knows views and ops, nothing of the wire.
while read -r line; do
    echo "$line: model and weights code may not include proto"
    failures=$((failures + 1))
done < <(grep -rnE '^#include "proto/' worker/model worker/weights || true)
while read -r line; do
    echo "$line: only proto/ and the programs' edges see these libraries"
    failures=$((failures + 1))
done < <(grep -rnE '^#include <(zmq|protobuf-c|sodium)' --include='*.[ch]' common kernels worker coordinator client || true)
((lines > 0)) || { echo "no include lines found: is this the tree?"; exit 1; }
((failures == 0)) && echo "$lines include lines follow the layers"
exit $((failures > 0))
