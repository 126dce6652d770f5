#!/usr/bin/env bash
# Every kind of job in every mode, on one worker and on three. If conditioning depended on which worker encoded it, or
# a clip started on other frames than the one before ended with, a take would differ from run to run, or show a seam.
. "$(dirname "$0")/lib.sh"

job() { # NAME KIND FRAMES MODEL MEDIA [MORE]
    cat >"$1.json" <<EOT
{"kind": "$2", "size": [64, 64], "frames": $3, "fps": 16, "seed": 7, "guidance": 1,
 "model": {"transformer": "$4.gguf", "vae": "vae.safetensors", "text_len": 32},
 "text": {"positive": "prompt.safetensors"}, "media": {$5},
 "sampler": {"name": "euler", "steps": 2, "shift": 5.0},
 "window": {"latent_frames": 3, "overlap": 1}, "decode": {"segment": 3, "warmup": 2}${6:+, $6}}
EOT
}

take() { # NAME JOB WORKERS: frames in NAME/, report in NAME.report
    timeout -s KILL 120 "$build/longtake" render "$2.json" --workers "$3" --threads 1 --output "$1/" \
        --report "$1.report" >"$1.out" 2>"$1.err" || fail "$1"
}

# One worker and three give one take, of exactly so many frames.
check() { # JOB FRAMES
    local what
    take "$1-1" "$1" 1
    take "$1-3" "$1" 3
    for what in latents_sha256 frames_sha256; do
        [[ $(field "$1-1.report" $what) == "$(field "$1-3.report" $what)" ]] || fail "$1: $what differs by workers"
    done
    [[ $(find "$1-3" -name 'frame_*.png' | wc -l) == "$2" ]] || fail "$1: not $2 frames"
}

differ() { # JOB OTHER: what was given made a difference
    [[ $(field "$1-1.report" frames_sha256) != "$(field "$2-1.report" frames_sha256)" ]] || fail "$1 is as $2"
}

synth="$build/longtake-worker synth"
small="--dim 128 --ffn 256 --layers 2 --text-dim 64 --quant q8_0"
small_lora="--dim 128 --ffn 256 --layers 2 --text-dim 64"
$synth --variant t2v-1.3b $small --seed 1 --output t2v.gguf >/dev/null
$synth --variant i2v-a14b $small --seed 2 --output i2v.gguf >/dev/null
$synth --variant animate-14b $small --face-size 16 --seed 5 --output animate.gguf >/dev/null
$synth --variant vae-z16 --dim 8 --seed 3 --output vae.safetensors >/dev/null
$synth --variant text --text-dim 64 --tokens 20 --seed 4 --output prompt.safetensors >/dev/null

# Pictures to start from, and a video of a folder.
job text text-to-video 13 t2v ''
check text 13

# Steps that reuse earlier ones' work: as planned before the first window, and as the time embeddings turn out to say.
job mag text-to-video 13 t2v '' '"cache": {"kind": "magcache", "model": "14B", "threshold": 1, "start": 0}'
take mag-1 mag 1
differ mag text
job cached text-to-video 13 t2v '' '"cache": {"kind": "teacache", "curve": "plain", "threshold": 100, "start": 0}'
check cached 13
[[ $(field mag-1.report frames_sha256) == $(field cached-1.report frames_sha256) ]] || fail "one plan, two takes"

sed 's/"size": \[64, 64\]/"size": [96, 64]/' text.json >wide.json
take wide-1 wide 1
sed 's/"decode": {/"decode": {"tile": 64, "overlap": 32, /' wide.json >tiled.json
check tiled 13
differ tiled wide
[[ $(field tiled-1.report latents_sha256) == "$(field wide-1.report latents_sha256)" ]] || fail "tiles changed the latents"

image=text-1/frame_00000.png
end=text-1/frame_00012.png

job image image-to-video 14 i2v "\"image\": \"$image\""
check image 14
job both image-to-video 14 i2v "\"image\": \"$PWD/$image\", \"end_image\": \"$end\""
check both 14
differ image both

# A reference, a pose and a face; as windows, and as clips of 9 frames that each start on the last of the one before.
given="\"image\": \"$image\", \"pose\": \"text-1\", \"face\": \"text-1\""
job windows animate 14 animate "$given"
sed -i 's/"text_len": 32/"text_len": 32, "face_side": 16/' windows.json
check windows 14
sed 's/"kind"/"mode": "loop", "loop": {"frames": 9}, "kind"/' windows.json >loop.json
check loop 14
sed 's/"kind"/"colour": {"match": "reinhard"}, "kind"/' loop.json >colour.json
check colour 14
differ loop colour
sed 's/"face":/"background": "image-1", "mask": "text-1", "face":/' loop.json >replace.json
check replace 14
differ loop replace
differ windows loop
faces() { # FILE VALUE: two crops of one grey, as a ComfyUI graph has images; VALUE: the four bytes of its float
    local header='{"face":{"dtype":"F32","shape":[2,16,16,3],"data_offsets":[0,6144]}}    ' # 72 bytes
    { printf '\110\0\0\0\0\0\0\0%s' "$header"; for ((i = 0; i < 1536; i++)); do printf "$2"; done; } >"$1"
}
faces grey.safetensors '\0\0\0\077'
sed 's/"face": "[^"]*"/"face": "grey.safetensors"/' windows.json >tensor.json
check tensor 14
differ windows tensor
faces loud.safetensors '\0\0\0\100'
sed 's/grey/loud/' tensor.json >loud.json
if "$build/longtake" render loud.json --output bad.mp4 2>bad.err; then fail "a face of 2"; fi
grep -q 'values from 0 to 1, found 2' bad.err || fail "no word of the face's values: $(cat bad.err)"

# TI2V-5B: 48 channels, the image stays frame 0 at every step.
$synth --variant ti2v-5b $small --seed 6 --output ti2v.gguf >/dev/null
$synth --variant vae-z48 --dim 8 --seed 7 --output vae48.safetensors >/dev/null
job clean image-to-video 14 ti2v "\"image\": \"$image\""
sed -i 's/vae.safetensors", /vae48.safetensors", "latent_channels": 48, /' clean.json
check clean 14

# A prompt in place of features, in two parts, and away from another; image attention; a LoRA.
$synth --variant umt5 --layers 1 --dim 64 --ffn 64 --tokens 512 --seed 8 --output umt5.gguf >/dev/null
$synth --variant i2v-14b $small --seed 9 --output i2v21.gguf >/dev/null
$synth --variant clip-vision --layers 2 --dim 1280 --ffn 64 --seed 10 --output clip.safetensors >/dev/null
$synth --variant lora --base i2v-14b $small_lora --rank 4 --seed 11 --output lora.safetensors >/dev/null
job prompt image-to-video 14 i2v21 "\"image\": \"$image\""
sed -i 's/"positive": "prompt.safetensors"/"prompt": "a harbour | at dawn", "negative_prompt": "blurry"/
    s/"guidance": 1/"guidance": 3/
    s/"text_len": 32/"text_len": 64, "text_width": 64, "text_encoder": "umt5.gguf", "vision": "clip.safetensors"/' prompt.json
check prompt 14
sed 's/"kind"/"lora": [{"file": "lora.safetensors", "strength": [1, 0.5]}], "kind"/' prompt.json >lora.json
check lora 14
[[ $("$build/longtake" plan lora.json --json | jq .memory.worker.lora_files) == 1 ]] || fail "the plan does not count the LoRA"
differ prompt lora

# A voice: one window a clip or many windows, one speaker and two. 16 kHz mono, a second and a half.
wav() { # FILE LETTERS
    {
        printf 'RIFF\244\273\0\0WAVEfmt \020\0\0\0\001\0\001\0\200\076\0\0\0\175\0\0\002\0\020\0data\200\273\0\0'
        awk -v letters="$2" 'BEGIN { for (i = 0; i < 48000 / length(letters); i++) printf "%s", letters }'
    } >"$1"
}
wav one.wav abzc
wav two.wav 'a!zbcA'
$synth --variant wav2vec2 --layers 2 --dim 64 --ffn 64 --seed 12 --output wav2vec2.safetensors >/dev/null
$synth --variant talk-addon $small_lora --quant f16 --audio-features 128 --seed 13 --output talk.safetensors >/dev/null
talk="\"image\": \"$image\", \"voice\": \"one.wav\""
job speech talk 16 i2v21 "$talk" '"talk": {"audio_guidance": 3}'
sed -i 's/"text_len": 32/"text_len": 32, "talk": "talk.safetensors", "audio_encoder": "wav2vec2.safetensors", "audio_layers": 2, "audio_width": 64, "vision": "clip.safetensors"/' speech.json
check speech 16
weights() { jq '.lines | .weights_rest + .blocks_resident'; }
planned=$("$build/longtake" plan speech.json --json | jq .memory.worker | weights)
[[ $planned == "$("$build/longtake-worker" memory i2v21.gguf --addon talk.safetensors --json | weights)" ]] ||
    fail "the plan's weights: $planned"
((planned > $("$build/longtake-worker" memory i2v21.gguf --json | weights))) || fail "the plan does not count the add-on"
sed 's/"kind"/"mode": "loop", "loop": {"frames": 13, "overlap": 5}, "kind"/' speech.json >multitalk.json
check multitalk 16
sed 's/"talk": {/"talk": {"variant": "infinitetalk", /; s/one.wav"/one.wav", "voice_2": "two.wav"/' multitalk.json \
    >infinitetalk.json
check infinitetalk 16
differ speech multitalk
differ multitalk infinitetalk

# On a farm the voices were uploaded, not named: its take has them all the same.
port=$((12000 + RANDOM % 20000)) # below those the system gives to clients
echo "a token of the test" >token
export LONGTAKE_URL=http://127.0.0.1:$port LONGTAKE_TOKEN_FILE=$work/token
"$build/longtake" coordinator --state farm --listen "tcp://127.0.0.1:$((port + 1))" --http "127.0.0.1:$port" \
    --token-file token >/dev/null 2>coordinator.err &
wait_for 30 curl -fs -o answer "$LONGTAKE_URL/readyz"
timeout -s KILL 120 "$build/longtake-worker" run --coordinator "tcp://127.0.0.1:$((port + 1))" --models . --threads 1 \
    >/dev/null 2>worker.err &
"$build/longtake" submit infinitetalk.json >/dev/null
timeout -s KILL 120 "$build/longtake" watch 1 2>watch.err || fail "the farm's talk: $(cat watch.err)"
"$build/longtake" get 1 --output farm.mp4
grep -qa mp4a farm.mp4 || fail "the farm's take has no sound"
[[ -z $(find farm -name 'voice*') ]] || fail "voices stay behind: $(find farm -name 'voice*')"
"$build/longtake" show 1 --json >show.json
[[ $(field show.json take.frames_sha256) == "$(field infinitetalk-1.report frames_sha256)" ]] || fail "other frames"

# What is wrong is said before a worker starts.
job bad image-to-video 14 i2v '"image": "nothing.png"'
if "$build/longtake" render bad.json --output bad.mp4 2>bad.err; then fail "an image that is not there"; fi
grep -q 'nothing.png' bad.err || fail "no word of the image that is not there"
job bad image-to-video 14 i2v '"image": "vae.safetensors"'
if "$build/longtake" render bad.json --output bad.mp4 2>bad.err; then fail "a model as an image"; fi

echo "every kind: one worker and three give the same bytes"
