#!/usr/bin/env bash
# Scripts rely on these commands and their exit statuses: a download that is checked by `inspect` must fail the script
# when it is damaged, and pass when it is whole.
set -euo pipefail
worker=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

expect() { # status, then a command; its output must hold $part
    local status=0 wanted=$1
    shift
    "$@" >out 2>&1 || status=$?
    if ((status != wanted)) || ! grep -qF -- "$part" out; then
        echo "'$*' gave $status, expected $wanted and '$part':"
        cat out
        exit 1
    fi
}

small="--layers 1 --dim 128 --ffn 256 --text-dim 64"
part="42 tensors" expect 0 "$worker" synth --variant t2v-1.3b $small --quant q4_k_m --output model.gguf
part="42 tensors" expect 0 "$worker" synth --variant t2v-1.3b $small --quant bf16 --output model.safetensors
part="194 tensors" expect 0 "$worker" synth --variant vae-z16 --dim 4 --z 4 --output vae.safetensors
part="39 tensors" expect 0 "$worker" synth --variant clip-vision --layers 2 --dim 32 --ffn 48 --output clip.safetensors
part="34 tensors" expect 0 "$worker" synth --variant wav2vec2 --layers 1 --dim 32 --ffn 48 --output voice.safetensors
part='"kind": "clip-vision", "dim": 32, "ffn": 48, "layers": 2, "size": 224' expect 0 "$worker" inspect --json clip.safetensors
part='"kind": "wav2vec2", "dim": 32, "ffn": 48, "layers": 1' expect 0 "$worker" inspect --json voice.safetensors
part="must end so" expect 5 "$worker" synth --variant wav2vec2 --output voice.gguf
part="multiple of 16" expect 3 "$worker" synth --variant clip-vision --dim 40 --output x.safetensors
part="variant      t2v" expect 0 "$worker" inspect model.gguf
part="sha256       $(sha256sum <model.gguf | cut -d' ' -f1)" expect 0 "$worker" inspect --hash model.gguf
part="\"sha256\": \"$(sha256sum <vae.safetensors | cut -d' ' -f1)\"" expect 0 "$worker" inspect --json --hash vae.safetensors
part='"problems": []' expect 0 "$worker" inspect --json model.safetensors
part='"kind": "vae-z16"' expect 0 "$worker" inspect --json vae.safetensors
[[ $(ls) == $'clip.safetensors\nmodel.gguf\nmodel.safetensors\nout\nvae.safetensors\nvoice.safetensors' ]] || { echo "left behind:"; ls; exit 1; }

# What LoRAs and an add-on take is in the sum, to the byte.
part="20 tensors" expect 0 "$worker" synth --variant lora --base t2v-1.3b $small --rank 8 --output lora.safetensors
planned() { "$worker" memory model.gguf --size 64x64 --latent-frames 3 --json "$@" | jq -r '.lines.blocks_resident, .lora_bytes // 0' | xargs; }
read -r alone _ < <(planned)
read -r with lora < <(planned --lora lora.safetensors:0.5)
((lora > 0 && with - alone == lora)) || { echo "blocks take $alone, $with with a LoRA of $lora bytes"; exit 1; }
part="LoRAs      1, " expect 0 "$worker" memory model.gguf --lora lora.safetensors
part="no-such-file" expect 4 "$worker" memory model.gguf --lora no-such-file
part="no-such-file" expect 4 "$worker" memory model.gguf --addon no-such-file
rm lora.safetensors

head -c 100000 model.gguf >cut.gguf
part="cut short" expect 13 "$worker" inspect cut.gguf
LC_ALL=C sed 's/norm3/norm4/' model.gguf >renamed.gguf # equal length: a well-formed file of a wrong model
part="norm3" expect 3 "$worker" inspect renamed.gguf
part="no-such-file" expect 4 "$worker" inspect no-such-file
part="FILE" expect 2 "$worker" inspect
part="--output is missing" expect 2 "$worker" synth --variant t2v-1.3b
part="known: t2v-1.3b" expect 2 "$worker" synth --variant t3v --output x.gguf
part="only f32, f16 and bf16" expect 5 "$worker" synth --variant t2v-1.3b --quant q8_0 --output x.safetensors
part="usage:" expect 0 "$worker" synth --help
