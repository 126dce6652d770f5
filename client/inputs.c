#include "client/inputs.h"

#include "common/file.h"
#include "common/safetensors.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One upload. */
struct upload {
    struct job_file *file;
    inputs_put *put;
    void *context;
    struct lt_error *error;
};

static lt_status path_of(const struct upload *upload, const char *name, char path[PATH_MAX])
{
    return name[0] == '/' ? lt_path_join(path, PATH_MAX, name, "", upload->error)
                          : lt_path_join(path, PATH_MAX, upload->file->dir, name, upload->error);
}

/* Puts `data` and frees it. */
static lt_status put_owned(const struct upload *upload, void *data, uint64_t bytes,
                           struct lt_digest *digest_out)
{
    const lt_status status =
        upload->put(upload->context, data, (size_t)bytes, digest_out, upload->error);
    free(data);
    return status;
}

/* -- features of prompts ----------------------------------------------------------------------- */

static lt_status upload_text(const struct upload *upload, const char **text)
{
    char path[PATH_MAX], hex[LT_DIGEST_HEX], name[LT_DIGEST_HEX + 8];
    struct lt_safetensors *file;
    struct lt_view view;
    struct lt_digest digest;
    if (!*text || strncmp(*text, "sha256:", 7) == 0)
        return LT_OK;
    LT_TRY(path_of(upload, *text, path));
    LT_TRY(lt_safetensors_open(path, &file, upload->error));
    const lt_status status = lt_safetensors_read_f32(file, "text", &view, upload->error);
    lt_safetensors_close(&file);
    LT_TRY(status);
    if (view.rank != 2 || lt_view_count(&view) == 0) {
        free(view.data);
        return lt_fail(upload->error, LT_BAD_INPUT,
                       "%s: tensor text: expected [n, text_dim], found rank %d with %lld values",
                       path, view.rank, (long long)lt_view_count(&view));
    }
    LT_TRY(put_owned(upload, view.data, 4 * (uint64_t)lt_view_count(&view), &digest));
    lt_digest_format(&digest, hex);
    snprintf(name, sizeof name, "sha256:%s", hex);
    *text = lt_arena_text(&upload->file->arena, name);
    return *text ? LT_OK : lt_fail(upload->error, LT_NO_MEMORY, "no memory for the job");
}

lt_status inputs_upload(struct job_file *file, inputs_put *put, void *context,
                        struct lt_error *error)
{
    const struct upload upload = {file, put, context, error};
    LT_TRY(upload_text(&upload, &file->job.text));
    return upload_text(&upload, &file->job.text_negative);
}
