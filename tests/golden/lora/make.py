#!/usr/bin/env python3
"""Goldens of LoRAs on a small Wan transformer: by diffusers' own loader, and by merging W' = W + Σ s·ΔW in torch.

    pip install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes lora.safetensors beside itself

Weights, inputs and the LoRAs themselves are name-seeded fills (dit.md 8.1): the fixture holds predictions only, and
the test writes the same LoRAs in every key form. All in f64.

  base      no LoRA
  pairs     LoRA "one", rank 4, without alpha, on all Linears of the blocks, strength 0.8: load_lora_adapter
  all       "one" (rank 3, alpha 2, 0.7) and "two" (rank 5, -0.4), with differences of weights, biases, norms, modulation
  dora      "one", rank 4, alpha 2, 0.6, with dora_scale: ComfyUI's formula (dit.md 5.3)
  magnitude "one", rank 4, strength 1, with magnitude vectors: load_lora_adapter with PEFT's DoRA
"""
import importlib.util
import pathlib

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("dit_make", here.parent / "dit" / "make.py")
dit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dit)

LAYERS, D, FFN = 2, 256, 160
LINEARS = [f"{a}.{l}" for a in ("self_attn", "cross_attn") for l in "qkvo"] + ["ffn.0", "ffn.2"]
REST = ["text_embedding.0", "time_embedding.2", "time_projection.1", "head.head", "patch_embedding"]


def value(name, shape, scale=0.3):
    return torch.from_numpy(dit.fill(name, shape)).double() * np.float32(scale).item()


def model():
    m = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=D // 128, attention_head_dim=128, in_channels=16, out_channels=16,
        text_dim=40, freq_dim=64, ffn_dim=FFN, num_layers=LAYERS, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6).eval()
    m.load_state_dict({k: torch.from_numpy(dit.weight(dit.original_name(k), tuple(v.shape)))
                       for k, v in m.state_dict().items()})
    return m.double()


def names(m):  # original name -> diffusers name
    return {dit.original_name(k): k for k in m.state_dict()}


@torch.no_grad()
def predict(m):
    x = torch.from_numpy(dit.fill("lora.x", (1, 16, 2, 4, 6))).double()
    text = torch.zeros(1, 12, 40, dtype=torch.float64)
    text[0, :7] = torch.from_numpy(dit.fill("lora.text", (7, 40)))
    return m(x, torch.tensor([613.0], dtype=torch.float64), text, return_dict=False)[0][0].float().contiguous().numpy()


def pair(tag, module, weight, rank):
    columns = weight.numel() // weight.shape[0]
    return value(f"{tag}.{module}.down", (rank, columns)), value(f"{tag}.{module}.up", (weight.shape[0], rank))


def magnitude(module, weight):
    return 1 + value(f"one.{module}.magnitude", (weight.shape[0],), 0.5)


def block_modules():
    return [f"blocks.{n}.{l}" for n in range(LAYERS) for l in LINEARS]


def adapter(rank, with_magnitude):
    m = model()
    at, state = names(m), {}
    weights = m.state_dict()
    for module in block_modules():
        key = at[f"{module}.weight"]
        base = f"transformer.{key.removesuffix('.weight')}"
        down, up = pair("one", module, weights[key], rank)
        state[f"{base}.lora_A.weight"], state[f"{base}.lora_B.weight"] = down, up
        if with_magnitude:
            state[f"{base}.lora_magnitude_vector"] = magnitude(module, weights[key])
    m.load_lora_adapter(state, prefix="transformer", adapter_name="one")
    return m.double()


@torch.no_grad()
def merged():
    m = model()
    at, base = names(m), model().state_dict()
    weights = {k: v.clone() for k, v in base.items()}

    def add(name, delta):
        weights[at[name]] += delta.reshape(weights[at[name]].shape)

    for module in block_modules() + REST:
        w = base[at[f"{module}.weight"]]
        down, up = pair("one", module, w, 3)
        add(f"{module}.weight", 0.7 * (2 / 3) * (up @ down))
    for n in range(LAYERS):
        b = f"blocks.{n}"
        for name in (f"{b}.ffn.0.bias", f"{b}.self_attn.q.bias", f"{b}.norm3.weight", f"{b}.norm3.bias",
                     f"{b}.self_attn.norm_q.weight", f"{b}.cross_attn.norm_k.weight", f"{b}.modulation"):
            add(name, 0.7 * value(f"one.{name}.diff", tuple(base[at[name]].shape)))
    for name in ("head.modulation", "head.head.bias", "patch_embedding.bias"):
        add(name, 0.7 * value(f"one.{name}.diff", tuple(base[at[name]].shape)))
    for n in range(LAYERS):
        for module in LINEARS[4:]:
            module = f"blocks.{n}.{module}"
            down, up = pair("two", module, base[at[f"{module}.weight"]], 5)
            add(f"{module}.weight", -0.4 * (up @ down))
    name = "blocks.1.self_attn.v.weight"
    add(name, -0.4 * value(f"two.{name}.diff", (D, D), 0.05))
    add("blocks.0.ffn.2.bias", -0.4 * value("two.blocks.0.ffn.2.bias.diff", (D,)))
    m.load_state_dict(weights)
    return m


@torch.no_grad()
def dora():
    m = model()
    at, weights = names(m), m.state_dict()
    for module in block_modules():
        w = weights[at[f"{module}.weight"]]
        down, up = pair("one", module, w, 4)
        w1 = w + (2 / 4) * (up @ down)
        scale = magnitude(module, w)[:, None] / (w.norm(dim=1, keepdim=True) + torch.finfo(torch.float32).eps)
        weights[at[f"{module}.weight"]] = w + 0.6 * (w1 * scale - w)
    m.load_state_dict(weights)
    return m


if __name__ == "__main__":
    out = {"base": predict(model())}
    pairs = adapter(4, False)
    pairs.set_adapters(["one"], [0.8])
    out["pairs"] = predict(pairs)
    out["all"] = predict(merged())
    out["dora"] = predict(dora())
    out["magnitude"] = predict(adapter(4, True))
    for name, v in out.items():
        print(name, "std", v.std(), "from base", np.abs(v - out["base"]).max())
    save_file(out, here / "lora.safetensors")
