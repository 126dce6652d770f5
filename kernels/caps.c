#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

unsigned lt_caps_detect(void)
{
    unsigned caps = LT_CAP_HOST;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        caps |= LT_CAP_AVX2;
    if ((caps & LT_CAP_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        caps |= LT_CAP_AVX512;
    if ((caps & LT_CAP_AVX512) && __builtin_cpu_supports("avx512bf16"))
        caps |= LT_CAP_AVX512_BF16;
#endif
    return caps;
}

void lt_caps_format(unsigned caps, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s%s", caps & LT_CAP_HOST ? "host" : "ref",
             caps & LT_CAP_AVX2 ? " avx2" : "", caps & LT_CAP_AVX512 ? " avx512" : "",
             caps & LT_CAP_AVX512_BF16 ? " avx512_bf16" : "");
}

void lt_kernels_class(char *text, size_t size)
{
    char caps[64];
    const dnnl_version_t *dnnl = dnnl_version();
    lt_caps_format(lt_caps_detect(), caps, sizeof caps);
    snprintf(text, size, "%s onednn-%d.%d.%d", caps, dnnl->major, dnnl->minor, dnnl->patch);
}
