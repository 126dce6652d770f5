/* Animate's motion encoder (dit.md 3.6): a face becomes a vector of motion, whoever's face it is.
 * StyleGAN-like convolutions, f32 whatever the precision. */
#pragma once

#include "kernels/scratch.h"
#include "worker/model/config.h"
#include "worker/model/net.h"

/* motion[P, motion_dim] = what the faces [3, P, size, size] f32 in [-1, 1] do. Weights are
 * "motion_encoder.…" of the store. */
lt_status motion_encode(struct net *net, const struct face_config *config,
                        const struct lt_view *faces, const struct lt_view *motion,
                        struct lt_error *error);
/* What it takes of the arena at most, small change not counted: the first level's maps. */
size_t motion_bytes(const struct face_config *config);
/* `most` becomes what serves its convolutions too. */
void motion_scratch(const struct face_config *config, struct lt_scratch *most);

/* q[rows, columns] = the thin Q of a[rows, columns] = QR, row-major, rows >= columns, with LAPACK's
 * signs (dit.md 3.6: a Gram-Schmidt would give others). `a` is overwritten. */
void motion_orthonormal(double *a, int64_t rows, int64_t columns, double *q);
