/* Collectives between two to four ranks: one thread that drives all, and a thread for each. */
#include "cuemu/check.h"

#include "cuemu/samples.cuh"

#include <cstdlib>
#include <nccl.h>
#include <thread>
#include <vector>

constexpr int COUNT = 5;

struct rank_work {
    int rank, ranks;
    cudaStream_t stream;
    float *own, *result, *exchanged; /* [COUNT], [ranks · COUNT], [ranks] on the device */
    ncclComm_t comm;
};

static void require_nccl(ncclResult_t result)
{
    if (result != ncclSuccess) {
        fprintf(stderr, "%s\n", ncclGetErrorString(result));
        abort();
    }
}

static void start(rank_work &w, const ncclUniqueId &id)
{
    std::vector<float> own(COUNT), nothing(static_cast<size_t>(w.ranks) * COUNT);
    for (int i = 0; i < COUNT; i++)
        own[i] = static_cast<float>(w.rank * 10 + i);
    require_cuda(cudaSetDevice(w.rank));
    require_cuda(cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking));
    w.own = to_device(own.data(), own.size());
    w.result = to_device(nothing.data(), nothing.size());
    w.exchanged = to_device(nothing.data(), static_cast<size_t>(w.ranks));
    require_nccl(ncclCommInitRank(&w.comm, w.ranks, id, w.rank));
}

/* The kernel before it must have run on every rank when the data move. */
static void queue_collectives(rank_work &w)
{
    require_cuda(cudaSetDevice(w.rank));
    require_cuda(launch(add_one, 1, 32, 0, w.stream, w.own, COUNT));
    require_nccl(ncclAllReduce(w.own, w.own, COUNT, ncclFloat32, ncclSum, w.comm, w.stream));
    require_cuda(
        launch(scale_by, 1, 32, 0, w.stream, w.own, COUNT, static_cast<float>(w.rank + 1)));
    require_nccl(ncclAllGather(w.own, w.result, COUNT, ncclFloat32, w.comm, w.stream));
}

/* Everyone sends element `peer` of its own to everyone. */
static void queue_exchange(rank_work &w)
{
    require_cuda(cudaSetDevice(w.rank));
    require_nccl(ncclGroupStart());
    for (int peer = 0; peer < w.ranks; peer++) {
        require_nccl(ncclSend(w.own + peer, 1, ncclFloat32, peer, w.comm, w.stream));
        require_nccl(ncclRecv(w.exchanged + peer, 1, ncclFloat32, peer, w.comm, w.stream));
    }
    require_nccl(ncclGroupEnd());
}

static int finish(rank_work &w)
{
    int wrong = 0;
    std::vector<float> result(static_cast<size_t>(w.ranks) * COUNT), exchanged(w.ranks);
    require_cuda(cudaSetDevice(w.rank));
    require_cuda(cudaStreamSynchronize(w.stream));
    from_device(result.data(), w.result, result.size());
    from_device(exchanged.data(), w.exchanged, exchanged.size());
    const int n = w.ranks;
    const auto sum = [n](int i) { return static_cast<float>(n * (i + 1) + 10 * n * (n - 1) / 2); };
    for (int r = 0; r < n; r++) {
        for (int i = 0; i < COUNT; i++)
            wrong += result[r * COUNT + i] != sum(i) * static_cast<float>(r + 1);
        wrong += exchanged[r] != sum(w.rank) * static_cast<float>(r + 1);
    }
    require_nccl(ncclCommDestroy(w.comm));
    for (float *p : {w.own, w.result, w.exchanged})
        require_cuda(cudaFree(p));
    require_cuda(cudaStreamDestroy(w.stream));
    return wrong;
}

static void test_one_thread(void **)
{
    for (const char *when : {"lazy", "eager", "3", "4"})
        for (int ranks = 1; ranks <= 4; ranks++) {
            setenv("CUEMU_WHEN", when, 1);
            ncclUniqueId id;
            require_nccl(ncclGetUniqueId(&id));
            std::vector<rank_work> all(ranks);
            for (int r = 0; r < ranks; r++) {
                all[r].rank = r;
                all[r].ranks = ranks;
                start(all[r], id);
            }
            for (rank_work &w : all)
                queue_collectives(w);
            for (rank_work &w : all)
                queue_exchange(w);
            for (rank_work &w : all)
                assert_int_equal(finish(w), 0);
        }
}

static void test_a_thread_each(void **)
{
    setenv("CUEMU_WHEN", "lazy", 1);
    ncclUniqueId id;
    require_nccl(ncclGetUniqueId(&id));
    int wrong[4];
    std::vector<std::thread> threads;
    for (int r = 0; r < 4; r++)
        threads.emplace_back([r, id, &wrong] {
            rank_work w = {};
            w.rank = r;
            w.ranks = 4;
            start(w, id);
            queue_collectives(w);
            queue_exchange(w);
            wrong[r] = finish(w);
        });
    for (std::thread &t : threads)
        t.join();
    for (int w : wrong)
        assert_int_equal(w, 0);
}

/* reduce-scatter and broadcast, in bf16; wrong arguments; an aborted communicator ends a wait. */
static void test_others(void **)
{
    setenv("CUEMU_WHEN", "lazy", 1);
    ncclComm_t comms[2];
    __nv_bfloat16 *from[2], *to[2];
    require_nccl(ncclCommInitAll(comms, 2, nullptr));
    for (int r = 0; r < 2; r++) {
        require_cuda(cudaSetDevice(r));
        const float f[4] = {r ? 2.0f : 1.0f, 2.0f, 3.0f, r ? 4.0f : 0.0f};
        const std::vector<__nv_bfloat16> host(f, f + 4);
        from[r] = to_device(host.data(), 4);
        to[r] = to_device(host.data(), 4);
        require_nccl(
            ncclReduceScatter(from[r], to[r], 2, ncclBfloat16, ncclSum, comms[r], nullptr));
        require_nccl(ncclBroadcast(from[r], from[r], 4, ncclBfloat16, 1, comms[r], nullptr));
    }
    __nv_bfloat16 got[2][4];
    require_cuda(cudaSetDevice(0));
    from_device(got[0], to[0], 2);
    from_device(got[1], from[0], 4);
    assert_true(__bfloat162float(got[0][0]) == 3.0f && __bfloat162float(got[0][1]) == 4.0f);
    assert_true(__bfloat162float(got[1][0]) == 2.0f && __bfloat162float(got[1][3]) == 4.0f);
    require_cuda(cudaSetDevice(1));
    from_device(got[0], to[1], 2);
    assert_true(__bfloat162float(got[0][0]) == 6.0f && __bfloat162float(got[0][1]) == 4.0f);

    float host[2] = {};
    assert_int_equal(ncclAllReduce(host, to[1], 2, ncclFloat32, ncclSum, comms[1], nullptr),
                     ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(to[0], to[1], 2, ncclFloat32, ncclSum, comms[1], nullptr),
                     ncclInvalidArgument); /* another device's */
    require_nccl(ncclAllReduce(from[1], to[1], 2, ncclBfloat16, ncclSum, comms[1], nullptr));
    ncclResult_t error;
    require_nccl(ncclCommAbort(comms[0]));
    require_cuda(cudaStreamSynchronize(nullptr)); /* the peer never comes, and it ends */
    require_nccl(ncclCommGetAsyncError(comms[1], &error));
    assert_int_equal(error, ncclRemoteError);
    ncclCommDestroy(comms[1]);
    for (int r = 0; r < 2; r++) {
        cudaFree(from[r]);
        cudaFree(to[r]);
    }
}

int main()
{
    setenv("CUEMU_DEVICES", "4", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread),
        cmocka_unit_test(test_a_thread_each),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests_name("nccl", tests, nullptr, nullptr);
}
