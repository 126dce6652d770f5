/* What the host variants share: oneDNN primitives kept per thread, and vector conversions. */
#pragma once

#include "kernels/exec.h"
#include "kernels/kernels.h"

#include <stdatomic.h>

/* oneDNN must use one thread in each of ours: sums are then never split by thread count. */
void host_thread_begin(void);

struct host_cache; /* oneDNN engine, stream and primitives of one thread */
void host_cache_destroy(struct host_cache **cache);
struct host_cache **lt_exec_host_cache(struct lt_exec *exec, int thread);

void lt_kernels_init_ref(struct lt_kernels *table);
void lt_kernels_init_host(struct lt_kernels *table, unsigned caps);

/* The error of the first part that failed; parts of one op share it. */
struct host_failure {
    atomic_int status; /* lt_status; LT_OK: none yet */
    struct lt_error error;
};
void host_failure_note(struct host_failure *failure, const struct lt_error *error);
lt_status host_failure_give(const struct host_failure *failure, struct lt_error *error);

lt_status host_convert(struct lt_exec *exec, const struct lt_convert_args *args,
                       struct lt_error *error);
lt_status host_linear(struct lt_exec *exec, const struct lt_linear_args *args,
                      struct lt_error *error);
lt_status host_low_rank(struct lt_exec *exec, const struct lt_low_rank_args *args,
                        struct lt_error *error);
lt_status host_layer_norm(struct lt_exec *exec, const struct lt_layer_norm_args *args,
                          struct lt_error *error);
lt_status host_rms_norm(struct lt_exec *exec, const struct lt_rms_norm_args *args,
                        struct lt_error *error);
lt_status host_gated_add(struct lt_exec *exec, const struct lt_gated_add_args *args,
                         struct lt_error *error);
lt_status host_multiply(struct lt_exec *exec, const struct lt_multiply_args *args,
                        struct lt_error *error);
lt_status host_activate(struct lt_exec *exec, const struct lt_activate_args *args,
                        struct lt_error *error);
lt_status host_attention(struct lt_exec *exec, const struct lt_attention_args *args,
                         struct lt_error *error);
lt_status host_conv(struct lt_exec *exec, const struct lt_conv_args *args, struct lt_error *error);
lt_status host_rotate(struct lt_exec *exec, const struct lt_rotate_args *args,
                      struct lt_error *error);
lt_status host_nag(struct lt_exec *exec, const struct lt_nag_args *args, struct lt_error *error);
lt_status host_blur(struct lt_exec *exec, const struct lt_blur_args *args, struct lt_error *error);
lt_status host_channel_norm(struct lt_exec *exec, const struct lt_channel_norm_args *args,
                            struct lt_error *error);
lt_status host_avg_down(struct lt_exec *exec, const struct lt_avg_down_args *args,
                        struct lt_error *error);
lt_status host_dup_up(struct lt_exec *exec, const struct lt_dup_up_args *args,
                      struct lt_error *error);
/* bf16 products run in the machine's own bf16 instructions, or else in f32 on rounded inputs. */
bool host_has_bf16(void);
