/* Spatial tiles with the blend of the ComfyUI wrapper (encoders.md 3.1): tiles start every stride,
 * the last is the first that reaches the end; a tile's weight rises over its overlap with a
 * neighbour, and a pixel is the weighted mean of the tiles that have it. */
#include "worker/model/vae_parts.h"

#include <stdlib.h>

/* One axis of one tile: latents [begin, end) of `length`. */
struct span {
    int64_t begin, end, length, border; /* border: latents over which the weight rises */
};

static struct span span_at(int64_t begin, int64_t size, int64_t stride, int64_t length)
{
    return (struct span){begin, begin + size < length ? begin + size : length, length,
                         size - stride};
}

/* Is there a tile at `begin`, or did the one before reach the end? */
static bool has_span(int64_t begin, int64_t size, int64_t stride, int64_t length)
{
    return begin < length && (begin < stride || begin - stride + size < length);
}

/* Weight of value `i` of a span, in values of 1/scale latents. */
static float span_weight(const struct span *span, int64_t i, int64_t scale)
{
    const int64_t border = span->border * scale, count = (span->end - span->begin) * scale;
    float weight = 1;
    if (span->begin > 0 && i < border)
        weight = (float)(i + 1) / (float)border;
    if (span->end < span->length && count - 1 - i < border) {
        const float falling = (float)(count - i) / (float)border;
        weight = falling < weight ? falling : weight;
    }
    return weight;
}

struct tiles {
    struct vae *vae;
    struct span row, column;
    int64_t scale;      /* values of the result per latent */
    struct lt_view sum; /* [T, Y, X, C] f32 */
    float *weight;      /* [Y, X] */
};

static lt_status tiles_begin(struct tiles *tiles, struct vae *vae, int64_t frames, int64_t rows,
                             int64_t columns, int64_t channels, struct lt_error *error)
{
    *tiles = (struct tiles){.vae = vae};
    float *sum = calloc((size_t)(frames * rows * columns * channels), sizeof *sum);
    tiles->weight = calloc((size_t)(rows * columns), sizeof *tiles->weight);
    tiles->sum = lt_view_4d(sum, LT_TYPE_F32, frames, rows, columns, channels);
    if (sum && tiles->weight)
        return LT_OK;
    free(sum);
    free(tiles->weight);
    return lt_fail(error, LT_NO_MEMORY, "no memory for %lld tiled frames", (long long)frames);
}

static void tiles_end(struct tiles *tiles)
{
    free(tiles->sum.data);
    free(tiles->weight);
}

static float weight_at(const struct tiles *t, int64_t y, int64_t x)
{
    const float row = span_weight(&t->row, y, t->scale),
                column = span_weight(&t->column, x, t->scale);
    return row < column ? row : column;
}

/* Adds a frame of the tile, values [y, x, c] at `from` with the given strides. */
static void add_frame(struct tiles *t, int64_t index, const float *from, int64_t row_stride,
                      int64_t column_stride, int64_t channel_stride)
{
    const int64_t top = t->row.begin * t->scale, left = t->column.begin * t->scale;
    const int64_t rows = (t->row.end - t->row.begin) * t->scale,
                  columns = (t->column.end - t->column.begin) * t->scale;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x++) {
            const float weight = weight_at(t, y, x);
            float *sum = (float *)t->sum.data + index * t->sum.stride[0] +
                         (top + y) * t->sum.stride[1] + (left + x) * t->sum.stride[2];
            for (int64_t c = 0; c < t->sum.dim[3]; c++)
                sum[c] += weight * from[y * row_stride + x * column_stride + c * channel_stride];
            if (index == 0)
                t->weight[(top + y) * t->sum.dim[2] + left + x] += weight;
        }
}

/* Every sum over its weight. */
static void divide(struct tiles *t)
{
    const int64_t area = t->sum.dim[1] * t->sum.dim[2], channels = t->sum.dim[3];
    float *sum = t->sum.data;
    for (int64_t i = 0; i < t->sum.dim[0] * area; i++)
        for (int64_t c = 0; c < channels; c++)
            sum[i * channels + c] /= t->weight[i % area];
}

static lt_status check_tiling(const struct vae_tiling *tiling, struct lt_error *error)
{
    if (tiling->row_stride >= 1 && tiling->column_stride >= 1 &&
        tiling->rows >= tiling->row_stride && tiling->columns >= tiling->column_stride)
        return LT_OK;
    return lt_fail(error, LT_BAD_INPUT,
                   "tiles of %lldx%lld latents every %lldx%lld: the stride is at least 1 and at "
                   "most the size",
                   (long long)tiling->rows, (long long)tiling->columns,
                   (long long)tiling->row_stride, (long long)tiling->column_stride);
}

int64_t vae_tile_count(const struct vae_tiling *tiling, int64_t rows, int64_t columns)
{
    int64_t down = 0, across = 0;
    while (has_span(down * tiling->row_stride, tiling->rows, tiling->row_stride, rows))
        down++;
    while (
        has_span(across * tiling->column_stride, tiling->columns, tiling->column_stride, columns))
        across++;
    return down * across;
}

lt_status vae_decode_tiled_bytes(const struct tensor_file *file, enum lt_precision precision,
                                 const struct vae_tiling *tiling, int64_t frames, int64_t rows,
                                 int64_t columns, size_t *bytes_out, size_t *held_bytes_out,
                                 struct lt_error *error)
{
    int64_t scale;
    LT_TRY(check_tiling(tiling, error));
    LT_TRY(vae_file_scale(VAE_DECODER, file, &scale, error));
    const size_t pixels = (size_t)(rows * columns * scale * scale);
    *held_bytes_out = ((size_t)(4 * frames - 3) * 3 + 1) * pixels * sizeof(float);
    return vae_bytes(VAE_DECODER, file, precision, frames,
                     tiling->rows < rows ? tiling->rows : rows,
                     tiling->columns < columns ? tiling->columns : columns, bytes_out, error);
}

/* Runs `one` for every tile, rows of tiles first. */
static lt_status each_tile(struct tiles *t, const struct vae_tiling *tiling, int64_t rows,
                           int64_t columns,
                           lt_status (*one)(struct tiles *t, void *context, struct lt_error *error),
                           void *context, struct lt_error *error)
{
    for (int64_t y = 0; has_span(y, tiling->rows, tiling->row_stride, rows);
         y += tiling->row_stride)
        for (int64_t x = 0; has_span(x, tiling->columns, tiling->column_stride, columns);
             x += tiling->column_stride) {
            t->row = span_at(y, tiling->rows, tiling->row_stride, rows);
            t->column = span_at(x, tiling->columns, tiling->column_stride, columns);
            LT_TRY(one(t, context, error));
        }
    return LT_OK;
}

/* The tile's part of [C, T, rows, columns]; `scale` values per latent. */
static struct lt_view cut(const struct tiles *t, const struct lt_view *whole, int64_t scale)
{
    struct lt_view part = *whole;
    part.data = (float *)whole->data + t->row.begin * scale * whole->stride[2] +
                t->column.begin * scale * whole->stride[3];
    part.dim[2] = (t->row.end - t->row.begin) * scale;
    part.dim[3] = (t->column.end - t->column.begin) * scale;
    return part;
}

/* -- decode ------------------------------------------------------------------------------------ */

struct decoding {
    const struct lt_view *latents;
    atomic_uint *done;
};

static lt_status add_pixels(void *context, int64_t index, const float *rgb, struct lt_error *error)
{
    struct tiles *t = context;
    (void)error;
    add_frame(t, index, rgb, (t->column.end - t->column.begin) * t->scale * 3, 3, 1);
    return LT_OK;
}

static lt_status decode_tile(struct tiles *t, void *context, struct lt_error *error)
{
    const struct decoding *d = context;
    const struct lt_view part = cut(t, d->latents, 1);
    struct vae_sink sink = {
        .take = vae_take_pixels, .on_frame = add_pixels, .context = t, .raw = true};
    vae_forget(t->vae);
    return vae_stream(t->vae, &part, part.dim[1], &sink, d->done, error);
}

static lt_status give_frames(struct tiles *t, vae_frame *on_frame, void *context,
                             struct lt_error *error)
{
    const int64_t count = t->sum.stride[0];
    for (int64_t i = 0; i < t->sum.dim[0]; i++) {
        float *rgb = (float *)t->sum.data + i * count;
        for (int64_t j = 0; j < count; j++)
            rgb[j] = rgb[j] < -1 ? -1 : rgb[j] > 1 ? 1 : rgb[j];
        LT_TRY(on_frame(context, i, rgb, error));
    }
    return LT_OK;
}

lt_status vae_decode_tiled(struct vae *vae, const struct vae_tiling *tiling,
                           const struct lt_view *latents, vae_frame *on_frame, void *context,
                           atomic_uint *done, struct lt_error *error)
{
    const int64_t scale = vae_scale(vae);
    struct decoding decoding = {latents, done};
    struct tiles tiles;
    LT_TRY(vae_check_latents(vae, latents, error));
    LT_TRY(check_tiling(tiling, error));
    LT_TRY(tiles_begin(&tiles, vae, 4 * latents->dim[1] - 3, scale * latents->dim[2],
                       scale * latents->dim[3], 3, error));
    tiles.scale = scale;
    vae->frames.peak_bytes = 0;
    vae->single = latents->dim[1] == 1;
    lt_status status =
        each_tile(&tiles, tiling, latents->dim[2], latents->dim[3], decode_tile, &decoding, error);
    vae_forget(vae);
    vae->single = false;
    if (status == LT_OK) {
        divide(&tiles);
        status = give_frames(&tiles, on_frame, context, error);
    }
    tiles_end(&tiles);
    return status;
}

/* -- encode ------------------------------------------------------------------------------------ */

struct encoding {
    const struct lt_view *pixels;
    struct lt_view part; /* [z, T, rows, columns] of the largest tile */
    int64_t frames;
    atomic_uint *done;
};

static lt_status encode_tile(struct tiles *t, void *context, struct lt_error *error)
{
    const struct encoding *e = context;
    const struct lt_view pixels = cut(t, e->pixels, vae_scale(t->vae));
    const struct lt_view latents =
        lt_view_4d(e->part.data, LT_TYPE_F32, e->part.dim[0], e->part.dim[1],
                   t->row.end - t->row.begin, t->column.end - t->column.begin);
    struct vae_sink sink = {.take = vae_take_latent, .latents = latents};
    vae_forget(t->vae);
    LT_TRY(vae_stream(t->vae, &pixels, e->frames, &sink, e->done, error));
    for (int64_t i = 0; i < latents.dim[1]; i++)
        add_frame(t, i, (const float *)latents.data + i * latents.stride[1], latents.stride[2], 1,
                  latents.stride[0]);
    return LT_OK;
}

static void give_latents(const struct tiles *t, struct lt_view *latents)
{
    const int64_t z = latents->dim[0], area = latents->dim[2] * latents->dim[3];
    for (int64_t c = 0; c < z; c++)
        for (int64_t i = 0; i < latents->dim[1] * area; i++)
            ((float *)latents->data)[c * latents->dim[1] * area + i] =
                ((const float *)t->sum.data)[i * z + c];
}

lt_status vae_encode_tiled(struct vae *vae, const struct vae_tiling *tiling,
                           const struct lt_view *pixels, struct lt_view *latents, atomic_uint *done,
                           struct lt_error *error)
{
    const int64_t z = vae->latent_channels, frames = (pixels->dim[1] - 1) / 4 + 1;
    struct encoding e = {.pixels = pixels, .frames = 4 * frames - 3, .done = done};
    struct tiles tiles;
    LT_TRY(vae_check_pixels(vae, pixels, error));
    LT_TRY(check_tiling(tiling, error));
    LT_TRY(tiles_begin(&tiles, vae, frames, latents->dim[2], latents->dim[3], z, error));
    tiles.scale = 1;
    float *part = malloc((size_t)lt_view_count(latents) * sizeof *part);
    if (!part) {
        tiles_end(&tiles);
        return lt_fail(error, LT_NO_MEMORY, "no memory for the latents of a tile");
    }
    e.part = lt_view_4d(part, LT_TYPE_F32, z, frames, latents->dim[2], latents->dim[3]);
    vae->frames.peak_bytes = 0;
    vae->single = frames == 1;
    const lt_status status =
        each_tile(&tiles, tiling, latents->dim[2], latents->dim[3], encode_tile, &e, error);
    vae_forget(vae);
    vae->single = false;
    if (status == LT_OK) {
        divide(&tiles);
        give_latents(&tiles, latents);
    }
    free(part);
    tiles_end(&tiles);
    return status;
}
