# Shared by the system tests: a scratch folder, tiny models, and runs that cannot outlive the test.
set -euo pipefail
build=$1
work=$(mktemp -d)
cleanup() {
    local pid
    for pid in $(jobs -p); do # `timeout` leads a group: killed alone, it would leave what it runs behind
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 ./*.err ./*.longtake/*.log >&2 2>/dev/null || true
    exit 1
}

field() { # FILE NAME: a number or text of a report
    jq -er ".$2" "$1"
}

# Real layouts with random weights, small enough for a test.
make_models() {
    local synth="$build/longtake-worker synth"
    $synth --variant t2v-1.3b --dim 256 --ffn 512 --layers 4 --text-dim 64 --quant q8_0 --seed 1 --output t2v.gguf
    $synth --variant vae-z16 --dim 8 --seed 2 --output vae.safetensors
    $synth --variant text --text-dim 64 --tokens 20 --seed 3 --output prompt.safetensors
} >/dev/null

make_job() { # FILE FRAMES STEPS
    cat >"$1" <<EOF
{"size": [160, 96], "frames": $2, "fps": 16, "seed": 7, "guidance": 1,
 "model": {"transformer": "t2v.gguf", "vae": "vae.safetensors", "text_len": 32},
 "text": {"positive": "prompt.safetensors"},
 "sampler": {"name": "unipc", "steps": $3, "shift": 5.0},
 "window": {"latent_frames": 5, "overlap": 2}, "decode": {"segment": 8, "warmup": 4}}
EOF
}

render() { # NAME ARGUMENTS...: at most two minutes, output NAME.mp4, report NAME.json
    local name=$1
    shift
    timeout -s KILL 120 "$build/longtake" render job.json --output "$name.mp4" --report "$name.json" --threads 1 "$@" \
        >"$name.out" 2>"$name.err"
}

wait_for() { # SECONDS COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || fail "waited in vain for: $*"
        sleep 0.02
    done
}
