#!/usr/bin/env python3
"""Goldens of the Wan 2.2 VAE (TI2V-5B) from diffusers' AutoencoderKLWan, and of tiles.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python make_z48.py        # writes z48.safetensors beside itself

Weights and inputs are the name-seeded fill of tests/worker/fill.h, so the fixture holds outputs only. Three configs of
odd sizes, one of them with the 48 channels whose statistics the published model has. Latents have T = 5 frames; those of
T = 1, 2, 3 are prefixes (the VAE is causal), which this script checks on the original before it writes anything.

`tiled.*` is the ComfyUI wrapper's tiling (docs: encoders.md 3.1) written here over diffusers' untiled decode and encode
of each tile: which tiles there are, and how they are blended, is this script's reading of that rule.
"""
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.numpy import save_file

from make import fill, make_model, weight

RES = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
       "conv_shortcut": "shortcut"}


def original_name(name):
    """Key of the original checkpoint for a diffusers key of the 2.2 model."""
    half, *rest = name.split(".")
    if half in ("quant_conv", "post_quant_conv"):
        return {"quant_conv": "conv1", "post_quant_conv": "conv2"}[half] + "." + rest[0]
    if rest[0] in ("conv_in", "norm_out", "conv_out"):
        return f"{half}.{ {'conv_in': 'conv1', 'norm_out': 'head.0', 'conv_out': 'head.2'}[rest[0]]}.{rest[1]}"
    if rest[0] == "mid_block":
        if rest[1] == "attentions":
            return f"{half}.middle.1." + ".".join(rest[3:])
        return f"{half}.middle.{2 * int(rest[2])}.{RES[rest[3]]}." + ".".join(rest[4:])
    levels = {"down_blocks": "downsamples", "up_blocks": "upsamples"}[rest[0]]
    if rest[2] == "resnets":
        return f"{half}.{levels}.{rest[1]}.{levels}.{rest[3]}.{RES[rest[4]]}." + ".".join(rest[5:])
    assert rest[2] in ("downsampler", "upsampler"), name
    last = {"downsampler": 2, "upsampler": 3}[rest[2]]
    return f"{half}.{levels}.{rest[1]}.{levels}.{last}." + ".".join(rest[3:])


# From the config of Wan-AI/Wan2.2-TI2V-5B-Diffusers (encoders.md 2.3).
MEAN = [-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
        -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
        0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
        0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667]
STD = [0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
       0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
       0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
       0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744]


def make_z48(base, decoder_base, z):
    known = z == 48
    vae = AutoencoderKLWan(base_dim=base, decoder_base_dim=decoder_base, z_dim=z, dim_mult=[1, 2, 4, 4],
                           num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True], is_residual=True,
                           in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
                           latents_mean=MEAN if known else [0.0] * z, latents_std=STD if known else [1.0] * z)
    vae = vae.float().eval()
    state = {k: torch.from_numpy(weight(original_name(k), tuple(v.shape))) for k, v in vae.state_dict().items()}
    vae.load_state_dict(state)
    return vae


def statistics(vae, z):
    return (torch.tensor(vae.config.latents_mean, dtype=torch.float64).view(1, z, 1, 1, 1),
            torch.tensor(vae.config.latents_std, dtype=torch.float64).view(1, z, 1, 1, 1))


@torch.no_grad()
def golden(name, base, decoder_base, z, height, width, out):
    vae = make_z48(base, decoder_base, z)
    mean, std = statistics(vae, z)
    latents = torch.from_numpy(fill(f"{name}.latents", (1, z, 5, height, width)))
    pixels = torch.from_numpy(fill(f"{name}.pixels", (1, 3, 17, 16 * height, 16 * width)))
    scaled = (latents.double() * std + mean).float()
    decoded = vae.decode(scaled).sample
    encoded = ((vae.encode(pixels).latent_dist.mode().double() - mean) / std).float()
    for t in (1, 2, 3):
        part = vae.decode(scaled[:, :, :t]).sample
        assert torch.allclose(part, decoded[:, :, : 4 * t - 3], atol=1e-5), t
        part = ((vae.encode(pixels[:, :, : 4 * t - 3]).latent_dist.mode().double() - mean) / std).float()
        assert torch.allclose(part, encoded[:, :, :t], atol=1e-4), t
    assert decoded.abs().max() < 1, "clamped: nothing would be compared"
    print(name, "decoded", tuple(decoded.shape), float(decoded.std()), "encoded", tuple(encoded.shape), float(encoded.std()))
    out[f"{name}.decoded"] = decoded[0].permute(1, 2, 3, 0).contiguous().numpy()  # [F, H, W, 3]
    out[f"{name}.encoded"] = encoded[0].contiguous().numpy()  # [z, T, h, w]


def spans(length, size, stride):
    """Tiles along one axis."""
    found = []
    for begin in range(0, length, stride):
        if begin >= stride and begin - stride + size >= length:
            continue
        found.append((begin, min(begin + size, length)))
    return found


def mask(begin, end, length, border, scale):
    weights = torch.ones((end - begin) * scale)
    ramp = (torch.arange(border * scale) + 1) / (border * scale)
    if begin > 0:
        weights[: border * scale] = ramp
    if end < length:
        weights[-border * scale:] = torch.minimum(weights[-border * scale:], ramp.flip(0))
    return weights


def blend(length, size, stride, scale, run, channels, frames):
    height, width = length
    total = torch.zeros(channels, frames, height * scale, width * scale)
    weight_sum = torch.zeros(height * scale, width * scale)
    for top, bottom in spans(height, size[0], stride[0]):
        for left, right in spans(width, size[1], stride[1]):
            rows = mask(top, bottom, height, size[0] - stride[0], scale)
            columns = mask(left, right, width, size[1] - stride[1], scale)
            weights = torch.minimum(rows[:, None], columns[None, :])
            at = (slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            total[:, :, at[0], at[1]] += run(top, bottom, left, right) * weights
            weight_sum[at] += weights
    return total / weight_sum


@torch.no_grad()
def tiled(out):
    """The small config of make.py on a grid that three by three tiles cover, the last ones cut short."""
    z, size, stride, height, width, scale = 4, (4, 5), (2, 3), 7, 10, 8
    vae = make_model(8, z)
    latents = torch.from_numpy(fill("tiled.latents", (1, z, 2, height, width)))
    pixels = torch.from_numpy(fill("tiled.pixels", (1, 3, 5, scale * height, scale * width)))
    decoded = blend((height, width), size, stride, scale,
                    lambda t, b, l, r: vae.decode(latents[:, :, :, t:b, l:r]).sample[0], 3, 5)
    encoded = blend((height, width), size, stride, 1,
                    lambda t, b, l, r: vae.encode(pixels[:, :, :, scale * t:scale * b, scale * l:scale * r])
                    .latent_dist.mode()[0], z, 2)
    assert decoded.abs().max() < 1
    out["tiled.decoded"] = decoded.permute(1, 2, 3, 0).contiguous().numpy()
    out["tiled.encoded"] = encoded.contiguous().numpy()


if __name__ == "__main__":
    torch.set_num_threads(2)
    outputs = {}
    golden("a", 8, 16, 6, 2, 3, outputs)
    golden("b", 10, 12, 5, 3, 1, outputs)
    golden("c", 16, 24, 48, 1, 2, outputs)
    tiled(outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "z48.safetensors")
