#!/usr/bin/env bash
# A line of a kernel that no check runs may be wrong for years. The CUDA sources are built with gcov's counters, the
# checks of the ops run over them on the emulator, and fewer than 95 of 100 lines are a failure.
#
#   coverage.sh [--lines]     --lines: also every line that did not run
set -euo pipefail
cd "$(dirname "$0")/../.."
floor=95
if ! command -v gcov >/dev/null; then
    echo "skipped: no gcov on this machine"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake -S . -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="--coverage -O1" \
    -DCMAKE_EXE_LINKER_FLAGS=--coverage >"$work/log"
cmake --build "$work" --target check-kernels-cuda >"$work/log" || { cat "$work/log"; exit 1; }
"$work/check-kernels-cuda" --repeat 6 --seed 7 >"$work/log" || { tail "$work/log"; exit 1; }

# A line counts once, whatever number of types its template is made for.
find "$work" -path '*kernels/cuda/*.gcda' -print0 | xargs -0 gcov --json-format --stdout 2>/dev/null |
    jq -r '.files[] | select(.file | test("kernels/cuda/.*\\.cu$")) | .file as $file | .lines[] |
        "\($file | sub(".*/"; "")) \(.line_number) \(.count)"' |
    awk -v floor="$floor" -v lines="${1:-}" '
        { key = $1 ":" $2; if (!(key in ran) || $3 > ran[key]) ran[key] = $3 }
        END {
            for (key in ran) {
                split(key, part, ":")
                all[part[1]]++; total++
                if (ran[key]) { hit[part[1]]++; hits++ }
                else if (lines) print "not run: kernels/cuda/" key
            }
            for (file in all)
                if (hit[file] * 100 < all[file] * floor) printf "%s: %d of %d lines ran\n", file, hit[file], all[file]
            if (!total) { print "no line was counted"; exit 1 }
            printf "%d of %d lines of kernels/cuda ran: %.1f %%, the floor is %d\n", hits, total, 100 * hits / total, floor
            exit hits * 100 < total * floor
        }'
