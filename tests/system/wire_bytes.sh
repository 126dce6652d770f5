#!/usr/bin/env bash
# The plan's bytes are the wire's bytes. If they were not, a farm's network would be sized by a guess.
. "$(dirname "$0")/lib.sh"

make_models
make_job job.json 49 2
render two --workers 2 || fail "render"
"$build/longtake" plan job.json --json >plan.json

down=$(field plan.json wire.down_bytes) up=$(field plan.json wire.up_bytes)
text=$((2 * 20 * 64 * 4)) # the prompt once to each of two workers
wire() { field two.json "wire.$1"; }

[[ $(field two.json leases_lost) == 0 ]] || fail "leases were lost: the bytes say nothing"
(($(wire payload_bytes_down) == down + text)) || fail "payload down $(wire payload_bytes_down), planned $((down + text))"
(($(wire payload_bytes_up) == up)) || fail "payload up $(wire payload_bytes_up), planned $up"
(($(wire bulk_bytes_down) * 100 <= (down + text) * 101)) || fail "more than 1 % of framing down"
(($(wire bulk_bytes_up) * 100 <= up * 101)) || fail "more than 1 % of framing up"

# A window-step carries one slice of the latents each way and nothing else: 5 frames of [16, 12, 20] f32.
slice=$((5 * 4 * 16 * 12 * 20))
[[ $(field plan.json wire.window_step_bytes_max) == $((2 * slice)) ]] || fail "not one slice each way"
echo "planned $down down, $up up; a slice of $slice bytes each way a window-step"
