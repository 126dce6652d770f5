/* Files: whole reads with a bound, exact positioned reads, and writes that are either complete
 * under their final name or not there at all. Errors name the path and the system's reason. */
#pragma once

#include "common/status.h"

/* Reads a whole file of at most `bytes_max` into malloc'ed memory with a NUL behind it; the caller
 * frees. */
lt_status lt_file_read(const char *path, size_t bytes_max, void **data_out, size_t *bytes_out,
                       struct lt_error *error);

/* Reads exactly `bytes` at `offset`; a shorter file is LT_CORRUPT. `path` is for the message only.
 */
lt_status lt_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t bytes,
                          struct lt_error *error);

/* Writes `path`.tmp.<pid>, fsyncs it when `durable`, renames it to `path` (and fsyncs the folder
 * when durable). On failure the temporary file is gone and `path` is as it was. */
lt_status lt_file_write(const char *path, const void *data, size_t bytes, bool durable,
                        struct lt_error *error);

/* mkdir -p. */
lt_status lt_dir_create(const char *path, struct lt_error *error);
lt_status lt_dir_sync(const char *path, struct lt_error *error);
/* rm -r; a missing folder is fine. */
lt_status lt_dir_remove(const char *path, struct lt_error *error);

/* "dir/name" in a buffer; LT_BAD_INPUT when it does not fit. */
lt_status lt_path_join(char *path_out, size_t size, const char *dir, const char *name,
                       struct lt_error *error);
