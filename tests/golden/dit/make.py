#!/usr/bin/env python3
"""Goldens of the Wan text-to-video transformer from diffusers' WanTransformer3DModel, in three random small shapes.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes dit.safetensors beside itself

Weights and inputs are the name-seeded fill of dit.md 8.1 (tests/worker/fill.h), so the fixture holds shapes and outputs.
Computed in f64: what differs is the reader's arithmetic. Text rows are padded with zeros to text_len, as Wan does.
"""
import pathlib
import random

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.numpy import save_file


def fill(name, shape):
    """2·(s/2^32) - 1 of a linear congruential generator seeded by FNV-1a of the name."""
    s = 2166136261
    for c in name.encode():
        s = ((s ^ c) * 16777619) & 0xFFFFFFFF
    count = int(np.prod(shape))
    a, b = np.array([1664525], np.uint64), np.array([1013904223], np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    while len(a) < count:  # affine jumps: the known prefix doubles each turn
        a, b = (np.concatenate([a, (a * a[-1]) & mask]), np.concatenate([b, (a * b[-1] + b) & mask]))
    state = (a[:count] * np.uint64(s) + b[:count]) & mask
    return (2.0 * (state.astype(np.float64) / 4294967296.0) - 1.0).astype(np.float32).reshape(shape)


def weight(name, shape):
    values = np.float32(0.1) * fill(name, shape)
    return np.float32(1) + values if name.endswith(".weight") and "norm" in name else values


RENAMES = [
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    (".attn1.", ".self_attn."), (".attn2.", ".cross_attn."),
    (".to_q.", ".q."), (".to_k.", ".k."), (".to_v.", ".v."), (".to_out.0.", ".o."),
    (".norm2.", ".norm3."), (".ffn.net.0.proj.", ".ffn.0."), (".ffn.net.2.", ".ffn.2."),
]


def original_name(name):
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    if name == "scale_shift_table":
        return "head.modulation"
    return name.replace("proj_out.", "head.head.").replace("scale_shift_table", "modulation")


@torch.no_grad()
def golden(name, c, out):
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=c["heads"], attention_head_dim=128, in_channels=16, out_channels=16,
        text_dim=c["text_dim"], freq_dim=c["freq_dim"], ffn_dim=c["ffn"], num_layers=c["layers"], cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6).eval()
    model.load_state_dict({k: torch.from_numpy(weight(original_name(k), tuple(v.shape)))
                           for k, v in model.state_dict().items()})
    model = model.double()
    x = torch.from_numpy(fill(f"{name}.x", (1, 16, c["frames"], c["height"], c["width"]))).double()
    text = torch.zeros(1, c["text_len"], c["text_dim"], dtype=torch.float64)
    text[0, : c["rows"]] = torch.from_numpy(fill(f"{name}.text", (c["rows"], c["text_dim"])))
    v = model(x, torch.tensor([float(c["timestep"])], dtype=torch.float64), text, return_dict=False)[0]
    print(name, c, "std", float(v.std()))
    out[f"{name}.shape"] = np.array([c[k] for k in SHAPE], np.float32)
    out[f"{name}.v"] = v[0].float().contiguous().numpy()


SHAPE = ["heads", "ffn", "layers", "text_dim", "freq_dim", "text_len", "rows", "frames", "height", "width", "timestep"]

if __name__ == "__main__":
    draw = random.Random(20260701)
    outputs = {}
    for index in range(3):
        text_len = draw.randrange(4, 40)
        golden(f"random-{index}", {
            "heads": draw.randrange(1, 4), "ffn": 32 * draw.randrange(4, 24), "layers": draw.randrange(1, 5),
            "text_dim": 8 * draw.randrange(3, 20), "freq_dim": draw.choice([64, 128, 256]), "text_len": text_len,
            "rows": draw.randrange(1, text_len + 1), "frames": draw.randrange(1, 6), "height": 2 * draw.randrange(1, 7),
            "width": 2 * draw.randrange(1, 7), "timestep": draw.randrange(1, 1000)}, outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "dit.safetensors")
