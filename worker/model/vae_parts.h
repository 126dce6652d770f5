/* The inside of a VAE: a chain of layers. vae_build.c finds them in the tensors, vae_layers.c runs
 * one on a frame, vae.c pushes frames down the chain, vae_latents.c is where they enter and leave
 * it, vae_tile.c cuts it into tiles, vae_bytes.c walks it on shapes only. */
#pragma once

#include "worker/model/frames.h"
#include "worker/model/vae.h"

enum { VAE_LAYERS_MAX = 64 };

/* A convolution, causal in time; it remembers its last inputs, oldest first, where it needs them.
 */
struct vae_conv {
    struct lt_view weight, bias; /* [Co, Ci, kt, ky, kx], [Co]; weight.data NULL: absent */
    int64_t in, out;
    struct lt_view past[2];
    int past_count;
};

enum vae_layer_kind {
    VAE_CONV,      /* first */
    VAE_RESIDUAL,  /* first, second, shortcut, both norms */
    VAE_ATTENTION, /* norm_first, qkv, proj */
    VAE_HEAD,      /* norm_first, first by its taps */
    VAE_UP,        /* time, first */
    VAE_DOWN,      /* first, time */
    VAE_KEEP,      /* begins a group of the Wan 2.2 VAE: keeps what its shortcut will add */
    VAE_MERGE,     /* ends it */
};

struct vae_layer {
    enum vae_layer_kind kind;
    struct vae_conv first, second, shortcut, time;
    struct lt_view norm_first, norm_second;
    struct lt_view qkv, qkv_bias, proj, proj_bias;
    /* Head: its taps [Co, Ci, ky, kx], and the sums to which only later frames are missing. */
    struct lt_view tap[3], partial[2];
    /* Keep and merge: frames and rows that one of the group becomes or is made of, its width
     * outside, the kept frame (of VAE_KEEP), and which layer has it (VAE_MERGE). */
    int group_time, group_space, keep;
    int64_t group_width;
    struct lt_view kept;
    int64_t frames; /* seen since the start of the sequence */
};

struct vae {
    enum vae_part part;
    const struct lt_kernels *kernels;
    struct lt_exec *exec;
    enum lt_type type; /* of activations */
    bool grouped;      /* the Wan 2.2 kind: pixels folded two by two, levels in groups */
    bool single;       /* the sequence has one frame: nothing to remember */
    int64_t latent_channels;
    int64_t band_pixels; /* a band of rows has at least so many, where the frame has them */
    struct vae_layer layer[VAE_LAYERS_MAX];
    int layer_count;
    struct frames frames;
    int64_t given; /* frames that left the chain since the start of the sequence */
};

/* Where finished frames go; NULL take: nowhere. The frame stays the chain's. */
struct vae_sink {
    lt_status (*take)(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                      struct lt_error *error);
    vae_frame *on_frame;
    void *context;
    struct lt_view latents; /* of this slice or tile, may be strided */
    int64_t first;          /* the slice's first frame in the sequence */
    bool raw;               /* pixels are not clamped */
};

/* Where tensors are found: in a loaded store, or only their shapes in a file. */
struct vae_source {
    const struct store *store;
    const struct tensor_file *file;
};
lt_status vae_create_from(enum vae_part part, const struct vae_source *source,
                          const struct lt_kernels *kernels, struct lt_exec *exec,
                          struct vae **vae_out, struct lt_error *error);
lt_status vae_build(struct vae *vae, const struct vae_source *source, struct lt_error *error);
/* What build made beside views. */
void vae_build_undo(struct vae *vae);

/* One layer that gives one frame for one, on `frame`: consumed, replaced or changed in place. */
lt_status vae_run_conv(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                       struct lt_error *error);
lt_status vae_run_residual(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                           struct lt_error *error);
lt_status vae_run_attention(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                            struct lt_error *error);
lt_status vae_run_head(struct vae *vae, struct vae_layer *layer, struct lt_view *frame,
                       struct lt_error *error);
/* `count` remembered frames of a convolution as one view, rows [first, first + rows). */
struct lt_view vae_past_rows(const struct vae_conv *conv, int64_t first, int64_t rows);

/* Frames of pixels or latents on the way into the chain, frames [1, Y, X, C] that come out of it.
 */
int64_t vae_input_channels(const struct vae *vae);
lt_status vae_load_frame(const struct vae *vae, const struct lt_view *from, int64_t t,
                         const struct lt_view *frame, struct lt_error *error);
lt_status vae_take_pixels(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                          struct lt_error *error);
lt_status vae_take_latent(struct vae *vae, struct vae_sink *sink, const struct lt_view *frame,
                          struct lt_error *error);
lt_status vae_check_latents(const struct vae *vae, const struct lt_view *latents,
                            struct lt_error *error);
lt_status vae_check_pixels(const struct vae *vae, const struct lt_view *pixels,
                           struct lt_error *error);

/* Frames [0, frames) of `from` (f32 [C, T, rows, columns], may be strided; data NULL: shapes only)
 * through the chain. */
lt_status vae_stream(struct vae *vae, const struct lt_view *from, int64_t frames,
                     struct vae_sink *sink, atomic_uint *done, struct lt_error *error);
