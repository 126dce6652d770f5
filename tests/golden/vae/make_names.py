#!/usr/bin/env python3
"""Which diffusers key of an AutoencoderKLWan is which key of the original checkpoint.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6
    python make_names.py      # writes names.txt beside itself: "kind diffusers-key original-key" a line

The keys are those of the models themselves; the mapping is the one that make.py and make_z48.py load weights by.
"""
import pathlib

import make
import make_z48

lines = []
for kind, vae, original in (("vae-z16", make.make_model(8, 4), make.original_name),
                            ("vae-z48", make_z48.make_z48(8, 16, 6), make_z48.original_name)):
    lines += [f"{kind} {key} {original(key)}\n" for key in vae.state_dict()]
(pathlib.Path(__file__).parent / "names.txt").write_text("".join(lines))
