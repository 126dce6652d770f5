#!/usr/bin/env bash
# If a kernel spills, or a block of it does not fit a multiprocessor, no emulator tells: the launch fails on the GPU, or
# runs at a tenth of its speed. nvcc compiles every file of kernels/cuda once, warnings being errors; ptxas makes machine
# code of it for each architecture, and what it reports is held to limits.
#
#   ptxas.sh [FOLDER:…]     where CUDA's headers are; exit 77: no nvcc here
set -euo pipefail
cd "$(dirname "$0")/../.."

architectures="80 86 89 90 100 120"
shared_max=24576 # static, of a block: two of any kernel fit everywhere
PATH=$PATH:/usr/local/cuda/bin
IFS=: read -ra folders <<<"${1:-tests/cuemu/include}"
includes=("${folders[@]/#/-isystem=}")
if ! command -v nvcc >/dev/null; then
    echo "skipped: no nvcc on this machine, so kernels/cuda is not compiled for GPUs"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
kernels=0

grep -nE '\basm\b|<<<|^ *# *if|__CUDA' kernels/cuda/*.cu && {
    echo "asm, launches and conditional code stand in gpu.cuh only"
    failures=$((failures + 1))
}

# Prints a line for each kernel and architecture; FAILED where it breaks a limit. $1 the PTX, then ptxas' report.
judge() {
    awk -v shared_max="$shared_max" '
        FNR == NR { # the PTX: how many threads a block may have
            if (match($0, /\.entry [^(]*/)) entry = substr($0, RSTART + 7, RLENGTH - 7)
            if (match($0, /\.maxntid [0-9]+/)) threads[entry] = substr($0, RSTART + 9, RLENGTH - 9)
            next
        }
        /Compiling entry function/ { split($0, part, "\x27"); name = part[2]; target = part[4] }
        /spill stores/ { spills = $5 + $9 }
        /Used [0-9]+ registers/ {
            shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
            match($0, /Used [0-9]+/)
            registers = substr($0, RSTART + 5, RLENGTH - 5) + 0
            granted = int((registers + 7) / 8) * 8 * threads[name]
            bad = spills > 0 || granted > 65536 || shared > shared_max || !(name in threads)
            printf "%s %s %s: %d registers x %d threads, %d bytes shared, %d spilled\n",
                   bad ? "FAILED" : "ok", target, name, registers, threads[name], shared, spills
        }' "$1" "$2"
}

for file in kernels/cuda/*.cu; do
    name=$(basename "$file" .cu)
    if ! nvcc -std=c++17 -I. "${includes[@]}" -fmad=false -Werror all-warnings -arch=compute_80 -ptx "$file" \
        -o "$work/$name.ptx" 2>"$work/log"; then
        cat "$work/log"
        exit 1
    fi
    for architecture in $architectures; do
        if ! ptxas -v -arch="sm_$architecture" "$work/$name.ptx" -o "$work/cubin" 2>"$work/report" ||
            grep -i warning "$work/report"; then
            cat "$work/report"
            failures=$((failures + 1))
        fi
        judge "$work/$name.ptx" "$work/report" >"$work/judged"
        grep FAILED "$work/judged" && failures=$((failures + 1))
        kernels=$((kernels + $(wc -l <"$work/judged")))
        [[ -z ${VERBOSE:-} ]] || cat "$work/judged"
    done
done
((kernels > 0)) || { echo "no kernels found: is this the tree?"; exit 1; }
((failures == 0)) && echo "$kernels kernels for sm_${architectures// /, sm_}: no spills, registers and shared memory within limits"
exit $((failures > 0))
