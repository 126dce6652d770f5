/* A model file as the engine sees it: GGUF v2/v3 or safetensors, told apart by their first bytes.
 * Only the index stays in memory (under 1 MB); tensor bytes are read on demand with pread, in file
 * order where the caller can choose, and dropped from the page cache behind the reader. The file is
 * never mapped.
 *
 * Names are canonical: the prefixes of dit.md 1.6 / 1.1 are stripped when `patch_embedding.weight`
 * (or a VAE's `decoder.conv1.weight`) appears only behind one, and text encoders of any published
 * form have the original's names (weights/names.h). Dims are in PyTorch order. */
#pragma once

#include "common/digest.h"
#include "common/status.h"
#include "common/view.h"

struct tensor_file;

struct tensor_info {
    const char *name; /* canonical; lives as long as the file */
    enum lt_type type;
    int rank;
    int64_t dim[LT_RANK_MAX];
    uint64_t offset; /* absolute, in the file */
    uint64_t bytes;
    struct tensor_file *part; /* the joined file that holds it; NULL: the file itself */
};

lt_status tensor_file_open(const char *path, struct tensor_file **file_out, struct lt_error *error);
/* One more owner: the file is closed when each has closed it. */
struct tensor_file *tensor_file_hold(struct tensor_file *file);
void tensor_file_close(struct tensor_file **file);
/* Lets go of the descriptor and keeps the index. The next read opens the path again, parses
 * nothing, and fails with LT_CORRUPT unless size, mtime and inode are as they were. Nobody may be
 * reading. */
void tensor_file_suspend(struct tensor_file *file);

/* From now on the tensors of `addition` stand behind those of `file` (dit.md 4: an add-on merged by
 * name onto its base), which owns it: *addition is NULL. Path, format, bytes, metadata and
 * fingerprint stay those of `file`. LT_CONFLICT: both have a tensor of one name; nothing changed.
 */
lt_status tensor_file_join(struct tensor_file *file, struct tensor_file **addition,
                           struct lt_error *error);

const char *tensor_file_path(const struct tensor_file *file);
const char *tensor_file_format(const struct tensor_file *file); /* "gguf v3", "safetensors" */
uint64_t tensor_file_bytes(const struct tensor_file *file);
size_t tensor_file_count(const struct tensor_file *file);
const struct tensor_info *tensor_file_at(const struct tensor_file *file,
                                         size_t index); /* file order */
const struct tensor_info *tensor_file_find(const struct tensor_file *file, const char *name);
/* String form of a metadata value; NULL if absent. */
const char *tensor_file_metadata(const struct tensor_file *file, const char *key);

/* A metadata array of a GGUF file: where its elements stand. */
struct tensor_file_array {
    bool text;         /* each a u64 of its length, then its bytes; the lengths fit in `bytes` */
    enum lt_type type; /* of numbers */
    uint64_t count, offset, bytes;
};

/* False: there is none of that name. */
bool tensor_file_array(const struct tensor_file *file, const char *key,
                       struct tensor_file_array *array_out);
/* Exactly array->bytes raw bytes; fails as tensor_file_read does. */
lt_status tensor_file_read_array(struct tensor_file *file, const struct tensor_file_array *array,
                                 void *data, struct lt_error *error);

/* Exactly info->bytes raw bytes into `data`. Counts into tensor_file_bytes_read. Fails with
 * LT_CORRUPT if the file changed (size, mtime, inode) since it was opened. Any thread. */
lt_status tensor_file_read(struct tensor_file *file, const struct tensor_info *info, void *data,
                           struct lt_error *error);
/* Bytes [offset, offset + bytes) of the tensor. */
lt_status tensor_file_read_part(struct tensor_file *file, const struct tensor_info *info,
                                uint64_t offset, void *data, size_t bytes, struct lt_error *error);
uint64_t tensor_file_bytes_read(const struct tensor_file *file);

/* Identity of the file without reading it all: SHA-256 over its size, its whole header and 64
 * evenly spaced 4 KiB samples of its data. Two files made by different runs differ; docs/wire.md
 * says what it is used for. */
lt_status tensor_file_fingerprint(struct tensor_file *file, struct lt_digest *fingerprint_out,
                                  struct lt_error *error);
/* SHA-256 of all its bytes, as sha256sum and model pages tell it: reads the whole file once, front
 * to back, and leaves none of it in the page cache. Not counted in tensor_file_bytes_read. */
lt_status tensor_file_hash(struct tensor_file *file, struct lt_digest *content_out,
                           struct lt_error *error);
