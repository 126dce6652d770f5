/* Published numbers for skip.c. */
#pragma once

#include "coordinator/skip.h"

enum { SKIP_COEFFICIENTS = 5 };

/* Of the polynomial, from the fourth power down. */
extern const double skip_coefficients[SKIP_MODELS][SKIP_CURVES][SKIP_COEFFICIENTS];

struct skip_ratios {
    const double *ratio; /* in turns with the prompt and without */
    uint32_t count;      /* of both */
};
extern const struct skip_ratios skip_ratios[SKIP_MODELS];
