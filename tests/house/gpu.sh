#!/usr/bin/env bash
# If a kernel holds its own asm or #ifdef, what the emulator runs is no longer what a GPU runs.
# Both stand in kernels/cuda/gpu.cuh only, and kernels are started by launch().
set -euo pipefail
cd "$(dirname "$0")/../.."

found=$(grep -rnE '\basm\b|__CUDACC__|__CUDA_ARCH__|LT_GPU_NATIVE|<<<' --include='*.cu' --include='*.cuh' kernels tests worker |
    grep -v '^kernels/cuda/gpu.cuh:' || true)
grep -q '__CUDACC__' kernels/cuda/gpu.cuh || { echo "kernels/cuda/gpu.cuh knows no compilers: is this the tree?"; exit 1; }
[[ -z $found ]] || { echo "$found"; echo "only kernels/cuda/gpu.cuh may hold these"; exit 1; }
echo "asm, compiler switches and chevrons stand in kernels/cuda/gpu.cuh only"
