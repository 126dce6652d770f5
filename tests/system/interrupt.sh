#!/usr/bin/env bash
# Ctrl-C, the outputs, and mistakes. If these broke, a user would lose a night's work to one key, find half a file under
# the take's name, or wait for ever for a model that nobody has.
. "$(dirname "$0")/lib.sh"

busy() { grep -q task.end "$1" 2>/dev/null; }

code_of() { # EXPECTED NAME ARGUMENTS...: of a render
    local expected=$1 name=$2 code=0
    shift 2
    render "$name" "$@" || code=$?
    ((code == expected)) || fail "$name: exit code $code, expected $expected: $(cat "$name.err")"
}

says() { # NAME TEXT
    grep -qF -- "$2" "$1.err" || fail "$1 says: $(cat "$1.err"); expected: $2"
}

make_models
make_job job.json 50 4 # 49 frames of whole latents and one more: cut to 50

# one interrupt: what runs is finished, the workers leave, the same command goes on
render stopped --workers 2 &
wait_for 60 busy stopped.mp4.longtake/worker-1.log
kill -INT "$(pgrep -P "$(pgrep -P $!)")"
code=0
wait $! || code=$?
((code == 12)) || fail "exit code $code after Ctrl-C"
says stopped "the same command goes on"
[[ $(grep -c task.start stopped.mp4.longtake/worker-1.log) == $(grep -c task.end stopped.mp4.longtake/worker-1.log) ]] ||
    fail "a task was not finished"
[[ -z $(ls -d stopped.mp4 stopped.mp4.*part* 2>/dev/null) ]] || fail "half a take: $(ls)"
render stopped --workers 2 || fail "the second run"
says stopped "resuming: "
[[ ! -e stopped.mp4.longtake ]] || fail "the state folder stays after success"

# the same take as PNG files and latents, and the exact number of frames
render pictures --workers 2 --output frames/ --latents take.safetensors || fail "PNG"
[[ $(field pictures.json frames_sha256) == $(field stopped.json frames_sha256) ]] || fail "other frames after an interrupt"
[[ $(find frames -name '*.png' | wc -l) == 50 && $(field pictures.json frames) == 50 ]] || fail "not 50 frames"
[[ -s take.safetensors && -s pictures.mp4 ]] || fail "an output is missing"

# mistakes
code_of 14 pictures --workers 1 # the outputs are there
says pictures "--overwrite"
cp job.json good.json && sed -i 's/t2v.gguf/gone.gguf/' job.json
code_of 4 gone --workers 2
says gone "needs gone.gguf; of 2 workers, 2 without the model"
cp good.json job.json && head -c 1000000 t2v.gguf >cut.gguf && sed -i 's/t2v.gguf/cut.gguf/' job.json
code_of 4 cut --workers 1
grep -q "cut.gguf.*it is cut short or damaged" cut.mp4.longtake/worker-1.log || fail "the log does not say what is wrong"
sed 's/"frames"/"frams"/' good.json >job.json
code_of 3 typo --workers 1
says typo "did you mean 'frames'?"
echo '{' >job.json
code_of 3 broken --workers 1
[[ -z $(ls gone.mp4 cut.mp4 typo.mp4 broken.mp4 2>/dev/null) ]] || fail "a take of a failed render"
echo "interrupts resume, outputs are whole, mistakes are named"
