#!/usr/bin/env bash
# A card breaks in the middle of a job. If its worker went on, or kept its leases, a night's work would stand still or be
# computed on a card that is not to be trusted. Expected: the worker says why and ends with 9 at once, and another card
# takes the task. Exit 77: no emulated card is built here.
tree=$(cd "$(dirname "$0")/../.." && pwd)
. "$tree/tests/system/lib.sh"
card=$build/longtake-worker-emulated
[[ -x $card ]] || exit 77

longtake=$build/longtake
port=$((12000 + RANDOM % 20000))
export LONGTAKE_URL=http://127.0.0.1:$port LONGTAKE_TOKEN_FILE=$work/token
client() { timeout -s KILL 120 "$longtake" "$@"; }
start_worker() { # NAME PROGRAM ARGUMENTS...
    timeout -s KILL 200 "$2" run --coordinator "ipc://$work/farm.socket" --name "$1" --models . --threads 1 "${@:3}" >"$1.err" 2>&1 &
}

make_models
make_job job.json 9 2
sed -i 's/\[160, 96\]/[64, 64]/' job.json

echo "a token of the test" >token
# a lease of a minute: handed back, or the test waits too long
"$longtake" coordinator --state farm --listen "ipc://$work/farm.socket" --http "127.0.0.1:$port" --token-file token \
    --lease-ms 60000 >>coordinator.err 2>&1 &
wait_for 30 curl -fs -o answer "$LONGTAKE_URL/readyz"
CUEMU_FAIL=launch:100 start_worker card "$card" --device cuda:0
broken=$!
client submit job.json >submit.out || fail "submit: $(cat submit.out)"
code=0
wait $broken || code=$?
((code == 9)) || fail "the worker ended with $code: $(cat card.err)"
grep -q "worker.device.*illegal memory access" card.err || fail "it does not say why: $(cat card.err)"
[[ $(grep -c "task.end.*status=DEVICE" card.err) == 1 && $(grep -c task.start card.err) == 1 ]] || fail "it went on: $(cat card.err)"

# another card takes over (a job stays with the class of machine it began on), long before the lease would have ended
start_worker other "$card" --device cuda:0
wait_for 40 grep -q "task.end.*status=OK" other.err
grep -q "task.start task=$(sed -n 's/.*task.end task=\([0-9]*\) status=DEVICE.*/\1/p' card.err) epoch=2" other.err ||
    fail "the task was not tried again: $(cat other.err)"
echo "a broken card costs one retry"
