/* eval dit: one forward of the transformer. */
#include "worker/eval.h"

#include "common/clock.h"
#include "worker/model/dit.h"

static lt_status read_inputs(struct eval *eval, struct dit_inputs *inputs, struct lt_view *text,
                             struct lt_view *clip, struct lt_error *error)
{
    struct lt_view timestep;
    LT_TRY(eval_input(eval, "x", 4, &inputs->x, error));
    LT_TRY(eval_input(eval, "timestep", 1, &timestep, error));
    LT_TRY(eval_input(eval, "text", 2, text, error));
    LT_TRY(eval_input_optional(eval, "y", 4, &inputs->y, error));
    LT_TRY(eval_input_optional(eval, "clip", 2, clip, error));
    if (timestep.dim[0] != 1)
        return lt_fail(error, LT_UNSUPPORTED,
                       "%s: timestep: one value is supported today, found %lld",
                       eval_inputs_path(eval), (long long)timestep.dim[0]);
    inputs->timestep = ((float *)timestep.data)[0];
    return LT_OK;
}

static lt_status run(struct eval *eval, struct lt_error *error)
{
    struct dit_config config;
    struct dit *dit = NULL;
    struct dit_inputs inputs = {0};
    struct lt_view text, clip, v;
    lt_status status;
    LT_TRY(dit_config_detect(eval->file[0], &config, error));
    LT_TRY(eval_setting_int(eval, "text_len", 1, 65536, &config.text_len, error));
    LT_TRY(read_inputs(eval, &inputs, &text, &clip, error));
    LT_TRY(eval_load(eval, 0, NULL, NULL, error));
    LT_TRY(dit_create(&config, eval->store[0], &eval->kernels, eval->exec, &dit, error));
    LT_TRY_OR(eval_output(eval, "v", LT_TYPE_F32, 4, inputs.x.dim, &v, error), out);
    const int64_t start = lt_clock_now_us();
    LT_TRY_OR(dit_context_create(dit, &text, &clip, 0, &inputs.context, error), out);
    LT_TRY_OR(dit_forward(dit, &inputs, 1, &v, error), out);
    eval->seconds = (double)(lt_clock_now_us() - start) * 1e-6;
out:
    dit_context_destroy(&inputs.context);
    dit_destroy(&dit);
    return status;
}

const struct eval_component eval_dit = {
    .name = "dit",
    .summary = "x [C,F,h,w], timestep [1], text [n,text_dim], optional y, clip -> v [C,F,h,w]",
    .inputs = (const char *const[]){"x", "timestep", "text", "y", "clip", NULL},
    .keys = (const char *const[]){"text_len", NULL},
    .model_min = 1,
    .model_max = 1,
    .run = run,
};
