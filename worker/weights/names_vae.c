/* The diffusers names of the Wan VAEs (encoders.md 1.7). Blocks there are `resnets` and samplers
 * beside each other; in the original they are numbered together, in one list (Wan 2.1) or one list
 * a group (Wan 2.2). */
#include "worker/weights/names.h"

#include <stdio.h>
#include <string.h>

/* Residual blocks of a group: the sampler comes after them. */
enum { DOWN_BLOCKS = 2, UP_BLOCKS = 3 };

static bool has_part(const struct tensor_info *tensors, size_t count, const char *part)
{
    for (size_t i = 0; i < count; i++)
        if (strstr(tensors[i].name, part))
            return true;
    return false;
}

/* "12." -> 12, and `*text` behind it; -1: no number. */
static int take_number(const char **text)
{
    int number = 0, digits = 0;
    for (; **text >= '0' && **text <= '9' && digits < 4; (*text)++, digits++)
        number = 10 * number + (**text - '0');
    if (digits == 0 || **text != '.')
        return -1;
    (*text)++;
    return number;
}

static bool take_word(const char **text, const char *word)
{
    const size_t length = strlen(word);
    if (strncmp(*text, word, length) != 0)
        return false;
    *text += length;
    return true;
}

/* What stands in a block: its tail, and the original's name for its part ("" when it is the same).
 */
static const char *block_part(const char **tail)
{
    static const struct {
        const char *from, *to;
    } parts[] = {{"norm1.", "residual.0."},
                 {"conv1.", "residual.2."},
                 {"norm2.", "residual.3."},
                 {"conv2.", "residual.6."},
                 {"conv_shortcut.", "shortcut."}};
    for (size_t i = 0; i < LT_COUNT(parts); i++)
        if (take_word(tail, parts[i].from))
            return parts[i].to;
    return "";
}

/* <levels>.<block>.<rest>, or <levels>.<group>.<levels>.<block>.<rest>. */
static bool put_block(char *to, size_t size, const char *part, const char *levels, int group,
                      int block, const char *tail)
{
    const char *inner = block_part(&tail);
    const int length = group < 0
                           ? snprintf(to, size, "%s.%s.%d.%s%s", part, levels, block, inner, tail)
                           : snprintf(to, size, "%s.%s.%d.%s.%d.%s%s", part, levels, group, levels,
                                      block, inner, tail);
    return length < (int)size;
}

static bool rename_level(const char *part, const char *rest, bool grouped, char *to, size_t size)
{
    const bool down = take_word(&rest, "down_blocks.");
    if (!down && !take_word(&rest, "up_blocks."))
        return false;
    const char *levels = down ? "downsamples" : "upsamples";
    const int group = take_number(&rest), blocks = down ? DOWN_BLOCKS : UP_BLOCKS;
    if (group < 0)
        return false;
    int block = blocks;
    if (take_word(&rest, "resnets.")) {
        block = take_number(&rest);
        if (block < 0)
            return false;
    } else if (!take_word(&rest, "upsamplers.0.") && !take_word(&rest, "upsampler.") &&
               !take_word(&rest, "downsampler.")) {
        return down && !grouped && put_block(to, size, part, levels, -1, group, rest);
    }
    return grouped ? put_block(to, size, part, levels, group, block, rest)
                   : put_block(to, size, part, levels, -1, group * (blocks + 1) + block, rest);
}

/* False: the name has no counterpart. */
static bool rename_one(const char *name, bool grouped, char *to, size_t size)
{
    const char *rest = name;
    int length = (int)size;
    if (take_word(&rest, "quant_conv."))
        return snprintf(to, size, "conv1.%s", rest) < (int)size;
    if (take_word(&rest, "post_quant_conv."))
        return snprintf(to, size, "conv2.%s", rest) < (int)size;
    if (!take_word(&rest, "encoder.") && !take_word(&rest, "decoder."))
        return false;
    const char *part = name[0] == 'e' ? "encoder" : "decoder";
    if (take_word(&rest, "conv_in."))
        length = snprintf(to, size, "%s.conv1.%s", part, rest);
    else if (take_word(&rest, "norm_out."))
        length = snprintf(to, size, "%s.head.0.%s", part, rest);
    else if (take_word(&rest, "conv_out."))
        length = snprintf(to, size, "%s.head.2.%s", part, rest);
    else if (take_word(&rest, "mid_block.attentions.0."))
        length = snprintf(to, size, "%s.middle.1.%s", part, rest);
    else if (take_word(&rest, "mid_block.resnets.")) {
        const int block = take_number(&rest);
        const char *inner = block_part(&rest);
        length = snprintf(to, size, "%s.middle.%d.%s%s", part, 2 * block, inner, rest);
    } else
        return rename_level(part, rest, grouped, to, size);
    return length < (int)size;
}

lt_status names_of_vae(struct tensor_info *tensors, size_t count, const char *path,
                       struct lt_arena *arena, struct lt_error *error)
{
    if (!has_part(tensors, count, "coder.mid_block.attentions.0.to_qkv."))
        return LT_OK;
    const bool grouped =
        has_part(tensors, count, ".upsampler.") || has_part(tensors, count, ".downsampler.");
    for (size_t i = 0; i < count; i++) {
        char name[256];
        if (!rename_one(tensors[i].name, grouped, name, sizeof name))
            continue;
        tensors[i].name = lt_arena_text(arena, name);
        if (!tensors[i].name)
            return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", path);
    }
    return LT_OK;
}
