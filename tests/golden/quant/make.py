"""Random blocks of every quantised type and their values by the gguf package.

Pinned: gguf 0.19.0, numpy 2.4.6. Run: python make.py fixture.bin
Layout of fixture.bin, for each type: u32 ggml id, u32 blocks, block bytes, f32 values.
"""
import sys

import gguf
import numpy as np

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
SCALE_BYTES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
               "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
rng = np.random.default_rng(7)
with open(sys.argv[1], "wb") as out:
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = 4 if values == 256 else 8
        data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for at in SCALE_BYTES[name]:  # sane f16 factors instead of random bits
            half = rng.normal(0, 0.02, blocks).astype(np.float16)
            data[:, at:at + 2] = half.view(np.uint8).reshape(blocks, 2)
        got = gguf.quants.dequantize(data.reshape(-1), kind).astype(np.float32)
        out.write(np.array([kind.value, blocks], np.uint32).tobytes() + data.tobytes() + got.tobytes())
