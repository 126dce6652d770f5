/* The ops of the engine: one argument struct each, one table. Model code calls ops through a table
 * and never knows where they run. `ref/` is plain C with f64 accumulation and is the oracle;
 * `host/` is the CPU path.
 *
 * Letters: L tokens, D width, H heads, K head width, S keys, C channels, F latent frames, h w
 * latent rows and columns, T frames, Y X rows and columns. Activations are f32 unless a comment
 * says otherwise; weights may be of any type of common/view.h. Ops never allocate beyond exec
 * scratch and never keep a pointer.
 *
 * Every op validates its arguments once for all variants (kernels/table.c): a wrong shape is
 * LT_INTERNAL with the op and the shapes in the text. Results do not depend on the number of
 * threads. */
#pragma once

#include "common/status.h"
#include "common/view.h"

struct lt_exec; /* kernels/exec.h: where work runs */

enum lt_activation {
    LT_ACTIVATION_NONE,
    LT_ACTIVATION_SILU,
    LT_ACTIVATION_GELU_TANH,
    LT_ACTIVATION_GELU_ERF,
    LT_ACTIVATION_RELU,
    LT_ACTIVATION_LEAKY_RELU, /* slope 0.2 below zero */
};

/* out = in converted; in any type (quantised too), out F32, F16 or BF16; same count. */
struct lt_convert_args {
    struct lt_view out, in;
};

/* out[L,N] = activation(in[L,K] · (weight[N,K] · weight_scale)ᵀ + bias[N] [+ out, with
 * accumulate]). exec precision f32: weights are dequantised to f32. bf16: weights and inputs are
 * rounded to bf16 once, sums in f32. `in` and `out` may have a row stride, and rows of `in`
 * may overlap each other; `out` may not overlap `in`. */
struct lt_linear_args {
    struct lt_view out;          /* [L, N] f32 */
    struct lt_view in;           /* [L, K] f32 */
    struct lt_view weight;       /* [N, K] any type */
    struct lt_view bias;         /* [N] any float type; data NULL: none */
    struct lt_view weight_scale; /* [1] f32: every weight is multiplied by it; data NULL: 1 */
    enum lt_activation activation;
    bool accumulate;
    bool
        exact; /* f32 inputs whatever the exec's precision: time embedding, patch embedding, head */
};

/* out[L,N] = activation(out + (scale[R] · (in[L,K] · a[R,K]ᵀ)) · b[N,R]ᵀ + bias[N]): what LoRAs add
 * to a linear (dit.md 5.3), several of them as one pair with their ranks side by side. Without `a`,
 * R is K and `b` is a dense difference. Precision as in linear; the scaled product is rounded like
 * an input. `hidden` is room for it: rows of `in` are taken as many at a time as it has. */
struct lt_low_rank_args {
    struct lt_view out;    /* [L, N] f32, added to */
    struct lt_view in;     /* [L, K] f32 */
    struct lt_view a;      /* [R, K] any type; data NULL: the identity */
    struct lt_view b;      /* [N, R] any type */
    struct lt_view scale;  /* [R] f32 */
    struct lt_view bias;   /* [N] any float type; data NULL: none */
    struct lt_view hidden; /* [1 … L, R] f32, contiguous; contents undefined afterwards */
    enum lt_activation activation;
    bool exact;
};

/* out[l,:] = LN(in[l,:]; eps) then * weight + bias (each may be absent) then * (1 + scale[g,:]) +
 * shift[g,:] with g = l / group_rows (group_rows 0: g = 0). In place allowed. dit.md 2.7. */
struct lt_layer_norm_args {
    struct lt_view out, in;      /* [L, D] f32 */
    struct lt_view weight, bias; /* [D]; data NULL: absent */
    struct lt_view scale, shift; /* [G, D] f32; data NULL: absent */
    int64_t group_rows;
    float epsilon;
};

/* out[l,:] = in[l,:] / sqrt(mean(in²) + eps) * weight, over the last dim. In place allowed.
 * With rope data: afterwards every head is rotated, 3-D RoPE of dit.md 2.6: interleaved pairs,
 * first the `time` pairs, then `row`, then `column`; token l = (f·rows + i)·columns + j of the
 * grid. */
struct lt_rms_norm_args {
    struct lt_view out, in; /* [L, D] f32 */
    struct lt_view weight;  /* [D], or [K] repeated over heads */
    float epsilon;
    int64_t head_width; /* K; used with rope */
    struct lt_view time, row,
        column; /* [grid dim, pairs, 2] f32 cos, sin; time.data NULL: no rotation */
};

/* out[l,:] = residual[l,:] + in[l,:] * gate[g,:], g as in layer_norm; gate absent: plain sum. out
 * may be residual. */
struct lt_gated_add_args {
    struct lt_view out, residual, in; /* [L, D] f32 */
    struct lt_view gate;              /* [G, D] f32; data NULL: 1 */
    int64_t group_rows;
};

/* out[l,:] = a[l,:] * b[l,:]; out may be a or b. The gate of a gated feed-forward. */
struct lt_multiply_args {
    struct lt_view out, a, b; /* [L, D] f32 */
};

/* out = in · factor, the product rounded once; any shape, in place allowed. */
struct lt_scale_args {
    struct lt_view out, in; /* f32, contiguous */
    double factor;
};

/* out = activation(in), any shape, in place allowed; bf16 allowed. */
struct lt_activate_args {
    struct lt_view out, in;
    enum lt_activation activation;
};

/* out[l,n,:] = Σ_s softmax_s(scale · q[l,n]·k[s,n] + (s == S-1 ? last_key_bias : 0) +
 * relative_bias[n, s-l + L-1]) v[s,n,:].
 * Logits are never materialised (online softmax, f32). last_key_bias = ln(m) makes the last key
 * count m times: the padded rows of the text (dit.md 2.4). Strided views allowed; out may not
 * overlap the inputs. exec precision bf16: q, k, v and the probabilities are rounded to bf16, sums
 * in f32. */
struct lt_attention_args {
    struct lt_view out, q; /* [L, H, K] f32 */
    struct lt_view k, v;   /* [S, H, K] f32 */
    float scale;
    float last_key_bias;
    struct lt_view relative_bias; /* [H, L+S-1] f32, of the distances 1-L … S-1 of a key from its
                                     query (encoders.md 6.2); data NULL: none */
    bool exact; /* f32 inputs whatever the exec's precision: logits without a scale */
};

/* out[l, (c·2 + dy)·2 + dx] = in[c, f, 2i+dy, 2j+dx], l = (f·h/2 + i)·w/2 + j. dit.md 2.2. */
struct lt_patchify_args {
    struct lt_view out; /* [F·h/2·w/2, C·4] f32 */
    struct lt_view in;  /* [C, F, h, w] f32 */
};

/* out[c, f, 2i+dy, 2j+dx] = in[l, (dy·2 + dx)·C + c] (channel fastest: not the inverse of
 * patchify). dit.md 2.10. */
struct lt_unpatchify_args {
    struct lt_view out; /* [C, F, h, w] f32 */
    struct lt_view in;  /* [F·h/2·w/2, 4·C] f32 */
};

/* Channels-last convolution, cross-correlation, for the VAE (encoders.md 1).
 * Time: frames of `past` stand before `in`, and before them as many zero frames as are needed so
 * that out has `out.dim[0]` frames: out frame t uses input frames t·stride_time … t·stride_time +
 * kt - 1 of the sequence [zeros, past, in]. Space: zero padding of the four sides; with `upsample`,
 * `in` (and past) count as nearest-upsampled by 2 in both directions first (never materialised).
 * f32 or bf16 activations; from bf16 also to f32. */
struct lt_conv_args {
    struct lt_view out;    /* [To, Yo, Xo, Co]; dims 0..2 may be strided */
    struct lt_view in;     /* [T, Y, X, Ci] */
    struct lt_view past;   /* [P, Y, X, Ci], P <= kt - 1; data NULL: none. Its frames may lie in any
                              order: the stride of dim 0 may be negative */
    struct lt_view weight; /* [Co, Ci, kt, ky, kx] (or [Co, Ci, ky, kx]) any float type */
    struct lt_view bias;   /* [Co]; data NULL: none */
    struct lt_view add;    /* as out; added to the result; data NULL: none. May be out itself. */
    int stride_time, stride_space;
    int pad_top, pad_bottom, pad_left, pad_right;
    bool upsample;
    bool exact; /* f32 inputs whatever the exec's precision: the motion encoder */
};

/* out[r,:] = activation(in[r,:] / max(‖in[r,:]‖₂, 1e-12) · √C · gamma). encoders.md 1.2. In place
 * allowed. */
struct lt_channel_norm_args {
    struct lt_view out, in; /* [..., C] f32 or bf16, contiguous */
    struct lt_view gamma;   /* [C] */
    enum lt_activation activation;
};

/* Normalised attention guidance, row by row: G = scale · positive - (scale - 1) · negative,
 * shortened to tau times the L1 norm of `positive` where it is longer; out = alpha · G + (1 -
 * alpha) · positive. dit.md 2.12. out may be positive or negative. */
struct lt_nag_args {
    struct lt_view out, positive, negative; /* [L, D] f32 */
    float scale, tau, alpha;
};

/* Every head of row l turned by position[l] as in 1-D RoPE over its whole width: the interleaved
 * pair j by position · 10000^(-2j/K). dit.md 4.5. In place allowed. */
struct lt_rotate_args {
    struct lt_view out, in;  /* [L, H, K] f32, K even; rows may be strided */
    struct lt_view position; /* [L] f32 */
};

/* Which of C masks each token looks at most, as a position (dit.md 4.5). looks[l, h, c] is what
 * head h of token l gave to mask c: maps[c, l] = mean over heads / size[c] (0: 0), range[c] = the
 * lowest and highest of maps[c], and with the first c whose maps[c, l] is highest position[l] =
 * first[c] + width · (maps[c, l] - low) / (high - low + 1e-8), or first[C-1] of the last mask. Sums
 * in f64. */
struct lt_route_args {
    struct lt_view position;    /* [L] f32 */
    struct lt_view maps;        /* [C, L] f32, contiguous */
    struct lt_view range;       /* [C - 1, 2] f32, contiguous */
    struct lt_view looks;       /* [L, H, K] f32, C <= K; rows and heads may be strided */
    struct lt_view size, first; /* [C] f32 */
    float width;
};

/* Each channel filtered by [1 3 3 1]/8 along rows and columns, zeros around, every `stride`-th
 * place kept: places are (Y + 2·pad - 4) / stride + 1 by (X + 2·pad - 4) / stride + 1. dit.md 3.6.
 */
struct lt_blur_args {
    struct lt_view out; /* [T, Yo, Xo, C] f32, contiguous */
    struct lt_view in;  /* [T, Y, X, C] f32, contiguous */
    int pad, stride;
};

/* AvgDown3D of the Wan 2.2 VAE (encoders.md 2.2). The channels of a block of `time` frames and
 * `space`² pixels, numbered k = c·time·space² + frame·space² + row·space + column, are averaged in
 * Co groups of neighbours: out[y,x,o] = mean of group o. A call brings one frame of the block; what
 * it does not hold counts as zero, or stands in `out` already (`accumulate`). time = space = 1 and
 * Ci = Co: a copy, or a sum. */
struct lt_avg_down_args {
    struct lt_view out;     /* [1, Y/space, X/space, Co] f32 or bf16, contiguous */
    struct lt_view in;      /* [1, Y, X, Ci] of the same type; Ci·time·space² a multiple of Co */
    int time, space, frame; /* frame in [0, time) */
    bool accumulate;        /* out += instead of = */
};

/* DupUp3D of the Wan 2.2 VAE (encoders.md 2.2): channels repeated and laid out over a block of
 * `time` frames and `space`² pixels. out[space·y + q, space·x + r, o] (+)= in[y, x, k / repeats]
 * with k = o·time·space² + frame·space² + q·space + r and repeats = Co·time·space² / Ci. A call
 * makes one frame of the block. */
struct lt_dup_up_args {
    struct lt_view out; /* [1, Y·space, X·space, Co] f32 or bf16, contiguous */
    struct lt_view in;  /* [1, Y, X, Ci] of the same type; Co·time·space² a multiple of Ci */
    int time, space, frame;
    bool accumulate;
};

/*   op name = member of struct lt_kernels; arguments are struct lt_<name>_args */
#define LT_KERNEL_LIST(X)                                                                          \
    X(convert)                                                                                     \
    X(linear)                                                                                      \
    X(low_rank)                                                                                    \
    X(layer_norm)                                                                                  \
    X(rms_norm)                                                                                    \
    X(gated_add)                                                                                   \
    X(multiply)                                                                                    \
    X(scale)                                                                                       \
    X(activate)                                                                                    \
    X(attention)                                                                                   \
    X(patchify)                                                                                    \
    X(unpatchify)                                                                                  \
    X(conv)                                                                                        \
    X(channel_norm)                                                                                \
    X(nag)                                                                                         \
    X(rotate)                                                                                      \
    X(route)                                                                                       \
    X(blur)                                                                                        \
    X(avg_down)                                                                                    \
    X(dup_up)

struct lt_kernels {
#define LT_KERNEL_MEMBER(op)                                                                       \
    lt_status (*op)(struct lt_exec * exec, const struct lt_##op##_args *args,                      \
                    struct lt_error *error);                                                       \
    const char *op##_variant; /* "ref", "host.avx512", … */
    LT_KERNEL_LIST(LT_KERNEL_MEMBER)
#undef LT_KERNEL_MEMBER
};

/* What this machine offers (kernels/caps.c). */
enum lt_caps {
    LT_CAP_HOST = 1u << 0,   /* oneDNN and plain C */
    LT_CAP_AVX2 = 1u << 1,   /* with FMA and F16C */
    LT_CAP_AVX512 = 1u << 2, /* F, BW, VL, DQ */
    LT_CAP_AVX512_BF16 = 1u << 3,
    LT_CAP_CUDA = 1u << 4, /* never detected: whoever opened a device says so, for its own table */
};
unsigned lt_caps_detect(void);
void lt_caps_format(unsigned caps, char *text, size_t size);
/* What must be equal for equal bits: instruction sets and library version, "host avx2 avx512
 * onednn-2.6.3". */
void lt_kernels_class(char *text, size_t size);

/* Fills every entry: reference first, then what `caps` allow, later wins. caps 0 = reference only.
 */
void lt_kernels_init(struct lt_kernels *table, unsigned caps);
/* "ref", "best", or "attention=ref,linear=host": for bisection. LT_USAGE names what exists. */
lt_status lt_kernels_select(struct lt_kernels *table, unsigned caps, const char *selector,
                            struct lt_error *error);

/* Calls through the table with validation: LT_OP(linear, kernels, exec, error, .out = …, .in = …).
 */
#define LT_KERNEL_CALL(op)                                                                         \
    lt_status lt_##op(const struct lt_kernels *kernels, struct lt_exec *exec,                      \
                      const struct lt_##op##_args *args, struct lt_error *error);
LT_KERNEL_LIST(LT_KERNEL_CALL)
#undef LT_KERNEL_CALL
#define LT_OP(op, kernels, exec, error, ...)                                                       \
    lt_##op(kernels, exec, &(struct lt_##op##_args){__VA_ARGS__}, error)
