/* What Wan-Animate adds to the transformer (dit.md 3): the pose, embedded like patches and added to
 * the tokens behind the reference frame, and the face's motion, which fuser blocks attend to frame
 * by frame after every fifth block. Each works where its tensors are in the file and its input is
 * given; without a face no fuser runs. (A character mask without a face is a job's grey face, 0 in
 * [-1, 1]; the negative half of a guidance has a black one, -1.) */
#pragma once

#include "worker/model/dit.h"

struct animate_window {  /* f32; data NULL: none. A file without the parts ignores them. */
    struct lt_view pose; /* [pose_channels, F-1, h, w] of the slice; frame 0 is the reference */
    struct lt_view face; /* [3, P, size, size] in [-1, 1], (P-1)/4 + 1 = F - 1 */
};

/* What is constant over the steps of a window: motion tokens, made here; pose embedding and the
 * fusers' keys and values, made when first needed and kept while they fit `cache_bytes`. Keeps a
 * reference to the pose's data. */
struct animate_context;
lt_status animate_context_create(struct dit *dit, const struct animate_window *window,
                                 size_t cache_bytes, struct animate_context **context_out,
                                 struct lt_error *error);
void animate_context_destroy(struct animate_context **context);
size_t animate_context_bytes(const struct animate_context *context);
/* How often motion, a pose embedding or a fuser's keys were computed. */
uint64_t animate_context_computed(const struct animate_context *context);
