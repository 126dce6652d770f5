/* The picture of tests/golden/media/make.py: two ramps, a disc with hard edges, noise. */
#pragma once

#include <stdint.h>
#include <stdlib.h>

static inline uint8_t *picture_fill(int width, int height, int seed)
{
    uint8_t *const rgb = malloc((size_t)3 * width * height), *p = rgb;
    const int side = width < height ? width : height;
    const int reach = (side * 3 / 4) * (side * 3 / 4);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                const uint64_t mix =
                    (uint64_t)x * 7919 + y * 104729ull + c * 1299709ull + seed * 15485863ull;
                const int noise = (int)((uint32_t)(mix * 2654435761ull) >> 27);
                const int dx = 2 * x - width, dy = 2 * y - height;
                int value = noise + seed * 10;
                value += c != 1 ? x * 120 / width : 0;
                value += c != 0 ? y * 90 / height : 0;
                value += dx * dx + dy * dy < reach ? 60 + 50 * c : 0;
                *p++ = (uint8_t)(value > 255 ? 255 : value);
            }
    return rgb;
}
