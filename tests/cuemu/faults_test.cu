/* Seeded faults, each of which must be caught. A fault runs in a child: what it says, and how it
 * ends, is what is looked at. Some are seen by the emulator itself, some only by the sanitizer that
 * the kernels were built with. */
#include "cuemu/samples.cuh"

#include "cuemu/check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#if defined(CUEMU_ASAN)
constexpr int BUILD = 1;
#elif defined(CUEMU_TSAN)
constexpr int BUILD = 2;
#else
constexpr int BUILD = 0;
#endif

/* Reports need no line numbers here, which take seconds to find, and children leave without
 * freeing. */
extern "C" const char *__asan_default_options();
extern "C" const char *__tsan_default_options();
extern "C" const char *__asan_default_options()
{
    return "symbolize=0:detect_leaks=0";
}
extern "C" const char *__tsan_default_options()
{
    return "symbolize=0:atexit_sleep_ms=0";
}

constexpr int WRONG = 3; /* exit status of a child whose result was wrong */

struct ending {
    int status; /* of exit; -1: by a signal */
    std::string text;
};

static ending run_child(int (*body)(), const char *const (&environment)[2])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        if (environment[0])
            setenv(environment[0], environment[1], 1);
        exit(body());
    }
    close(ends[1]);
    ending e;
    char piece[4096];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;)
        e.text.append(piece, static_cast<size_t>(n));
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    e.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return e;
}

/* -- memory ------------------------------------------------------------------------------------ */

static float *zeros(size_t n)
{
    void *at;
    if (cudaMalloc(&at, n * 4) != cudaSuccess || cudaMemset(at, 0, n * 4) != cudaSuccess)
        abort();
    return static_cast<float *>(at);
}

static int finish()
{
    return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}

static __global__ void write_at(float *x, int i)
{
    x[i] = 1.0f;
}

static int global_overrun()
{
    launch(write_at, 1, 1, 0, nullptr, zeros(256), 256);
    return finish();
}

static int global_overrun_small()
{
    float *x = zeros(3); /* the guard page is 244 bytes away */
    launch(write_at, 1, 1, 0, nullptr, x, 3);
    cudaFree(x);
    return finish();
}

static int use_after_free()
{
    float *x = zeros(1024);
    cudaFree(x);
    launch(write_at, 1, 1, 0, nullptr, x, 0);
    return finish();
}

static __global__ void overrun_static(float *out, int i)
{
    __shared__ float first[8];
    __shared__ float second[8];
    second[threadIdx.x] = 2.0f;
    first[i] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = second[threadIdx.x] + first[threadIdx.x];
}

static int static_shared_overrun()
{
    launch(overrun_static, 1, 8, 0, nullptr, zeros(8), 8);
    return finish();
}

static __global__ void overrun_dynamic(int i)
{
    dynamic_shared<float>()[i] = 1.0f;
}

static int dynamic_shared_overrun()
{
    launch(overrun_dynamic, 1, 1, 256, nullptr, 64);
    return finish();
}

static __global__ void copy_float4(float4 *to, const float *from)
{
    *to = *reinterpret_cast<const float4 *>(from + 1);
}

static int misaligned()
{
    float *x = zeros(16);
    launch(copy_float4, 1, 1, 0, nullptr, reinterpret_cast<float4 *>(x + 8), x);
    return finish();
}

static int host_reads_device()
{
    float *x = zeros(4);
    if (finish() != 0)
        return 1;
    return *static_cast<volatile float *>(x) != 0.0f;
}

static int copy_past_the_end()
{
    float held[8] = {};
    cudaMemcpy(zeros(4), held, sizeof held, cudaMemcpyHostToDevice);
    return finish();
}

/* -- meetings ---------------------------------------------------------------------------------- */

static __global__ void barrier_for_half()
{
    if (threadIdx.x < 32)
        __syncthreads();
}

static __global__ void barrier_at_two_lines()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void shuffle_by_half(float *x)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 8);
    else
        __syncthreads();
}

static __global__ void shuffle_with_returned(float *x)
{
    if (threadIdx.x >= 16)
        return;
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 8);
}

static __global__ void shuffle_not_in_mask(float *x)
{
    x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 8);
}

static __global__ void shuffle_from_absent(float *x)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 16);
}

static __global__ void masks_overlap(float *x)
{
    const unsigned mask = threadIdx.x < 16 ? 0x0001ffffu : 0xffff0000u;
    x[threadIdx.x] = __shfl_sync(mask, 1.0f, threadIdx.x < 16 ? 0 : 31);
}

static __global__ void operations_differ(float *x)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0);
    else
        x[threadIdx.x] = static_cast<float>(__ballot_sync(0xffffffffu, 1));
}

static __global__ void matrix_from_global(float *x)
{
    uint32_t r[4];
    load_matrix_x4(r, x + threadIdx.x * 4);
    x[threadIdx.x] = __uint_as_float(r[0]);
}

template <void (*kernel)()> static int meeting()
{
    launch(kernel, 1, 64, 0, nullptr);
    return finish();
}

template <void (*kernel)(float *)> static int meeting()
{
    launch(kernel, 1, 32, 0, nullptr, zeros(256));
    return finish();
}

/* -- races: by a wrong result in some order, or by the thread sanitizer -------------------------
 */

template <lacks fault> static int matmul()
{
    constexpr int n = 32;
    std::vector<float> a(n * n), b(n * n), c(n * n);
    fill_whole(a.data(), a.size(), 1);
    fill_whole(b.data(), b.size(), 2);
    float *da = to_device(a.data(), a.size()), *db = to_device(b.data(), b.size());
    float *dc = to_device(c.data(), c.size());
    launch(matmul_tiled<fault>, dim3(2, 2), dim3(16, 16), 0, nullptr, dc, da, db, n);
    from_device(c.data(), dc, c.size());
    for (int i = 0; i < n * n; i++) {
        float want = 0.0f;
        for (int k = 0; k < n; k++)
            want += a[i / n * n + k] * b[k * n + i % n];
        if (!(c[i] == want))
            return WRONG;
    }
    return 0;
}

template <lacks fault> static int halves()
{
    std::vector<float> in(256);
    fill_whole(in.data(), in.size(), 3);
    float got, want = 0.0f;
    float *din = to_device(in.data(), in.size()), *dout = zeros(1);
    launch(sum_halves<fault>, 1, 256, 1024, nullptr, dout, din);
    from_device(&got, dout, 1);
    for (float x : in)
        want += x;
    return got == want ? 0 : WRONG;
}

template <lacks fault> static int reversed()
{
    std::vector<float> in(128), out(128);
    fill_whole(in.data(), in.size(), 4);
    float *din = to_device(in.data(), in.size()), *dout = zeros(128);
    launch(reverse<fault>, 2, 64, 0, nullptr, dout, din);
    from_device(out.data(), dout, 128);
    for (int i = 0; i < 128; i++)
        if (!(out[i] == in[i / 64 * 64 + 63 - i % 64]))
            return WRONG;
    return 0;
}

template <lacks fault> static int gemm()
{
    std::vector<__nv_bfloat16> ones(16 * 48, __float2bfloat16(1.0f));
    std::vector<float> c(128);
    __nv_bfloat16 *da = to_device(ones.data(), ones.size());
    float *dc = zeros(128);
    launch(gemm_mma<fault>, 1, 32, 0, nullptr, dc, da, da, 48);
    from_device(c.data(), dc, c.size());
    for (float x : c)
        if (!(x == 48.0f))
            return WRONG;
    return 0;
}

static __global__ void sum_without_atomic(float *x)
{
    x[0] += static_cast<float>(threadIdx.x);
}

static int global_race()
{
    launch(sum_without_atomic, 1, 64, 0, nullptr, zeros(1));
    return finish();
}

/* -- work that nobody waited for ----------------------------------------------------------------
 */

struct two_streams {
    cudaStream_t first, second;
    cudaEvent_t event;
    float *device, *pinned;
};

static two_streams make_streams()
{
    two_streams s;
    void *pinned;
    if (cudaStreamCreateWithFlags(&s.first, cudaStreamNonBlocking) != cudaSuccess ||
        cudaStreamCreateWithFlags(&s.second, cudaStreamNonBlocking) != cudaSuccess ||
        cudaEventCreateWithFlags(&s.event, cudaEventDisableTiming) != cudaSuccess ||
        cudaMallocHost(&pinned, 4) != cudaSuccess)
        abort();
    s.device = zeros(1);
    s.pinned = static_cast<float *>(pinned);
    cudaDeviceSynchronize();
    return s;
}

template <bool waits> static int host_reads_result()
{
    const two_streams s = make_streams();
    launch(add_one, 1, 32, 0, s.first, s.device, 1);
    cudaMemcpyAsync(s.pinned, s.device, 4, cudaMemcpyDeviceToHost, s.first);
    if (waits)
        cudaStreamSynchronize(s.first);
    return *s.pinned == 1.0f ? 0 : WRONG;
}

template <bool waits> static int second_stream_reads()
{
    const two_streams s = make_streams();
    launch(add_one, 1, 32, 0, s.first, s.device, 1);
    cudaEventRecord(s.event, s.first);
    if (waits)
        cudaStreamWaitEvent(s.second, s.event, 0);
    cudaMemcpyAsync(s.pinned, s.device, 4, cudaMemcpyDeviceToHost, s.second);
    cudaStreamSynchronize(s.second);
    return *s.pinned == 1.0f ? 0 : WRONG;
}

static void nested_call(void *)
{
    if (cudaDeviceSynchronize() == cudaErrorNotPermitted)
        exit(WRONG);
}

static int host_function_calls_back()
{
    cudaLaunchHostFunc(nullptr, nested_call, nullptr);
    return finish();
}

/* -- the table -----------------------------------------------------------------------------------
 */

/* What each build says: text on stderr, WRONG_RESULT, or NULL where that build cannot see it. */
static const char WRONG_RESULT[] = "(a wrong result)";

struct seeded {
    const char *name;
    int (*body)();
    const char *says[3]; /* plain, ASan + UBSan, TSan */
    const char *environment[2];
};

#define ALL(text)                                                                                  \
    {                                                                                              \
        text, text, text                                                                           \
    }

static const seeded faults[] = {
    {"global overrun",
     global_overrun,
     {"the guard page behind an allocation", "heap-buffer-overflow", "the guard page"},
     {}},
    {"global overrun short of the guard page",
     global_overrun_small,
     {"behind an allocation of 12 bytes was overwritten", "heap-buffer-overflow",
      "behind an allocation of 12 bytes was overwritten"},
     {}},
    {"use after free", use_after_free, {"nobody's", "heap-use-after-free", "nobody's"}, {}},
    {"static shared overrun", static_shared_overrun, {nullptr, "out of bounds", nullptr}, {}},
    {"dynamic shared overrun",
     dynamic_shared_overrun,
     {"invalid access", "heap-buffer-overflow", "invalid access"},
     {}},
    {"misaligned float4", misaligned, {"misaligned", "misaligned", "misaligned"}, {}},
    {"host reads device memory",
     host_reads_device,
     {"device memory, touched by the host", nullptr, "device memory, touched by the host"},
     {"CUEMU_PROTECT", "1"}},
    {"copy past the end", copy_past_the_end, ALL("copy to of 32 bytes at offset 0"), {}},
    {"barrier not reached by all", meeting<barrier_for_half>, ALL("is not reached by all"), {}},
    {"barrier at two lines", meeting<barrier_at_two_lines>, ALL("from two lines at once"), {}},
    {"shuffle by half a warp", meeting<shuffle_by_half>, ALL("deadlock: 32 of 32"), {}},
    {"shuffle with returned lanes", meeting<shuffle_with_returned>, ALL("__shfl_xor_sync"), {}},
    {"shuffle outside its mask", meeting<shuffle_not_in_mask>, ALL("not in its own mask"), {}},
    {"shuffle from an absent lane", meeting<shuffle_from_absent>, ALL("reads lane 16"), {}},
    {"masks overlap", meeting<masks_overlap>, ALL("overlaps mask"), {}},
    {"operations differ", meeting<operations_differ>, ALL("meets a __shfl_sync"), {}},
    {"ldmatrix of global memory", meeting<matrix_from_global>, ALL("is not shared memory"), {}},
    {"cp.async without a wait", gemm<WAIT>, ALL(WRONG_RESULT), {}},
    {"race in global memory", global_race, {nullptr, nullptr, "data race"}, {}},
    {"race of matmul, first barrier", matmul<FIRST_BARRIER>, {nullptr, nullptr, "data race"}, {}},
    {"race of matmul, second barrier", matmul<SECOND_BARRIER>, {nullptr, nullptr, "data race"}, {}},
    {"race of halves", halves<FIRST_BARRIER>, {nullptr, nullptr, "data race"}, {}},
    {"race of reverse", reversed<FIRST_BARRIER>, {nullptr, nullptr, "data race"}, {}},
    {"host reads before it waits", host_reads_result<false>, ALL(WRONG_RESULT), {}},
    {"two streams without an event", second_stream_reads<false>, ALL(WRONG_RESULT), {}},
    {"host function calls the runtime", host_function_calls_back, ALL(WRONG_RESULT), {}},
};

static void test_faults_are_caught(void **)
{
    for (const seeded &fault : faults) {
        const char *says = fault.says[BUILD];
        if (!says)
            continue;
        const ending e = run_child(fault.body, fault.environment);
        const bool caught = says == WRONG_RESULT
                                ? e.status == WRONG
                                : e.status != 0 && e.text.find(says) != e.text.npos;
        if (!caught)
            fail_msg("%s: not caught (expected \"%s\"; status %d)\n%s", fault.name, says, e.status,
                     e.text.c_str());
    }
}

/* Races that the emulator alone sees as wrong results when threads go in another order. */
static void test_orders_show_races(void **)
{
    if (BUILD == 2)
        skip(); /* it has reported them already */
    static int (*const racing[])() = {matmul<FIRST_BARRIER>, matmul<SECOND_BARRIER>,
                                      halves<FIRST_BARRIER>, reversed<FIRST_BARRIER>};
    static const char *const orders[] = {"0", "1", "2", "3", "4", "5"};
    for (auto body : racing) {
        int wrong = 0;
        for (const char *order : orders)
            wrong += run_child(body, {"CUEMU_ORDER", order}).status == WRONG;
        assert_true(wrong > 0);
    }
}

/* The same kernels with nothing left out say nothing, in any build and order. */
static void test_no_false_alarms(void **)
{
    static int (*const sound[])() = {matmul<NOTHING>,         halves<NOTHING>,
                                     reversed<NOTHING>,       gemm<NOTHING>,
                                     host_reads_result<true>, second_stream_reads<true>};
    static const char *const environments[][2] = {
        {},
        {"CUEMU_ORDER", "1"},
        {"CUEMU_ORDER", "7"},
        {"CUEMU_WHEN", "eager"},
        {"CUEMU_WHEN", "11"},
        {"CUEMU_PROTECT", "1"},
    };
    for (auto body : sound)
        for (const auto &environment : environments) {
            if (BUILD == 2 && environment[0] && strcmp(environment[0], "CUEMU_ORDER") != 0)
                continue; /* twenty times slower, and it looks at orders only */
            const ending e = run_child(body, environment);
            if (e.status != 0 || !e.text.empty())
                fail_msg("status %d with %s=%s\n%s", e.status,
                         environment[0] ? environment[0] : "nothing",
                         environment[0] ? environment[1] : "", e.text.c_str());
        }
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_are_caught),
        cmocka_unit_test(test_orders_show_races),
        cmocka_unit_test(test_no_false_alarms),
    };
    return cmocka_run_group_tests_name("faults", tests, nullptr, nullptr);
}
