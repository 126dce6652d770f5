/* Any bytes as a LoRA file, against a small fixed model: refused with a text, or a set whose every
 * extra can be written and read. */
#include "common/file.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "worker/weights/lora.h"
#include "worker/weights/lora_describe.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WIDTH = 8 };

static char model_path[64];

static void make_model(void)
{
    static float values[WIDTH * WIDTH * 6];
    static const int64_t one[] = {1, 2, WIDTH};
    const struct lt_named_view tensors[] = {
        {"blocks.0.self_attn.q.weight", lt_view_2d(values, LT_TYPE_F32, WIDTH, WIDTH)},
        {"blocks.0.self_attn.q.bias", lt_view_1d(values, LT_TYPE_F32, WIDTH)},
        {"blocks.0.norm3.weight", lt_view_1d(values, LT_TYPE_F32, WIDTH)},
        {"blocks.0.modulation", lt_view_2d(values, LT_TYPE_F32, 6, WIDTH)},
        {"head.modulation", lt_view_make(values, LT_TYPE_F32, 3, one)},
        {"face_adapter.fuser_blocks.0.linear1_kv.weight",
         lt_view_2d(values, LT_TYPE_F32, 2 * WIDTH, WIDTH)}};
    for (size_t i = 0; i < LT_COUNT(values); i++)
        values[i] = (float)(i % 7) - 3;
    char made[64];
    void *data;
    size_t bytes;
    snprintf(made, sizeof made, "/tmp/longtake-lora-fuzz-%d", getpid());
    lt_assert(lt_safetensors_write(made, tensors, LT_COUNT(tensors), NULL, 0, NULL) == LT_OK);
    lt_assert(lt_file_read(made, 1 << 20, &data, &bytes, NULL) == LT_OK);
    unlink(made);
    const int fd = memfd_create("lora-fuzz-model", MFD_CLOEXEC); /* kept open: it is the path */
    lt_assert(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    free(data);
    snprintf(model_path, sizeof model_path, "/proc/self/fd/%d", fd);
    lt_log_set_level(LT_LOG_OFF);
}

static void use(struct lora_set *set)
{
    const struct store_extras *extras = lora_set_extras(set);
    struct lt_error error = {0};
    for (size_t i = 0; i < extras->count; i++) {
        const struct store_extra *extra = &extras->tensor[i];
        uint64_t count = 1, bytes = 0;
        for (int d = 0; d < extra->rank; d++)
            count *= (uint64_t)extra->dim[d];
        lt_assert(lt_type_bytes(extra->type, count, &bytes));
        void *data = malloc(bytes ? bytes : 1);
        lt_assert(data && extras->fill(extras->context, i, data, bytes, &error) == LT_OK);
        free(data);
    }
    lora_set_use_bytes(set);
    lora_set_state(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct tensor_file *model = NULL, *file = NULL;
    struct lora_set *set = NULL;
    struct lora_description description;
    bool is_lora;
    char path[64];
    if (!model_path[0])
        make_model();
    const int fd = memfd_create("lora-fuzz", MFD_CLOEXEC);
    lt_assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (tensor_file_open(path, &file, &error) == LT_OK)
        lt_assert(lora_describe(file, &is_lora, &description, &error) == LT_OK);
    tensor_file_close(&file);
    const struct lora_source source = {.path = path};
    const struct lora_params params = {&source, 1, data && size % 2 ? LT_TYPE_F32 : LT_TYPE_BF16,
                                       false};
    lt_assert(tensor_file_open(model_path, &model, &error) == LT_OK);
    if (lora_set_create(&params, model, &set, &error) == LT_OK)
        use(set);
    else
        lt_assert(error.text[0] != 0 && set == NULL);
    lora_set_destroy(&set);
    tensor_file_close(&model);
    close(fd);
    return 0;
}
