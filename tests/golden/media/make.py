#!/usr/bin/env python3
"""Goldens of the picture arithmetic: Pillow, OpenCV, torch, scikit-image and color-matcher on the same pictures.

    pip install torch==2.13.0 numpy==2.4.6 pillow==13.0.0 opencv-python-headless==4.14.0 scikit-image==0.26.0 \
        color-matcher==0.6.0 soxr==1.1.0 safetensors==0.8.0     # and their dependencies
    python make.py            # writes media.safetensors beside itself

Pictures are the integer pattern of tests/coordinator/picture.h, so that the fixture holds results only.
"""
import pathlib

import cv2
import numpy as np
import soxr
import torch
from color_matcher import ColorMatcher
from PIL import Image
from safetensors.numpy import save_file
from skimage.color import lab2rgb, rgb2lab

cv2.setNumThreads(1)
cv2.ipp.setUseIPP(False)  # the formulas of OpenCV's own sources; IPP's differ by one in places


def picture(width, height, seed):
    """u8 [H, W, 3]: two ramps, a disc with hard edges, noise; as picture_fill in picture.h."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = ((x * 7919 + y * 104729 + c * 1299709 + seed * 15485863) * 2654435761 % 2**32) >> 27
    disc = ((2 * x - width) ** 2 + (2 * y - height) ** 2 < (min(width, height) * 3 // 4) ** 2) * (60 + 50 * c)
    value = x * 120 // width * (c != 1) + y * 90 // height * (c != 0) + disc + noise + seed * 10
    return np.clip(value, 0, 255).astype(np.uint8)


SIZES = [(37, 29, 16, 12), (37, 29, 61, 50), (64, 48, 32, 24), (64, 48, 16, 16), (50, 40, 33, 40), (23, 17, 23, 40),
         (40, 30, 13, 29), (8, 8, 1, 1), (1, 1, 5, 7), (90, 60, 30, 20)]
PIL = {"pil_bilinear": Image.BILINEAR, "pil_bicubic": Image.BICUBIC, "pil_lanczos": Image.LANCZOS}
TORCH = {"nearest": {"mode": "nearest"}, "nearest_exact": {"mode": "nearest-exact"}, "bilinear": {"mode": "bilinear"},
         "bicubic": {"mode": "bicubic"}, "bicubic_antialias": {"mode": "bicubic", "antialias": True},
         "area": {"mode": "area"}}


def resizes(out):
    for w, h, ow, oh in SIZES:
        p = picture(w, h, 1)
        key = f"{w}x{h}.{ow}x{oh}"
        for name, filter in PIL.items():
            out[f"{name}.{key}"] = np.asarray(Image.fromarray(p).resize((ow, oh), filter))
        out[f"cv_linear.{key}"] = cv2.resize(p, (ow, oh), interpolation=cv2.INTER_LINEAR)
        if ow <= w and oh <= h:
            out[f"cv_area.{key}"] = cv2.resize(p, (ow, oh), interpolation=cv2.INTER_AREA)
        t = torch.from_numpy(p.astype(np.float32) / 255).permute(2, 0, 1)[None]
        for name, options in TORCH.items():
            out[f"{name}.{key}"] = torch.nn.functional.interpolate(t, (oh, ow), **options)[0].numpy()


def reinhard(source, reference):
    """Lab mean and deviation, as the talk pipelines do it on scikit-image."""
    s, r = rgb2lab(source / 255.0), rgb2lab(reference / 255.0)
    axes = (0, 1)
    deviation = np.maximum(s.std(axes), 1e-6)
    return lab2rgb((s - s.mean(axes)) / deviation * r.std(axes) + r.mean(axes))


def colours(out):
    for i, (a, b) in enumerate([(2, 6), (5, 1), (3, 3)]):
        source, reference = picture(24, 20, a), picture(31, 17, b)[:, :, ::-1].copy()
        out[f"reinhard.{i}"] = reinhard(source, reference).astype(np.float32)
        out[f"mkl.{i}"] = ColorMatcher().transfer(src=source / 255.0, ref=reference / 255.0, method="mkl").astype(
            np.float32)


def i2v_size(w, h, area):
    """Wan's image2video: the floor divisions as Python's."""
    aspect = h / w
    lat_h = round(np.sqrt(area * aspect) // 8 // 2 * 2)
    lat_w = round(np.sqrt(area / aspect) // 8 // 2 * 2)
    return lat_w * 8, lat_h * 8


def best_output_size(w, h, area=704 * 1280, dw=32, dh=32):
    ratio = w / h
    ow = (area * ratio) ** 0.5
    oh = area / ow
    ow1 = int(ow // dw * dw)
    oh1 = int(area / ow1 // dh * dh)
    oh2 = int(oh // dh * dh)
    ow2 = int(area / oh2 // dw * dw)
    r1, r2 = ow1 / oh1, ow2 / oh2
    return (ow1, oh1) if max(ratio / r1, r1 / ratio) < max(ratio / r2, r2 / ratio) else (ow2, oh2)


def by_area(w, h, area=720 * 1280):
    """Every allowed pair, sorted as the original sorts them."""
    ratio = w / h
    top = -(-int(np.sqrt(area / ratio)) // 16) * 16
    found = []
    for oh in range(16, top + 16, 16):
        ideal = oh * ratio
        for ow in (64 * (ideal // 64), 64 * ((ideal + 63) // 64)):
            if ow > 0 and ow * oh <= area:
                found.append((ow, oh, abs(ow / oh - ratio)))
    found.sort(key=lambda f: (-f[0] * f[1], f[2]))
    return int(found[0][0]), int(found[0][1])


IMAGES = [(1280, 720), (720, 1280), (1920, 1080), (1000, 1000), (640, 481), (333, 777), (4000, 1000), (512, 768),
          (1023, 577), (2, 3)]


def sizes(out):
    rules = [lambda w, h: i2v_size(w, h, 480 * 832), lambda w, h: i2v_size(w, h, 720 * 1280), best_output_size, by_area]
    out["sizes"] = np.array([[rule(w, h) for rule in rules] for w, h in IMAGES], np.int32)


def letterbox(p, ow, oh, interpolation):
    h, w = p.shape[:2]
    canvas = np.zeros((oh, ow, 3), np.uint8)
    if h / w > oh / ow:
        iw = int(oh / h * w)
        left = int((ow - iw) / 2)
        canvas[:, left:left + iw] = cv2.resize(p, (iw, oh), interpolation=interpolation)
    else:
        ih = int(ow / w * h)
        top = int((oh - ih) / 2)
        canvas[top:top + ih] = cv2.resize(p, (ow, ih), interpolation=interpolation)
    return canvas


def cover(p, tw, th, talk):
    h, w = p.shape[:2]
    scale = max(th / h, tw / w)
    if talk:
        size = (int(np.ceil(scale * w)), int(np.ceil(scale * h)))
        left, top = int(round((size[0] - tw) / 2.0)), int(round((size[1] - th) / 2.0))
    else:
        size = (round(w * scale), round(h * scale))
        left, top = (size[0] - tw) // 2, (size[1] - th) // 2
    filter = Image.BILINEAR if talk else Image.LANCZOS
    return np.asarray(Image.fromarray(p).resize(size, filter))[top:top + th, left:left + tw]


def halves(w, h, margin):
    masks = np.zeros((3, h, w), np.float32)
    top, bottom = int(h * margin), int(h * (1 - margin))
    masks[0, top:bottom, int(w // 2 * margin):int(w // 2 * (1 - margin))] = 1
    masks[1, top:bottom, int(w // 2 * margin + w // 2):int(w // 2 * (1 - margin) + w // 2)] = 1
    masks[2] = (masks[0] + masks[1]) == 0
    return masks


def fit_masks(masks, tw, th, gw, gh):
    h, w = masks.shape[1:]
    scale = max(th / h, tw / w)
    t = torch.from_numpy(masks)[None]
    size = (int(np.ceil(scale * h)), int(np.ceil(scale * w)))
    t = torch.nn.functional.interpolate(t, size, mode="nearest")
    top, left = int(round((size[0] - th) / 2.0)), int(round((size[1] - tw) / 2.0))
    t = torch.nn.functional.interpolate(t[..., top:top + th, left:left + tw], (gh, gw), mode="nearest")
    return (t[0] > 0).float().numpy()


def fits(out):
    wide, high = picture(90, 40, 2), picture(31, 70, 3)
    for name, p in (("wide", wide), ("high", high)):
        out[f"letterbox.linear.{name}"] = letterbox(p, 48, 48, cv2.INTER_LINEAR)
        out[f"letterbox.area.{name}"] = letterbox(p, 29, 27, cv2.INTER_AREA)
        out[f"cover.talk.{name}"] = cover(p, 33, 28, True)
        out[f"cover.image.{name}"] = cover(p, 33, 28, False)
    out["crop"] = cv2.resize(wide[5:31, 40:81], (64, 64), interpolation=cv2.INTER_LINEAR)
    out["halves"] = halves(97, 51, 0.05)
    out["halves.wide"] = halves(97, 51, 0.10)
    out["halves.fit"] = fit_masks(out["halves"], 64, 48, 8, 6)
    mask = torch.arange(9, dtype=torch.float32)[:, None, None] * 10 + torch.arange(6.0).view(2, 3)
    packed = torch.cat([mask[:1].repeat_interleave(4, 0), mask[1:]]).view(3, 4, 2, 3).transpose(0, 1)
    out["packed"] = packed.numpy()
    m = (picture(50, 40, 0)[:, :, 0] >= 128).astype(np.float32)
    out["background"] = torch.nn.functional.interpolate(
        torch.from_numpy(1 - m)[None, None], (5, 7), mode="nearest")[0, 0].numpy()


def voices(out):
    """The tones of tests/coordinator/media_file.h on two channels, their mean at 16 kHz as librosa's soxr_hq."""
    for rate in (22050, 44100, 48000):
        t = np.arange(rate // 5) / rate
        tones = [(0.5 * np.sin(2 * np.pi * 440 * (c + 1) * t)).astype(np.float32) for c in range(2)]
        out[f"voice.{rate}"] = soxr.resample(((tones[0] + tones[1]) / 2).astype(np.float32), rate, 16000, quality="HQ")


out = {}
resizes(out)
colours(out)
sizes(out)
fits(out)
voices(out)
out = {name: np.ascontiguousarray(value) for name, value in out.items()}
save_file(out, pathlib.Path(__file__).with_name("media.safetensors"))
print(len(out), "tensors")
