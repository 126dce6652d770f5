#!/usr/bin/env bash
# files.sh BUILD_DIR DIR: what the example jobs name. Models have the real layout and random weights, so the pictures are
# noise; real files take their places under the same names.
set -euo pipefail
build=$(realpath "$1")
mkdir -p "$2"
cd "$2"
synth="$build/longtake-worker synth"
small="--dim 128 --ffn 256 --layers 2 --text-dim 64"
$synth --variant t2v-1.3b $small --quant q8_0 --seed 1 --output t2v.gguf
$synth --variant i2v-14b $small --quant q8_0 --seed 2 --output i2v.gguf
$synth --variant animate-14b $small --quant q8_0 --face-size 16 --seed 3 --output animate.gguf
$synth --variant talk-addon $small --quant f16 --audio-features 128 --seed 4 --output talk.safetensors
$synth --variant vae-z16 --dim 8 --seed 5 --output vae.safetensors
$synth --variant umt5 --layers 1 --dim 64 --ffn 64 --tokens 512 --seed 6 --output umt5.gguf
$synth --variant clip-vision --layers 2 --dim 1280 --ffn 64 --seed 7 --output clip.safetensors
$synth --variant wav2vec2 --layers 2 --dim 64 --ffn 64 --seed 8 --output wav2vec2.safetensors

# Pictures: a take of its own. The voice: two seconds of a buzz, 16 kHz mono.
cat >pictures.json <<EOT
{"size": [64, 64], "frames": 13, "guidance": 1, "model": {"transformer": "t2v.gguf", "vae": "vae.safetensors",
 "text_encoder": "umt5.gguf", "text_len": 64, "text_width": 64}, "text": {"prompt": "pictures"}, "sampler": {"steps": 2}}
EOT
"$build/longtake" render pictures.json --output pictures/ --overwrite
{
    printf 'RIFF\044\372\0\0WAVEfmt \020\0\0\0\001\0\001\0\200\076\0\0\0\175\0\0\002\0\020\0data\0\372\0\0'
    awk 'BEGIN { for (i = 0; i < 16000; i++) printf "abzc" }'
} >voice.wav
