/* The inside of `longtake-worker eval`: what a component gets and gives. eval.c is the command: it
 * opens files, refuses what the component does not know, writes outputs and report. One file per
 * family of components holds their `run`. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"
#include "common/safetensors.h"
#include "worker/diagnostics.h"
#include "worker/memory_options.h"
#include "worker/weights/lora.h"
#include "worker/weights/store.h"

#include <stdio.h>

enum { EVAL_MODELS_MAX = 4, EVAL_TENSORS_MAX = 32, EVAL_OUTPUTS_MAX = 4, EVAL_REPEAT_MAX = 16 };

struct eval;
struct eval_settings;
struct lt_text_list;

struct eval_component {
    const char *name;            /* "vae-decode" */
    const char *summary;         /* "latents [z,T,h,w] -> pixels [3,F,H,W]", for --help */
    const char *const *inputs;   /* tensors it takes, ended by NULL; any other is refused */
    const char *const *keys;     /* keys of --set it takes, ended by NULL */
    size_t model_min, model_max; /* how often --model may be given */
    size_t file_max;             /* opened as tensor files: the first so many; 0: all */
    bool inputs_optional;        /* --set can stand for them */
    bool takes_lora;             /* on its first model */
    lt_status (*run)(struct eval *eval, struct lt_error *error);
};

extern const struct eval_component eval_dit, eval_vae_decode, eval_vae_encode, eval_text,
    eval_image, eval_audio, eval_preview;

struct eval {
    const struct eval_component *component;
    const struct eval_settings *settings;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct tensor_file *file[EVAL_MODELS_MAX];          /* in the order of --model */
    struct store *store[EVAL_MODELS_MAX];               /* by eval_load */
    const struct store_extras *extras[EVAL_MODELS_MAX]; /* for eval_load; NULL: none */
    struct lora_set *lora; /* of --lora, for model 0, which has its extras; NULL: none */
    struct memory_settings memory;
    struct device *device;                    /* of --device, for all models */
    uint64_t activation_bytes, scratch_bytes; /* the component tells before eval_load */
    uint64_t cache_bytes;                     /* the same: of a prompt */
    uint64_t input_bytes, runtime_bytes;      /* of the tensors read; of the program at its start */
    struct memory_plan plan;                  /* of the last eval_load */
    struct diagnostics *diagnostics;          /* samples for the report */
    struct lt_safetensors *inputs;            /* NULL: not given */
    float *read[EVAL_TENSORS_MAX];            /* data of inputs, freed at the end */
    size_t read_count;
    struct lt_named_view output[EVAL_OUTPUTS_MAX]; /* data freed at the end */
    size_t output_count;
    double seconds;
    double forward_seconds[EVAL_REPEAT_MAX]; /* the first from the opening of the weights on */
    size_t forward_count;                    /* 0: the component does not tell */
};

/* An input as f32, valid until the command ends. Wrong rank: LT_BAD_INPUT naming file and tensor.
 */
lt_status eval_input(struct eval *eval, const char *name, int rank, struct lt_view *view_out,
                     struct lt_error *error);
/* The same; absent: data NULL. */
lt_status eval_input_optional(struct eval *eval, const char *name, int rank,
                              struct lt_view *view_out, struct lt_error *error);
/* Room for an output; zero-filled f32 unless `type` says otherwise. It is written when run ends
 * well. */
lt_status eval_output(struct eval *eval, const char *name, enum lt_type type, int rank,
                      const int64_t *dim, struct lt_view *view_out, struct lt_error *error);

/* --set KEY=VALUE: NULL when not given. */
const char *eval_setting(const struct eval *eval, const char *key);
/* A number in [min, max]; `*value` keeps its default when the key is not given. */
lt_status eval_setting_int(const struct eval *eval, const char *key, int64_t min, int64_t max,
                           int64_t *value, struct lt_error *error);
lt_status eval_setting_real(const struct eval *eval, const char *key, double min, double max,
                            double *value, struct lt_error *error);

/* What the component will take beside its weights, of the ops of `scratch` too: before eval_load.
 */
void eval_tell(struct eval *eval, uint64_t activation_bytes, const struct lt_scratch *scratch);
/* Places what `wanted` accepts of model `index` in eval->store[index] (owned by eval) as the memory
 * plan says; blocks go on loading behind it. */
lt_status eval_load(struct eval *eval, size_t index, store_filter *wanted, void *context,
                    struct lt_error *error);
/* Of all models together. */
void eval_store_stats(const struct eval *eval, struct store_stats *sum_out);
/* A vae_frame into the output `context`, f32 [3, F, H, W]. */
lt_status eval_place_frame(void *context, int64_t index, const float *rgb, struct lt_error *error);
/* eval_lora.c: opens the files of --lora for `model` into eval->lora, its extras for model 0;
 * prints the report's part. */
lt_status eval_open_loras(struct eval *eval, const struct lt_text_list *list,
                          struct tensor_file *model, struct lt_error *error);
void eval_print_loras(const struct eval *eval, FILE *to);
/* The path of model `index`; NULL: not given so often. */
const char *eval_model_path(const struct eval *eval, size_t index);
/* A sample of memory for the report. */
void eval_sample(struct eval *eval, enum memory_stage stage);
/* The path given by --inputs, for messages. */
const char *eval_inputs_path(const struct eval *eval);
