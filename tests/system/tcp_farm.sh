#!/usr/bin/env bash
# A farm over TCP as studios run it: keys, a coordinator, two workers, a job submitted, watched and fetched; the
# coordinator killed on the way; a job cancelled; strangers refused. If this broke, nobody could use more than one machine.
. "$(dirname "$0")/lib.sh"

longtake=$build/longtake
port=$((12000 + RANDOM % 20000)) # below those the system gives to clients
api=http://127.0.0.1:$port
export LONGTAKE_URL=$api LONGTAKE_TOKEN_FILE=$work/token

start_coordinator() {
    "$longtake" coordinator --state farm --listen "tcp://127.0.0.1:$((port + 1))" --http "127.0.0.1:$port" \
        --key farm.key --authorized authorized --token-file token --lease-ms 2000 >>coordinator.err 2>&1 &
    coordinator=$!
    wait_for 30 curl -fs -o answer "$api/readyz"
}

start_worker() { # KEY
    timeout -s KILL 200 "$build/longtake-worker" run --coordinator "tcp://127.0.0.1:$((port + 1))" --name "$1" \
        --models . --threads 1 --key "$1.key" --server-key farm.key.pub >"$1.err" 2>&1 &
}

client() { # COMMAND ARGUMENTS...
    timeout -s KILL 120 "$longtake" "$@"
}

code_of() { # EXPECTED COMMAND...
    local expected=$1 code=0
    shift
    "$@" >code.out 2>&1 || code=$?
    ((code == expected)) || { cat code.out >&2; fail "exit code $code, expected $expected: $*"; }
}

make_models
make_job job.json 49 3
render here --workers 2 || fail "the same job on this machine"

echo "a token of the test" >token
for name in farm one two stranger; do client keygen --output $name.key >keygen.out; done
{ echo "# workers of the test"; cat one.key.pub two.key.pub; } >authorized
start_coordinator
start_worker one
start_worker two
start_worker stranger

[[ $(client submit job.json) == "job 1" ]] || fail "submit"
[[ $(client submit job.json) == "job 1 (it was there already)" ]] || fail "the same job twice"
wait_for 60 grep -q task.end one.err
kill -KILL "$coordinator"
wait "$coordinator" 2>/dev/null || true
start_coordinator
client watch 1 2>watch.err || fail "watch: $(cat watch.err)"
client show 1 --json >show.json
[[ $(field show.json take.latents_sha256) == $(field here.json latents_sha256) ]] || fail "other latents than render's"
[[ $(field show.json take.frames_sha256) == $(field here.json frames_sha256) ]] || fail "other frames than render's"
client get 1 --output take.mp4 --latents take.safetensors
cmp -s take.mp4 here.mp4 || fail "another mp4 than render's"
code_of 14 client get 1 --output take.mp4
client workers --json >workers.json
[[ $(jq '[.workers[].name] | sort | join(" ")' workers.json) == '"one two"' ]] || fail "workers: $(cat workers.json)"

# a job that nobody can run waits, says why, and is cancelled
sed 's/t2v.gguf/missing.gguf/' job.json >waits.json
[[ $(client submit waits.json) == "job 2" ]] || fail "second job"
client show 2 | grep -q missing.gguf || fail "why job 2 waits: $(client show 2)"
code_of 14 client get 2 --output other.mp4
client get 2 --preview now.png # noise, but a picture
[[ $(head -c 4 now.png | od -An -tx1) == " 89 50 4e 47" ]] || fail "the preview is no PNG"
client cancel 2 >cancel.out
code_of 12 client watch 2
[[ $(client jobs --json | jq -c '[.jobs[].state]') == '["completed","canceled"]' ]] || fail "$(client jobs)"

# what is wrong is said, with its exit code
code_of 4 client show 9
code_of 3 client submit take.safetensors
code_of 2 client show one
code_of 10 client jobs --url http://127.0.0.1:1
status() { curl -s -o answer -w '%{http_code}' "$@"; }
bearer="Authorization: Bearer $(cat token)"
[[ $(status "$api/v1/jobs") == 401 ]] || fail "no token was needed"
[[ $(status -H "Authorization: Bearer a token of the tesT" "$api/v1/jobs") == 401 ]] || fail "a wrong token did"
[[ $(status -H "$bearer" "$api/v1/jobs") == 200 ]] || fail "the token did not do"
[[ $(status -H "$bearer" "$api/v1/nothing") == 404 ]] || fail "a path nobody has"
[[ $(status -H "$bearer" -X DELETE "$api/v1/jobs") == 405 ]] || fail "a method nobody has"
[[ $(status -H "$bearer" -d '{}' "$api/v1/jobs") == 415 ]] || fail "a form of a browser was taken"
[[ $(status -H "$bearer" -H 'Content-Type: application/json' -d '{"text": 3}' "$api/v1/jobs") == 400 ]] || fail "a bad job"
jq -e '.error.text | contains("/text")' answer >jq.out || fail "the error names no place: $(cat answer)"
head -c 1100000 /dev/zero | tr '\0' ' ' >long
[[ $(status -H "$bearer" -H 'Content-Type: application/json' --data-binary @long "$api/v1/jobs") == 413 ]] || fail "a long job"
curl -fs -H "$bearer" "$api/metrics" >metrics
grep -q '^longtake_jobs{state="completed"} 1$' metrics || fail "metrics: $(cat metrics)"
awk '/^longtake_tasks_total/ { sum += $2 } END { exit !(sum >= 1 && sum <= 14) }' metrics || fail "metrics: $(cat metrics)"
# G7.3: what each worker holds and has read, as metrics
for name in one two; do
    grep -qE "^longtake_worker_rss_bytes\{worker=\"$name\"\} [1-9]" metrics || fail "no memory of $name: $(cat metrics)"
done
grep -qE '^longtake_worker_read_bytes\{worker="(one|two)"\} [1-9]' metrics || fail "nothing read: $(cat metrics)"

kill -TERM "$coordinator"
wait "$coordinator" || fail "the coordinator did not stop cleanly"
echo "a farm over TCP: the same take as on one machine"
