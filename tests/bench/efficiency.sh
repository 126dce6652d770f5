#!/usr/bin/env bash
# Parallel efficiency: one job of thirteen windows and sixteen steps on one worker of one thread, then on two. Seconds
# of the predictions and
# decodes with the start of the processes; writing the mp4 is left out.
#   tests/bench/efficiency.sh BUILD_DIR [PAIRS]
. "$(dirname "$0")/../system/lib.sh"

"$build/longtake-worker" synth --variant t2v-1.3b --dim 512 --ffn 1024 --layers 8 --text-dim 64 --quant q8_0 --output t2v.gguf
"$build/longtake-worker" synth --variant vae-z16 --dim 16 --seed 2 --output vae.safetensors
"$build/longtake-worker" synth --variant text --text-dim 64 --tokens 20 --seed 3 --output prompt.safetensors
make_job job.json 161 16
sed -i 's/"segment": 8/"segment": 4/' job.json

seconds() { # REPORT: busy seconds of all workers, and of the render without its publishing
    jq -r '"\(([.workers[].busy_seconds] | add)) \(.seconds - .publish_seconds)"' "$1"
}

for ((pair = 1; pair <= ${2:-3}; pair++)); do
    render one --workers 1 --overwrite
    render two --workers 2 --overwrite
    [[ $(field one.json frames_sha256) == $(field two.json frames_sha256) ]] || fail "other bytes"
    read -r _ alone < <(seconds one.json)
    read -r busy both < <(seconds two.json)
    awk -v w="$(field one.json windows)" -v a="$alone" -v b="$both" -v busy="$busy" 'BEGIN {
        printf "%d windows: 1 worker %.2f s, 2 workers %.2f s: efficiency %.1f %%; two were busy %.1f %% of the time\n",
               w, a, b, 100 * a / (2 * b), 100 * busy / (2 * b) }'
done
