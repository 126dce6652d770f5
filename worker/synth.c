/* Tensors are written one after another, in file order; the pieces of a tensor are made and
 * quantised in parallel, and each goes to its place in the file at once. Memory: 2 MiB a thread,
 * whatever the file's size. */
#include "worker/synth.h"

#include "common/safetensors.h"
#include "kernels/exec.h"
#include "kernels/quant.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PIECE_VALUES = 256 * 1024, TILES = 4 }; /* whole blocks of every type */

struct sink { /* one of them */
    struct gguf_writer *gguf;
    struct lt_safetensors_writer *safetensors;
};

struct job {
    const struct synth_params *params;
    const struct synth_layout *layout;
    struct lt_exec *exec;
    struct sink sink;
    size_t tensor;     /* the one being written */
    int64_t first;     /* piece that index 0 of the parts is */
    char *tile[TILES]; /* stored bytes of its first pieces; NULL: not tiled */
    pthread_mutex_t lock;
    lt_status status; /* first failure of any piece, under the lock */
    struct lt_error error;
};

/* -- files ------------------------------------------------------------------------------------- */

static lt_status begin_safetensors(const char *path, const struct synth_layout *layout,
                                   struct sink *sink, struct lt_error *error)
{
    const struct synth_vocabulary *vocabulary = layout->vocabulary;
    const size_t count = layout->catalogue.count;
    struct lt_named_view *views = calloc(count + 1, sizeof *views);
    if (!views)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for the header", path);
    for (size_t i = 0; i < count; i++) {
        const struct gguf_writer_tensor *tensor = &layout->tensor[i];
        views[i].name = tensor->name;
        views[i].view = lt_view_make(NULL, tensor->type, tensor->rank, tensor->dim);
    }
    if (vocabulary)
        views[count] = (struct lt_named_view){
            "spiece_model", lt_view_1d(NULL, LT_TYPE_U8, (int64_t)vocabulary->model_bytes)};
    const lt_status status = lt_safetensors_writer_begin(path, views, count + (vocabulary != NULL),
                                                         &sink->safetensors, error);
    free(views);
    if (status != LT_OK || !vocabulary)
        return status;
    return lt_safetensors_writer_put(sink->safetensors, count, 0, vocabulary->model,
                                     vocabulary->model_bytes, error);
}

static lt_status begin_sink(const char *path, const struct synth_layout *layout, struct sink *sink,
                            struct lt_error *error)
{
    if (layout->safetensors)
        return begin_safetensors(path, layout, sink, error);
    const struct synth_vocabulary *v = layout->vocabulary;
    const size_t count = v ? v->count : 0;
    const struct gguf_writer_pair pairs[] = {
        {.key = "general.architecture", .text = v ? "t5encoder" : "wan"},
        {.key = "general.quantization_version", .number = 2},
        {.key = "general.file_type", .number = layout->file_type},
        {.key = "tokenizer.ggml.model", .text = "t5"},
        {.key = "tokenizer.ggml.tokens", .texts = v ? v->text : NULL, .count = count},
        {.key = "tokenizer.ggml.scores", .floats = v ? v->score : NULL, .count = count},
        {.key = "tokenizer.ggml.token_type", .numbers = v ? v->type : NULL, .count = count},
        {.key = "tokenizer.ggml.add_space_prefix", .number = 1, .flag = true},
        {.key = "tokenizer.ggml.remove_extra_whitespaces", .number = 1, .flag = true},
    };
    return gguf_writer_begin(path, layout->tensor, layout->catalogue.count, pairs,
                             v ? LT_COUNT(pairs) : 3, &sink->gguf, error);
}

static lt_status put(const struct sink *sink, size_t tensor, uint64_t offset, const void *data,
                     size_t bytes, struct lt_error *error)
{
    return sink->gguf
               ? gguf_writer_put(sink->gguf, tensor, offset, data, bytes, error)
               : lt_safetensors_writer_put(sink->safetensors, tensor, offset, data, bytes, error);
}

static lt_status end_sink(struct sink *sink, struct lt_error *error)
{
    return sink->gguf ? gguf_writer_end(&sink->gguf, error)
                      : lt_safetensors_writer_end(&sink->safetensors, error);
}

static void abort_sink(struct sink *sink)
{
    gguf_writer_abort(&sink->gguf);
    lt_safetensors_writer_abort(&sink->safetensors);
}

/* -- pieces ------------------------------------------------------------------------------------ */

static lt_status write_piece(struct job *job, int64_t index, int thread, struct lt_error *error)
{
    const struct catalogue_entry *entry = &job->layout->catalogue.entry[job->tensor];
    const enum lt_type type = job->layout->tensor[job->tensor].type;
    const uint64_t first = (uint64_t)index * PIECE_VALUES;
    const uint64_t left = (uint64_t)catalogue_values(entry) - first;
    const size_t count = left < PIECE_VALUES ? (size_t)left : PIECE_VALUES;
    uint64_t offset = 0, bytes = 0;
    lt_assert(lt_type_bytes(type, first, &offset) && lt_type_bytes(type, count, &bytes));
    char *tile = job->tile[index % TILES];
    if (tile && index >= TILES) /* the last piece may be the front of one */
        return put(&job->sink, job->tensor, offset, tile, (size_t)bytes, error);
    float *values = lt_exec_scratch(job->exec, thread, 2 * PIECE_VALUES * sizeof *values);
    if (!values)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a piece of %zu values", count);
    float *stored = values + PIECE_VALUES;
    synth_fill_values(job->params, entry, first, values, count);
    LT_TRY(lt_quantize_row(type, values, stored, (int64_t)count, error));
    if (tile)
        memcpy(tile, stored, (size_t)bytes);
    return put(&job->sink, job->tensor, offset, stored, (size_t)bytes, error);
}

static void run_piece(void *context, int64_t index, int thread)
{
    struct job *job = context;
    struct lt_error error;
    const lt_status status = write_piece(job, job->first + index, thread, &error);
    if (status == LT_OK)
        return;
    pthread_mutex_lock(&job->lock);
    if (job->status == LT_OK) {
        job->status = status;
        job->error = error;
    }
    pthread_mutex_unlock(&job->lock);
}

static lt_status write_tensors(struct job *job, synth_progress *progress, void *context,
                               struct synth_report *report, struct lt_error *error)
{
    const struct catalogue *catalogue = &job->layout->catalogue;
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < catalogue->count; i++)
        total += (uint64_t)catalogue_values(&catalogue->entry[i]);
    for (job->tensor = 0; job->tensor < catalogue->count; job->tensor++) {
        const int64_t values = catalogue_values(&catalogue->entry[job->tensor]);
        const int64_t pieces = (values + PIECE_VALUES - 1) / PIECE_VALUES;
        const int64_t made = job->tile[0] && pieces > TILES ? TILES : pieces;
        job->first = 0;
        lt_exec_parallel(job->exec, made, run_piece, job);
        job->first = made;
        lt_exec_parallel(job->exec, job->status == LT_OK ? pieces - made : 0, run_piece, job);
        if (job->status != LT_OK)
            return lt_fail(error, job->status, "%s: %s", job->params->path, job->error.text);
        done += (uint64_t)values;
        if (progress)
            progress(context, done, total);
    }
    report->parameters = total;
    report->tensor_count = catalogue->count;
    return LT_OK;
}

static lt_status take_tiles(struct job *job, struct lt_error *error)
{
    for (int i = 0; job->params->fill == SYNTH_FILL_TILED && i < TILES; i++)
        if (!(job->tile[i] = malloc(PIECE_VALUES * sizeof(float))))
            return lt_fail(error, LT_NO_MEMORY, "no memory for repeated values");
    return LT_OK;
}

lt_status synth_write(const struct synth_params *params, synth_progress *progress, void *context,
                      struct synth_report *report_out, struct lt_error *error)
{
    struct synth_layout layout = {0};
    struct synth_report report = {0};
    struct job job = {.params = params, .layout = &layout, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct stat info;
    lt_status status;
    LT_TRY(synth_layout_build(params, &layout, error));
    LT_TRY_OR(
        lt_exec_create(&(struct lt_exec_params){.thread_count = params->threads}, &job.exec, error),
        out);
    LT_TRY_OR(take_tiles(&job, error), out);
    LT_TRY_OR(begin_sink(params->path, &layout, &job.sink, error), out);
    LT_TRY_OR(write_tensors(&job, progress, context, &report, error), out);
    LT_TRY_OR(end_sink(&job.sink, error), out);
    report.file_bytes = stat(params->path, &info) == 0 ? (uint64_t)info.st_size : 0;
    *report_out = report;
out:
    abort_sink(&job.sink);
    for (int i = 0; i < TILES; i++)
        free(job.tile[i]);
    lt_exec_destroy(&job.exec);
    synth_layout_fini(&layout);
    return status;
}
