/* The voices that a talk job was given, as files for the take's sound: what was uploaded, so the
 * coordinator opens nothing that a job names. */
#pragma once

#include "coordinator/mux.h"
#include "coordinator/run.h"

#include <limits.h>

enum { VOICES_MAX = 2 };

struct voice_files {
    struct mux_sound sound[VOICES_MAX];
    size_t count; /* 0: the job has none */
    char path[VOICES_MAX][PATH_MAX];
};

/* WAV files (mono, 16 kHz, f32) in `dir`, until voice_files_remove, which is due after a failure
 * too. */
lt_status voice_files_write(struct run *run, const char *dir, struct voice_files *files,
                            struct lt_error *error);
void voice_files_remove(struct voice_files *files);
