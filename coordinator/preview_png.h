/* What a job looks like now: its latent frames as they stand, side by side, as a PNG. */
#pragma once

#include "coordinator/run.h"

/* Up to eight frames spread over the take, one pixel a latent (preview.h), doubled. *data_out is
 * malloc'ed. On the loop's thread. LT_UNSUPPORTED: no colours are known for so many channels. */
lt_status preview_png(struct run *run, void **data_out, size_t *bytes_out, struct lt_error *error);
