/* Follows a job to its end. */
#pragma once

#include "client/api.h"

/* A progress bar until the job has ended: LT_OK when it completed, LT_CANCELLED when somebody
 * cancelled it, else the status and text it failed with. A coordinator that is away is waited for,
 * up to five minutes. */
lt_status watch_job(struct api *api, uint32_t job, struct lt_error *error);
