#!/usr/bin/env bash
# One job, five runs: 1 worker; 3 workers; 3 with one killed in a task; 3 with one stopped past its lease and then
# continued; the coordinator killed and started again. If a byte of the latents or frames depended on the number of
# workers or on who died, a long video would show a seam nobody can explain.
. "$(dirname "$0")/lib.sh"

busy() { # LOG: that worker runs a task now, not its first
    local started ended
    started=$(grep -c task.start "$1" 2>/dev/null || true)
    ended=$(grep -c task.end "$1" 2>/dev/null || true)
    ((${started:-0} >= 2 && started > ended))
}

deep_in() { # LOG: that worker runs a task, and results of its earlier ones must have arrived
    busy "$1" && (($(grep -c task.end "$1") >= 4))
}

render_pid() { # SHELL-PID: render runs under the shell's timeout
    pgrep -P "$(pgrep -P "$1")"
}

worker_pid() { # SHELL-PID INDEX
    pgrep -P "$(render_pid "$1")" -f -- "--name worker-$2 "
}

same() { # NAME
    local what
    for what in latents_sha256 frames_sha256; do
        [[ $(field "$1.json" $what) == "$(field one.json $what)" ]] || fail "$1: $what differs from one worker's"
    done
}

count() { # NAME FIELD AT-LEAST
    (($(field "$1.json" "$2") >= $3)) || fail "$1: $2 is $(field "$1.json" "$2"), expected at least $3"
}

make_models
make_job job.json 97 5

render one --workers 1 || fail "one worker"

render three --workers 3 || fail "three workers"
same three

render killed --workers 3 --lease-ms 1000 &
wait_for 60 busy killed.mp4.longtake/worker-2.log
kill -KILL "$(worker_pid $! 2)"
wait $! || fail "a killed worker ended the job"
same killed
count killed worker_deaths 1

render stopped --workers 3 --lease-ms 500 &
wait_for 60 busy stopped.mp4.longtake/worker-2.log
pid=$(worker_pid $! 2)
kill -STOP "$pid"
sleep 1.5 # three leases
kill -CONT "$pid" || fail "the stopped worker was gone too soon"
wait $! || fail "a stopped worker ended the job"
same stopped
count stopped leases_lost 1

render restarted --workers 3 &
wait_for 60 deep_in restarted.mp4.longtake/worker-2.log
kill -KILL "$(render_pid $!)"
wait $! 2>/dev/null && fail "the coordinator survived SIGKILL"
[[ ! -e restarted.mp4 ]] || fail "a take of a killed coordinator"
render restarted --workers 3 || fail "restart"
grep -q '^resuming: ' restarted.err || fail "the second run did not resume"
same restarted

echo "five runs, one take: latents $(field one.json latents_sha256)"
