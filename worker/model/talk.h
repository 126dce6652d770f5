/* What MultiTalk and InfiniteTalk add to the transformer (dit.md 4): speech, projected to a few
 * tokens for each latent frame and speaker, which every block attends to frame by frame behind the
 * text. With several speakers each token of the picture is turned towards the speaker that the
 * first frame's masks give it to. Works where the add-on's tensors are in the file (its file joined
 * to the base, tensor_file_join) and its input is given. */
#pragma once

#include "worker/model/dit.h"

struct talk_window { /* f32; audio.data NULL: none. A file without the parts ignores it. */
    /* [speakers, 5 + 8·(F-1), features]: what the latent frames hear. Five video frames around the
     * first one's, then eight for each other: of latent frame j of a slice that starts at video
     * frame a, the frames a + 4j - 5 … a + 4j + 2, clamped (dit.md 4.2). */
    struct lt_view audio;
    /* [speakers + 1, h/2, w/2], above 0: where each speaker is in the first latent frame; the last
     * is where nobody is. Needed with several speakers; data NULL with one. */
    struct lt_view masks;
};

enum { TALK_FIRST_FRAMES = 5, TALK_FRAMES = 8, TALK_SPEAKERS_MAX = 8 };

/* What is constant over the steps of a window: audio tokens, made here; every block's keys and
 * values of them, made when first needed and kept while they fit `cache_bytes`. */
struct talk_context;
lt_status talk_context_create(struct dit *dit, const struct talk_window *window, size_t cache_bytes,
                              struct talk_context **context_out, struct lt_error *error);
void talk_context_destroy(struct talk_context **context);
size_t talk_context_bytes(const struct talk_context *context);
/* How often tokens or a block's keys were computed. */
uint64_t talk_context_computed(const struct talk_context *context);

/* -- parts, for tests -------------------------------------------------------------------------- */

/* audio of one speaker [5 + 8·(F-1), features] -> tokens [F, tokens, dim]. dit.md 4.2. */
lt_status talk_project(struct dit *dit, const struct lt_view *audio, const struct lt_view *tokens,
                       struct lt_error *error);
/* The speaker's position of each token (dit.md 4.5): from queries [L, H, 128] and the keys [S, H,
 * 128] of the first frame and the context's masks. maps_out: [speakers + 1, L] f32, how much a
 * token looks at each mask; position_out [L]. `room` [L, H, 128] is overwritten. */
lt_status talk_route(struct talk_context *context, const struct lt_view *q, const struct lt_view *k,
                     const struct lt_view *room, const struct lt_view *maps_out,
                     const struct lt_view *position_out, struct lt_error *error);
/* out [L, d] = block n's audio attention of the normed tokens in [L, d], frame by frame, without
 * the residual; position [L] as routed, data NULL with one speaker. `in` and `room` are
 * overwritten. */
lt_status talk_attend(struct dit *dit, struct talk_context *context, size_t n,
                      const struct lt_view *in, const struct lt_view *position,
                      const struct lt_view *room, const struct lt_view *out,
                      struct lt_error *error);
