/* Which steps may do without the transformer's blocks: a prediction that hardly changes is made
 * from what an earlier one added to its tokens. Decided before the step, for all windows alike,
 * from timesteps and published tables only (pipeline.md 5.1, 5.2): pure functions of their
 * arguments. */
#pragma once

#include "common/status.h"

enum skip_model {
    SKIP_MODEL_NONE,
    SKIP_MODEL_1_3B,
    SKIP_MODEL_14B,
    SKIP_MODEL_I2V_480,
    SKIP_MODEL_I2V_720,
    SKIP_MODEL_14B_2_2,
    SKIP_MODEL_I2V_14B_2_2,
    SKIP_MODELS
};
extern const char *const skip_model_words[]; /* ends with NULL */

/* What TeaCache compares: the time embedding, its projection, or the projection as it is, without
 * the polynomial. */
enum skip_curve { SKIP_CURVE_E, SKIP_CURVE_E0, SKIP_CURVE_PLAIN, SKIP_CURVES };

struct skip_params {
    enum skip_model model;
    double threshold;
    uint32_t start, end; /* the steps in question, both included; the first of them is computed,
                            with neighbours only if it is the model's first */
    uint32_t skips_max;  /* MagCache: in a row */
    enum skip_curve curve;
    bool neighbours; /* TeaCache: a step is compared with the one before, as the authors do; else
                        with the last that was computed, as the wrapper does */
    bool compat;     /* as the wrapper computes it: MagCache reads its list as if of 50 steps, both
                        halves mixed; TeaCache's sum may fall */
};

/* MagCache for prediction `half` (0: with the prompt, 1: without) of steps [first, end), all of one
 * model, of a run of step_count steps: writes skip_out[first] to skip_out[end - 1]. */
void skip_magcache(const struct skip_params *params, uint32_t half, uint32_t first, uint32_t end,
                   uint32_t step_count, bool *skip_out);

/* TeaCache for steps [first, end), all of one model. distance [end - first, end - first]:
 * mean|e_i - e_j| / mean|e_j| of the steps' embeddings, row i, column j. Writes as above. */
void skip_teacache(const struct skip_params *params, uint32_t first, uint32_t end,
                   const float *distance, bool *skip_out);

/* TeaCache's polynomial: what a distance of embeddings says of the change of the prediction. */
double skip_teacache_change(enum skip_model model, enum skip_curve curve, double distance);
