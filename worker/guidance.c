#include "worker/guidance.h"

void guidance_cfg(float *with, const float *without, int64_t count, double scale)
{
    const float s = (float)scale;
    for (int64_t i = 0; i < count; i++)
        with[i] = without[i] + s * (with[i] - without[i]);
}

void guidance_audio(float *with, const float *other, const float *without, int64_t count,
                    double text, double audio, bool wrapper)
{
    const float t = (float)text, a = (float)(wrapper ? text * audio : audio);
    for (int64_t i = 0; i < count; i++)
        with[i] = without[i] + t * (with[i] - other[i]) + a * (other[i] - without[i]);
}

void guidance_zero_star(float *with, const float *without, int64_t count, double scale)
{
    double dot = 0, square = 0;
    for (int64_t i = 0; i < count; i++) {
        dot += (double)with[i] * (double)without[i];
        square += (double)without[i] * (double)without[i];
    }
    const float alpha = (float)(dot / (square + 1e-8)), s = (float)scale;
    for (int64_t i = 0; i < count; i++) {
        const float base = alpha * without[i];
        with[i] = base + s * (with[i] - base);
    }
}
