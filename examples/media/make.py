#!/usr/bin/env python3
"""Draws and speaks the inputs of the examples: a portrait, its face, a figure that waves, two seconds of a voice.

Made with Python 3.11, Pillow 13.0.0. Run here; the files it writes are committed beside it.
"""
import json
import math
import struct
import wave

from PIL import Image, ImageDraw


def portrait(width, height, mouth):
    """A head and shoulders before a wall; `mouth` from 0, shut, to 1."""
    scale = 4
    picture = Image.new("RGB", (width * scale, height * scale))
    draw = ImageDraw.Draw(picture)
    w, h = picture.size
    for y in range(h):
        share = y / h
        draw.line((0, y, w, y), fill=(int(90 + 70 * share), int(120 + 30 * share), int(150 - 60 * share)))

    def oval(x, y, rx, ry, fill):
        draw.ellipse(((x - rx) * w, y * h - ry * w, (x + rx) * w, y * h + ry * w), fill=fill)

    oval(0.5, 1.15, 0.26, 0.22, (60, 70, 120))
    oval(0.5, 0.40, 0.145, 0.16, (70, 45, 30))
    oval(0.5, 0.50, 0.12, 0.15, (224, 172, 140))
    for side in (-1, 1):
        oval(0.5 + 0.045 * side, 0.46, 0.018, 0.012, (250, 250, 250))
        oval(0.5 + 0.045 * side, 0.46, 0.008, 0.008, (40, 60, 40))
    oval(0.5, 0.66, 0.04, 0.006 + 0.022 * mouth, (150, 50, 60))
    return picture.resize((width, height), Image.LANCZOS)


def waving(frame, count, width, height):
    """133 points (COCO-WholeBody) of a standing figure whose left arm waves; what is not drawn scores 0."""
    angle = math.radians(-50 - 35 * math.cos(2 * math.pi * frame / (2 * count)))
    shoulder = (0.57, 0.36)
    elbow = (shoulder[0] + 0.09, shoulder[1] + 0.10)
    wrist = (elbow[0] + 0.10 * math.cos(angle), elbow[1] + 0.22 * math.sin(angle))
    body = [(0.50, 0.22), (0.51, 0.20), (0.49, 0.20), (0.53, 0.21), (0.47, 0.21), shoulder, (0.43, 0.36), elbow,
            (0.38, 0.50), wrist, (0.36, 0.64), (0.55, 0.62), (0.45, 0.62), (0.55, 0.78), (0.45, 0.78), (0.55, 0.94),
            (0.45, 0.94), (0.57, 0.97), (0.56, 0.97), (0.54, 0.96), (0.43, 0.97), (0.44, 0.97), (0.46, 0.96)]
    values = []
    for x, y in body:
        values += [round(x * width), round(y * height), 1]
    return values + [0] * (3 * 133 - len(values))


def voice(path, seconds, rate):
    """A vowel that rises and falls four times a second: a saw of 120 Hz through two resonances; 8 bits."""
    state = [[0.0, 0.0], [0.0, 0.0]]
    samples = []
    for i in range(int(seconds * rate)):
        t = i / rate
        value = 2 * ((120 + 15 * math.sin(5 * t)) * t % 1) - 1
        for memory, (hertz, width) in zip(state, ((650, 90), (1150, 120))):
            r = math.exp(-math.pi * width / rate)
            value = (1 - r) * value + 2 * r * math.cos(2 * math.pi * hertz / rate) * memory[0] - r * r * memory[1]
            memory[1], memory[0] = memory[0], value
        samples.append(value * max(0.0, math.sin(2 * math.pi * 2 * t)))
    peak = max(abs(s) for s in samples)
    with wave.open(path, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(rate)
        out.writeframes(b"".join(struct.pack("B", int(128 + 120 * s / peak)) for s in samples))


portrait(256, 192, 0.1).quantize(64).save("portrait.png", optimize=True)
faces = [portrait(256, 192, k / 5).crop((80, 40, 176, 136)).resize((64, 64), Image.LANCZOS) for k in range(6)]
faces[0].save("face.gif", save_all=True, append_images=faces[1:], duration=60, loop=0)
with open("wave.json", "w", encoding="ascii") as out:
    json.dump({"width": 320, "height": 240, "frames": [waving(k, 12, 320, 240) for k in range(12)]}, out,
              separators=(",", ":"))
    out.write("\n")
voice("voice.wav", 2, 8000)
