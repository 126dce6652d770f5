/* What a forward takes, from its shapes alone: the terms are those of dit.c's buffers and of the
 * largest ops. */
#include "worker/model/dit_parts.h"
#include "worker/model/motion.h"

static int64_t ffn_rows(int64_t tokens)
{
    return tokens < FFN_CHUNK ? tokens : FFN_CHUNK;
}

size_t dit_activation_bytes(const struct dit_config *config, int64_t tokens, size_t count)
{
    const size_t blocks =
        (size_t)(((int64_t)count + 4) * tokens * config->dim + ffn_rows(tokens) * config->ffn_dim) *
        sizeof(float);
    /* the blocks' arena stays while the next window's face is watched */
    return blocks + (config->face.size > 0 ? motion_bytes(&config->face) : 0);
}

size_t dit_card_bytes(const struct dit_config *config, int64_t tokens, size_t count)
{
    enum { CHUNK_BYTES = 64 << 10, CHUNKS = 4 }; /* tables, vectors, ends of an arena's chunks */
    const int64_t values = 4 * tokens * (config->in_channels + config->out_channels);
    return count * (size_t)values * sizeof(float) + (size_t)CHUNKS * CHUNK_BYTES;
}

lt_status dit_scratch(const struct dit_config *config, enum lt_precision precision, int64_t tokens,
                      struct lt_scratch *scratch_out, struct lt_error *error)
{
    const int64_t d = config->dim, rows = ffn_rows(tokens);
    const int64_t image = !config->image_attention  ? 0
                          : config->image_positions ? 2 * IMAGE_TOKENS
                                                    : IMAGE_TOKENS;
    const struct {
        int64_t rows, k, n;
        bool exact;
    } linears[] = {
        {tokens, 4 * config->in_channels, d, true}, /* patches */
        {tokens, d, d, false},                      /* attention */
        {rows, d, config->ffn_dim, false},
        {rows, config->ffn_dim, d, false},
        {tokens, d, 4 * config->out_channels, true}, /* head */
        {1, d, 6 * d, true},                         /* time */
        {config->text_len, config->text_dim, d, false},
        {config->text_len, d, d, false},
        {image, IMAGE_DIM, IMAGE_DIM, false},
        {image, IMAGE_DIM, d, false},
        {image, d, d, false},
    };
    struct lt_scratch most = {0}, one;
    for (size_t i = 0; i < LT_COUNT(linears); i++) {
        if (linears[i].rows == 0)
            continue;
        LT_TRY(lt_scratch_linear(precision, linears[i].rows, linears[i].k, linears[i].n,
                                 linears[i].exact, &one, error));
        lt_scratch_join(&most, &one);
    }
    const int64_t keys[] = {tokens, config->text_len, image};
    for (size_t i = 0; i < LT_COUNT(keys); i++) {
        if (keys[i] == 0)
            continue;
        LT_TRY(
            lt_scratch_attention(precision, keys[i], config->head_count, HEAD_WIDTH, &one, error));
        lt_scratch_join(&most, &one);
    }
    LT_TRY(animate_scratch(config, precision, &most, error));
    *scratch_out = most;
    return LT_OK;
}
