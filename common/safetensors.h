/* Safetensors files: a bounded reader of the header, exact reads of one tensor at a time, and a
 * writer that leaves either the whole file or none. Nothing is mapped. Format: u64 LE header size,
 * JSON header, data. */
#pragma once

#include "common/status.h"
#include "common/view.h"

struct lt_safetensors; /* an open file and its index */

struct lt_safetensor {
    const char *name;  /* lives as long as the file is open */
    enum lt_type type; /* F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U8 BOOL */
    int rank;
    int64_t dim[LT_RANK_MAX];
    uint64_t offset, bytes; /* in the file */
};

/* Errors name the file, the tensor and the field. Header at most 100 MiB, ranks at most
 * LT_RANK_MAX, offsets in bounds, no overlap, no duplicate names. */
lt_status lt_safetensors_open(const char *path, struct lt_safetensors **file_out,
                              struct lt_error *error);
void lt_safetensors_close(struct lt_safetensors **file);

size_t lt_safetensors_count(const struct lt_safetensors *file);
const struct lt_safetensor *lt_safetensors_at(const struct lt_safetensors *file,
                                              size_t index); /* file order */
const struct lt_safetensor *lt_safetensors_find(const struct lt_safetensors *file,
                                                const char *name);
/* Value of a __metadata__ key; NULL if absent. */
const char *lt_safetensors_metadata(const struct lt_safetensors *file, const char *key);

/* Raw bytes of a tensor into `data` (tensor->bytes of room). */
lt_status lt_safetensors_read(struct lt_safetensors *file, const struct lt_safetensor *tensor,
                              void *data, struct lt_error *error);
/* A whole tensor as malloc'ed f32 (converted from F64, F32, F16, BF16, integers); view_out->data is
 * for the caller to free. LT_NOT_FOUND names the file and the tensors it has. */
lt_status lt_safetensors_read_f32(struct lt_safetensors *file, const char *name,
                                  struct lt_view *view_out, struct lt_error *error);

struct lt_named_view {
    const char *name;
    struct lt_view view; /* contiguous */
};

/* Writes under a temporary name, syncs, renames. */
lt_status lt_safetensors_write(const char *path, const struct lt_named_view *tensors, size_t count,
                               const char *const *metadata_pairs, size_t metadata_pair_count,
                               struct lt_error *error);

/* A writer for results that arrive in pieces: the layout is fixed at begin, rows are written in any
 * order, and only a successful end gives the file its name. */
struct lt_safetensors_writer;
lt_status lt_safetensors_writer_begin(const char *path, const struct lt_named_view *tensors,
                                      size_t count, struct lt_safetensors_writer **writer_out,
                                      struct lt_error *error);
lt_status lt_safetensors_writer_put(struct lt_safetensors_writer *writer, size_t tensor,
                                    uint64_t offset, const void *data, size_t bytes,
                                    struct lt_error *error);
lt_status lt_safetensors_writer_end(struct lt_safetensors_writer **writer, struct lt_error *error);
void lt_safetensors_writer_abort(struct lt_safetensors_writer **writer);

/* IEEE half and bfloat16, round to nearest even. */
float lt_f16_to_f32(uint16_t half);
uint16_t lt_f32_to_f16(float value);
float lt_bf16_to_f32(uint16_t value);
uint16_t lt_f32_to_bf16(float value);
