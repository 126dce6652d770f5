/* What a CLIP vision file holds (encoders.md 8.1). */
#include "worker/model/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 16, LAYERS_MAX = 512, SIDE_MAX = 65536, PATCH_MAX = 1024 };

struct vision_config vision_config_default(void)
{
    return (struct vision_config){.width = 1280,
                                  .ffn_dim = 5120,
                                  .layer_count = 32,
                                  .head_count = HEADS,
                                  .patch = 14,
                                  .grid = 16};
}

static lt_status wrong(const struct tensor_file *file, const char *name, const char *expected,
                       struct lt_error *error)
{
    return lt_fail(error, LT_BAD_INPUT, "%s: not a CLIP vision model: tensor '%s' %s",
                   tensor_file_path(file), name,
                   tensor_file_find(file, name) ? expected : "is missing");
}

static int64_t values_of(const struct tensor_info *info)
{
    int64_t count = info ? 1 : 0;
    for (int i = 0; info && i < info->rank; i++)
        count *= info->dim[i];
    return count;
}

static int64_t count_layers(const struct tensor_file *file)
{
    int64_t count = 0;
    for (; count < LAYERS_MAX; count++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%lld.norm1.weight", (long long)count);
        if (!tensor_file_find(file, name))
            break;
    }
    return count;
}

static lt_status detect_embedding(const struct tensor_file *file, struct vision_config *config,
                                  struct lt_error *error)
{
    static const char token[] = "visual.cls_embedding", cut[] = "visual.patch_embedding.weight",
                      place[] = "visual.pos_embedding";
    const struct tensor_info *patch = tensor_file_find(file, cut);
    config->width = values_of(tensor_file_find(file, token));
    if (config->width < 1 || config->width > SIDE_MAX)
        return wrong(file, token, "is not one row", error);
    if (!patch || patch->rank != 4 || patch->dim[1] != 3 || patch->dim[2] != patch->dim[3] ||
        patch->dim[3] < 1 || patch->dim[3] > PATCH_MAX)
        return wrong(file, cut, "is not [width, 3, patch, patch]", error);
    config->patch = patch->dim[3];
    const int64_t tokens = values_of(tensor_file_find(file, place)) / config->width;
    config->grid = tokens > 1 ? (int64_t)lrint(sqrt((double)(tokens - 1))) : 0;
    if (config->grid < 1 || config->grid > PATCH_MAX || config->grid * config->grid + 1 != tokens)
        return wrong(file, place, "is not [1 + grid · grid, width]", error);
    return LT_OK;
}

lt_status vision_config_detect(const struct tensor_file *file, struct vision_config *config_out,
                               struct lt_error *error)
{
    static const char mlp_in[] = "blocks.0.mlp.0.weight";
    struct vision_config config = {.head_count = HEADS};
    const struct tensor_info *mlp = tensor_file_find(file, mlp_in);
    LT_TRY(detect_embedding(file, &config, error));
    if (!mlp || mlp->rank != 2 || mlp->dim[0] < 1 || mlp->dim[0] > SIDE_MAX)
        return wrong(file, mlp_in, "is not a matrix", error);
    config.ffn_dim = mlp->dim[0];
    config.layer_count = count_layers(file);
    if (config.layer_count < 2)
        return wrong(file, "blocks.1.norm1.weight", "stands alone", error);
    config.fused = tensor_file_find(file, "blocks.0.attn.to_qkv.weight") != NULL;
    *config_out = config;
    return LT_OK;
}

bool vision_wants(void *config, const char *name)
{
    const struct vision_config *c = config;
    if (strncmp(name, "blocks.", 7) == 0)
        return strtol(name + 7, NULL, 10) < c->layer_count - 1;
    return strncmp(name, "visual.", 7) == 0 && strncmp(name, "visual.post_norm", 16) != 0 &&
           strcmp(name, "visual.head") != 0 && strcmp(name, "visual.proj") != 0;
}
