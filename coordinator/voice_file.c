#include "coordinator/voice_file.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RATE = 16000, PART = 1 << 16, HEADER = 44, IEEE_FLOAT = 3 };

static void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *to, uint32_t value)
{
    put16(to, value);
    put16(to + 2, value >> 16);
}

static void make_header(uint32_t data_bytes, uint8_t header[HEADER])
{
    memcpy(header, "RIFF\0\0\0\0WAVEfmt ", 16);
    put32(header + 4, HEADER - 8 + data_bytes);
    put32(header + 16, 16);
    put16(header + 20, IEEE_FLOAT);
    put16(header + 22, 1);
    put32(header + 24, RATE);
    put32(header + 28, RATE * (uint32_t)sizeof(float));
    put16(header + 32, sizeof(float));
    put16(header + 34, 8 * sizeof(float));
    memcpy(header + 36, "data", 4);
    put32(header + 40, data_bytes);
}

static lt_status copy_samples(struct run *run, enum job_input_kind kind, FILE *file,
                              const char *path, uint8_t *part, struct lt_error *error)
{
    const uint64_t bytes = (uint64_t)run_job(run)->input[kind].shape[3] * sizeof(float);
    uint8_t header[HEADER];
    make_header((uint32_t)bytes, header); /* an upload holds at most 2 GiB */
    bool written = fwrite(header, 1, HEADER, file) == HEADER;
    for (uint64_t at = 0; at < bytes && written; at += PART) {
        const size_t count = bytes - at < PART ? (size_t)(bytes - at) : PART;
        LT_TRY(run_read_input(run, kind, at, part, count, error));
        written = fwrite(part, 1, count, file) == count;
    }
    return written && fflush(file) == 0 ? LT_OK
                                        : lt_fail(error, LT_IO, "%s: cannot be written", path);
}

static lt_status write_voice(struct run *run, enum job_input_kind kind, const char *path,
                             struct lt_error *error)
{
    uint8_t *part = malloc(PART);
    FILE *file = fopen(path, "wbe");
    lt_status status = LT_OK;
    if (!part)
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for a voice", path);
    else if (!file)
        status = lt_fail(error, LT_IO, "%s: cannot be created", path);
    else
        status = copy_samples(run, kind, file, path, part, error);
    if (file && fclose(file) != 0 && status == LT_OK)
        status = lt_fail(error, LT_IO, "%s: cannot be written", path);
    free(part);
    return status;
}

lt_status voice_files_write(struct run *run, const char *dir, struct voice_files *files,
                            struct lt_error *error)
{
    static const struct {
        enum job_input_kind kind;
        const char *name;
    } voice[VOICES_MAX] = {{JOB_INPUT_VOICE, "voice.wav.longtake"},
                           {JOB_INPUT_VOICE_2, "voice_2.wav.longtake"}};
    files->count = 0;
    for (size_t i = 0; i < VOICES_MAX; i++) {
        if (!run_job(run)->input[voice[i].kind].uploaded)
            continue;
        char *path = files->path[files->count];
        LT_TRY(lt_path_join(path, PATH_MAX, dir, voice[i].name, error));
        files->sound[files->count++] = (struct mux_sound){.path = path};
        LT_TRY(write_voice(run, voice[i].kind, path, error));
    }
    return LT_OK;
}

void voice_files_remove(struct voice_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        unlink(files->path[i]);
    files->count = 0;
}
