/* The runtime: order between streams, waits and queries, memory limits, errors, several devices. */
#include "cuemu/samples.cuh"

#include "cuemu/check.h"

#include <cstdlib>
#include <cstring>

static int setup(void **)
{
    for (const char *name :
         {"CUEMU_WHEN", "CUEMU_ORDER", "CUEMU_FAIL", "CUEMU_MEM_MB", "CUEMU_DRIVER"})
        unsetenv(name);
    setenv("CUEMU_DEVICES", "2", 1);
    return cudaSetDevice(0) != cudaSuccess;
}

static float *number(float value)
{
    return to_device(&value, 1);
}

static float read_number(const float *at)
{
    float value;
    from_device(&value, at, 1);
    return value;
}

/* (x + 1) * 3 across two streams, in every policy. */
static void test_events_order_streams(void **)
{
    for (const char *when : {"lazy", "eager", "1", "2", "3", "4"}) {
        setenv("CUEMU_WHEN", when, 1);
        cudaStream_t first, second;
        cudaEvent_t event;
        float *x = number(2.0f);
        assert_cuda(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
        assert_cuda(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
        assert_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        for (int i = 0; i < 100; i++) {
            launch(add_one, 1, 32, 0, first, x, 1);
            assert_cuda(cudaEventRecord(event, first));
            assert_cuda(cudaStreamWaitEvent(second, event, 0));
            launch(scale_by, 1, 32, 0, second, x, 1, 0.5f);
            assert_cuda(cudaEventRecord(event, second));
            assert_cuda(cudaStreamWaitEvent(first, event, 0));
        }
        assert_cuda(cudaStreamSynchronize(second));
        assert_true(read_number(x) == 1.0f); /* 2 and 1 → 1.5 → 1.25 …, exactly 1 in f32 */
        assert_cuda(cudaFree(x));
        assert_cuda(cudaEventDestroy(event));
        assert_cuda(cudaStreamDestroy(first));
        assert_cuda(cudaStreamDestroy(second));
    }
}

/* Lazy work does not run by being queued; a wait runs what it needs and nothing else. */
static void test_lazy_runs_what_is_needed(void **)
{
    cudaStream_t first, second;
    float *pinned;
    assert_cuda(cudaMallocHost(reinterpret_cast<void **>(&pinned), 8));
    assert_cuda(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    assert_cuda(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    float *x = number(1.0f), *y = number(2.0f);
    pinned[0] = pinned[1] = 0.0f;
    assert_cuda(cudaMemcpyAsync(pinned, x, 4, cudaMemcpyDeviceToHost, first));
    assert_cuda(cudaMemcpyAsync(pinned + 1, y, 4, cudaMemcpyDeviceToHost, second));
    assert_true(pinned[0] == 0.0f && pinned[1] == 0.0f);
    assert_int_equal(cudaStreamQuery(second), cudaErrorNotReady);
    assert_cuda(cudaStreamSynchronize(first));
    assert_true(pinned[0] == 1.0f);
    int polls = 0;
    while (cudaStreamQuery(second) == cudaErrorNotReady)
        assert_true(++polls < 10);
    assert_true(pinned[1] == 2.0f);
    cudaFree(x);
    cudaFree(y);
    cudaFreeHost(pinned);
    cudaStreamDestroy(first);
    cudaStreamDestroy(second);
}

/* Blocking streams are ordered with the legacy stream; pageable sources are read at once. */
static void test_legacy_stream(void **)
{
    cudaStream_t blocking;
    assert_cuda(cudaStreamCreate(&blocking));
    float *x = number(1.0f), source = 5.0f;
    assert_cuda(cudaMemcpyAsync(x, &source, 4, cudaMemcpyHostToDevice, blocking));
    source = 6.0f;
    launch(add_one, 1, 32, 0, nullptr, x, 1);
    launch(scale_by, 1, 32, 0, blocking, x, 1, 2.0f);
    assert_true(read_number(x) == 12.0f); /* the copy reads on the legacy stream */
    cudaFree(x);
    cudaStreamDestroy(blocking);
}

static void add_to(void *context)
{
    ++*static_cast<int *>(context);
}

static void test_host_functions_and_times(void **)
{
    int calls = 0;
    cudaEvent_t from, to;
    float ms = -1.0f;
    assert_cuda(cudaEventCreate(&from));
    assert_cuda(cudaEventCreate(&to));
    assert_cuda(cudaEventRecord(from, nullptr));
    assert_cuda(cudaLaunchHostFunc(nullptr, add_to, &calls));
    assert_cuda(cudaEventRecord(to, nullptr));
    assert_int_equal(calls, 0);
    assert_cuda(cudaEventSynchronize(to));
    assert_int_equal(calls, 1);
    assert_cuda(cudaEventElapsedTime(&ms, from, to));
    assert_true(ms >= 0.0f);
    cudaEventDestroy(from);
    assert_int_equal(cudaEventRecord(from, nullptr), cudaErrorInvalidResourceHandle);
    cudaEventDestroy(to);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void test_memory_limits(void **)
{
    setenv("CUEMU_MEM_MB", "2", 1);
    size_t free_bytes, total_bytes;
    void *a, *b;
    assert_cuda(cudaMalloc(&a, 1 << 20));
    assert_int_equal(cudaMalloc(&b, (1 << 20) + 1), cudaErrorMemoryAllocation);
    assert_null(b);
    assert_cuda(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 1 << 20);
    assert_int_equal(total_bytes, 2 << 20);
    assert_int_equal(reinterpret_cast<uintptr_t>(a) % 256, 0);
    assert_int_equal(cudaFree(static_cast<char *>(a) + 256), cudaErrorInvalidValue);
    assert_cuda(cudaFree(a));
    assert_int_equal(cudaFree(a), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
}

static void test_copy_directions(void **)
{
    float host = 0.0f, *x = number(1.0f);
    assert_int_equal(cudaMemcpy(x, &host, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(&host, &host, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_cuda(cudaMemcpy(&host, x, 4, cudaMemcpyDefault));
    assert_true(host == 1.0f);
    const float rows[6] = {1, 2, 3, 4, 5, 6};
    float *square = to_device(rows, 6), two[4] = {};
    assert_cuda(cudaMemcpy2DAsync(two, 8, square, 12, 8, 2, cudaMemcpyDeviceToHost, nullptr));
    assert_true(two[0] == 1 && two[1] == 2 && two[2] == 4 && two[3] == 5);
    cudaFree(x);
    cudaFree(square);
    cudaGetLastError();
}

static void test_launch_limits(void **)
{
    float *x = number(0.0f);
    assert_int_equal(launch(add_one, 1, 1025, 0, nullptr, x, 1), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(add_one, 0, 32, 0, nullptr, x, 1), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(add_one, dim3(1, 65536), 32, 0, nullptr, x, 1),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(launch(add_one, 1, 32, (48 << 10) + 1, nullptr, x, 1), cudaErrorInvalidValue);
    assert_int_equal(allow_shared(add_one, (227 << 10) + 1), cudaErrorInvalidValue);
    assert_cuda(allow_shared(add_one, 64 << 10));
    assert_cuda(launch(add_one, 1, 32, 64 << 10, nullptr, x, 1));
    assert_true(read_number(x) == 1.0f);
    /* 2 KiB of static arrays count. */
    assert_int_equal(
        launch(matmul_tiled<NOTHING>, 1, dim3(16, 16), (46 << 10) + 1, nullptr, x, x, x, 0),
        cudaErrorInvalidValue);
    cudaFree(x);
    cudaGetLastError();
}

static void test_devices(void **)
{
    int count;
    cudaStream_t other;
    struct cudaDeviceProp properties;
    assert_cuda(cudaGetDeviceCount(&count));
    assert_int_equal(count, 2);
    assert_cuda(cudaGetDeviceProperties(&properties, 1));
    assert_int_equal(properties.major, 8);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    assert_cuda(cudaSetDevice(1));
    assert_cuda(cudaStreamCreate(&other));
    float *y = number(3.0f);
    assert_cuda(cudaSetDevice(0));
    float *x = number(0.0f);
    assert_int_equal(launch(add_one, 1, 32, 0, other, y, 1), cudaErrorInvalidResourceHandle);
    assert_cuda(cudaMemcpyPeerAsync(x, 0, y, 1, 4, nullptr));
    assert_true(read_number(x) == 3.0f);
    cudaStreamDestroy(other);
    cudaFree(x);
    cudaFree(y);
    cudaGetLastError();
}

static void test_no_usable_device(void **)
{
    int count = 9;
    setenv("CUEMU_DEVICES", "0", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    assert_int_equal(count, 0);
    setenv("CUEMU_DEVICES", "2", 1);
    setenv("CUEMU_DRIVER", "11080", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    unsetenv("CUEMU_DRIVER");
    cudaGetLastError();
}

/* Last: a context does not recover. */
static void test_injected_faults(void **)
{
    void *a;
    setenv("CUEMU_FAIL", "cudaMalloc:2", 1);
    assert_cuda(cudaMalloc(&a, 256));
    void *b;
    assert_int_equal(cudaMalloc(&b, 256), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc(&b, 256));
    assert_cuda(cudaFree(b));
    assert_cuda(cudaFree(a));
    setenv("CUEMU_FAIL", "launch:1", 1);
    assert_int_equal(launch(add_one, 1, 32, 0, nullptr, nullptr, 0), cudaErrorIllegalAddress);
    unsetenv("CUEMU_FAIL");
    assert_int_equal(cudaStreamSynchronize(nullptr), cudaErrorIllegalAddress);
    assert_int_equal(cudaMalloc(&a, 256), cudaErrorIllegalAddress);
    assert_string_equal(cudaGetErrorName(cudaGetLastError()), "cudaErrorIllegalAddress");
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_events_order_streams, setup),
        cmocka_unit_test_setup(test_lazy_runs_what_is_needed, setup),
        cmocka_unit_test_setup(test_legacy_stream, setup),
        cmocka_unit_test_setup(test_host_functions_and_times, setup),
        cmocka_unit_test_setup(test_memory_limits, setup),
        cmocka_unit_test_setup(test_copy_directions, setup),
        cmocka_unit_test_setup(test_launch_limits, setup),
        cmocka_unit_test_setup(test_devices, setup),
        cmocka_unit_test_setup(test_no_usable_device, setup),
        cmocka_unit_test_setup(test_injected_faults, setup),
    };
    return cmocka_run_group_tests_name("runtime", tests, nullptr, nullptr);
}
