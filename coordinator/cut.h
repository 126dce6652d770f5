/* What a task is fed: each blob is cut by lists of indices out of what the job was given, what
 * other tasks gave, and the latents, never by the ends of a window, so windows that wrap or stride
 * get the right frames (pipeline.md 1.8, 2.3). Pure: a cut says where bytes are; run_blobs.c reads
 * them when they are asked for, so nothing is held or stored twice. */
#pragma once

#include "coordinator/plan.h"
#include "proto/message.h"

enum cut_source {
    CUT_ZERO,    /* f32 planes of 0 … */
    CUT_ONE,     /* … and of 1 */
    CUT_LATENTS, /* the latents at the task's step; index: none */
    CUT_INPUT,   /* bytes the job came with; index: enum job_input_kind */
    CUT_TEXT,    /* index 0: features of the prompt, 1: of the negative one */
    CUT_PROMPT,  /* UTF-8; index: of the prompt; PROMPT_NEGATIVE */
    CUT_RESULT,  /* of a conditioning task; index: its number among them */
    CUT_MOTION,  /* of another source, noised to the task's step */
    CUT_TIMES,   /* f64 timesteps of the steps */
    CUT_SEGMENT, /* latents after the pixels of a decode; index: of the segment */
};
enum { CUT_PROMPT_NEGATIVE = UINT32_MAX };

/* Plane `frame` (and channel) of a source [channels, frames] of planes. */
struct cut_cell {
    enum cut_source source;
    uint32_t index;
    uint32_t frame, frame_count;
    uint32_t at;                   /* MOTION: the latent frame of the take, which names its noise */
    enum cut_source motion_source; /* MOTION: where it comes from */
};

/* A blob: planes [channels of all groups, slots]. cell[group][slot] says where a plane of the
 * group's first channel comes from; its other channels follow in the source. */
struct cut {
    enum lt_blob_role role;
    uint64_t plane_bytes;
    uint32_t slot_count, group_count;
    const uint32_t *channels; /* [group_count] */
    const struct cut_cell *cell;
    const void *name; /* equal cuts of a job have equal names and roles; NULL: it changes with the
                         step */
};

enum { CUTS_MAX = LT_SPEC_BLOBS_MAX };

/* The blobs of a task, in `arena`. `text_bytes` are the sizes of the job's two features, which the
 * plan does not know. */
lt_status cut_task(const struct job *job, const struct plan *plan, uint32_t task,
                   const uint64_t text_bytes[2], struct lt_arena *arena,
                   struct cut cuts_out[CUTS_MAX], size_t *count_out, struct lt_error *error);
/* All latents [C, T, h, w] of the take. */
lt_status cut_latents(const struct job *job, const struct plan *plan, struct lt_arena *arena,
                      struct cut *cut_out, struct lt_error *error);
uint64_t cut_bytes(const struct cut *cut);

/* Kind, shape, result and options of a task; blobs, model and precision are the caller's. */
void cut_spec(const struct job *job, const struct plan *plan, uint32_t task,
              struct lt_task_spec *spec);

/* Bytes of conditioning on the wire of one worker: what conditioning tasks are given, and what
 * windows are fed beside latents and text, once each; and what those tasks give. Inputs that are
 * still paths count as one frame each, voices and prompts not at all. */
lt_status cut_wire(const struct job *job, const struct plan *plan, uint64_t *down_out,
                   uint64_t *up_out, struct lt_error *error);

/* Prompt `index` of a text of several, without the blanks around it; *bytes_out may be 0. */
const char *cut_prompt(const char *prompts, uint32_t index, size_t *bytes_out);
