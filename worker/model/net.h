/* What every network here stands on: its weights, the ops, the place where they run, and memory for
 * activations. And the one way in which a Linear of the store is found and applied. */
#pragma once

#include "common/arena.h"
#include "kernels/exec.h"
#include "kernels/kernels.h"
#include "worker/weights/lora.h"
#include "worker/weights/store.h"

struct net {
    struct store *store;
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    struct lt_arena arena;    /* activations, of the exec's memory; who takes marks and rewinds */
    struct lt_arena host;     /* what this code itself writes and reads; the same */
    struct lora_set *lora;    /* of the model in the store; NULL: none */
    struct lt_arena *patched; /* with lora: norms and biases with their differences; as arena */
};

/* The two arenas; the exec outlives the net. */
void net_init(struct net *net);
void net_fini(struct net *net); /* accepts a zeroed net */
struct net_mark {
    struct lt_mark arena, host;
};
struct net_mark net_mark(const struct net *net);
void net_rewind(struct net *net, struct net_mark mark);

/* out = in · (weight · scale)ᵀ + bias, with what LoRAs add. Its views live as long as the store
 * keeps the block they are from. */
struct linear {
    struct lt_view weight, bias;    /* [out, in], [out]; bias.data NULL: none */
    struct lt_view scale;           /* [1] f32, of 8-bit files; data NULL: 1 */
    const struct lora_target *lora; /* of the weight; NULL: none */
};

/* A tensor by its printed name, of exactly these dims (store_tensor_shaped); of a norm, a bias, a
 * modulation: with its LoRA differences, then f32 in `patched`. */
lt_status net_tensor(const struct net *net, struct lt_view *view_out, int rank, const int64_t *dim,
                     struct lt_error *error, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* "<name>.weight" [out, in] and, where the file has it, "<name>.scale_weight"; no bias. */
lt_status net_matrix(const struct net *net, struct linear *linear_out, int64_t out, int64_t in,
                     struct lt_error *error, const char *name);
/* The same with "<name>.bias" [out]. */
lt_status net_linear(const struct net *net, struct linear *linear_out, int64_t out, int64_t in,
                     struct lt_error *error, const char *name);

/* [rows, columns] f32 of the arena, contents undefined. */
lt_status net_take(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                   struct lt_error *error);
/* Such a view with `values`, which are the caller's again. */
lt_status net_put(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                  const float *values, struct lt_error *error);
/* What a contiguous f32 view holds, when the ops so far have run. */
lt_status net_get(struct net *net, const struct lt_view *view, float *values_out,
                  struct lt_error *error);
lt_status net_zero(struct net *net, const struct lt_view *view, struct lt_error *error);
/* Contiguous f32 of equal count, in the exec's memory. */
lt_status net_copy(struct net *net, const struct lt_view *to, const struct lt_view *from,
                   struct lt_error *error);
/* [rows, columns] f32 of net.host: for this code to write, and then for net_input. */
lt_status net_host(struct net *net, struct lt_view *view_out, int64_t rows, int64_t columns,
                   struct lt_error *error);
/* What a contiguous f32 view holds, for this code to read: itself on the host, else a copy in
 * net.host as net_get makes it. */
lt_status net_values(struct net *net, const struct lt_view *view, const float **values_out,
                     struct lt_error *error);
/* Room for this code to fill a contiguous f32 view, and its way there: the view itself on the host,
 * else of net.host. */
lt_status net_open(struct net *net, const struct lt_view *view, float **values_out,
                   struct lt_error *error);
lt_status net_close(struct net *net, const struct lt_view *view, const float *values,
                    struct lt_error *error);
/* Contiguous values of RAM, of any type, as ops take them: themselves on the host, else a copy in
 * the arena. data NULL stays so. */
lt_status net_input(struct net *net, const struct lt_view *values, struct lt_view *view_out,
                    struct lt_error *error);
/* Room for what becomes the caller's `values`: themselves on the host, else of the arena, and
 * net_get brings it over. */
lt_status net_output(struct net *net, const struct lt_view *values, struct lt_view *view_out,
                     struct lt_error *error);

/* out[L, out] = activation(linear(in[L, in])): every product with weights of the store goes through
 * here. `exact`: f32 inputs whatever the precision. */
lt_status net_apply(struct net *net, const struct linear *linear, const struct lt_view *in,
                    const struct lt_view *out, enum lt_activation activation, bool exact,
                    struct lt_error *error);
