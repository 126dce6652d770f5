/* The walk of a call on shapes only: ops that do nothing, frames without memory behind them. So the
 * sum cannot drift away from what a call takes. */
#include "worker/model/vae_parts.h"

#include <stdlib.h>

/* What the ops of this thread's walk would take, where it is asked for. */
static _Thread_local struct lt_scratch *told;

static lt_status tell(lt_status status, const struct lt_scratch *scratch)
{
    if (status == LT_OK)
        lt_scratch_join(told, scratch);
    return status;
}

/* Ops whose scratch counts; that of the others is far below a convolution's. */
static lt_status tell_conv(struct lt_exec *exec, const struct lt_conv_args *args,
                           struct lt_error *error)
{
    struct lt_scratch scratch;
    return told ? tell(lt_scratch_conv_of(lt_exec_precision(exec), args, &scratch, error), &scratch)
                : LT_OK;
}

static lt_status tell_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                             struct lt_error *error)
{
    struct lt_scratch scratch;
    return told ? tell(lt_scratch_linear(lt_exec_precision(exec), args->in.dim[0],
                                         args->weight.dim[1], args->weight.dim[0], args->exact,
                                         &scratch, error),
                       &scratch)
                : LT_OK;
}

static lt_status tell_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                                struct lt_error *error)
{
    struct lt_scratch scratch;
    return told ? tell(lt_scratch_attention(lt_exec_precision(exec), args->k.dim[0], args->q.dim[1],
                                            args->q.dim[2], &scratch, error),
                       &scratch)
                : LT_OK;
}

#define NOTHING(op)                                                                                \
    static lt_status nothing_##op(struct lt_exec *exec, const struct lt_##op##_args *args,         \
                                  struct lt_error *error)                                          \
    {                                                                                              \
        (void)exec, (void)args, (void)error;                                                       \
        return LT_OK;                                                                              \
    }
LT_KERNEL_LIST(NOTHING)
#undef NOTHING

static const struct lt_kernels nothing = {
#define ENTRY(op) .op = nothing_##op, .op##_variant = "nothing",
    LT_KERNEL_LIST(ENTRY)
#undef ENTRY
};

static struct lt_kernels table_of_walk(void)
{
    struct lt_kernels table = nothing;
    table.conv = tell_conv;
    table.linear = tell_linear;
    table.attention = tell_attention;
    return table;
}

static lt_status walk(struct vae *vae, int64_t frames, int64_t rows, int64_t columns,
                      struct lt_error *error)
{
    const bool decoder = vae->part == VAE_DECODER;
    const int64_t scale = decoder ? 1 : vae_scale(vae);
    const struct lt_view shape =
        lt_view_4d(NULL, LT_TYPE_F32, decoder ? vae->latent_channels : 3,
                   decoder ? frames : 4 * frames - 3, scale * rows, scale * columns);
    struct vae_sink sink = {.take = decoder ? vae_take_pixels : NULL};
    vae->single = frames == 1;
    return vae_stream(vae, &shape, shape.dim[1], &sink, NULL, error);
}

/* A VAE that is only its shapes. The three outlive it. */
static lt_status create_from_index(enum vae_part part, const struct tensor_file *file,
                                   enum lt_precision precision, const struct lt_kernels *table,
                                   struct lt_exec **exec_out, struct vae **vae_out,
                                   struct lt_error *error)
{
    const struct vae_source source = {.file = file};
    const struct lt_exec_params params = {.thread_count = 1, .precision = precision};
    LT_TRY(lt_exec_create(&params, exec_out, error));
    const lt_status status = vae_create_from(part, &source, table, *exec_out, vae_out, error);
    if (status != LT_OK)
        lt_exec_destroy(exec_out);
    return status;
}

static lt_status measure(enum vae_part part, const struct tensor_file *file,
                         enum lt_precision precision, int64_t frames, int64_t rows, int64_t columns,
                         size_t *bytes_out, struct lt_error *error)
{
    const struct lt_kernels table = table_of_walk();
    struct lt_exec *exec = NULL;
    struct vae *vae = NULL;
    if (frames < 1 || rows < 1 || columns < 1 || rows > 65536 || columns > 65536)
        return lt_fail(error, LT_BAD_INPUT, "VAE: no size for [%lld, %lld, %lld] latents",
                       (long long)frames, (long long)rows, (long long)columns);
    LT_TRY(create_from_index(part, file, precision, &table, &exec, &vae, error));
    const lt_status status = walk(vae, frames, rows, columns, error);
    if (status == LT_OK)
        *bytes_out = vae_peak_bytes(vae);
    vae_destroy(&vae);
    lt_exec_destroy(&exec);
    return status;
}

lt_status vae_bytes(enum vae_part part, const struct tensor_file *file, enum lt_precision precision,
                    int64_t frames, int64_t rows, int64_t columns, size_t *bytes_out,
                    struct lt_error *error)
{
    enum { ENOUGH = 9 }; /* latent frames after which every history is full */
    return measure(part, file, precision, frames < ENOUGH ? frames : ENOUGH, rows, columns,
                   bytes_out, error);
}

lt_status vae_scratch(enum vae_part part, const struct tensor_file *file,
                      enum lt_precision precision, int64_t rows, int64_t columns,
                      struct lt_scratch *scratch_out, struct lt_error *error)
{
    enum { FRAMES = 3 }; /* every convolution has met its whole history */
    struct lt_scratch scratch = {0};
    size_t bytes;
    told = &scratch;
    const lt_status status = measure(part, file, precision, FRAMES, rows, columns, &bytes, error);
    told = NULL;
    if (status == LT_OK)
        *scratch_out = scratch;
    return status;
}

lt_status vae_file_scale(enum vae_part part, const struct tensor_file *file, int64_t *scale_out,
                         struct lt_error *error)
{
    struct lt_exec *exec = NULL;
    struct vae *vae = NULL;
    LT_TRY(create_from_index(part, file, LT_PRECISION_F32, &nothing, &exec, &vae, error));
    *scale_out = vae_scale(vae);
    vae_destroy(&vae);
    lt_exec_destroy(&exec);
    return LT_OK;
}
