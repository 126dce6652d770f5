#!/usr/bin/env bash
# Makes what the job of an example names, in a folder: the job, its media, and models with random weights.
#   examples/make.sh KIND FOLDER      KIND: text-to-video image-to-video animate talk
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kind=${1:-} dir=${2:-}
[[ -n $dir && -f $here/$kind/job.json ]] || { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
worker=${LONGTAKE_WORKER:-$here/../build/longtake-worker}
small=(--dim 256 --ffn 512 --layers 2 --text-dim 128)

synth() { # FILE VARIANT OPTIONS...: its name is its seed, so a file is the same in every example
    local file=$1 variant=$2
    shift 2
    "$worker" synth --variant "$variant" --seed "$(cksum <<<"$file" | cut -d' ' -f1)" "$@" --output "$dir/$file" >/dev/null
}

prompts() { # a text encoder with its vocabulary
    synth umt5.gguf umt5 --layers 2 --dim 128 --ffn 256 --tokens 512
}

vision() { # an image encoder; 1280 is the width that transformers take
    synth clip.safetensors clip-vision --layers 2 --dim 1280 --ffn 64
}

mkdir -p "$dir"
cp "$here/$kind/job.json" "$dir/"
case $kind in
text-to-video)
    synth t2v.gguf t2v-1.3b --dim 384 --ffn 1024 --layers 6 --text-dim 256 --quant q5_k_m
    synth vae.safetensors vae-z16 --dim 32
    synth prompt.safetensors text --text-dim 256 --tokens 24
    synth negative.safetensors text --text-dim 256 --tokens 16
    ;;
image-to-video)
    cp "$here/media/portrait.png" "$dir/"
    prompts
    vision
    synth i2v.gguf i2v-14b "${small[@]}" --quant q5_k_m
    synth style.safetensors lora --base i2v-14b "${small[@]}" --rank 8
    synth vae.safetensors vae-z16 --dim 8
    ;;
animate)
    cp "$here"/media/{portrait.png,wave.json,face.gif} "$dir/"
    prompts
    vision
    synth animate.gguf animate-14b "${small[@]}" --face-size 32 --quant q5_k_m
    synth vae.safetensors vae-z16 --dim 8
    ;;
talk)
    cp "$here"/media/{portrait.png,voice.wav} "$dir/"
    prompts
    vision
    synth i2v.gguf i2v-14b "${small[@]}" --quant q5_k_m
    synth talk.safetensors talk-addon "${small[@]}" --audio-features 128 --quant f16
    synth wav2vec2.safetensors wav2vec2 --layers 2 --dim 64 --ffn 64
    synth vae.safetensors vae-z16 --dim 8
    ;;
esac
