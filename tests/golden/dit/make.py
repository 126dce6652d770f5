#!/usr/bin/env python3
"""Goldens of the Wan transformers from diffusers' WanTransformer3DModel and WanAnimateTransformer3DModel, in random small
shapes: text to video, image to video (2.1 and FLF2V), TI2V with a timestep for each latent frame, Animate; and of the
options that diffusers does not have, put into its model here: NAG, RIFLEx, memory frames, skipped blocks.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python make.py            # writes dit.safetensors beside itself

Weights and inputs are the name-seeded fill of dit.md 8.1 (tests/worker/fill.h), so the fixture holds shapes and outputs.
The motion encoder's weights are 2.5 times the fill: at a tenth of it no face would be seen behind the biases.
Computed in f64: what differs is the reader's arithmetic. Text rows are padded with zeros to text_len, as Wan does.
"""
import math
import pathlib
import random

import numpy as np
import torch
from diffusers import WanAnimateTransformer3DModel, WanTransformer3DModel
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
    if name.startswith("motion_encoder.") and name.endswith(".weight"):
        return np.float32(2.5) * fill(name, shape)
    values = np.float32(0.1) * fill(name, shape)
    scale = name.endswith(".weight") and "norm" in name or name in ("img_emb.proj.0.weight", "img_emb.proj.4.weight")
    return np.float32(1) + values if scale else values


RENAMES = [
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    (".attn1.", ".self_attn."), (".attn2.", ".cross_attn."),
    (".to_q.", ".q."), (".to_k.", ".k."), (".to_v.", ".v."), (".to_out.0.", ".o."),
    (".add_k_proj.", ".k_img."), (".add_v_proj.", ".v_img."), (".norm_added_k.", ".norm_k_img."),
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    ("condition_embedder.image_embedder.norm1.", "img_emb.proj.0."),
    ("condition_embedder.image_embedder.ff.net.0.proj.", "img_emb.proj.1."),
    ("condition_embedder.image_embedder.ff.net.2.", "img_emb.proj.3."),
    ("condition_embedder.image_embedder.norm2.", "img_emb.proj.4."),
    (".norm2.", ".norm3."), (".ffn.net.0.proj.", ".ffn.0."), (".ffn.net.2.", ".ffn.2."),
]


CONVS = "motion_encoder.enc.net_app.convs."


def motion_name(name, levels):
    """motion_encoder.* of diffusers as the original names it; levels: how often the face is halved."""
    parts = name.split(".")
    if parts[1] == "conv_in":
        return CONVS + ("0.0.weight" if parts[2] == "weight" else "0.1.bias")
    if parts[1] == "conv_out":
        return f"{CONVS}{levels + 1}.weight"
    if parts[1] == "motion_network":
        return "motion_encoder.enc.fc." + ".".join(parts[2:])
    if parts[1] == "motion_synthesis_weight":
        return "motion_encoder.dec.direction.weight"
    level, conv, what = int(parts[2]) + 1, parts[3], parts[4]
    place = {("conv1", "weight"): "conv1.0.weight", ("conv1", "act_fn"): "conv1.1.bias",
             ("conv2", "weight"): "conv2.1.weight", ("conv2", "act_fn"): "conv2.2.bias",
             ("conv_skip", "weight"): "skip.1.weight"}[conv, what]
    return f"{CONVS}{level}.{place}"


def face_adapter_weight(name, shape):
    """to_k and to_v are the halves of linear1_kv."""
    _, block, part, *rest = name.split(".")
    prefix = f"face_adapter.fuser_blocks.{block}."
    if part in ("to_k", "to_v"):
        both = weight(f"{prefix}linear1_kv.{rest[0]}", (2 * shape[0], *shape[1:]))
        return both[: shape[0]] if part == "to_k" else both[shape[0]:]
    part = {"to_q": "linear1_q", "to_out": "linear2", "norm_q": "q_norm", "norm_k": "k_norm"}[part]
    return weight(f"{prefix}{part}.{rest[0]}", shape)


def original_weight(name, shape, levels):
    if name.startswith("face_adapter."):
        return face_adapter_weight(name, shape)
    if name.startswith("motion_encoder."):
        return weight(motion_name(name, levels), shape)
    if name.startswith("face_encoder.conv"):
        return weight(name[: name.rindex(".")] + ".conv" + name[name.rindex("."):], shape)
    return weight(original_name(name), shape)


def original_name(name):
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    if name == "scale_shift_table":
        return "head.modulation"
    return name.replace("proj_out.", "head.head.").replace("scale_shift_table", "modulation")


def filled(model, levels=0):
    model = model.eval()
    model.load_state_dict({k: torch.from_numpy(original_weight(k, tuple(v.shape), levels))
                           for k, v in model.state_dict().items()})
    return model.double()


def double(name, *shape):
    return torch.from_numpy(fill(name, shape)).double()


def padded(name, c, rows):
    text = torch.zeros(1, c["text_len"], c["text_dim"], dtype=torch.float64)
    text[0, :rows] = double(name, rows, c["text_dim"])
    return text


def sizes(c):
    return dict(patch_size=(1, 2, 2), num_attention_heads=c["heads"], attention_head_dim=128, text_dim=c["text_dim"],
                freq_dim=c["freq_dim"], ffn_dim=c["ffn"], num_layers=c["layers"], cross_attn_norm=True,
                qk_norm="rms_norm_across_heads", eps=1e-6)


SHAPE = ["heads", "ffn", "layers", "text_dim", "freq_dim", "text_len", "rows", "frames", "height", "width", "timestep"]


def put(name, c, v, out, **more):
    print(name, c, "std", float(v.std()))
    out[f"{name}.shape"] = np.array([c[k] for k in SHAPE], np.float32)
    out[f"{name}.v"] = v[0].float().contiguous().numpy()
    for key, values in more.items():
        out[f"{name}.{key}"] = np.array(values, np.float32)


def draw_shape(draw):
    text_len = draw.randrange(4, 40)
    return {
        "heads": draw.randrange(1, 4), "ffn": 32 * draw.randrange(4, 24), "layers": draw.randrange(1, 5),
        "text_dim": 8 * draw.randrange(3, 20), "freq_dim": draw.choice([64, 128, 256]), "text_len": text_len,
        "rows": draw.randrange(1, text_len + 1), "frames": draw.randrange(1, 6), "height": 2 * draw.randrange(1, 7),
        "width": 2 * draw.randrange(1, 7), "timestep": draw.randrange(1, 1000)}


def model_of(c, channels=16):
    return filled(WanTransformer3DModel(in_channels=channels, out_channels=channels, **sizes(c)))


def latents(name, c, channels):
    return double(name, 1, channels, c["frames"], c["height"], c["width"])


def timestep_of(c):
    return torch.tensor([float(c["timestep"])], dtype=torch.float64)


def text_to_video(name, c, out):
    text = padded(f"{name}.text", c, c["rows"])
    v = model_of(c)(latents(f"{name}.x", c, 16), timestep_of(c), text, return_dict=False)[0]
    put(name, c, v, out)


def image_to_video(name, c, out, both_ends):
    """diffusers takes the 512 of text_len for granted as soon as there is a picture."""
    c["text_len"] = 512
    rows = 514 if both_ends else 257
    model = filled(WanTransformer3DModel(in_channels=36, out_channels=16, image_dim=1280,
                                         added_kv_proj_dim=128 * c["heads"],
                                         pos_embed_seq_len=514 if both_ends else None, **sizes(c)))
    x = torch.cat([latents(f"{name}.x", c, 16), latents(f"{name}.y", c, 20)], 1)
    clip = double(f"{name}.clip", 1, rows, 1280)
    if both_ends:  # the two pictures come one after the other
        clip = clip.reshape(2, 257, 1280)
    v = model(x, timestep_of(c), padded(f"{name}.text", c, c["rows"]), clip, return_dict=False)[0]
    put(name, c, v, out)


def frame_timesteps(name, c, draw, out):
    """TI2V: 48 channels, frame 0 known (timestep 0), the others at theirs."""
    c["frames"] = max(c["frames"], 2)
    steps = [0.0] + [float(c["timestep"])] * (c["frames"] - 1)
    if draw.random() < 0.5:  # as progressive schedules have them
        steps = [float(draw.randrange(0, 1000)) for _ in steps]
    tokens = c["height"] // 2 * (c["width"] // 2)
    each = torch.tensor(steps, dtype=torch.float64).repeat_interleave(tokens)[None]
    v = model_of(c, 48)(latents(f"{name}.x", c, 48), each, padded(f"{name}.text", c, c["rows"]), return_dict=False)[0]
    put(name, c, v, out, timesteps=steps)


def animate(name, c, draw, out):
    c["text_len"] = 512
    c["layers"] = draw.choice([5, 10])  # diffusers makes layers // 5 fusers and wants one for every fifth block
    c["heads"] = draw.randrange(1, 3)
    face = {"size": draw.choice([8, 16, 32]), "narrow": draw.randrange(3, 8), "wide": draw.randrange(8, 20),
            "motion_dim": draw.randrange(20, 50), "basis": draw.randrange(3, 12), "dim": draw.randrange(20, 60),
            "heads": draw.randrange(1, 5), "pixel_frames": draw.randrange(1, 14)}
    c["frames"] = (face["pixel_frames"] - 1) // 4 + 2
    levels = int(math.log2(face["size"])) - 2
    face["wide"] = min(face["narrow"] << levels, face["wide"])
    widths = {str(face["size"] >> i): min(face["narrow"] << i, face["wide"]) for i in range(levels + 1)}
    model = filled(WanAnimateTransformer3DModel(
        in_channels=36, latent_channels=16, out_channels=16, image_dim=1280, added_kv_proj_dim=128 * c["heads"],
        motion_encoder_channel_sizes=widths, motion_encoder_size=face["size"], motion_style_dim=face["motion_dim"],
        motion_dim=face["basis"], motion_encoder_dim=face["motion_dim"], face_encoder_hidden_dim=face["dim"],
        face_encoder_num_heads=face["heads"], **sizes(c)), levels)
    x = torch.cat([latents(f"{name}.x", c, 16), latents(f"{name}.y", c, 20)], 1)
    pose = double(f"{name}.pose", 1, 16, c["frames"] - 1, c["height"], c["width"])
    pixels = double(f"{name}.face", 1, 3, face["pixel_frames"], face["size"], face["size"])
    text, clip = padded(f"{name}.text", c, c["rows"]), double(f"{name}.clip", 1, 257, 1280)
    v = model(x.clone(), timestep_of(c), text, clip, pose, pixels, return_dict=False)[0]
    other = model(x.clone(), timestep_of(c), text, clip, pose, -pixels, return_dict=False)[0]
    print("    another face moves it by", float((v - other).norm() / v.norm()))
    put(name, c, v, out, face_shape=list(face.values()))


# -- options (dit.md 2.12) --------------------------------------------------------------------------------------------


class Nag:
    """The text cross-attention of WanAttnProcessor, led away from a second text."""

    def __init__(self, nag, scale, tau, alpha):
        self.nag, self.scale, self.tau, self.alpha = nag, scale, tau, alpha

    def attend(self, attn, query, context):
        key, value = attn.norm_k(attn.to_k(context)), attn.to_v(context)
        split = [x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)]
        return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        query = attn.norm_q(attn.to_q(hidden_states))
        positive, negative = self.attend(attn, query, encoder_hidden_states), self.attend(attn, query, self.nag)
        guided = self.scale * positive - (self.scale - 1) * negative
        before, after = positive.abs().sum(-1, keepdim=True), guided.abs().sum(-1, keepdim=True)
        ratio = torch.nan_to_num(after / before, nan=10.0)
        guided = torch.where(ratio > self.tau, guided * (before * self.tau / (after + 1e-7)), guided)
        return attn.to_out[0](self.alpha * guided + (1 - self.alpha) * positive)


class Rope(torch.nn.Module):
    """The model's rotation from positions and frequencies, so that both may be others."""

    def __init__(self, times, riflex_index, riflex_frames):
        super().__init__()
        self.times, self.index, self.frames = times, riflex_index, riflex_frames

    def forward(self, x):
        rows, columns = x.shape[3] // 2, x.shape[4] // 2
        angles = []
        for axis, positions, width in ((0, self.times, 44), (1, range(rows), 42), (2, range(columns), 42)):
            omega = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            if axis == 0 and self.index:
                omega[self.index - 1] = 0.9 * 2 * math.pi / self.frames
            shape = [1, 1, 1, width]
            shape[axis] = len(positions)
            table = torch.outer(torch.tensor(list(positions), dtype=torch.float64), omega)
            angles.append(table.repeat_interleave(2, 1).reshape(shape).expand(len(self.times), rows, columns, width))
        angles = torch.cat(angles, -1).reshape(1, -1, 1, 128)
        return angles.cos(), angles.sin()


def options(name, c, draw, out):
    c["frames"], c["layers"] = max(c["frames"], 3), max(c["layers"], 2)
    text = padded(f"{name}.text", c, c["rows"])
    o = {"nag_rows": draw.randrange(0, c["text_len"] + 1), "scale": draw.uniform(2, 12), "tau": draw.uniform(1.5, 3),
         "alpha": draw.uniform(0.1, 0.9), "riflex_index": draw.randrange(0, 22), "riflex_frames": draw.randrange(20, 99),
         "memory": draw.randrange(0, c["frames"]), "offset": draw.randrange(0, 8), "skip": draw.randrange(c["layers"])}
    o = {k: float(np.float32(v)) for k, v in o.items()}
    model, memory = model_of(c), int(o["memory"]) if o["offset"] else 0
    times = [(f - memory) * o["offset"] if f < memory else f - memory for f in range(c["frames"])]
    model.rope = Rope(times, int(o["riflex_index"]), o["riflex_frames"])
    del model.blocks[int(o["skip"])]
    if o["nag_rows"]:
        nag = model.condition_embedder.text_embedder(padded(f"{name}.nag_text", c, int(o["nag_rows"])))
        for block in model.blocks:
            block.attn2.set_processor(Nag(nag, o["scale"], o["tau"], o["alpha"]))
    v = model(latents(f"{name}.x", c, 16), timestep_of(c), text, return_dict=False)[0]
    put(name, c, v, out, options=list(o.values()))
    print("   ", o)


@torch.no_grad()
def main():
    draw, outputs = random.Random(20260701), {}
    for index in range(3):
        text_to_video(f"random-{index}", draw_shape(draw), outputs)
    draw = random.Random(20260801)
    for index in range(3):
        image_to_video(f"i2v-{index}", draw_shape(draw), outputs, both_ends=index == 2)
        frame_timesteps(f"ti2v-{index}", draw_shape(draw), draw, outputs)
        options(f"options-{index}", draw_shape(draw), draw, outputs)
        animate(f"animate-{index}", draw_shape(draw), draw, outputs)
    save_file(outputs, pathlib.Path(__file__).parent / "dit.safetensors")


if __name__ == "__main__":
    main()
