/* Kernels give what they should in every order of threads and of work. */
#include "cuemu/samples.cuh"

#include "cuemu/check.h"

#include <cstdlib>
#include <cstring>
#include <vector>

static void test_matmul(void **)
{
    constexpr int n = 48;
    std::vector<float> a(n * n), b(n * n), c(n * n);
    fill_whole(a.data(), a.size(), 1);
    fill_whole(b.data(), b.size(), 2);
    float *da = to_device(a.data(), a.size()), *db = to_device(b.data(), b.size());
    float *dc = to_device(c.data(), c.size());
    assert_cuda(launch(matmul_tiled<NOTHING>, dim3(3, 3), dim3(16, 16), 0, nullptr, dc, da, db, n));
    from_device(c.data(), dc, c.size());
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            float want = 0.0f;
            for (int k = 0; k < n; k++)
                want += a[i * n + k] * b[k * n + j];
            assert_true(c[i * n + j] == want);
        }
    cudaFree(da);
    cudaFree(db);
    cudaFree(dc);
}

static void test_sums(void **)
{
    std::vector<float> in(512), out(2);
    fill_whole(in.data(), in.size(), 3);
    float *din = to_device(in.data(), in.size()), *dout = to_device(out.data(), out.size());
    assert_cuda(launch(sum_halves<NOTHING>, 2, 256, 1024, nullptr, dout, din));
    from_device(out.data(), dout, out.size());
    float want[2] = {};
    for (int i = 0; i < 512; i++)
        want[i / 256] += in[i];
    assert_true(out[0] == want[0] && out[1] == want[1]);

    assert_cuda(cudaMemset(dout, 0, 4));
    assert_cuda(launch(sum_shuffled, 4, 128, 0, nullptr, dout, din, 501)); /* an odd tail */
    from_device(out.data(), dout, 1);
    float sum = 0.0f;
    for (int i = 0; i < 501; i++)
        sum += in[i];
    assert_true(out[0] == sum);
    cudaFree(din);
    cudaFree(dout);
}

static void test_gemm_mma(void **)
{
    constexpr int k = 80;
    std::vector<float> a(16 * k), b(8 * k), c(16 * 8);
    fill_whole(a.data(), a.size(), 4);
    fill_whole(b.data(), b.size(), 5);
    std::vector<__nv_bfloat16> ha(a.begin(), a.end()), hb(b.begin(), b.end());
    __nv_bfloat16 *da = to_device(ha.data(), ha.size()), *db = to_device(hb.data(), hb.size());
    float *dc = to_device(c.data(), c.size());
    assert_cuda(launch(gemm_mma<NOTHING>, 1, 32, 0, nullptr, dc, da, db, k));
    from_device(c.data(), dc, c.size());
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = 0.0f;
            for (int t = 0; t < k; t++)
                want += a[i * k + t] * b[j * k + t];
            assert_true(c[i * 8 + j] == want);
        }
    cudaFree(da);
    cudaFree(db);
    cudaFree(dc);
}

/* Register m of lane l of a transposed load: rows 2t, 2t + 1 of column g. */
static __global__ void load_transposed(uint32_t *out)
{
    __shared__ __align__(16) uint16_t matrices[32][8];
    for (int i = 0; i < 8; i++)
        matrices[threadIdx.x][i] = static_cast<uint16_t>(threadIdx.x * 8 + i);
    __syncthreads();
    uint32_t r[4];
    load_matrix_x4_trans(r, matrices[threadIdx.x]);
    for (int m = 0; m < 4; m++)
        out[threadIdx.x * 4 + m] = r[m];
}

static void test_load_transposed(void **)
{
    std::vector<uint32_t> out(128);
    uint32_t *dout = to_device(out.data(), out.size());
    assert_cuda(launch(load_transposed, 1, 32, 0, nullptr, dout));
    from_device(out.data(), dout, out.size());
    for (unsigned l = 0; l < 32; l++)
        for (unsigned m = 0; m < 4; m++) {
            const unsigned first = (m * 8 + l % 4 * 2) * 8 + l / 4;
            assert_int_equal(out[l * 4 + m], first | (first + 8) << 16);
        }
    cudaFree(dout);
}

static __global__ void warp_operations(unsigned *out)
{
    const unsigned l = threadIdx.x % 32, all = 0xffffffffu;
    unsigned *row = out + threadIdx.x * 8;
    row[0] = __ballot_sync(all, l % 3 == 0);
    row[1] = __shfl_up_sync(all, l, 4, 16);
    row[2] = __shfl_down_sync(all, l, 4, 16);
    row[3] = __shfl_sync(all, l, 5, 8);
    row[4] = __reduce_add_sync(all, l);
    row[5] = static_cast<unsigned>(__syncthreads_count(threadIdx.x < 40));
    row[6] = l < 16 ? __reduce_max_sync(0x0000ffffu, l) : __reduce_max_sync(0xffff0000u, l);
    row[7] = __activemask();
}

static void test_warp_operations(void **)
{
    std::vector<unsigned> out(64 * 8);
    unsigned *dout = to_device(out.data(), out.size());
    assert_cuda(launch(warp_operations, 1, 64, 0, nullptr, dout));
    from_device(out.data(), dout, out.size());
    for (unsigned t = 0; t < 64; t++) {
        const unsigned l = t % 32, *row = &out[t * 8];
        assert_int_equal(row[0], 0x49249249u);
        assert_int_equal(row[1], l % 16 < 4 ? l : l - 4);
        assert_int_equal(row[2], l % 16 >= 12 ? l : l + 4);
        assert_int_equal(row[3], l / 8 * 8 + 5);
        assert_int_equal(row[4], 496);
        assert_int_equal(row[5], 40);
        assert_int_equal(row[6], l < 16 ? 15 : 31);
        assert_int_equal(row[7], 1u << l);
    }
    cudaFree(dout);
}

static __global__ void shared_at_start(unsigned *out)
{
    __shared__ unsigned fixed[2];
    out[blockIdx.x * 2] = fixed[1];
    out[blockIdx.x * 2 + 1] = dynamic_shared<unsigned>()[3];
    fixed[1] = dynamic_shared<unsigned>()[3] = 0;
}

/* Every block finds NaN, also where the block before it wrote. */
static void test_shared_is_poisoned(void **)
{
    unsigned out[4] = {}, *dout = to_device(out, 4);
    assert_cuda(launch(shared_at_start, 2, 1, 16, nullptr, dout));
    from_device(out, dout, 4);
    for (unsigned word : out)
        assert_int_equal(word, 0xffffffffu);
    cudaFree(dout);
}

/* Runs everything in a number of orders, unless one is asked for from outside. */
int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),          cmocka_unit_test(test_sums),
        cmocka_unit_test(test_gemm_mma),        cmocka_unit_test(test_load_transposed),
        cmocka_unit_test(test_warp_operations), cmocka_unit_test(test_shared_is_poisoned),
    };
    static const char *const orders[] = {"0", "1", "2", "3"};
    static const char *const whens[] = {"lazy", "eager", "5", "6", "7"};
    int failed = 0;
    for (const char *order : orders)
        for (const char *when : whens) {
#ifdef CUEMU_TSAN
            if (strcmp(when, "lazy") != 0)
                continue; /* twenty times slower, and only threads of a block are looked at */
#endif
            setenv("CUEMU_ORDER", order, 1);
            setenv("CUEMU_WHEN", when, 1);
            failed += cmocka_run_group_tests_name(when, tests, nullptr, nullptr);
        }
    return failed;
}
