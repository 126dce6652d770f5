/* What the files of the engine share. engine.c dispatches and holds the checks of every kind,
 * engine_models.c finds files and keeps one model of each component resident, task_*.c compute one
 * kind of task each. */
#pragma once

#include "common/lru.h"
#include "kernels/kernels.h"
#include "worker/diagnostics.h"
#include "worker/engine.h"
#include "worker/model/audio.h"
#include "worker/model/dit.h"
#include "worker/model/text.h"
#include "worker/model/vae.h"
#include "worker/model/vision.h"
#include "worker/model/vocabulary.h"
#include "worker/weights/signature.h"

#include <pthread.h>

enum {
    ENGINE_MODELS_MAX = 200,
    ENGINE_PROMPTS_KEPT = 4,
    ENGINE_CONTEXT_BYTES = 256 << 20, /* at most: cross-attention keys and values of a prompt */
    ENGINE_VALUES_MAX = 1 << 30,      /* of a slice */
};

struct found { /* a model file of the folders */
    char *path;
    struct lt_model_file file;
    struct lt_digest content; /* of all bytes as first opened; zero: not asked for, or not opened */
};

/* One model of each component is resident at a time. */
enum engine_slot {
    ENGINE_TRANSFORMER,
    ENGINE_VAE_DECODER,
    ENGINE_VAE_ENCODER,
    ENGINE_TEXT,
    ENGINE_VISION,
    ENGINE_AUDIO,
    ENGINE_SLOT_COUNT,
};

/* What a task asks of its model's memory. */
struct engine_size {
    int64_t text_len;     /* transformer only */
    int64_t tokens;       /* transformer: of one input */
    uint64_t text_values; /* transformer: of the positive prompt */
    size_t input_count;   /* transformer: predictions of one task */
    bool keeps;           /* transformer: something is kept for later steps */
    uint32_t extent[4];   /* others: what their activations grow with; VAE decoder: frames, rows and
                             columns of a tile, latents of the picture */
};

struct resident {
    struct weights_signature signature; /* what is in use */
    struct lt_digest files;             /* of the LoRAs placed, in use or not */
    struct lora_set *lora;              /* transformer only; NULL: none placed */
    struct engine_size size;            /* what it was planned for */
    uint64_t planned_bytes;             /* of the device, at work */
    size_t scratch_bytes;               /* of those, for the ops */
    struct store *store;                /* NULL: nothing is loaded */
    union {
        struct dit *dit;
        struct vae *vae;
        struct text *text;
        struct vision *vision;
        struct audio *audio;
    };
    union {
        struct vision_config vision_config;
        struct audio_config audio_config;
    };
    struct vocabulary *vocabulary; /* text encoder only */
};

struct engine {
    struct found found[ENGINE_MODELS_MAX];
    struct lt_model_file model[ENGINE_MODELS_MAX];
    size_t model_count;
    char kernel_class[128];
    struct lt_kernels kernels;
    int thread_count;
    struct lt_exec *exec[2]; /* by precision, made when first needed */
    struct resident slot[ENGINE_SLOT_COUNT];
    struct lt_lru *prompts; /* prompt -> struct dit_context, of the resident transformer */
    size_t context_bytes;   /* keys and values kept for each */
    struct memory_settings memory;
    uint64_t blob_bytes, runtime_bytes;
    bool verify;
    struct device *device;
    struct lt_lru *windows; /* engine_windows.c: of it too */
    struct lt_lru *reuse;   /* engine_reuse.c: what steps leave for later ones */
    uint64_t reuse_bytes;
    struct diagnostics *diagnostics;
    struct memory_counts gone;  /* what stores that are gone read, copied and waited for */
    uint64_t device_peak_bytes; /* of the samples */
    atomic_uint batch_max;      /* predictions worth computing at once */
    pthread_mutex_t lock;       /* of what other threads ask for: */
    struct lt_digest signature, resident;
};

/* A task as every kind sees it. */
struct engine_task {
    struct engine *engine;
    struct engine_work *work;
    const struct lt_task_spec *spec; /* of the work */
    struct engine_progress *progress;
    struct lt_exec *exec; /* of the spec's precision */
    uint32_t pixels[3]; /* what the VAE encoder gets: frames, rows, columns; set by who loads it */
};

/* -- engine_models.c --------------------------------------------------------------------------- */

/* A folder, or one file. Files that cannot be read are left out with a warning. */
lt_status engine_add_models(struct engine *engine, const char *path, struct lt_error *error);
/* The model of the spec, resident in `slot`: kept when it is the last one, else loaded in its
 * place. Valid until the next call for the slot. */
lt_status engine_load(const struct engine_task *task, enum engine_slot slot,
                      struct resident **resident_out, struct lt_error *error);
void engine_drop(struct engine *engine, enum engine_slot slot);
/* The tiles of a decode; rows 0: the picture whole. */
struct vae_tiling engine_tiling(const struct lt_task_spec *spec);
/* By fingerprint, or by name when that is zero. LT_NOT_FOUND says what is here instead. */
lt_status engine_find_model(const struct engine *engine, const struct lt_model_file *wanted,
                            const struct found **found_out, struct lt_error *error);

/* Opens a found file, which must still be the one that was found (pipeline.md G2.3): LT_CORRUPT
 * when its fingerprint is another, and with `verify` when any byte is. */
lt_status engine_open_found(struct engine *engine, const struct found *found,
                            struct tensor_file **file_out, struct lt_error *error);

/* -- engine_lora.c ----------------------------------------------------------------------------- */

/* The weights the task wants in `slot`. */
lt_status engine_name_weights(const struct engine_task *task, enum engine_slot slot,
                              const struct found *found, struct weights_signature *wanted_out,
                              struct lt_error *error);
/* Names the strengths on the resident transformer at the task's step; zero without LoRAs. What is
 * kept of a prompt or a window went through them. */
struct lt_digest engine_lora_state(const struct engine_task *task);
/* What engine_signature and engine_resident tell from now on; NULL: nothing is resident. */
void engine_show_signature(struct engine *engine, const struct weights_signature *signature,
                           const struct lt_digest *fingerprint);
/* The task's LoRAs, for the model of `file`; there is at least one. */
lt_status engine_open_lora(const struct engine_task *task, struct tensor_file *file,
                           struct lora_set **set_out, struct lt_error *error);
/* Turns the transformer to the wanted LoRAs if it holds their files, or to none. Reads nothing.
 * `*served_out` false: it must be loaded anew. */
lt_status engine_turn_lora(const struct engine_task *task, struct resident *resident,
                           const struct weights_signature *wanted, bool *served_out,
                           struct lt_error *error);

/* -- engine_plan.c ----------------------------------------------------------------------------- */

/* What a transformer needs for the task, placed: the store's params, the bytes of the device, how
 * many tasks fit in a batch, and what may be kept of a prompt. Drops other components when there is
 * no room beside them. LT_NO_DEVICE_MEMORY, LT_NO_MEMORY: it does not fit; the text has the sum. */
struct engine_plan {
    struct memory_plan memory;
    unsigned batch_max;
    size_t context_bytes;
};
lt_status engine_plan_dit(const struct engine_task *task, const struct tensor_file *file,
                          const struct dit_config *config, const struct engine_size *size,
                          const struct lora_set *lora, struct engine_plan *plan_out,
                          struct lt_error *error);
/* The same for any other component, `what` in messages: beside what is resident, in its place, or
 * streamed. */
/* Makes it `slot`'s: what ops will take is taken of a card now, and the store's device is ours. */
lt_status engine_take_plan(struct engine *engine, enum engine_slot slot, struct memory_plan *plan,
                           struct lt_error *error);
lt_status engine_plan(struct engine *engine, enum engine_slot slot, const struct layout *layout,
                      uint64_t activation_bytes, uint64_t scratch_bytes, uint64_t held_bytes,
                      const char *what, struct memory_plan *plan_out, struct lt_error *error);

/* -- engine_windows.c -------------------------------------------------------------------------- */

lt_status engine_windows_create(struct engine *engine, struct lt_error *error);
/* What pose, face and audio of the task say of a window of x; to be released. *entry_out NULL: the
 * task has none. `negative`: with the black face of a guidance's negative half; `mute`: with
 * silence. */
lt_status engine_take_window(const struct engine_task *task, struct dit *dit,
                             const struct lt_view *x, bool negative, bool mute,
                             struct lt_lru_entry **entry_out, struct lt_error *error);
struct animate_context *engine_window_animate(const struct lt_lru_entry *entry); /* NULL of NULL */
struct talk_context *engine_window_talk(const struct lt_lru_entry *entry);       /* the same */

/* -- engine_reuse.c ---------------------------------------------------------------------------- */

/* A task's hold on what earlier steps left, and on where it leaves its own. */
struct engine_reuse {
    const struct engine_task *task;
    struct lt_view x;
    size_t count;                        /* of predictions */
    unsigned lacks[LT_SPEC_PREDICTIONS]; /* which tells them apart */
    struct lt_lru_entry *entry[LT_SPEC_PREDICTIONS];
    enum dit_reuse how[LT_SPEC_PREDICTIONS];
    bool whole; /* nothing is computed */
};

lt_status engine_reuse_create(struct engine *engine, struct lt_error *error);
/* For `count` predictions of x [C, F, h, w], the first of them with everything. Where there is no
 * room all is computed. */
void engine_reuse_begin(const struct engine_task *task, const struct dit *dit,
                        const struct lt_view *x, const unsigned *lacks, size_t count,
                        struct engine_reuse *reuse);
/* How the blocks' sum of a prediction is kept or reused. */
void engine_reuse_input(const struct engine_reuse *reuse, size_t which, struct dit_inputs *inputs);
/* After the forward, before guidance: v [count, C, F, h, w]; with `whole` it is written. */
void engine_reuse_done(struct engine_reuse *reuse, float *v);
void engine_reuse_end(struct engine_reuse *reuse); /* zeroed: nothing to do */

/* -- engine_memory.c --------------------------------------------------------------------------- */

/* A sample for the diagnostics. */
void engine_sample(struct engine *engine, enum memory_stage stage, uint64_t task,
                   const char *subject);
/* Before a store goes: its sums are kept. */
void engine_keep_counts(struct engine *engine, const struct store *store);

/* -- engine.c ---------------------------------------------------------------------------------- */

/* NULL: the task has no such blob. */
const struct engine_blob *engine_find_blob(const struct engine_task *task, enum lt_blob_role role);
/* An f32 view of this shape without data; sizes are bounded before they are multiplied. */
lt_status engine_shape(const uint32_t shape[4], struct lt_view *view_out, struct lt_error *error);
/* The blob of a role as an f32 view [shape of the spec]. */
lt_status engine_slice(const struct engine_task *task, enum lt_blob_role role,
                       struct lt_view *view_out, struct lt_error *error);
lt_status engine_check_result_bytes(const struct engine_task *task, uint64_t bytes,
                                    struct lt_error *error);
/* LT_BAD_INPUT naming the first element that is not finite; `what` is "prediction" and so on. */
lt_status engine_check_finite(const float *values, int64_t count, const char *what,
                              struct lt_error *error);
/* From here on the task computes: `total` units of progress. */
void engine_begin(const struct engine_task *task, unsigned total);

/* -- the kinds: task_<kind>.c ------------------------------------------------------------------ */

/* Status, error and result go to each task's work. */
void engine_predict(const struct engine_task *tasks, size_t count);
lt_status engine_vae_decode(const struct engine_task *task, void **result_out,
                            struct lt_error *error);
lt_status engine_vae_encode(const struct engine_task *task, void **result_out,
                            struct lt_error *error);
/* Evaluations of the model that a prediction takes: 2 when guided. */
size_t engine_input_count(const struct lt_task_spec *spec);
lt_status engine_encode_image(const struct engine_task *task, void **result_out,
                              struct lt_error *error);
lt_status engine_encode_audio(const struct engine_task *task, void **result_out,
                              struct lt_error *error);
lt_status engine_compare_times(const struct engine_task *task, void **result_out,
                               struct lt_error *error);
lt_status engine_encode_text(const struct engine_task *task, void **result_out,
                             struct lt_error *error);
/* task_encode.c: frame [H, W, 3] u8 into plane `frame` of [3, frames, H, W] f32 in [-1, 1]. */
void engine_pixels(const uint8_t *rgb, int64_t frames, int64_t frame, int64_t plane, float *to);
/* Pixel frames of a sequence, made when they are encoded: `fill` writes frame `frame` as plane
 * `slot` of [3, frames, rows, columns] f32 in [-1, 1], which are zeros before. */
struct engine_frames {
    int64_t count, rows, columns;
    void (*fill)(void *context, int64_t frame, int64_t frames, int64_t slot, float *to);
    void *context;
};
/* -> latents of `count` values, by the spec's VAE. */
lt_status engine_encode_frames(const struct engine_task *task, const struct engine_frames *frames,
                               float *values, int64_t count, struct lt_error *error);
/* For the lru of prompts. */
void engine_free_prompt(void *context);
size_t engine_prompt_key_bytes(void);
