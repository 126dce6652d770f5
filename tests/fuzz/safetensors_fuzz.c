/* Any bytes as a safetensors file: refused with a text, or an index in which every tensor lies
 * inside the file, is found by its name, and can be read. */
#include "common/safetensors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_tensor(struct lt_safetensors *file, const struct lt_safetensor *tensor,
                         size_t size)
{
    struct lt_error error = {0};
    uint64_t values = 1, bytes;
    lt_assert(tensor->rank >= 0 && tensor->rank <= LT_RANK_MAX);
    for (int d = 0; d < tensor->rank; d++)
        values *= (uint64_t)tensor->dim[d];
    lt_assert(lt_type_bytes(tensor->type, values, &bytes) && bytes == tensor->bytes);
    lt_assert(tensor->offset <= size && tensor->bytes <= size - tensor->offset);
    lt_assert(lt_safetensors_find(file, tensor->name) == tensor);
    void *data = malloc(tensor->bytes ? tensor->bytes : 1);
    lt_assert(data && lt_safetensors_read(file, tensor, data, &error) == LT_OK);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lt_error error = {0};
    struct lt_safetensors *file = NULL;
    char path[64];
    const int fd = memfd_create("safetensors-fuzz", MFD_CLOEXEC); /* the reader wants a path */
    lt_assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (lt_safetensors_open(path, &file, &error) == LT_OK) {
        for (size_t i = 0; i < lt_safetensors_count(file); i++)
            check_tensor(file, lt_safetensors_at(file, i), size);
        lt_safetensors_metadata(file, "format");
        lt_safetensors_close(&file);
    } else {
        lt_assert(error.text[0] != 0 && file == NULL);
    }
    close(fd);
    return 0;
}
