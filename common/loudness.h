/* Integrated loudness of mono audio by ITU-R BS.1770-4 (K-weighting, blocks of 400 ms that overlap
 * by three quarters, absolute gate at -70 LUFS, relative gate at -10 LU), as pyloudnorm computes it
 * and as the talk pipelines normalise a voice with it (encoders.md 9.4). Pure: no memory is kept.
 */
#pragma once

#include "common/status.h"

/* LUFS of `count` samples at `rate` Hz. -INFINITY: nothing is above the absolute gate (silence).
 * NAN: shorter than one block of 400 ms, which has no loudness. Samples must be finite.
 * LT_NO_MEMORY only. */
lt_status lt_loudness_measure(const float *samples, size_t count, double rate, double *lufs_out,
                              struct lt_error *error);

/* The factor that brings audio of loudness `lufs` to `target`; 1 for silence and for what has no
 * loudness, as the originals leave such audio alone. */
double lt_loudness_gain(double lufs, double target);
