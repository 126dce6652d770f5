#!/usr/bin/env python3
"""Goldens of the image encoder from transformers' CLIPVisionModel, and of its preparation from torch.

    pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes vision.safetensors beside itself

Weights and pictures are the name-seeded fill of tests/worker/fill.h, so the fixture holds shapes and outputs. The model runs
in f64, the preparations in f32 as they do in the originals.
"""
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


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
    """Scales of fan-in, gammas around one, nothing at a value that hides a mistake (fill_scaled of the test)."""
    values = fill(name, shape)
    if name.endswith(".weight") and "norm" in name:
        return np.float32(1) + np.float32(0.3) * values
    if name.endswith(".bias"):
        return np.float32(0.1) * values
    if len(shape) == 1:
        return values
    return np.float32(np.sqrt(3.0 / int(np.prod(shape[1:])))) * values


def published(key):
    """transformers 4 and every file: the tower's names begin with vision_model."""
    return key if key.startswith(("vision_model.", "visual_projection.")) else "vision_model." + key


def make_model(c):
    config = CLIPVisionConfig(
        hidden_size=c["width"], intermediate_size=c["ffn"], num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
        image_size=c["patch"] * c["grid"], patch_size=c["patch"], hidden_act="gelu", layer_norm_eps=1e-5, projection_dim=8)
    model = (CLIPVisionModelWithProjection if c["projected"] else CLIPVisionModel)(config).eval()
    model.load_state_dict({k: torch.from_numpy(weight(published(k), tuple(v.shape))) if v.is_floating_point() else v
                           for k, v in model.state_dict().items()})
    return model.double()


def wan(image, size):
    """Wan: the picture in [-1, 1], torch's bicubic straight to the model's size."""
    x = torch.nn.functional.interpolate((2 * image - 1)[None], size=(size, size), mode="bicubic", align_corners=False)[0]
    return (x * 0.5 + 0.5 - MEAN) / STD


def comfy(image, size, crop):
    """ComfyUI's clip_preprocess."""
    image = image[None]
    if image.shape[2] != size or image.shape[3] != size:
        scale = size / min(image.shape[2], image.shape[3])
        to = (round(scale * image.shape[2]), round(scale * image.shape[3])) if crop else (size, size)
        image = torch.nn.functional.interpolate(image, size=to, mode="bicubic", antialias=True)
        top, left = (image.shape[2] - size) // 2, (image.shape[3] - size) // 2
        image = image[:, :, top:top + size, left:left + size]
    return ((torch.clip(255.0 * image, 0, 255).round() / 255.0)[0] - MEAN) / STD


def picture(name, height, width):
    return torch.from_numpy(np.float32(0.5) + np.float32(0.5) * fill(name, (3, height, width)))


@torch.no_grad()
def golden(name, c, out):
    size = c["patch"] * c["grid"]
    pixels = wan(picture(f"{name}.pixels", c["height"], c["width_pixels"]), size)
    hidden = make_model(c)(pixels.double()[None], output_hidden_states=True).hidden_states
    assert len(hidden) == c["layers"] + 1
    clip = hidden[-2][0]
    print(name, c, tuple(clip.shape), "std", float(clip.std()))
    out[f"{name}.shape"] = np.array([c[k] for k in SHAPE], np.float32)
    out[f"{name}.clip"] = clip.float().contiguous().numpy()


SHAPE = ["width", "ffn", "layers", "heads", "patch", "grid", "height", "width_pixels"]
CONFIGS = [
    dict(width=48, ffn=80, layers=4, heads=3, patch=7, grid=3, height=37, width_pixels=53, projected=0),
    dict(width=33, ffn=71, layers=3, heads=3, patch=5, grid=4, height=11, width_pixels=9, projected=1),
    dict(width=80, ffn=160, layers=3, heads=1, patch=14, grid=2, height=28, width_pixels=28, projected=0),
]
# Heights, widths and the side they become: larger, smaller, one of each, as it is, a picture of one row.
PICTURES = [(37, 53, 21), (9, 13, 30), (8, 41, 17), (19, 19, 19), (1, 23, 7), (23, 7, 7)]

if __name__ == "__main__":
    torch.set_num_threads(2)
    outputs = {}
    for index, config in enumerate(CONFIGS):
        golden(f"random-{index}", config, outputs)
    for index, (height, width, size) in enumerate(PICTURES):
        image = picture(f"picture-{index}", height, width)
        outputs[f"picture-{index}.shape"] = np.array([height, width, size], np.float32)
        outputs[f"picture-{index}.wan"] = wan(image, size).contiguous().numpy()
        outputs[f"picture-{index}.comfy"] = comfy(image, size, True).contiguous().numpy()
        outputs[f"picture-{index}.comfy-stretch"] = comfy(image, size, False).contiguous().numpy()
    save_file(outputs, pathlib.Path(__file__).parent / "vision.safetensors")
