#!/usr/bin/env bash
# A 14B model on a small machine: what loading, block swap and a cold start cost on a full-size file, each as a ratio
# to something timed in the same run. Not for CI: FOLDER needs 14 GB of disk, and the machine 20 GB of free memory.
#   tests/bench/fit14b.sh BUILD_DIR FOLDER [--keep] [load|budgets|ceiling|cold_start]…
# prints a table; FOLDER/figures.json has the same. The files are made in FOLDER unless they are there, and removed at
# the end unless --keep. Without a part's name all four are measured, in a quarter of an hour or so.
set -euo pipefail
(($# >= 2)) || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
worker=$(realpath "$1")/longtake-worker
mkdir -p "$2" && cd "$2"
shift 2
model=animate-14b-q5_k_m.gguf lora=rank-64.safetensors
if [[ ${1:-} == --keep ]]; then shift; else trap 'rm -f "$model" "$lora" text-*.safetensors inputs-*.safetensors v-*.safetensors' EXIT; fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
record() { # NAME JSON
    jq -c --arg name "$1" --argjson value "$2" '.[$name] = $value' figures.json >figures.tmp && mv figures.tmp figures.json
}

# -- files -------------------------------------------------------------------------------------------------------------

# values COUNT: so many random f32, as raw bytes
values() {
    "$worker" synth --variant text --text-dim 1 --tokens "$1" --seed "$1" --output text-values.safetensors >/dev/null
    tail -c $((4 * $1)) text-values.safetensors
}

# inputs NAME FRAMES ROWS COLUMNS: x, the condition of Animate, a timestep and 16 rows of text, as eval takes them
inputs() {
    local name=$1 f=$2 h=$3 w=$4 x y text header
    x=$((16 * f * h * w * 4)) y=$((20 * f * h * w * 4)) text=$((16 * 4096 * 4))
    header=$(jq -cn --argjson f "$f" --argjson h "$h" --argjson w "$w" --argjson x "$x" --argjson y "$y" --argjson t "$text" '{
        x: {dtype: "F32", shape: [16, $f, $h, $w], data_offsets: [0, $x]},
        y: {dtype: "F32", shape: [20, $f, $h, $w], data_offsets: [$x, ($x + $y)]},
        text: {dtype: "F32", shape: [16, 4096], data_offsets: [($x + $y), ($x + $y + $t)]},
        timestep: {dtype: "F32", shape: [1], data_offsets: [($x + $y + $t), ($x + $y + $t + 4)]}}')
    {
        for shift in 0 8 16 24 32 40 48 56; do
            # shellcheck disable=SC2059 # the byte is the format
            printf "\\x$(printf %02x $((${#header} >> shift & 255)))"
        done
        printf '%s' "$header"
        values $((x / 4))
        values $((y / 4))
        values $((text / 4))
        printf '\x00\x00\xfa\x43' # 500
    } >"inputs-$name.safetensors"
}

make_files() {
    if [[ ! -f $model ]]; then
        say "making $model (12.9 GB)"
        "$worker" synth --variant animate-14b --quant q5_k_m --fill tiled --seed 1 --output "$model"
    fi
    [[ -f $lora ]] || "$worker" synth --variant lora --base animate-14b --rank 64 --seed 2 --output "$lora"
    inputs 32 2 8 8
    inputs 128 2 16 16
    sync
}

# -- measuring ---------------------------------------------------------------------------------------------------------

cold() { dd if="$model" iflag=nocache count=0 status=none; } # the pages of the file leave the cache

plain_read() { # seconds of a plain read of the whole file, cold
    cold
    local from=$EPOCHREALTIME
    dd if="$model" of=/dev/null bs=8M status=none
    awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'
}

# forward NAME INPUTS OPTION…: report-NAME.json, v-NAME.safetensors, and its seconds in report-NAME.seconds
forward() {
    local name=$1 inputs=$2 from
    shift 2
    cold
    from=$EPOCHREALTIME
    "$worker" eval dit --model "$model" --inputs "inputs-$inputs.safetensors" --output "v-$name.safetensors" \
        --report "report-$name.json" "$@"
    awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }' >"report-$name.seconds"
}

load() {
    say "loading all of it, beside a plain read"
    "$worker" bench-load --json "$model" >report-load.json
    jq -r '"load / plain read  \(.load_over_read)   (bound 1.15)
beside the weights \(.extra_bytes) bytes   (bound \(.extra_bound_bytes))
mapped of the file \(.mapped_bytes) bytes   (bound 0)"' report-load.json
    record load "$(cat report-load.json)"
}

budgets() {
    local name
    say "one forward over 32 tokens with a rank-64 LoRA: the plan against the peak, and the bytes"
    forward 6GiB 32 --lora "$lora" --ram 6GiB
    forward 20GiB 32 --lora "$lora" --ram 20GiB
    forward all 32 --lora "$lora" --blocks-to-swap 0
    for name in 6GiB 20GiB all; do
        jq -r --arg name "$name" --arg sum "$(sha256sum <"v-$name.safetensors" | cut -c1-16)" '"\($name)\t\(.plan.swap_blocks) of 40 blocks swapped, planned \(.plan.ram_bytes), peak RSS \(.rss_peak_bytes): \(
            (.rss_peak_bytes / .plan.ram_bytes - 1) * 10000 | round / 100) % (bound 2), v \($sum)"' "report-$name.json"
        record "budget_$name" "$(jq -c --arg v "$(sha256sum <"v-$name.safetensors" | cut -d' ' -f1)" \
            '{planned_bytes: .plan.ram_bytes, rss_peak_bytes, read_bytes, v_sha256: $v}' "report-$name.json")"
    done
    cmp -s v-6GiB.safetensors v-all.safetensors && cmp -s v-20GiB.safetensors v-all.safetensors || { echo "other bytes"; exit 1; }
}

# in_group COMMAND…: in a control group of 1 GiB, page cache and all; the group's own figures into group.json
in_group() {
    local root=/sys/fs/cgroup limit peak group
    if [[ -d $root/memory ]]; then
        group=$root/memory/longtake-fit14b limit=memory.limit_in_bytes peak=memory.max_usage_in_bytes
    else
        group=$root/longtake-fit14b limit=memory.max peak=memory.peak
    fi
    mkdir -p "$group" 2>/dev/null && echo 1073741824 >"$group/$limit" ||
        { echo "no control group of 1 GiB can be made here (root, cgroup v1 or v2 with the memory controller)"; exit 1; }
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        "$@"
    )
    jq -n --argjson peak "$(cat "$group/$peak")" --argjson failed "$(cat "$group/memory.failcnt" 2>/dev/null || echo null)" \
        '{peak_bytes: $peak, failed_charges: $failed}' >group.json
    rmdir "$group"
}

# Whether the disk allows more than either run reaches tells the plain read of the same bytes around each pair.
ceiling() {
    local pair reads=() limited=() unlimited=()
    say "--ram 1GiB in a control group of 1 GiB, and without limits; cold, first pass included"
    for pair in 1 2; do
        reads+=("$(plain_read)")
        in_group forward limited 32 --ram 1GiB
        limited+=("$(cat report-limited.seconds)")
        reads+=("$(plain_read)")
        forward unlimited 32
        unlimited+=("$(cat report-unlimited.seconds)")
        cmp -s v-limited.safetensors v-unlimited.safetensors || { echo "other bytes"; exit 1; }
    done
    record ceiling "$(jq -n --arg l "${limited[*]}" --arg u "${unlimited[*]}" --arg r "${reads[*]}" --slurpfile g group.json \
        --slurpfile report report-limited.json 'def list: split(" ") | map(tonumber);
        {limited_seconds: $l | list, unlimited_seconds: $u | list, plain_read_seconds: $r | list, group: $g[0],
         planned_bytes: $report[0].plan.ram_bytes, rss_peak_bytes: $report[0].rss_peak_bytes,
         stall_ms: $report[0].copy_stall_ms, read_bytes: $report[0].read_bytes}')"
    jq -r --argjson bytes "$(stat -c %s "$model")" '.ceiling |
        "limited     \(.limited_seconds) s, stall of the last \(.stall_ms) ms, planned \(.planned_bytes), peak RSS \(.rss_peak_bytes), the group \(.group.peak_bytes)
unlimited   \(.unlimited_seconds) s
limited / unlimited  \((.limited_seconds | min) / (.unlimited_seconds | min) * 1000 | round / 1000)   (bound 1.05 where the disk allows)
plain read  \(.plain_read_seconds) s, \($bytes / (.plain_read_seconds | min) / 1e6 | round) MB/s at best"' figures.json
}

# Where a block is read slower than it is computed, the disk is what a cold start waits for: its rate stands beside.
cold_start() {
    local read
    say "cold start over 128 tokens: the first forward from the opening of the file on, and three warm ones"
    read=$(plain_read)
    forward start 128 --set repeat=4
    record cold_start "$(jq -c --argjson read "$read" '{first_block_seconds, forward_seconds, load_seconds, load_wait_ms,
        plain_read_seconds: $read}' report-start.json)"
    jq -r '.cold_start | (.forward_seconds[1:] | sort | .[1]) as $warm | (1.1 * $warm + .first_block_seconds) as $bound |
        "first \(.forward_seconds[0]) s, warm \(.forward_seconds[1:]) s, block 0 after \(.first_block_seconds) s, all placed after \(.load_seconds) s
plain read \(.plain_read_seconds) s
first / (1.1 the middle warm one + block 0)  \(.forward_seconds[0] / $bound * 1000 | round / 1000)   (bound 1 where the read is quicker than a forward)"' figures.json
}

echo '{}' >figures.json
make_files
(($#)) || set -- load budgets ceiling cold_start
for part in "$@"; do
    case $part in
    load | budgets | ceiling | cold_start) "$part" ;;
    *) echo "$part: expected load, budgets, ceiling or cold_start" && exit 2 ;;
    esac
done
rm -f group.json report-*
