/* What a job names by path, made into bytes that workers take as they are: features of a prompt,
 * pictures as u8 RGB of the job's size, encoded conditioning as f32. Hostile media meet this
 * process, which the user started, and never the coordinator. */
#pragma once

#include "client/job_file.h"

/* Takes bytes to where the coordinator finds them by their SHA-256. */
typedef lt_status inputs_put(void *context, const void *data, size_t bytes,
                             struct lt_digest *digest_out, struct lt_error *error);

/* Every path becomes a digest in file->job; the job's own text is job_format's then. */
lt_status inputs_upload(struct job_file *file, inputs_put *put, void *context,
                        struct lt_error *error);
