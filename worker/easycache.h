/* EasyCache (pipeline.md 5.3): a step whose latents moved little since the last one that was
 * computed, as little as its prediction would move by them, is made from that one. Each window
 * decides for itself. Plain arithmetic over `count` values; sums in f64 and in order. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* One prediction of a window; zeroed but for `count` and the arrays: nothing is known. */
struct easycache {
    int64_t count;
    float *seen;                    /* latents of the last step */
    float *x, *v;                   /* latents and velocity of the last step that was computed */
    uint32_t after, computed_after; /* 1 + those steps; 0: none */
    double gain;                    /* how much v moved for a movement of x; 0: unknown */
    double sum;                     /* movements since */
};

/* Is step `step` to be skipped? threshold 0: no. The window's last step must be the one before. */
bool easycache_decide(struct easycache *cache, const float *x, uint32_t step, double threshold);
/* The velocity of a skipped step: that of the computed one, moved with the latents. */
void easycache_predict(const struct easycache *cache, const float *x, float *v_out);
/* A step was computed. */
void easycache_record(struct easycache *cache, const float *x, const float *v, uint32_t step);
