#!/usr/bin/env bash
# One command for all devices of a node: a worker process for each. If one that dies took the others or the job along, a
# node of eight cards would be as weak as its weakest; if the take were another one, it would show.
. "$(dirname "$0")/lib.sh"

make_models
make_job job.json 49 2
render alone --workers 1 || fail "render"

port=$((12000 + RANDOM % 20000))
export LONGTAKE_URL=http://127.0.0.1:$port LONGTAKE_TOKEN_FILE=$work/token
echo "a token of the test" >token
timeout -s KILL 120 "$build/longtake" coordinator --state state --listen "ipc://$work/farm" --http "127.0.0.1:$port" \
    --token-file token --lease-ms 5000 >coordinator.err 2>&1 &
wait_for 30 curl -fs -o answer "$LONGTAKE_URL/readyz"
"$build/longtake-worker" run --coordinator "ipc://$work/farm" --models . --threads 1 --name pair --device host,host \
    --log-level info >pair.err 2>&1 &
pair=$!
both_joined() { [[ $("$build/longtake" workers | grep -c '^pair-[01] ') == 2 ]]; }
wait_for 30 both_joined
"$build/longtake" submit job.json >submit.out || fail "submit"
both_work() { (($(grep -c task.end pair.err) >= 4)); }
wait_for 30 both_work
kill -KILL "$(pgrep -P $pair | head -n 1)"
timeout -s KILL 100 "$build/longtake" watch 1 >watch.out 2>&1 || fail "the job: $(cat watch.out)"
"$build/longtake" show 1 --json >show.json
[[ $(field show.json take.frames_sha256) == "$(field alone.json frames_sha256)" ]] || fail "other frames"
kill -TERM $pair
code=0
wait $pair || code=$?
((code == 1)) || fail "one of two was killed, and the end is $code"
grep -q "the worker on host was ended by signal 9" pair.err || fail "it does not say which: $(cat pair.err)"
pgrep -f "name pair" >/dev/null && fail "a process is left"
echo "two processes, one killed: the same take"
