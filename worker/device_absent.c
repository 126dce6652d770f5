/* A build without CUDA: the host computes, and a card is refused by name. */
#include "worker/device.h"

lt_status device_create_cuda(int index, const struct device_params *params,
                             struct device **device_out, struct lt_error *error)
{
    (void)params, (void)device_out;
    return lt_fail(error, LT_UNSUPPORTED,
                   "device cuda:%d: this longtake was built without CUDA; use --device host, or "
                   "build with -DLONGTAKE_CUDA=ON (docs/gpu.md)",
                   index);
}
