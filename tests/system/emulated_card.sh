#!/usr/bin/env bash
# A worker on a card, as a whole: its programs, its loop, its plan of memory, kernels and streams, with the emulator in the
# card's place. If this broke, every part might still pass its own test while no GPU of a farm did any work.
#
#   emulated_card.sh BUILD_DIR     exit 77: a build without the emulator
. "$(dirname "$0")/lib.sh"
[[ -x $build/longtake-worker-emulated ]] || { echo "skipped: no emulator in this build"; exit 77; }

farm() { # NAME WORKER ARGUMENTS…: renders job.json with one worker, to NAME.mp4
    local name=$1 worker=$2 port
    port=$((12000 + RANDOM % 20000))
    shift 2
    export LONGTAKE_URL=http://127.0.0.1:$port
    timeout -s KILL 60 "$build/longtake" coordinator --state "$name.state" --listen "ipc://$work/$name" \
        --http "127.0.0.1:$port" >"$name.coordinator.err" 2>&1 &
    wait_for 30 curl -fs -o answer "$LONGTAKE_URL/readyz"
    timeout -s KILL 60 "$build/$worker" run --coordinator "ipc://$work/$name" --models . --threads 1 "$@" \
        >"$name.err" 2>&1 &
    timeout -s KILL 60 "$build/longtake" submit job.json --watch >"$name.out" 2>&1 || fail "$name: $(cat "$name.out")"
    timeout -s KILL 20 "$build/longtake" get 1 --output "$name.mp4" --latents "$name.safetensors" || fail "$name: get"
}

# values FILE: the f32 values of a safetensors file with one tensor
values() { tail -c +$((9 + $(od -An -N8 -t u8 "$1"))) "$1" | od -An -v -w4 -t f4; }

make_models
make_job job.json 5 2
sed -i "s/\[160, 96\]/[32, 32]/" job.json # the emulator is a hundred times slower than the host
farm host longtake-worker
farm card longtake-worker-emulated --device cuda:0
grep -q "class=\"cuda-" card.err || fail "the card is not in the log"
paste <(values host.safetensors) <(values card.safetensors) | awk '
    { difference += ($1 - $2) ^ 2; size += $1 ^ 2; count++ }
    END {
        relative = sqrt(difference / size)
        printf "%d latent values, %.2e from the host'"'"'s (bound 2e-2)\n", count, relative
        exit !(count == 512 && relative > 0 && relative < 2e-2)
    }' || fail "the card's latents are not the host's"
[[ $(stat -c %s card.mp4) -gt 1000 ]] || fail "no video"
