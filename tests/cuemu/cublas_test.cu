/* Products against plain loops, for every transposition, type and pointer mode. */
#include "cuemu/check.h"

#include "kernels/cuda/gpu.cuh"

#include <cublas_v2.h>
#include <vector>

constexpr int M = 7, N = 5, K = 9, BATCH = 2;

/* Element (i, j) of matrix `index` as stored with or without transposition. */
static size_t at(bool transposed, int rows, int columns, int index, int i, int j)
{
    const size_t base = static_cast<size_t>(index) * rows * columns;
    return base + (transposed ? j + i * columns : i + j * rows);
}

static void check_product(bool a_transposed, bool b_transposed, bool narrow, bool on_device)
{
    std::vector<float> a(M * K * BATCH), b(K * N * BATCH), c(M * N * BATCH), got(c.size());
    const float scalars[2] = {2.0f, 3.0f};
    fill_whole(a.data(), a.size(), 1);
    fill_whole(b.data(), b.size(), 2);
    fill_whole(c.data(), c.size(), 3);
    const std::vector<__nv_bfloat16> ha(a.begin(), a.end()), hb(b.begin(), b.end());
    void *da = narrow ? static_cast<void *>(to_device(ha.data(), ha.size()))
                      : to_device(a.data(), a.size());
    void *db = narrow ? static_cast<void *>(to_device(hb.data(), hb.size()))
                      : to_device(b.data(), b.size());
    float *dc = to_device(c.data(), c.size()), *ds = to_device(scalars, 2);
    const float *alpha = on_device ? ds : scalars;
    const cudaDataType type = narrow ? CUDA_R_16BF : CUDA_R_32F;
    cublasHandle_t handle;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    cublasSetPointerMode(handle, on_device ? CUBLAS_POINTER_MODE_DEVICE : CUBLAS_POINTER_MODE_HOST);
    assert_int_equal(cublasGemmStridedBatchedEx(handle, a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                                                b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, M, N, K,
                                                alpha, da, type, a_transposed ? K : M, M * K, db,
                                                type, b_transposed ? N : K, K * N, alpha + 1, dc,
                                                CUDA_R_32F, M, M * N, BATCH, CUBLAS_COMPUTE_32F,
                                                CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    from_device(got.data(), dc, got.size());
    for (int x = 0; x < BATCH; x++)
        for (int j = 0; j < N; j++)
            for (int i = 0; i < M; i++) {
                float sum = 0.0f;
                for (int k = 0; k < K; k++)
                    sum += a[at(a_transposed, M, K, x, i, k)] * b[at(b_transposed, K, N, x, k, j)];
                const size_t p = at(false, M, N, x, i, j);
                assert_true(got[p] == 2.0f * sum + 3.0f * c[p]);
            }
    cublasDestroy(handle);
    for (void *p : {da, db, static_cast<void *>(dc), static_cast<void *>(ds)})
        cudaFree(p);
}

static void test_products(void **)
{
    for (int bits = 0; bits < 16; bits++)
        check_product(bits & 1, bits & 2, bits & 4, bits & 8);
}

static void test_wrong_arguments(void **)
{
    cublasHandle_t handle;
    const float one = 1.0f, host[4] = {};
    float *x = to_device(host, 4);
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    auto gemm = [&](int m, int lda, const float *alpha, const float *a) {
        return cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, m, 2, 2, alpha, a, lda, x, 2, &one, x,
                           2);
    };
    assert_int_equal(gemm(2, 2, &one, x), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(gemm(2, 1, &one, x), CUBLAS_STATUS_INVALID_VALUE); /* a column is longer */
    assert_int_equal(gemm(-1, 2, &one, x), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(gemm(2, 2, x, x), CUBLAS_STATUS_INVALID_VALUE); /* a scalar on the device */
    assert_int_equal(gemm(2, 2, &one, host),
                     CUBLAS_STATUS_INVALID_VALUE); /* a matrix on the host */
    cublasDestroy(handle);
    cudaFree(x);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_wrong_arguments),
    };
    return cmocka_run_group_tests_name("cublas", tests, nullptr, nullptr);
}
