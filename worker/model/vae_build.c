/* From tensors to layers. The two kinds of file differ in how their levels are named: flat
 * (`upsamples.7`, Wan 2.1) or in groups (`upsamples.1.upsamples.3`, Wan 2.2). What a layer is shows
 * in its tensors, and all widths are taken from them. */
#include "kernels/quant.h"
#include "worker/model/vae_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 192 };

struct builder {
    struct vae *vae;
    const struct vae_source *source;
    int64_t width; /* channels between the last layer and the next */
};

bool vae_wants(void *part, const char *name)
{
    const bool decoder = *(const enum vae_part *)part == VAE_DECODER;
    return strncmp(name, decoder ? "decoder." : "encoder.", 8) == 0 ||
           strncmp(name, decoder ? "conv2." : "conv1.", 6) == 0;
}

static void print(char name[NAME_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The names of a VAE are far shorter than the room; a longer one is not found. */
static void print(char name[NAME_BYTES], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(name, NAME_BYTES, format, args);
    va_end(args);
}

/* -- tensors ----------------------------------------------------------------------------------- */

/* Stands for the data of a tensor of which only the shape is known. */
static char hollow_data[1];

static bool has(const struct builder *b, const char *name)
{
    return b->source->store ? store_has(b->source->store, name)
                            : tensor_file_find(b->source->file, name) != NULL;
}

static lt_status find(const struct builder *b, const char *name, struct lt_view *view,
                      struct lt_error *error)
{
    if (b->source->store)
        return store_tensor(b->source->store, name, view, error);
    const struct tensor_info *info = tensor_file_find(b->source->file, name);
    if (!info)
        return lt_fail(error, LT_NOT_FOUND, "%s: tensor '%s' is missing",
                       tensor_file_path(b->source->file), name);
    *view = lt_view_make(hollow_data, info->type, info->rank, info->dim);
    return LT_OK;
}

/* By element count, as files differ in which dims of one they keep (dit.md 1.2). */
static lt_status find_shaped(const struct builder *b, const char *name, int rank,
                             const int64_t *dim, struct lt_view *view, struct lt_error *error)
{
    struct lt_view found;
    LT_TRY(find(b, name, &found, error));
    *view = lt_view_make(found.data, found.type, rank, dim);
    if (lt_view_count(view) == lt_view_count(&found))
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT, "tensor '%s': expected %lld values, found %lld", name,
                   (long long)lt_view_count(view), (long long)lt_view_count(&found));
}

/* A convolution from `in` channels to as many as it has biases. */
static lt_status find_conv(const struct builder *b, struct vae_conv *conv, const char *name,
                           int64_t in, int64_t time, int64_t space, struct lt_error *error)
{
    char full[NAME_BYTES];
    struct lt_view bias;
    *conv = (struct vae_conv){.in = in};
    print(full, "%s.bias", name);
    LT_TRY(find(b, full, &bias, error));
    conv->out = lt_view_count(&bias);
    conv->bias = lt_view_1d(bias.data, bias.type, conv->out);
    print(full, "%s.weight", name);
    return find_shaped(b, full, 5, (int64_t[]){conv->out, in, time, space, space}, &conv->weight,
                       error);
}

static lt_status find_norm(const struct builder *b, struct lt_view *gamma, int64_t channels,
                           const char *name, struct lt_error *error)
{
    return find_shaped(b, name, 1, &channels, gamma, error);
}

/* -- layers ------------------------------------------------------------------------------------ */

static lt_status add(struct builder *b, enum vae_layer_kind kind, struct vae_layer **layer_out,
                     struct lt_error *error)
{
    if (b->vae->layer_count == VAE_LAYERS_MAX)
        return lt_fail(error, LT_BAD_INPUT, "a VAE of more than %d layers", VAE_LAYERS_MAX);
    *layer_out = &b->vae->layer[b->vae->layer_count++];
    **layer_out = (struct vae_layer){.kind = kind};
    return LT_OK;
}

static lt_status add_conv(struct builder *b, const char *name, int64_t time, int64_t space,
                          struct lt_error *error)
{
    struct vae_layer *layer = NULL;
    LT_TRY(add(b, VAE_CONV, &layer, error));
    LT_TRY(find_conv(b, &layer->first, name, b->width, time, space, error));
    b->width = layer->first.out;
    return LT_OK;
}

/* to[tap, row] = from[row, tap], planes of `area`. */
static void sort_taps(const float *from, int64_t rows, int64_t taps, int64_t area, float *to)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t tap = 0; tap < taps; tap++)
            memcpy(to + (tap * rows + row) * area, from + (row * taps + tap) * area,
                   (size_t)area * sizeof *to);
}

/* The weight's values with the tap slowest, in the exec's memory. */
static lt_status make_taps(struct lt_exec *exec, const struct lt_view *weight, void **taps_out,
                           struct lt_error *error)
{
    const int64_t count = lt_view_count(weight);
    const size_t bytes = (size_t)count * sizeof(float);
    uint64_t stored_bytes = 0;
    lt_type_bytes(weight->type, (uint64_t)count, &stored_bytes);
    void *stored = malloc((size_t)stored_bytes), *taps = NULL;
    float *plain = malloc(bytes), *cut = malloc(bytes);
    lt_status status = LT_NO_MEMORY;
    if (!stored || !plain || !cut) {
        lt_fail(error, LT_NO_MEMORY, "no memory for the head of a VAE");
        goto out;
    }
    LT_TRY_OR(lt_exec_download(exec, stored, weight->data, (size_t)stored_bytes, error), out);
    lt_dequantize_row(weight->type, stored, plain, count);
    sort_taps(plain, weight->dim[0] * weight->dim[1], weight->dim[2],
              weight->dim[3] * weight->dim[4], cut);
    LT_TRY_OR(lt_exec_take(exec, bytes, &taps, error), out);
    LT_TRY_OR(lt_exec_upload(exec, taps, cut, bytes, error), out);
    *taps_out = taps;
    taps = NULL;
out:
    lt_exec_give(exec, taps, bytes);
    free(stored);
    free(plain);
    free(cut);
    return status;
}

/* The head's weight tap by tap, [Co, Ci, ky, kx] each. */
static lt_status cut_taps(const struct builder *b, struct vae_layer *layer, struct lt_error *error)
{
    const struct lt_view *weight = &layer->first.weight;
    const int64_t taps = weight->dim[2], count = lt_view_count(weight) / taps;
    void *cut = NULL;
    lt_assert(taps == (int64_t)LT_COUNT(layer->tap));
    if (b->source->store)
        LT_TRY(make_taps(b->vae->exec, weight, &cut, error));
    for (int64_t tap = 0; tap < taps; tap++)
        layer->tap[tap] =
            lt_view_4d(cut ? (void *)((float *)cut + tap * count) : hollow_data, LT_TYPE_F32,
                       weight->dim[0], weight->dim[1], weight->dim[3], weight->dim[4]);
    return LT_OK;
}

static lt_status add_head(struct builder *b, const char *part, struct lt_error *error)
{
    struct vae_layer *layer = NULL;
    char name[NAME_BYTES];
    LT_TRY(add(b, VAE_HEAD, &layer, error));
    print(name, "%s.head.0.gamma", part);
    LT_TRY(find_norm(b, &layer->norm_first, b->width, name, error));
    print(name, "%s.head.2", part);
    LT_TRY(find_conv(b, &layer->first, name, b->width, 3, 3, error));
    b->width = layer->first.out;
    return cut_taps(b, layer, error);
}

static lt_status add_residual(struct builder *b, const char *prefix, struct lt_error *error)
{
    struct vae_layer *layer = NULL;
    char name[NAME_BYTES];
    LT_TRY(add(b, VAE_RESIDUAL, &layer, error));
    print(name, "%s.residual.0.gamma", prefix);
    LT_TRY(find_norm(b, &layer->norm_first, b->width, name, error));
    print(name, "%s.residual.2", prefix);
    LT_TRY(find_conv(b, &layer->first, name, b->width, 3, 3, error));
    print(name, "%s.residual.3.gamma", prefix);
    LT_TRY(find_norm(b, &layer->norm_second, layer->first.out, name, error));
    print(name, "%s.residual.6", prefix);
    LT_TRY(find_conv(b, &layer->second, name, layer->first.out, 3, 3, error));
    if (layer->second.out != b->width) {
        print(name, "%s.shortcut", prefix);
        LT_TRY(find_conv(b, &layer->shortcut, name, b->width, 1, 1, error));
        if (layer->shortcut.out != layer->second.out)
            return lt_fail(error, LT_BAD_INPUT, "layer '%s': gives %lld channels, expected %lld",
                           name, (long long)layer->shortcut.out, (long long)layer->second.out);
    }
    b->width = layer->second.out;
    return LT_OK;
}

static lt_status add_attention(struct builder *b, const char *prefix, struct lt_error *error)
{
    struct vae_layer *layer = NULL;
    char name[NAME_BYTES];
    const int64_t width = b->width, wide = 3 * width;
    LT_TRY(add(b, VAE_ATTENTION, &layer, error));
    print(name, "%s.norm.gamma", prefix);
    LT_TRY(find_norm(b, &layer->norm_first, width, name, error));
    print(name, "%s.to_qkv.weight", prefix);
    LT_TRY(find_shaped(b, name, 2, (int64_t[]){wide, width}, &layer->qkv, error));
    print(name, "%s.to_qkv.bias", prefix);
    LT_TRY(find_shaped(b, name, 1, &wide, &layer->qkv_bias, error));
    print(name, "%s.proj.weight", prefix);
    LT_TRY(find_shaped(b, name, 2, (int64_t[]){width, width}, &layer->proj, error));
    print(name, "%s.proj.bias", prefix);
    return find_shaped(b, name, 1, &width, &layer->proj_bias, error);
}

static bool has_time_conv(const struct builder *b, const char *prefix)
{
    char name[NAME_BYTES];
    print(name, "%s.time_conv.weight", prefix);
    return has(b, name);
}

static lt_status add_resample(struct builder *b, const char *prefix, struct lt_error *error)
{
    const bool up = b->vae->part == VAE_DECODER;
    struct vae_layer *layer = NULL;
    char name[NAME_BYTES];
    LT_TRY(add(b, up ? VAE_UP : VAE_DOWN, &layer, error));
    print(name, "%s.resample.1", prefix);
    LT_TRY(find_conv(b, &layer->first, name, b->width, 1, 3, error));
    if (has_time_conv(b, prefix)) {
        print(name, "%s.time_conv", prefix);
        LT_TRY(find_conv(b, &layer->time, name, up ? b->width : layer->first.out, 3, 1, error));
        const int64_t expected = up ? 2 * b->width : layer->first.out;
        if (layer->time.out != expected)
            return lt_fail(error, LT_BAD_INPUT, "layer '%s': gives %lld channels, expected %lld",
                           name, (long long)layer->time.out, (long long)expected);
    }
    b->width = layer->first.out;
    return LT_OK;
}

/* -- parts ------------------------------------------------------------------------------------- */

static lt_status add_middle(struct builder *b, const char *part, struct lt_error *error)
{
    char name[NAME_BYTES];
    print(name, "%s.middle.0", part);
    LT_TRY(add_residual(b, name, error));
    print(name, "%s.middle.1", part);
    LT_TRY(add_attention(b, name, error));
    print(name, "%s.middle.2", part);
    return add_residual(b, name, error);
}

static bool is_residual(const struct builder *b, const char *prefix)
{
    char name[NAME_BYTES];
    print(name, "%s.residual.2.weight", prefix);
    return has(b, name);
}

static bool is_resample(const struct builder *b, const char *prefix)
{
    char name[NAME_BYTES];
    print(name, "%s.resample.1.weight", prefix);
    return has(b, name);
}

/* <prefix>.0, .1, … until one is missing. */
static lt_status add_run(struct builder *b, const char *prefix, struct lt_error *error)
{
    for (int n = 0;; n++) {
        char name[NAME_BYTES];
        print(name, "%s.%d", prefix, n);
        if (is_residual(b, name))
            LT_TRY(add_residual(b, name, error));
        else if (is_resample(b, name))
            LT_TRY(add_resample(b, name, error));
        else
            return LT_OK;
    }
}

/* A group and its shortcut without parameters: averages of what it began with, or repeats. In the
 * decoder only a group that resamples has one. */
static lt_status add_group(struct builder *b, const char *prefix, struct lt_error *error)
{
    const bool up = b->vae->part == VAE_DECODER;
    struct vae_layer *keep = NULL, *merge = NULL;
    char name[NAME_BYTES];
    int last = 0;
    const int index = b->vae->layer_count;
    const int64_t in = b->width;
    do
        print(name, "%s.%d", prefix, last);
    while (is_residual(b, name) && ++last < VAE_LAYERS_MAX);
    const bool resample = is_resample(b, name), time = resample && has_time_conv(b, name);
    const bool shortcut = resample || !up;
    if (shortcut)
        LT_TRY(add(b, VAE_KEEP, &keep, error));
    LT_TRY(add_run(b, prefix, error));
    if (!shortcut)
        return LT_OK;
    LT_TRY(add(b, VAE_MERGE, &merge, error));
    keep->group_time = merge->group_time = time ? 2 : 1;
    keep->group_space = merge->group_space = resample ? 2 : 1;
    keep->group_width = merge->group_width = b->width;
    merge->keep = index;
    const int64_t block = (time ? 2 : 1) * (resample ? 4 : 1);
    if ((up ? b->width * block % in : in * block % b->width) != 0)
        return lt_fail(error, LT_BAD_INPUT,
                       "group '%s': a shortcut of blocks of %lld cannot lead from %lld to %lld "
                       "channels",
                       prefix, (long long)block, (long long)in, (long long)b->width);
    return LT_OK;
}

static lt_status add_levels(struct builder *b, const char *part, const char *levels,
                            struct lt_error *error)
{
    char prefix[NAME_BYTES], name[NAME_BYTES];
    if (!b->vae->grouped) {
        print(prefix, "%s.%s", part, levels);
        return add_run(b, prefix, error);
    }
    for (int group = 0;; group++) {
        print(prefix, "%s.%s.%d.%s", part, levels, group, levels);
        print(name, "%s.0", prefix);
        if (!is_residual(b, name))
            return LT_OK;
        LT_TRY(add_group(b, prefix, error));
    }
}

static lt_status build_encoder(struct builder *b, struct lt_error *error)
{
    b->width = vae_input_channels(b->vae);
    LT_TRY(add_conv(b, "encoder.conv1", 3, 3, error));
    LT_TRY(add_levels(b, "encoder", "downsamples", error));
    LT_TRY(add_middle(b, "encoder", error));
    LT_TRY(add_head(b, "encoder", error));
    LT_TRY(add_conv(b, "conv1", 1, 1, error));
    b->vae->latent_channels = b->width / 2; /* mean, then log-variance */
    return LT_OK;
}

static lt_status build_decoder(struct builder *b, struct lt_error *error)
{
    struct lt_view bias;
    const int64_t expected = b->vae->grouped ? 12 : 3;
    LT_TRY(find(b, "conv2.bias", &bias, error));
    b->vae->latent_channels = b->width = lt_view_count(&bias);
    LT_TRY(add_conv(b, "conv2", 1, 1, error));
    LT_TRY(add_conv(b, "decoder.conv1", 3, 3, error));
    LT_TRY(add_middle(b, "decoder", error));
    LT_TRY(add_levels(b, "decoder", "upsamples", error));
    LT_TRY(add_head(b, "decoder", error));
    return b->width == expected
               ? LT_OK
               : lt_fail(error, LT_BAD_INPUT, "the decoder gives %lld channels, expected %lld",
                         (long long)b->width, (long long)expected);
}

/* All spatial steps double or halve: three of them in both kinds, and the fold of the second. */
static lt_status check_scale(const struct vae *vae, struct lt_error *error)
{
    int spatial = 0, temporal = 0;
    for (int i = 0; i < vae->layer_count; i++)
        if (vae->layer[i].kind == VAE_UP || vae->layer[i].kind == VAE_DOWN) {
            spatial++;
            temporal += vae->layer[i].time.weight.data != NULL;
        }
    if (spatial == 3 && temporal == 2)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT,
                   "a VAE with %d steps in space and %d in time, expected 3 and 2", spatial,
                   temporal);
}

lt_status vae_build(struct vae *vae, const struct vae_source *source, struct lt_error *error)
{
    struct builder b = {.vae = vae, .source = source};
    vae->grouped =
        has(&b, vae->part == VAE_DECODER ? "decoder.upsamples.0.upsamples.0.residual.2.weight"
                                         : "encoder.downsamples.0.downsamples.0.residual.2.weight");
    LT_TRY(vae->part == VAE_DECODER ? build_decoder(&b, error) : build_encoder(&b, error));
    return check_scale(vae, error);
}

void vae_build_undo(struct vae *vae)
{
    for (int i = 0; i < vae->layer_count; i++) {
        const struct lt_view *tap = vae->layer[i].tap;
        if (tap[0].data != hollow_data)
            lt_exec_give(vae->exec, tap[0].data,
                         LT_COUNT(vae->layer[i].tap) * (size_t)lt_view_count(&tap[0]) *
                             sizeof(float));
    }
}
