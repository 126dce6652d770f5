/* Normalised attention guidance: G = scale · positive - (scale - 1) · negative, shortened to tau
 * times the L1 norm of `positive`; out = alpha · G + (1 - alpha) · positive.
 *
 *   bytes: 12·L·D (the second reading is L1's: 40 KiB a row at D = 5120); about 10·L·D flops. The
 *   roof is memory. A row a block. */
#include "kernels/cuda/op.cuh"

static __global__ void __launch_bounds__(BLOCK)
    nag_rows(struct rows out, struct rows positive, struct rows negative, int width, float scale,
             float tau, float alpha)
{
    const int64_t row = blockIdx.x;
    const float *p = positive.data + row * positive.stride,
                *n = negative.data + row * negative.stride;
    float *y = out.data + row * out.stride;
    float before = 0, after = 0;
    for (int i = (int)threadIdx.x; i < width; i += BLOCK) {
        before += fabsf(p[i]);
        after += fabsf(scale * p[i] - (scale - 1) * n[i]);
    }
    before = group_sum<BLOCK>(before);
    after = group_sum<BLOCK>(after);
    /* 0/0 too is shortened, to nothing. */
    const float shorten = after / before <= tau ? 1 : before * tau / (after + 1e-7f);
    for (int i = (int)threadIdx.x; i < width; i += BLOCK) {
        const float guided = shorten * (scale * p[i] - (scale - 1) * n[i]);
        y[i] = alpha * guided + (1 - alpha) * p[i];
    }
}

lt_status cuda_nag(struct lt_exec *exec, const struct lt_nag_args *args, struct lt_error *error)
{
    const struct lt_exec_cuda *cuda = lt_exec_cuda_of(exec);
    const cudaError_t code =
        launch(nag_rows, dim3((unsigned)args->out.dim[0]), dim3(BLOCK), 0, cuda->stream,
               rows_of(&args->out), rows_of(&args->positive), rows_of(&args->negative),
               (int)args->out.dim[1], args->scale, args->tau, args->alpha);
    return op_end(cuda, "nag", code, error);
}
