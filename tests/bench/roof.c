#include "tests/bench/roof.h"

#include "common/clock.h"
#include "kernels/kernels.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

enum { ROOF_SIDE = 1024 };

struct roof_place {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[3];
    void *data[3];
};

struct roof {
    struct lt_exec *exec;
    int threads;
    dnnl_data_type_t type;
    struct roof_place *place;
};

static void make_place(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct roof *roof = context;
    struct roof_place *place = &roof->place[index];
    dnnl_memory_desc_t side, out, any;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_dims_t dims = {ROOF_SIDE, ROOF_SIDE};
    dnnl_engine_create(&place->engine, dnnl_cpu, 0);
    dnnl_stream_create(&place->stream, place->engine, dnnl_stream_in_order);
    dnnl_memory_desc_init_by_tag(&side, 2, dims, roof->type, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&any, 2, dims, roof->type, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&out, 2, dims, dnnl_f32, dnnl_ab);
    dnnl_matmul_desc_init(&desc, &side, &any, NULL, &out);
    lt_assert(dnnl_primitive_desc_create(&pd, &desc, NULL, place->engine, NULL) == dnnl_success);
    dnnl_primitive_create(&place->primitive, pd);
    const int arg[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    const dnnl_query_t query[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    for (int i = 0; i < 3; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, query[i], 0);
        const size_t bytes = dnnl_memory_desc_get_size(md);
        place->data[i] = aligned_alloc(64, (bytes + 63) / 64 * 64);
        lt_assert(place->data[i]);
        memset(place->data[i], 0, bytes);
        place->args[i].arg = arg[i];
        dnnl_memory_create(&place->args[i].memory, md, place->engine, place->data[i]);
    }
    dnnl_primitive_desc_destroy(pd);
}

static void run_place(void *context, int64_t index, int thread)
{
    (void)thread;
    const struct roof_place *place = &((const struct roof *)context)->place[index];
    for (int i = 0; i < 4; i++)
        dnnl_primitive_execute(place->primitive, place->stream, 3, place->args);
}

double roof_gflops(struct roof *roof)
{
    double best = 0;
    for (int i = 0; i < 3; i++) {
        const int64_t begin = lt_clock_now_us();
        lt_exec_parallel(roof->exec, roof->threads, run_place, roof);
        const double us = (double)(lt_clock_now_us() - begin);
        const double flops = 4.0 * roof->threads * 2 * ROOF_SIDE * ROOF_SIDE * ROOF_SIDE;
        best = fmax(best, flops / us / 1e3);
    }
    return best;
}

struct roof *roof_create(struct lt_exec *exec, bool bf16)
{
    struct roof *roof = calloc(1, sizeof *roof);
    lt_assert(roof);
    roof->exec = exec;
    roof->threads = lt_exec_thread_count(exec);
    roof->type = bf16 && lt_caps_detect() & LT_CAP_AVX512_BF16 ? dnnl_bf16 : dnnl_f32;
    roof->place = calloc((size_t)roof->threads, sizeof *roof->place);
    lt_assert(roof->place);
    for (int i = 0; i < roof->threads; i++)
        make_place(roof, i, 0);
    return roof;
}

void roof_destroy(struct roof **roof)
{
    for (int i = 0; i < (*roof)->threads; i++) {
        struct roof_place *place = &(*roof)->place[i];
        for (int j = 0; j < 3; j++) {
            dnnl_memory_destroy(place->args[j].memory);
            free(place->data[j]);
        }
        dnnl_primitive_destroy(place->primitive);
        dnnl_stream_destroy(place->stream);
        dnnl_engine_destroy(place->engine);
    }
    free((*roof)->place);
    free(*roof);
    *roof = NULL;
}
