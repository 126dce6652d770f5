#!/usr/bin/env python3
"""Goldens of the audio encoder from transformers' Wav2Vec2Model, and of loudness from pyloudnorm.

    pip install torch==2.13.0 transformers==5.24.0 pyloudnorm==0.2.0 scipy==1.17.1 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes audio.safetensors beside itself

The features of the convolutions are resampled to the video's frames before the projection, as MultiTalk's subclass does it:
one linear interpolation (align_corners) put behind the model's own feature extractor. Weights and samples are the
name-seeded fill of tests/worker/fill.h, so the fixture holds shapes and outputs. Weights and audio model run in f64.
"""
import pathlib

import numpy as np
import pyloudnorm
import torch
from safetensors.numpy import save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

RATE, FPS = 16000, 25


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
    if name.endswith(".original0") or (name.endswith(".weight") and "norm" in name):
        return np.float32(1) + np.float32(0.3) * values
    if name.endswith(".bias"):
        return np.float32(0.1) * values
    return np.float32(np.sqrt(3.0 / int(np.prod(shape[1:])))) * values


def make_model(c):
    model = Wav2Vec2Model(Wav2Vec2Config(
        hidden_size=c["width"], num_hidden_layers=c["layers"], num_attention_heads=c["heads"], intermediate_size=c["ffn"],
        conv_dim=(c["conv"],) * 7, num_conv_pos_embeddings=c["taps"], num_conv_pos_embedding_groups=c["groups"],
        feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False, apply_spec_augment=False, layerdrop=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0)).eval()
    model.load_state_dict({k: torch.from_numpy(weight(k, tuple(v.shape))) if v.is_floating_point() else v
                           for k, v in model.state_dict().items()})
    return model.double()


class Resampled(torch.nn.Module):
    """MultiTalk: F.interpolate(features, size=seq_len, align_corners=True, mode="linear")."""

    def __init__(self, extractor, frames):
        super().__init__()
        self.extractor, self.frames = extractor, frames

    def forward(self, samples):
        return torch.nn.functional.interpolate(self.extractor(samples), size=self.frames, align_corners=True, mode="linear")


def normalised(samples):
    """MultiTalk's loudness_norm: -23 LUFS; silence as it is. Shorter than a block: the original raises, we leave it."""
    if len(samples) < 0.4 * RATE:
        return samples, float("nan")
    lufs = pyloudnorm.Meter(RATE).integrated_loudness(samples.astype(np.float64))
    if abs(lufs) > 100:
        return samples, lufs
    return (samples * 10.0 ** ((-23.0 - lufs) / 20.0)).astype(np.float32), lufs


def tones(name, count):
    """Noise with a slow swell: loud and quiet blocks, and an offset that a high pass must remove."""
    swell = 0.55 + 0.45 * np.sin(np.arange(count) * 0.0004)
    return (0.2 * swell * fill(name, (count,)) + 0.01).astype(np.float32)


@torch.no_grad()
def golden(name, c, out):
    model = make_model(c)
    samples, lufs = normalised(tones(f"{name}.samples", c["count"]))
    values = Wav2Vec2FeatureExtractor(do_normalize=bool(c["normalize"]))(samples, sampling_rate=RATE).input_values[0]
    frames = int(c["count"] / RATE * FPS)
    model.feature_extractor = Resampled(model.feature_extractor, frames)
    hidden = model(torch.from_numpy(np.asarray(values)).double()[None], output_hidden_states=True).hidden_states
    stacked = torch.stack(hidden[1:], dim=1)[0].permute(1, 0, 2)  # [frames, layers, width]
    print(name, c, "LUFS", lufs, tuple(stacked.shape), "std", float(stacked.std()))
    out[f"{name}.shape"] = np.array([c[k] for k in SHAPE], np.float32)
    out[f"{name}.audio"] = stacked.float().contiguous().numpy()


SHAPE = ["width", "ffn", "layers", "heads", "conv", "taps", "groups", "normalize", "count"]
CONFIGS = [
    dict(width=48, ffn=96, layers=3, heads=4, conv=24, taps=128, groups=16, normalize=0, count=16000),
    dict(width=36, ffn=75, layers=2, heads=3, conv=17, taps=15, groups=4, normalize=1, count=7777),
    dict(width=40, ffn=64, layers=2, heads=5, conv=21, taps=32, groups=5, normalize=0, count=61235),
]

# Loudness: (seconds or samples, amplitude); tests/common/loudness_test.c makes the same signals.
LOUDNESS = {
    "plain": lambda: (0.3 * fill("loudness.plain", (32000,))).astype(np.float32),
    "odd": lambda: tones("loudness.odd", 12347),
    "gated": lambda: np.concatenate([(0.5 * fill("loudness.gated", (20001,))).astype(np.float32),
                                     (0.0005 * fill("loudness.hush", (30011,))).astype(np.float32)]),
    "clipping": lambda: (np.float32(3) * np.sign(fill("loudness.clipping", (9000,)))).astype(np.float32),
    "silence": lambda: np.zeros(16000, np.float32),
    "faint": lambda: (1e-5 * fill("loudness.faint", (16000,))).astype(np.float32),
    "block": lambda: (0.1 * fill("loudness.block", (6400,))).astype(np.float32),
}

if __name__ == "__main__":
    torch.set_num_threads(2)
    outputs = {}
    for index, config in enumerate(CONFIGS):
        golden(f"random-{index}", config, outputs)
    for name, make in LOUDNESS.items():
        lufs = pyloudnorm.Meter(RATE).integrated_loudness(make().astype(np.float64))
        print("loudness", name, lufs)
        outputs[f"loudness.{name}"] = np.array([lufs], np.float64)
    save_file(outputs, pathlib.Path(__file__).parent / "audio.safetensors")
