#include "tests/kernels/place.h"

#include <stdlib.h>

void place_kernels_init(struct lt_kernels *best)
{
    lt_kernels_init(best, lt_caps_detect());
}

lt_status place_exec_create(int threads, enum lt_precision precision, struct lt_exec **exec_out,
                            struct lt_error *error)
{
    return lt_exec_create(&(struct lt_exec_params){threads, precision}, exec_out, error);
}

void place_exec_destroy(struct lt_exec **exec)
{
    lt_exec_destroy(exec);
}

void *place_allocate(size_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

void place_free(void *data)
{
    free(data);
}
