#!/usr/bin/env python3
"""Goldens of the tiny preview decoder (TAEHV: taew2_1, taew2_2).

    pip install torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
    python make_tae.py        # writes tae.safetensors beside itself

No package on PyPI ships this network, so it is written here, in torch and in the original's order of steps (doubling
first, then growth in time; concatenation of channels in a memory block; whole sequences at once), from the description in
encoders.md 4.2. It is an independent second writing of the same rule, not the original program. Weights and inputs are the
name-seeded fill of tests/worker/fill.h, so the fixture holds outputs only.
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from make import fill, weight

GROWTH = (1, 2, 2)


def tensor(name, shape):
    if name == "decoder.22.bias":  # pixels in the middle of 0..1
        return torch.from_numpy(0.5 + 0.1 * fill(name, shape)).float()
    gain = 0.1 if name == "decoder.22.weight" else 1.0
    return torch.from_numpy(weight(name, shape)).float() * gain


def conv(x, name, n_out, kernel=3, bias=True):
    w = tensor(f"{name}.weight", (n_out, x.shape[1], kernel, kernel))
    return F.conv2d(x, w, tensor(f"{name}.bias", (n_out,)) if bias else None, padding=kernel // 2)


def memory_block(x, name):
    n = x.shape[1]
    before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    y = F.relu(conv(torch.cat([x, before], 1), f"{name}.conv.0", n))
    y = F.relu(conv(y, f"{name}.conv.2", n))
    return F.relu(conv(y, f"{name}.conv.4", n) + x)


def grow(x, name, frames):
    t, n, h, w = x.shape
    return conv(x, f"{name}.conv", n * frames, kernel=1, bias=False).reshape(t * frames, n, h, w)


def decode(latents, dim, patch):
    """latents [T, z, h, w] -> [4T - 3, 3, H, W] in 0..1."""
    widths = (4 * dim, 2 * dim, dim, dim)
    x = F.relu(conv(3 * torch.tanh(latents / 3), "decoder.1", widths[0]))
    for level in range(3):
        first = 3 + 6 * level
        for i in range(3):
            x = memory_block(x, f"decoder.{first + i}")
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = grow(x, f"decoder.{first + 4}", GROWTH[level])
        x = conv(x, f"decoder.{first + 5}", widths[level + 1], bias=False)
    x = conv(F.relu(x), "decoder.22", 3 * patch * patch)
    if patch > 1:
        x = F.pixel_shuffle(x, patch)
    return x.clamp(0, 1)[3:]


@torch.no_grad()
def golden(name, dim, z, patch, height, width, out):
    latents = 2 * torch.from_numpy(fill(f"{name}.latents", (z, 4, height, width)))
    pixels = decode(latents.permute(1, 0, 2, 3), dim, patch)
    inside = ((pixels > 0) & (pixels < 1)).float().mean()
    assert inside > 0.9, "clamped: nothing would be compared"
    print(name, tuple(pixels.shape), float(pixels.std()), float(inside))
    out[f"{name}.decoded"] = (2 * pixels - 1).permute(0, 2, 3, 1).contiguous().numpy()  # [F, H, W, 3] in -1..1


if __name__ == "__main__":
    torch.set_num_threads(2)
    outputs = {}
    golden("taew2_1", 64, 16, 1, 2, 3, outputs)
    golden("taew2_2", 16, 48, 2, 3, 1, outputs)
    golden("odd", 6, 5, 1, 3, 5, outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "tae.safetensors")
