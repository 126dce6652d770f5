#include "client/job_file.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOB_BYTES_MAX = 1 << 20 };

lt_status job_file_read(const char *path, struct job_file *file_out, struct lt_error *error)
{
    struct job_file file = {0};
    const char *slash = strrchr(path, '/');
    void *data;
    if (strlen(path) >= sizeof file.dir)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", path);
    LT_TRY(lt_file_read(path, JOB_BYTES_MAX, &data, &file.bytes, error));
    file.json = data;
    snprintf(file.dir, sizeof file.dir, "%.*s", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    if (slash == path)
        snprintf(file.dir, sizeof file.dir, "/");
    lt_arena_init(&file.arena, 0);
    const lt_status status = job_parse(file.json, file.bytes, path, &file.arena, &file.job, error);
    if (status != LT_OK) {
        job_file_fini(&file);
        return status;
    }
    *file_out = file;
    return LT_OK;
}

void job_file_fini(struct job_file *file)
{
    lt_arena_fini(&file->arena);
    free(file->json);
    *file = (struct job_file){0};
}
