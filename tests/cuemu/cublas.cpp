/* The bodies of cuBLAS that the project calls. Column major, as there: element (i, j) of a matrix
 * with leading dimension ld lies at i + j·ld. Sums are f32, over k in order, whatever the algorithm
 * asked for; TF32 and bf16 variants of f32 products are not rounded. */
#include "cuemu/runtime.h"

#include "cuemu/memory.h"

#include <algorithm>
#include <cstring>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector>

struct cublasContext {
    cudaStream_t stream;
    cublasPointerMode_t pointer_mode;
    cublasMath_t math_mode;
    int device;
};

namespace cuemu
{

struct matrix {
    const void *data;
    cudaDataType_t type;
    int ld;
    long long stride; /* elements from one of a batch to the next */
    bool transposed;
};

struct product {
    int m, n, k, batch;
    matrix a, b, c; /* a [m,k] and b [k,n] once transposed; c [m,n] */
    const void *alpha, *beta;
    bool scalars_on_device;
    float alpha_now, beta_now; /* of host scalars, read at the call */
};

static size_t width_of(cudaDataType_t type)
{
    switch (type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
        return 2;
    default:
        return 0;
    }
}

static float load(const void *data, cudaDataType_t type, size_t i)
{
    switch (type) {
    case CUDA_R_16F:
        return __half2float(static_cast<const __half *>(data)[i]);
    case CUDA_R_16BF:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
    default:
        return static_cast<const float *>(data)[i];
    }
}

static void store(void *data, cudaDataType_t type, size_t i, float value)
{
    switch (type) {
    case CUDA_R_16F:
        static_cast<__half *>(data)[i] = __float2half(value);
        break;
    case CUDA_R_16BF:
        static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16(value);
        break;
    default:
        static_cast<float *>(data)[i] = value;
    }
}

/* The matrix as rows × columns f32 with rows running fastest, or columns with `by_rows`. */
static std::vector<float> unpack(const matrix &x, int index, int rows, int columns, bool by_rows)
{
    std::vector<float> out(static_cast<size_t>(rows) * columns);
    const size_t base = static_cast<size_t>(index) * x.stride, ld = x.ld;
    for (size_t j = 0; j < static_cast<size_t>(columns); j++)
        for (size_t i = 0; i < static_cast<size_t>(rows); i++)
            out[by_rows ? i * columns + j : i + j * rows] =
                load(x.data, x.type, base + (x.transposed ? j + i * ld : i + j * ld));
    return out;
}

static void multiply_one(const product &p, int index)
{
    const float alpha = p.scalars_on_device ? *static_cast<const float *>(p.alpha) : p.alpha_now;
    const float beta = p.scalars_on_device ? *static_cast<const float *>(p.beta) : p.beta_now;
    const std::vector<float> a = unpack(p.a, index, p.m, p.k, false);
    const std::vector<float> b = unpack(p.b, index, p.k, p.n, false);
    std::vector<float> sums(p.m);
    void *c = const_cast<void *>(p.c.data);
    const size_t base = static_cast<size_t>(index) * p.c.stride;
    for (int j = 0; j < p.n; j++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        float *sum = sums.data();
        for (int t = 0; t < p.k; t++) {
            const float *column = &a[static_cast<size_t>(t) * p.m];
            const float factor = b[t + static_cast<size_t>(j) * p.k];
            for (int i = 0; i < p.m; i++)
                sum[i] += column[i] * factor;
        }
        for (int i = 0; i < p.m; i++) {
            const size_t at = base + i + static_cast<size_t>(j) * p.c.ld;
            const float old = beta == 0.0f ? 0.0f : beta * load(c, p.c.type, at);
            store(c, p.c.type, at, alpha * sum[i] + old);
        }
    }
}

/* Whether `ld` spans a column, and the whole matrix lies in its allocation, on a device. */
static bool check(const char *what, const matrix &x, int rows, int columns, int batch)
{
    if (x.transposed)
        std::swap(rows, columns);
    if (x.ld < rows || x.ld < 1 || width_of(x.type) == 0)
        return false;
    if (rows == 0 || columns == 0)
        return true;
    if (memory_find(x.data).where == place::pageable)
        return false;
    const size_t last =
        static_cast<size_t>(batch - 1) * x.stride + static_cast<size_t>(columns - 1) * x.ld + rows;
    memory_check(what, x.data, last * width_of(x.type));
    return true;
}

static cublasStatus_t multiply(cublasHandle_t handle, product p)
{
    auto lock = runtime_lock();
    stream *s;
    if (!handle || !stream_of(handle->stream, &s))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (sticky() != cudaSuccess || told_to_fail("cublasGemm"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0 || !p.alpha || !p.beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    p.scalars_on_device = handle->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    if (memory_find(p.alpha).where == (p.scalars_on_device ? place::pageable : place::device))
        return CUBLAS_STATUS_INVALID_VALUE; /* hardware would read a wrong address */
    if (!p.scalars_on_device) {
        p.alpha_now = *static_cast<const float *>(p.alpha);
        p.beta_now = *static_cast<const float *>(p.beta);
    }
    if (p.m == 0 || p.n == 0 || p.batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    if (!check("cuBLAS reads A", p.a, p.m, p.k, p.batch) ||
        !check("cuBLAS reads B", p.b, p.k, p.n, p.batch) ||
        !check("cuBLAS writes C", p.c, p.m, p.n, p.batch))
        return CUBLAS_STATUS_INVALID_VALUE;
    queue_add(s, handle->device, "a product of cuBLAS", {}, [p] {
        for (int i = 0; i < p.batch; i++)
            multiply_one(p, i);
        return true;
    });
    return CUBLAS_STATUS_SUCCESS;
}

static bool is_supported(cublasComputeType_t compute, cudaDataType a, cudaDataType b)
{
    switch (compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_16F:
        return a == b;
    default:
        return false;
    }
}

} // namespace cuemu

using namespace cuemu;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    auto lock = runtime_lock();
    if (sticky() != cudaSuccess || told_to_fail("cublasCreate"))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle =
        new cublasContext{nullptr, CUBLAS_POINTER_MODE_HOST, CUBLAS_DEFAULT_MATH, current_device()};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t *stream)
{
    *stream = handle->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode)
{
    handle->pointer_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    handle->math_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

/* Not used here; it must lie on a device all the same. */
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *workspace, size_t bytes)
{
    auto lock = runtime_lock();
    if (bytes > 0 && memory_find(workspace).where != place::device)
        return CUBLAS_STATUS_INVALID_VALUE;
    memory_check("cuBLAS workspace", workspace, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int *version)
{
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value)
{
    *value = type == MAJOR_VERSION   ? CUBLAS_VER_MAJOR
             : type == MINOR_VERSION ? CUBLAS_VER_MINOR
                                     : CUBLAS_VER_PATCH;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t a_operation,
                                          cublasOperation_t b_operation, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType a_type,
                                          int lda, long long int a_stride, const void *b,
                                          cudaDataType b_type, int ldb, long long int b_stride,
                                          const void *beta, void *c, cudaDataType c_type, int ldc,
                                          long long int c_stride, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t)
{
    if (!is_supported(compute, a_type, b_type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return multiply(handle, {m,
                             n,
                             k,
                             batch,
                             {a, a_type, lda, a_stride, a_operation != CUBLAS_OP_N},
                             {b, b_type, ldb, b_stride, b_operation != CUBLAS_OP_N},
                             {c, c_type, ldc, c_stride, false},
                             alpha,
                             beta,
                             false,
                             0,
                             0});
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t a_operation,
                            cublasOperation_t b_operation, int m, int n, int k, const void *alpha,
                            const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c,
                            cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(handle, a_operation, b_operation, m, n, k, alpha, a, a_type,
                                      lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1,
                                      compute, algorithm);
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t a_operation,
                              cublasOperation_t b_operation, int m, int n, int k,
                              const float *alpha, const float *a, int lda, const float *b, int ldb,
                              const float *beta, float *c, int ldc)
{
    return cublasGemmEx(handle, a_operation, b_operation, m, n, k, alpha, a, CUDA_R_32F, lda, b,
                        CUDA_R_32F, ldb, beta, c, CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F,
                        CUBLAS_GEMM_DEFAULT);
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the GPU program failed to execute";
    default:
        return "unknown status";
    }
}

} // extern "C"
