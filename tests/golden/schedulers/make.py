#!/usr/bin/env python3
"""Noise levels and steps of diffusers' schedulers -> schedulers.safetensors.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors numpy
    python3 make.py

For each run NAME.N: sigmas [steps + 1], timesteps [steps], v [steps, n] (random velocities), x [steps + 1, n] (the
sample before every step and after the last), all f32 of f64 computations.
"""
import os

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from safetensors.numpy import save_file

RUNS = [  # steps, shift, values
    (1, 3.0, 5),
    (2, 5.0, 7),
    (5, 1.0, 3),
    (9, 8.0, 11),
    (20, 5.0, 13),
]


def walk(scheduler, steps, count, generator):
    x = torch.randn(count, generator=generator, dtype=torch.float64).reshape(1, 1, 1, count)
    xs, vs = [x], []
    for t in scheduler.timesteps:
        v = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = scheduler.step(v, t, x, return_dict=False)[0]
        xs.append(x)
        vs.append(v)
    assert len(vs) == steps
    flat = lambda many: np.stack([m.reshape(-1).numpy() for m in many]).astype(np.float32)
    return flat(vs), flat(xs)


def main():
    tensors = {}
    for n, (steps, shift, count) in enumerate(RUNS):
        generator = torch.Generator().manual_seed(100 + n)
        unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        euler = FlowMatchEulerDiscreteScheduler(shift=shift)
        for name, scheduler in (("unipc", unipc), ("euler", euler)):
            scheduler.set_timesteps(steps)
            v, x = walk(scheduler, steps, count, generator)
            tensors[f"{name}.{n}.sigmas"] = np.asarray(scheduler.sigmas, dtype=np.float32)
            tensors[f"{name}.{n}.timesteps"] = np.asarray(scheduler.timesteps, dtype=np.float32)
            tensors[f"{name}.{n}.v"], tensors[f"{name}.{n}.x"] = v, x
            tensors[f"{name}.{n}.shift"] = np.asarray([shift], dtype=np.float32)
    save_file(tensors, os.path.join(os.path.dirname(os.path.abspath(__file__)), "schedulers.safetensors"))


main()
