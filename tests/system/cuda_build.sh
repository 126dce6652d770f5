#!/usr/bin/env bash
# If the CUDA backend no longer compiles or links, or a machine without a driver gets a stack of errors, only people with
# a card would notice: no test machine has one. nvcc builds it (to PTX: tests/house/ptxas.sh sees to machine code),
# it is linked with NVIDIA's libraries, and started. Where cuBLAS and NCCL are missing, libraries of their names
# stand in, with the functions that tests/cuemu/include declares: what else is called does not link.
#
#   cuda_build.sh BUILD_DIR     exit 77: no nvcc or no CUDA runtime here
tree=$(cd "$(dirname "$0")/../.." && pwd)
source "$tree/tests/system/lib.sh"

refused() { # PROGRAM PATTERN: in one line, with the exit code of "not supported"
    local code=0
    timeout -s KILL 60 "$1" run --device cuda:0 --coordinator ipc://"$work"/nobody --models "$work" --insecure \
        >refused.out 2>&1 || code=$?
    [[ $code == 5 && $(wc -l <refused.out) == 1 ]] && grep -qE "cuda:0: .*$2" refused.out ||
        fail "exit code $code (expected 5), and: $(cat refused.out)"
    cat refused.out
}

configure() { # ARGUMENTS…: prints what is missing
    cmake -S "$tree" -B cuda -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O0 -DLT_WERROR=ON \
        -DLONGTAKE_CUDA_CODE=compute_80 "$@" >configure.out 2>configure.err || fail "$(cat configure.err)"
    sed -n 's/.*CUDA: built without, missing: \(.*\) (.*/\1/p' configure.out
}

stand_in() { # cublas|nccl HEADER SONAME
    local include=$tree/tests/cuemu/include
    echo "#include <$2>" |
        gcc -E -I"$include" -I"$(sed -n 's/^LT_CUDA_INCLUDE:PATH=//p' cuda/CMakeCache.txt)" -x c - |
        grep -oE "\b$1[A-Z][A-Za-z0-9_]*\(" | sort -u | sed 's/.*/void &void) {}/' >"$1.c"
    gcc -shared -Wl,-soname,"$3" -o "$3" "$1.c"
    stand_ins+=("-DLT_${1^^}=$work/$3" "-DLT_${1^^}_INCLUDE=$include")
}

# A build without CUDA says so.
refused "$build/longtake-worker" 'built without CUDA'

missing=$(configure -DLONGTAKE_CUDA=AUTO)
case $missing in *nvcc* | *cuda_runtime.h* | *libcudart*)
    echo "skipped: no $missing on this machine, so the CUDA backend is not linked"
    exit 77
    ;;
esac
stand_ins=()
[[ $missing != *cublas* ]] || stand_in cublas cublas_v2.h libcublas.so.13
[[ $missing != *nccl* ]] || stand_in nccl nccl.h libnccl.so.2
configure -DLONGTAKE_CUDA=ON "${stand_ins[@]}"
cmake --build cuda --target longtake-worker >build.out || fail "$(grep -E 'error|warning|undefined' build.out)"
readelf -d cuda/longtake-worker | grep -q 'NEEDED.*libcudart.so' || fail "the CUDA runtime is not linked as a shared library"

# With CUDA but no card, the card is refused and the host works.
ls /dev/nvidia[0-9]* >/dev/null 2>&1 || refused cuda/longtake-worker 'no NVIDIA driver'
cp "$build/longtake" cuda/ # it starts the worker that lies beside it
build=$work/cuda
make_models
make_job job.json 9 2
render take --workers 1
[[ -s take.mp4 ]] || fail "no take"
if [[ -n $missing ]]; then
    echo "linked without $missing, with stand-ins; the host renders"
else
    echo "linked with NVIDIA's libraries; the host renders"
fi
