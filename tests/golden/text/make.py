#!/usr/bin/env python3
"""Goldens of the UMT5 text encoder from transformers' UMT5EncoderModel, in three random small shapes.

    pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes text.safetensors beside itself

Weights are the name-seeded fill of dit.md 8.1, scaled by weight() below as tests/worker/text_test.c does, so the fixture
holds shapes, tokens and features. Computed in f64. The batch is padded to 512 and masked, as Wan runs it: the features of
the real tokens are what a run of these tokens alone must give. The first shape has 200 tokens, so that every bucket of
distances is met.
"""
import pathlib
import random

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import UMT5Config, UMT5EncoderModel

PADDED = 512


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


def weight(name, shape, head_width):
    """No parameter is left at a value that hides mistakes: norms 0.5 … 1.5, matrices of variance 2/fan-in, the rest ±1.
    Queries are smaller by the root of the head's width: T5 has no scale in attention and is trained from there."""
    values = fill(name, shape)
    if "norm" in name:
        return np.float32(1) + np.float32(0.5) * values
    if "embedding" in name:
        return values
    scale = np.sqrt(np.float32(6) / np.float32(shape[1]))
    return (scale / np.sqrt(np.float32(head_width)) if ".q." in name else scale) * values


RENAMES = [
    ("encoder.block.", "blocks."), ("shared.", "token_embedding."), ("encoder.final_layer_norm.", "norm."),
    ("layer.0.layer_norm.", "norm1."), ("layer.0.SelfAttention.relative_attention_bias.", "pos_embedding.embedding."),
    ("layer.0.SelfAttention.", "attn."), ("layer.1.layer_norm.", "norm2."), ("layer.1.DenseReluDense.wi_0.", "ffn.gate.0."),
    ("layer.1.DenseReluDense.wi_1.", "ffn.fc1."), ("layer.1.DenseReluDense.wo.", "ffn.fc2."),
]


def original_name(name):
    name = name.replace("encoder.embed_tokens.", "shared.")
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    return name


@torch.no_grad()
def golden(name, c, out):
    model = UMT5EncoderModel(UMT5Config(
        vocab_size=c["vocabulary"], d_model=c["dim"], d_kv=c["head_width"], d_ff=c["ffn"], num_layers=c["layers"],
        num_heads=c["heads"], relative_attention_num_buckets=c["buckets"], relative_attention_max_distance=128,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6)).eval()
    model.load_state_dict({k: torch.from_numpy(weight(original_name(k), tuple(v.shape), c["head_width"]))
                           for k, v in model.state_dict().items()})
    model = model.double()
    n = c["tokens"]
    ids = torch.zeros(1, PADDED, dtype=torch.long)
    ids[0, :n] = torch.from_numpy(((fill(f"{name}.tokens", (n,)) + 1) / 2 * c["vocabulary"]).astype(np.int64))
    mask = (torch.arange(PADDED) < n).long()[None]
    y = model(input_ids=ids, attention_mask=mask).last_hidden_state[0, :n]
    alone = model(input_ids=ids[:, :n]).last_hidden_state[0]
    assert float((y - alone).abs().max()) < 1e-5 * float(y.abs().max())
    print(name, c, "std", float(y.std()))
    out[f"{name}.shape"] = np.array([c[k] for k in SHAPE], np.float32)
    out[f"{name}.tokens"] = ids[0, :n].to(torch.int32).numpy()
    out[f"{name}.text"] = y.float().contiguous().numpy()


SHAPE = ["layers", "dim", "heads", "head_width", "ffn", "vocabulary", "buckets"]

if __name__ == "__main__":
    draw = random.Random(20260702)
    outputs = {}
    for index in range(3):
        golden(f"random-{index}", {
            "layers": draw.randrange(1, 4), "dim": draw.randrange(17, 90), "heads": draw.randrange(1, 8),
            "head_width": draw.randrange(3, 40), "ffn": draw.randrange(20, 150), "vocabulary": draw.randrange(50, 300),
            "buckets": 32 if index == 0 else draw.choice([8, 16, 32, 64]),
            "tokens": 200 if index == 0 else draw.randrange(1, 120)}, outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "text.safetensors")
