#!/usr/bin/env python3
"""Goldens of the Wan 2.1 VAE from diffusers' AutoencoderKLWan.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes vae.safetensors beside itself

Weights and inputs are the name-seeded fill of tests/worker/fill.h, so the fixture holds outputs only. Two configs:
small (base 8, z 4) and full width (base 96, z 16). Latents have T = 5 frames; the decode and encode of T = 1, 2, 3 are
prefixes of those (the VAE is causal), which this script checks on the original before it writes anything.
"""
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.numpy import save_file


def fill(name, shape):
    """2·(s/2^32) - 1 of a linear congruential generator seeded by FNV-1a of the name."""
    s = 2166136261
    for c in name.encode():
        s = ((s ^ c) * 16777619) & 0xFFFFFFFF
    count = int(np.prod(shape))
    # Affine jump: s_k = a_k s + b_k, doubling the known prefix each turn.
    a, b = np.array([1664525], np.uint64), np.array([1013904223], np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    while len(a) < count:
        a, b = (np.concatenate([a, (a * a[-1]) & mask]), np.concatenate([b, (a * b[-1] + b) & mask]))
    state = (a[:count] * np.uint64(s) + b[:count]) & mask
    return (2.0 * (state.astype(np.float64) / 4294967296.0) - 1.0).astype(np.float32).reshape(shape)


def weight(name, shape):
    """Variance-keeping: products have fan-in scale, gammas are near 1, biases small; the last one keeps pixels in ±1."""
    values = fill(name, shape)
    if name.endswith(".gamma"):
        return np.float32(1) + np.float32(0.1) * values
    if name.endswith(".bias"):
        return np.float32(0.1) * values
    fan_in = int(np.prod(shape[1:]))
    gain = 0.25 if name == "decoder.head.2.weight" else 1.0
    return np.float32(gain * np.sqrt(3.0 / fan_in)) * values


def original_name(name):
    """Key of the original checkpoint for a diffusers key (encoders.md 1.7)."""
    res = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
           "conv_shortcut": "shortcut"}
    parts = name.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return {"quant_conv": "conv1", "post_quant_conv": "conv2"}[parts[0]] + "." + parts[1]
    half, rest = parts[0], parts[1:]
    if rest[0] == "conv_in":
        return f"{half}.conv1.{rest[1]}"
    if rest[0] == "norm_out":
        return f"{half}.head.0.{rest[1]}"
    if rest[0] == "conv_out":
        return f"{half}.head.2.{rest[1]}"
    if rest[0] == "mid_block":
        kind, index = rest[1], int(rest[2])
        if kind == "attentions":
            return f"{half}.middle.1." + ".".join(rest[3:])
        return f"{half}.middle.{2 * index}.{res[rest[3]]}." + ".".join(rest[4:])
    if rest[0] == "down_blocks":
        tail = rest[2:]
        prefix = f"encoder.downsamples.{rest[1]}."
    else:
        group = int(rest[1])
        index = 4 * group + (3 if rest[2] == "upsamplers" else int(rest[3]))
        tail = rest[4:]
        prefix = f"decoder.upsamples.{index}."
    if tail[0] in res:
        tail = [res[tail[0]]] + tail[1:]
    return prefix + ".".join(tail)


def make_model(base, z):
    extra = {} if z == 16 else {"latents_mean": [0.0] * z, "latents_std": [1.0] * z}
    vae = AutoencoderKLWan(base_dim=base, z_dim=z, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                           temperal_downsample=[False, True, True], **extra).float().eval()
    state = {k: torch.from_numpy(weight(original_name(k), tuple(v.shape))) for k, v in vae.state_dict().items()}
    vae.load_state_dict(state)
    return vae


@torch.no_grad()
def golden(name, base, z, height, width, out):
    vae = make_model(base, z)
    mean = torch.tensor(vae.config.latents_mean, dtype=torch.float64).view(1, z, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, dtype=torch.float64).view(1, z, 1, 1, 1)
    latents = torch.from_numpy(fill(f"{name}.latents", (1, z, 5, height, width)))
    pixels = torch.from_numpy(fill(f"{name}.pixels", (1, 3, 17, 8 * height, 8 * width)))
    scaled = (latents.double() * std + mean).float()
    decoded = vae.decode(scaled).sample
    encoded = ((vae.encode(pixels).latent_dist.mode().double() - mean) / std).float()
    for t in (1, 2, 3):
        part = vae.decode(scaled[:, :, :t]).sample
        assert torch.allclose(part, decoded[:, :, : 4 * t - 3], atol=1e-5), t
        part = ((vae.encode(pixels[:, :, : 4 * t - 3]).latent_dist.mode().double() - mean) / std).float()
        assert torch.allclose(part, encoded[:, :, :t], atol=1e-5), t
    assert decoded.abs().max() < 1, "clamped: nothing would be compared"
    print(name, "decoded", tuple(decoded.shape), float(decoded.std()), "encoded", tuple(encoded.shape), float(encoded.std()))
    out[f"{name}.decoded"] = decoded[0].permute(1, 2, 3, 0).contiguous().numpy()  # [F, H, W, 3]
    out[f"{name}.encoded"] = encoded[0].contiguous().numpy()  # [z, T, h, w]


if __name__ == "__main__":
    torch.set_num_threads(2)
    outputs = {}
    golden("small", 8, 4, 4, 6, outputs)
    golden("full", 96, 16, 4, 4, outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "vae.safetensors")
