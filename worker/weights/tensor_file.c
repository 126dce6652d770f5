#include "worker/weights/tensor_file.h"

#include "common/arena.h"
#include "common/file.h"
#include "common/safetensors.h"
#include "worker/weights/gguf.h"
#include "worker/weights/names.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 8 << 20, SAMPLES = 64, SAMPLE_BYTES = 4096, INDEX_BYTES_MAX = 32 << 20 };

struct tensor_file {
    atomic_int fd; /* -1: suspended */
    atomic_int owners;
    pthread_mutex_t lock; /* of opening again */
    char *path;
    char format[16];
    struct stat opened; /* to notice that the file was replaced */
    uint64_t header_bytes;
    _Atomic uint64_t bytes_read;
    struct lt_arena arena;
    struct tensor_info *tensor; /* file order */
    uint32_t *by_name;
    size_t count;
    struct gguf_pair *metadata;
    struct gguf_array *arrays;
    struct lt_safetensors *safetensors; /* keeps names and metadata of that format */
    struct tensor_file *joined;         /* owned; its tensors stand behind ours */
};

/* -- index ------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct tensor_info *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes
               ? -1
               : x->bytes > y->bytes; /* an empty tensor stands before its neighbour */
}

static int by_name(const void *a, const void *b, void *context)
{
    const struct tensor_info *tensor = context;
    return strcmp(tensor[*(const uint32_t *)a].name, tensor[*(const uint32_t *)b].name);
}

static bool has_name(const struct tensor_file *file, const char *prefix, const char *name)
{
    const size_t length = strlen(prefix);
    for (size_t i = 0; i < file->count; i++)
        if (strncmp(file->tensor[i].name, prefix, length) == 0 &&
            strcmp(file->tensor[i].name + length, name) == 0)
            return true;
    return false;
}

static bool all_have(const struct tensor_file *file, const char *prefix)
{
    for (size_t i = 0; i < file->count; i++)
        if (strncmp(file->tensor[i].name, prefix, strlen(prefix)) != 0)
            return false;
    return file->count > 0;
}

/* dit.md 1.1: a prefix goes when the tensors that name a model appear only behind it. */
static void strip_prefix(struct tensor_file *file)
{
    static const char *const prefixes[] = {"model.diffusion_model.", "diffusion_model.", "model.",
                                           "net.", "wav2vec2."};
    static const char *const marks[] = {"patch_embedding.weight", "decoder.conv1.weight",
                                        "audio_proj.proj1.weight",
                                        "feature_extractor.conv_layers.0.conv.weight"};
    for (size_t m = 0; m < LT_COUNT(marks); m++)
        if (has_name(file, "", marks[m]))
            return;
    for (size_t p = 0; p < LT_COUNT(prefixes); p++) {
        const size_t length = strlen(prefixes[p]);
        bool found = false;
        for (size_t m = 0; m < LT_COUNT(marks); m++)
            found = found || has_name(file, prefixes[p], marks[m]);
        if (!found || (strcmp(prefixes[p], "net.") == 0 && !all_have(file, prefixes[p])))
            continue;
        for (size_t i = 0; i < file->count; i++)
            if (strncmp(file->tensor[i].name, prefixes[p], length) == 0)
                file->tensor[i].name += length;
        return;
    }
}

/* The order of the names; NULL: no memory. *twice_out: a name that is there twice, or unchanged. */
static uint32_t *sort_names(struct lt_arena *arena, struct tensor_info *tensor, size_t count,
                            const char **twice_out)
{
    uint32_t *order = lt_arena_take_array(arena, count + 1, sizeof *order);
    if (!order)
        return NULL;
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, count, sizeof *order, by_name, tensor);
    for (size_t i = 1; i < count; i++)
        if (by_name(&order[i - 1], &order[i], tensor) == 0)
            *twice_out = tensor[order[i]].name;
    return order;
}

static lt_status build_index(struct tensor_file *file, struct lt_error *error)
{
    qsort(file->tensor, file->count, sizeof *file->tensor, by_offset);
    for (size_t i = 1; i < file->count; i++) {
        const struct tensor_info *before = &file->tensor[i - 1];
        if (before->offset + before->bytes > file->tensor[i].offset)
            return lt_fail(error, LT_BAD_INPUT, "%s: the bytes of '%s' and '%s' overlap",
                           file->path, before->name, file->tensor[i].name);
    }
    strip_prefix(file);
    LT_TRY(names_of_encoder(file->tensor, file->count, file->path, &file->arena, error));
    LT_TRY(names_of_vae(file->tensor, file->count, file->path, &file->arena, error));
    const char *twice = NULL;
    file->by_name = sort_names(&file->arena, file->tensor, file->count, &twice);
    if (!file->by_name)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
    if (twice)
        return lt_fail(error, LT_BAD_INPUT, "%s: tensor '%s' is there twice", file->path, twice);
    return LT_OK;
}

static lt_status read_range(void *context, uint64_t offset, void *data, size_t bytes,
                            struct lt_error *error)
{
    const struct tensor_file *file = context;
    return lt_file_read_at(file->fd, file->path, offset, data, bytes, error);
}

static lt_status index_gguf(struct tensor_file *file, struct lt_error *error)
{
    struct gguf_index index;
    LT_TRY(gguf_parse(read_range, file, (uint64_t)file->opened.st_size, file->path, &file->arena,
                      &index, error));
    snprintf(file->format, sizeof file->format, "gguf v%u", index.version);
    file->tensor = index.tensor;
    file->count = index.count;
    file->metadata = index.metadata;
    file->arrays = index.arrays;
    file->header_bytes = index.data_offset < (uint64_t)file->opened.st_size
                             ? index.data_offset
                             : (uint64_t)file->opened.st_size;
    return build_index(file, error);
}

static lt_status index_safetensors(struct tensor_file *file, struct lt_error *error)
{
    LT_TRY(lt_safetensors_open(file->path, &file->safetensors, error));
    snprintf(file->format, sizeof file->format, "safetensors");
    file->count = lt_safetensors_count(file->safetensors);
    file->tensor = lt_arena_take_array(&file->arena, file->count + 1, sizeof *file->tensor);
    if (!file->tensor)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
    file->header_bytes = (uint64_t)file->opened.st_size;
    for (size_t i = 0; i < file->count; i++) {
        const struct lt_safetensor *from = lt_safetensors_at(file->safetensors, i);
        file->tensor[i] = (struct tensor_info){.name = from->name,
                                               .type = from->type,
                                               .rank = from->rank,
                                               .offset = from->offset,
                                               .bytes = from->bytes};
        memcpy(file->tensor[i].dim, from->dim, sizeof from->dim);
        if (from->offset < file->header_bytes)
            file->header_bytes = from->offset;
    }
    return build_index(file, error);
}

static bool has_pickle_name(const char *path)
{
    static const char *const endings[] = {".pth", ".pt", ".ckpt", ".pkl"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < LT_COUNT(endings); i++)
        if (strcmp(dot, endings[i]) == 0)
            return true;
    return false;
}

static lt_status refuse_pickle(const char *path, struct lt_error *error)
{
    return lt_fail(error, LT_UNSUPPORTED,
                   "%s: a PyTorch pickle, which is a program and is not run here. Convert it once "
                   "(pip install torch safetensors numpy):\n"
                   "  python3 -c 'import sys, torch; from safetensors.torch import save_file; "
                   "d = torch.load(sys.argv[1], map_location=\"cpu\", weights_only=True); "
                   "d = d.get(\"state_dict\", d); "
                   "save_file({k: v.contiguous().clone() for k, v in d.items()}, sys.argv[2])' "
                   "IN.pth OUT.safetensors",
                   path);
}

lt_status tensor_file_open(const char *path, struct tensor_file **file_out, struct lt_error *error)
{
    struct tensor_file *file = calloc(1, sizeof *file);
    lt_status status = LT_OK;
    char magic[4];
    if (!file)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", path);
    lt_arena_init(&file->arena, INDEX_BYTES_MAX);
    pthread_mutex_init(&file->lock, NULL);
    file->owners = 1;
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    file->path = strdup(path);
    if (file->fd < 0 || !file->path || fstat(file->fd, &file->opened) != 0)
        status = lt_fail(error, errno == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot open: %s", path,
                         strerror(errno));
    else if (!S_ISREG(file->opened.st_mode))
        status = lt_fail(error, LT_BAD_INPUT, "%s: not a regular file", path);
    else if (has_pickle_name(path))
        status = refuse_pickle(path, error);
    else
        status = lt_file_read_at(file->fd, path, 0, magic, 4, error);
    if (status == LT_OK &&
        (memcmp(magic, "PK\3\4", 4) == 0 || memcmp(magic, "\x80\2\x8a\n", 4) == 0))
        status = refuse_pickle(path, error); /* torch.save of today and of old */
    else if (status == LT_OK)
        status = memcmp(magic, "GGUF", 4) == 0 ? index_gguf(file, error)
                                               : index_safetensors(file, error);
    if (status != LT_OK) {
        tensor_file_close(&file);
        return status;
    }
    *file_out = file;
    return LT_OK;
}

void tensor_file_close(struct tensor_file **file)
{
    struct tensor_file *f = *file;
    *file = NULL;
    if (!f || atomic_fetch_sub(&f->owners, 1) > 1)
        return;
    tensor_file_suspend(f);
    tensor_file_close(&f->joined);
    lt_safetensors_close(&f->safetensors);
    lt_arena_fini(&f->arena);
    pthread_mutex_destroy(&f->lock);
    free(f->path);
    free(f);
}

struct tensor_file *tensor_file_hold(struct tensor_file *file)
{
    atomic_fetch_add(&file->owners, 1);
    return file;
}

void tensor_file_suspend(struct tensor_file *file)
{
    const int fd = atomic_exchange(&file->fd, -1);
    if (fd >= 0)
        close(fd);
    if (file->joined)
        tensor_file_suspend(file->joined);
}

lt_status tensor_file_join(struct tensor_file *file, struct tensor_file **addition,
                           struct lt_error *error)
{
    struct tensor_file *other = *addition;
    const size_t count = file->count + other->count;
    const struct lt_mark mark = lt_arena_mark(&file->arena);
    struct tensor_info *tensor = lt_arena_take_array(&file->arena, count + 1, sizeof *tensor);
    const char *twice = NULL;
    uint32_t *order = NULL;
    lt_assert(!file->joined && !other->joined);
    if (tensor) {
        memcpy(tensor, file->tensor, file->count * sizeof *tensor);
        memcpy(tensor + file->count, other->tensor, other->count * sizeof *tensor);
        for (size_t i = file->count; i < count; i++)
            tensor[i].part = other;
        order = sort_names(&file->arena, tensor, count, &twice);
    }
    if (!order || twice) {
        const lt_status status =
            twice ? lt_fail(error, LT_CONFLICT, "%s and %s: both have a tensor '%s'", file->path,
                            other->path, twice)
                  : lt_fail(error, LT_NO_MEMORY, "%s: no memory for its index", file->path);
        lt_arena_rewind(&file->arena, mark);
        return status;
    }
    file->tensor = tensor;
    file->by_name = order;
    file->count = count;
    file->joined = other;
    *addition = NULL;
    return LT_OK;
}

static lt_status resume(struct tensor_file *file, struct lt_error *error)
{
    lt_status status = LT_OK;
    pthread_mutex_lock(&file->lock);
    if (file->fd < 0)
        file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0)
        status = lt_fail(error, errno == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot open again: %s",
                         file->path, strerror(errno));
    pthread_mutex_unlock(&file->lock);
    return status;
}

/* -- questions --------------------------------------------------------------------------------- */

const char *tensor_file_path(const struct tensor_file *file)
{
    return file->path;
}

const char *tensor_file_format(const struct tensor_file *file)
{
    return file->format;
}

uint64_t tensor_file_bytes(const struct tensor_file *file)
{
    return (uint64_t)file->opened.st_size;
}

size_t tensor_file_count(const struct tensor_file *file)
{
    return file->count;
}

const struct tensor_info *tensor_file_at(const struct tensor_file *file, size_t index)
{
    return index < file->count ? &file->tensor[index] : NULL;
}

const struct tensor_info *tensor_file_find(const struct tensor_file *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct tensor_info *tensor = &file->tensor[file->by_name[middle]];
        const int order = strcmp(name, tensor->name);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *tensor_file_metadata(const struct tensor_file *file, const char *key)
{
    if (file->safetensors)
        return lt_safetensors_metadata(file->safetensors, key);
    for (const struct gguf_pair *pair = file->metadata; pair; pair = pair->next)
        if (strcmp(pair->key, key) == 0)
            return pair->value;
    return NULL;
}

bool tensor_file_array(const struct tensor_file *file, const char *key,
                       struct tensor_file_array *array_out)
{
    for (const struct gguf_array *array = file->arrays; array; array = array->next)
        if (strcmp(array->key, key) == 0) {
            *array_out = array->array;
            return true;
        }
    return false;
}

/* -- bytes ------------------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Both what is held open and what now has its name: a file that was replaced is another model. */
static lt_status check_unchanged(struct tensor_file *file, struct lt_error *error)
{
    struct stat held, named;
    if (file->fd < 0)
        LT_TRY(resume(file, error));
    if (fstat(file->fd, &held) != 0 || stat(file->path, &named) != 0 ||
        !same_file(&held, &file->opened) || !same_file(&named, &file->opened))
        return lt_fail(error, LT_CORRUPT, "%s: the file changed since it was opened; load it again",
                       file->path);
    return LT_OK;
}

/* The cache keeps what a call covers only in part, and its units may be some MiB large: a piece of
 * what was read before is named again. Length 0 means to the end of the file. */
static void drop_cache(const struct tensor_file *file, uint64_t offset, uint64_t bytes)
{
    const uint64_t start = offset > PIECE_BYTES ? offset - PIECE_BYTES : 0, last = offset + bytes;
    const uint64_t length = last == tensor_file_bytes(file) ? 0 : last - start;
    posix_fadvise(file->fd, (off_t)start, (off_t)length, POSIX_FADV_DONTNEED);
}

lt_status tensor_file_read_part(struct tensor_file *file, const struct tensor_info *info,
                                uint64_t offset, void *data, size_t bytes, struct lt_error *error)
{
    char *to = data;
    lt_assert(offset <= info->bytes && bytes <= info->bytes - offset);
    if (info->part) {
        struct tensor_info own = *info;
        own.part = NULL;
        LT_TRY(tensor_file_read_part(info->part, &own, offset, data, bytes, error));
        file->bytes_read += bytes;
        return LT_OK;
    }
    LT_TRY(check_unchanged(file, error));
    for (uint64_t done = 0; done < bytes;) {
        const uint64_t left = bytes - done, part = left < PIECE_BYTES ? left : PIECE_BYTES;
        const uint64_t at = info->offset + offset + done;
        if (lt_file_read_at(file->fd, file->path, at, to + done, (size_t)part, error) != LT_OK)
            return lt_error_prefix(error, "tensor '%s'", info->name);
        drop_cache(file, at, part);
        done += part;
    }
    file->bytes_read += bytes;
    return check_unchanged(file, error); /* nor while it was read */
}

lt_status tensor_file_read(struct tensor_file *file, const struct tensor_info *info, void *data,
                           struct lt_error *error)
{
    return tensor_file_read_part(file, info, 0, data, (size_t)info->bytes, error);
}

lt_status tensor_file_read_array(struct tensor_file *file, const struct tensor_file_array *array,
                                 void *data, struct lt_error *error)
{
    LT_TRY(check_unchanged(file, error));
    LT_TRY(lt_file_read_at(file->fd, file->path, array->offset, data, (size_t)array->bytes, error));
    return check_unchanged(file, error);
}

uint64_t tensor_file_bytes_read(const struct tensor_file *file)
{
    return file->bytes_read;
}

lt_status tensor_file_fingerprint(struct tensor_file *file, struct lt_digest *fingerprint_out,
                                  struct lt_error *error)
{
    const uint64_t size = tensor_file_bytes(file), data = size - file->header_bytes;
    struct lt_sha256 hash;
    uint8_t piece[64 * 1024];
    LT_TRY(check_unchanged(file, error));
    lt_sha256_begin(&hash);
    lt_sha256_add(&hash, &size, sizeof size);
    for (uint64_t at = 0; at < file->header_bytes;) {
        const uint64_t left = file->header_bytes - at,
                       part = left < sizeof piece ? left : sizeof piece;
        LT_TRY(lt_file_read_at(file->fd, file->path, at, piece, (size_t)part, error));
        lt_sha256_add(&hash, piece, (size_t)part);
        at += part;
    }
    for (uint64_t i = 0; i < SAMPLES; i++) {
        const uint64_t at = file->header_bytes + data / SAMPLES * i, left = size - at;
        const uint64_t part = left < SAMPLE_BYTES ? left : SAMPLE_BYTES;
        LT_TRY(lt_file_read_at(file->fd, file->path, at, piece, (size_t)part, error));
        lt_sha256_add(&hash, piece, (size_t)part);
    }
    *fingerprint_out = lt_sha256_end(&hash);
    return LT_OK;
}

lt_status tensor_file_hash(struct tensor_file *file, struct lt_digest *content_out,
                           struct lt_error *error)
{
    const uint64_t size = tensor_file_bytes(file);
    struct lt_sha256 hash;
    uint8_t piece[64 * 1024];
    LT_TRY(check_unchanged(file, error));
    lt_sha256_begin(&hash);
    for (uint64_t at = 0; at < size;) {
        const uint64_t left = size - at, part = left < sizeof piece ? left : sizeof piece;
        LT_TRY(lt_file_read_at(file->fd, file->path, at, piece, (size_t)part, error));
        lt_sha256_add(&hash, piece, (size_t)part);
        at += part;
        if (at % PIECE_BYTES == 0 || at == size)
            drop_cache(file, at - part, part);
    }
    LT_TRY(check_unchanged(file, error)); /* nor while it was read */
    *content_out = lt_sha256_end(&hash);
    return LT_OK;
}
