/* The keys of a job file, in one table: job.c reads by it, job_format.c writes by it, unknown keys
 * are compared with it. docs/job.md is its text for people. */
#pragma once

#include "coordinator/job.h"

enum job_field_kind {
    JOB_FIELD_INT,  /* int64_t, within min and max */
    JOB_FIELD_REAL, /* double, within min and max */
    JOB_FIELD_BOOL,
    JOB_FIELD_TEXT,   /* const char *, 1 to JOB_TEXT_MAX bytes; may be absent */
    JOB_FIELD_CHOICE, /* an enum: the index of the word */
    JOB_FIELD_INPUT,  /* struct job_input: a path, or {"sha256", "shape"} */
    JOB_FIELD_MODEL,  /* struct job_model: a name, or {"file", "fingerprint"} */
    JOB_FIELD_OWN,    /* has code of its own: kind, size, guidance, precision, name of the sampler,
                         sigmas, skip_layers */
};

enum { JOB_TEXT_MAX = 4096, JOB_BYTES_MAX = 1 << 20, JOB_DEPTH_MAX = 32 };

struct job_field {
    const char *section; /* "": top level */
    const char *key;
    enum job_field_kind kind;
    size_t offset;
    double min, max;
    const char *const *choice; /* ends with NULL */
    bool required;
};

extern const char *const job_kind_words[]; /* by enum job_kind, ends with NULL */
extern const struct job_field job_fields[];
extern const size_t job_field_count;

/* NULL: there is no such key. */
const struct job_field *job_schema_find(const char *section, const char *key);
bool job_schema_is_section(const char *key);
/* The known key of the section closest to `key`; NULL when none is close. */
const char *job_schema_nearest(const char *section, const char *key);
