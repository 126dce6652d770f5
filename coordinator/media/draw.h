/* Filled shapes as OpenCV rasterises them, without antialias: pose.c is made of nothing else. */
#pragma once

#include "coordinator/media/fit.h"

struct canvas {
    uint8_t *rgb; /* [height, width, 3] */
    struct frame_size size;
    uint8_t color[3];
};

void draw_disc(const struct canvas *canvas, int32_t cx, int32_t cy, int32_t radius);
/* 8-connected; `thickness` 1 or more, with round ends. */
void draw_line(const struct canvas *canvas, int32_t x0, int32_t y0, int32_t x1, int32_t y1,
               int32_t thickness);
/* Half-axes a and b, turned by whole degrees. */
void draw_ellipse(const struct canvas *canvas, int32_t cx, int32_t cy, int32_t a, int32_t b,
                  int32_t degrees);
