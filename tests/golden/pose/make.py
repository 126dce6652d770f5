#!/usr/bin/env python3
"""Goldens of the pose drawing: OpenCV's own shapes, put together as encoders.md 10.1 says.

    pip install opencv-python-headless==4.14.0 numpy==2.4.6 safetensors==0.8.0
    python make.py            # writes pose.safetensors beside itself

For each canvas: `points.WxH` f32 [133, 3] (x, y, score), and the pixels that are not black: `at.WxH` i32 [n] their
numbers, `rgb.WxH` u8 [n, 3]; `face.WxH` i32 [4] the box x0, y0, x1, y1.
"""
import colorsys
import math
import pathlib

import cv2
import numpy as np
from safetensors.numpy import save_file

A = [0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 20]
B = [0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 18, 21]
LIMBS = [(2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1),
         (1, 15), (15, 17), (1, 16), (16, 18), (14, 19), (11, 20)]
COLORS = [(255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
          (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
          (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85), (200, 200, 0), (100, 100, 0)]
FINGERS = [(0 if k == 0 else 4 * f + k, 4 * f + k + 1) for f in range(5) for k in range(4)]


def draw(points, w, h):
    canvas = np.zeros((h, w, 3), np.uint8)
    stick = max(int(min(h, w) / 200) - 1, 1)
    hand_stick = max(stick // 2, 1)
    body = (points[A].astype(np.float64) + points[B]) / 2
    for (a, b), color in zip(LIMBS, COLORS):
        p, q = body[a - 1], body[b - 1]
        if p[2] < 0.5 or q[2] < 0.5:
            continue
        length = math.hypot(p[0] - q[0], p[1] - q[1])
        angle = math.degrees(math.atan2(p[1] - q[1], p[0] - q[0]))
        polygon = cv2.ellipse2Poly((int((p[0] + q[0]) / 2), int((p[1] + q[1]) / 2)), (int(length / 2), stick),
                                   int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, polygon, [int(c * 0.6) for c in color])
    for p, color in zip(body, COLORS):
        if p[2] >= 0.5:
            cv2.circle(canvas, (int(p[0]), int(p[1])), stick, color, thickness=-1)
    for first in (91, 112):
        hand = points[first:first + 21].astype(np.float64)
        seen = (hand[:, 2] >= 0.5) & (hand[:, 0] > 0.01) & (hand[:, 1] > 0.01)
        for e, (a, b) in enumerate(FINGERS):
            if seen[a] and seen[b]:
                color = [c * 255 for c in colorsys.hsv_to_rgb(e / 20, 1.0, 1.0)]
                cv2.line(canvas, (int(hand[a][0]), int(hand[a][1])), (int(hand[b][0]), int(hand[b][1])), color,
                         thickness=hand_stick)
        for p, s in zip(hand, seen):
            if s:
                cv2.circle(canvas, (int(p[0]), int(p[1])), hand_stick, (0, 0, 255), thickness=-1)
    return canvas


def face_box(points, w, h):
    x, y = points[23:91, 0].astype(np.float64), points[23:91, 1].astype(np.float64)
    w0, h0 = x.max() - x.min(), y.max() - y.min()
    dw, dh = (w0 * math.sqrt(1.3) - w0) / 2, (h0 * math.sqrt(1.3) - h0) / 4
    return [int(max(x.min() - dw, 0)), int(max(y.min() - 3 * dh, 0)), int(min(x.max() + dw, w)),
            int(min(y.max() + dh, h))]


out = {}
for w, h in ((300, 420), (640, 620), (1000, 1010)):
    rng = np.random.default_rng(w)
    points = np.empty((133, 3), np.float32)
    points[:, 0] = w * (0.3 + 0.4 * rng.random(133))
    points[:, 1] = h * (0.3 + 0.4 * rng.random(133))
    points[:, 2] = rng.choice([0.3, 0.5, 0.9], 133, p=[0.1, 0.2, 0.7])
    points[91:112, :2] = points[9, :2] + w * 0.1 * rng.random((21, 2))
    points[112:, :2] = points[10, :2] + w * 0.1 * rng.random((21, 2))
    points[4, :2] = (-0.02 * w, 0.5 * h)  # an ear beyond the edge
    picture = draw(points, w, h).reshape(-1, 3)
    at = np.flatnonzero(picture.any(1)).astype(np.int32)
    key = f"{w}x{h}"
    out |= {f"points.{key}": points, f"at.{key}": at, f"rgb.{key}": picture[at],
            f"face.{key}": np.array(face_box(points, w, h), np.int32)}
save_file(out, pathlib.Path(__file__).with_name("pose.safetensors"))
print({name: value.shape for name, value in out.items()})
