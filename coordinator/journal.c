/* One prepared statement per kind of row, made on first use. The version stands in PRAGMA
 * user_version and a fixed application_id tells our files from other databases. */
#include "coordinator/journal.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { APPLICATION_ID = 0x4c544b4a }; /* "LTKJ" */

static const char schema[] =
    "CREATE TABLE job (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, json TEXT NOT NULL,"
    " state INTEGER NOT NULL, priority INTEGER NOT NULL, created INTEGER NOT NULL,"
    " started INTEGER NOT NULL, finished INTEGER NOT NULL, status INTEGER NOT NULL,"
    " reason TEXT NOT NULL, kernel_class TEXT NOT NULL, pins BLOB NOT NULL);"
    "CREATE TABLE task (job INTEGER NOT NULL, task INTEGER NOT NULL, state INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, attempts INTEGER NOT NULL, peer BLOB NOT NULL,"
    " PRIMARY KEY (job, task)) WITHOUT ROWID;"
    "CREATE TABLE frame (job INTEGER NOT NULL, frame INTEGER NOT NULL, step INTEGER NOT NULL,"
    " PRIMARY KEY (job, frame)) WITHOUT ROWID;";

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    PUT_JOB,
    PUT_TASK,
    PUT_FRAME,
    FORGET_TASKS,
    FORGET_FRAMES,
    EACH_JOB,
    EACH_TASK,
    EACH_FRAME,
    STATEMENT_COUNT
};

static const char *const statements[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [PUT_JOB] = "INSERT OR REPLACE INTO job VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
    [PUT_TASK] = "INSERT OR REPLACE INTO task VALUES (?,?,?,?,?,?)",
    [PUT_FRAME] = "INSERT OR REPLACE INTO frame VALUES (?,?,?)",
    [FORGET_TASKS] = "DELETE FROM task WHERE job = ?",
    [FORGET_FRAMES] = "DELETE FROM frame WHERE job = ?",
    [EACH_JOB] = "SELECT * FROM job ORDER BY id",
    [EACH_TASK] = "SELECT task, state, epoch, attempts, peer FROM task WHERE job = ? ORDER BY task",
    [EACH_FRAME] = "SELECT frame, step FROM frame WHERE job = ? ORDER BY frame",
};

struct journal {
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENT_COUNT];
    bool open;   /* a transaction is */
    char path[]; /* for messages */
};

static lt_status fail_sqlite(const struct journal *journal, const char *what,
                             struct lt_error *error)
{
    const int code = sqlite3_errcode(journal->db);
    lt_status status = LT_IO;
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        status = LT_CORRUPT;
    else if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        status = LT_BUSY;
    else if (code == SQLITE_NOMEM)
        status = LT_NO_MEMORY;
    return lt_fail(error, status, "journal %s: cannot %s: %s", journal->path, what,
                   sqlite3_errmsg(journal->db));
}

static lt_status prepare(struct journal *journal, enum statement which, sqlite3_stmt **out,
                         struct lt_error *error)
{
    sqlite3_stmt **statement = &journal->statement[which];
    if (!*statement && sqlite3_prepare_v3(journal->db, statements[which], -1,
                                          SQLITE_PREPARE_PERSISTENT, statement, NULL) != SQLITE_OK)
        return fail_sqlite(journal, statements[which], error);
    *out = *statement;
    return LT_OK;
}

/* Runs a statement without rows; its parameters are bound. */
static lt_status finish(struct journal *journal, enum statement which, struct lt_error *error)
{
    sqlite3_stmt *statement = journal->statement[which];
    const int code = sqlite3_step(statement);
    lt_status status = LT_OK;
    if (code != SQLITE_DONE)
        status = fail_sqlite(journal, statements[which], error);
    sqlite3_reset(statement);
    return status;
}

static lt_status run_plain(struct journal *journal, enum statement which, struct lt_error *error)
{
    sqlite3_stmt *statement = NULL;
    LT_TRY(prepare(journal, which, &statement, error));
    return finish(journal, which, error);
}

static lt_status ensure_open(struct journal *journal, struct lt_error *error)
{
    if (journal->open)
        return LT_OK;
    LT_TRY(run_plain(journal, BEGIN, error));
    journal->open = true;
    return LT_OK;
}

static lt_status query_number(struct journal *journal, const char *sql, int64_t *value_out,
                              struct lt_error *error)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(journal->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return fail_sqlite(journal, sql, error);
    lt_status status = LT_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *value_out = sqlite3_column_int64(statement, 0);
    else
        status = fail_sqlite(journal, sql, error);
    sqlite3_finalize(statement);
    return status;
}

static lt_status execute(struct journal *journal, const char *sql, struct lt_error *error)
{
    if (sqlite3_exec(journal->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail_sqlite(journal, sql, error);
    return LT_OK;
}

/* PRAGMA quick_check answers with one row "ok", or with rows that tell the damage. */
static lt_status check_integrity(struct journal *journal, struct lt_error *error)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(journal->db, "PRAGMA quick_check", -1, &statement, NULL) != SQLITE_OK)
        return fail_sqlite(journal, "check it", error);
    lt_status status = LT_OK;
    if (sqlite3_step(statement) != SQLITE_ROW) {
        status = fail_sqlite(journal, "check it", error);
    } else {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (!text || strcmp(text, "ok") != 0)
            status = lt_fail(error, LT_CORRUPT, "journal %s is damaged: %s", journal->path,
                             text ? text : "no answer");
    }
    sqlite3_finalize(statement);
    return status;
}

static lt_status create_or_check_schema(struct journal *journal, struct lt_error *error)
{
    int64_t version = 0, application = 0, tables = 0;
    LT_TRY(query_number(journal, "SELECT count(*) FROM sqlite_master", &tables, error));
    LT_TRY(query_number(journal, "PRAGMA application_id", &application, error));
    LT_TRY(query_number(journal, "PRAGMA user_version", &version, error));
    if (tables == 0 && application == 0 && version == 0) {
        char text[sizeof schema + 128];
        snprintf(text, sizeof text,
                 "BEGIN; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;", schema,
                 APPLICATION_ID, JOURNAL_VERSION);
        return execute(journal, text, error);
    }
    if (application != APPLICATION_ID)
        return lt_fail(error, LT_CORRUPT, "journal %s: an SQLite database, but not of longtake",
                       journal->path);
    if (version != JOURNAL_VERSION)
        return lt_fail(error, LT_UNSUPPORTED, "journal %s: version %lld, this program writes %d",
                       journal->path, (long long)version, JOURNAL_VERSION);
    return check_integrity(journal, error);
}

lt_status journal_open(const char *path, struct journal **journal_out, struct lt_error *error)
{
    struct journal *journal = calloc(1, sizeof *journal + strlen(path) + 1);
    if (!journal)
        return lt_fail(error, LT_NO_MEMORY, "journal %s: no memory", path);
    memcpy(journal->path, path, strlen(path) + 1);
    lt_status status = LT_OK;
    if (sqlite3_open_v2(path, &journal->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK) {
        status = fail_sqlite(journal, "open it", error);
        goto out;
    }
    LT_TRY_OR(create_or_check_schema(journal, error), out);
    LT_TRY_OR(execute(journal,
                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA wal_autocheckpoint = 1000",
                      error),
              out);
    *journal_out = journal;
    return LT_OK;
out:
    journal_close(&journal);
    return status;
}

void journal_close(struct journal **journal)
{
    if (!*journal)
        return;
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize((*journal)->statement[i]);
    sqlite3_close((*journal)->db);
    free(*journal);
    *journal = NULL;
}

static void bind_digest(sqlite3_stmt *statement, int at, const struct lt_digest *digest)
{
    sqlite3_bind_blob(statement, at, digest->byte, LT_DIGEST_BYTES, SQLITE_STATIC);
}

lt_status journal_put_job(struct journal *journal, const struct journal_job *job,
                          struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(ensure_open(journal, error));
    LT_TRY(prepare(journal, PUT_JOB, &s, error));
    sqlite3_bind_int64(s, 1, job->id);
    bind_digest(s, 2, &job->digest);
    sqlite3_bind_text(s, 3, job->json, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, job->state);
    sqlite3_bind_int64(s, 5, job->priority);
    sqlite3_bind_int64(s, 6, job->created_us);
    sqlite3_bind_int64(s, 7, job->started_us);
    sqlite3_bind_int64(s, 8, job->finished_us);
    sqlite3_bind_int64(s, 9, job->status);
    sqlite3_bind_text(s, 10, job->reason, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 11, job->kernel_class, -1, SQLITE_STATIC);
    sqlite3_bind_blob(s, 12, job->pin, sizeof job->pin, SQLITE_STATIC);
    return finish(journal, PUT_JOB, error);
}

lt_status journal_put_task(struct journal *journal, uint32_t job, const struct journal_task *task,
                           struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(ensure_open(journal, error));
    LT_TRY(prepare(journal, PUT_TASK, &s, error));
    sqlite3_bind_int64(s, 1, job);
    sqlite3_bind_int64(s, 2, task->task);
    sqlite3_bind_int64(s, 3, task->state);
    sqlite3_bind_int64(s, 4, (int64_t)task->epoch);
    sqlite3_bind_int64(s, 5, task->attempts);
    sqlite3_bind_blob(s, 6, task->peer.id, sizeof task->peer.id, SQLITE_STATIC);
    return finish(journal, PUT_TASK, error);
}

lt_status journal_put_frame(struct journal *journal, uint32_t job, uint32_t frame, uint32_t step,
                            struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(ensure_open(journal, error));
    LT_TRY(prepare(journal, PUT_FRAME, &s, error));
    sqlite3_bind_int64(s, 1, job);
    sqlite3_bind_int64(s, 2, frame);
    sqlite3_bind_int64(s, 3, step);
    return finish(journal, PUT_FRAME, error);
}

lt_status journal_forget_tasks(struct journal *journal, uint32_t job, struct lt_error *error)
{
    LT_TRY(ensure_open(journal, error));
    for (enum statement which = FORGET_TASKS; which <= FORGET_FRAMES; which++) {
        sqlite3_stmt *s = NULL;
        LT_TRY(prepare(journal, which, &s, error));
        sqlite3_bind_int64(s, 1, job);
        LT_TRY(finish(journal, which, error));
    }
    return LT_OK;
}

lt_status journal_commit(struct journal *journal, struct lt_error *error)
{
    if (!journal->open)
        return LT_OK;
    LT_TRY(run_plain(journal, COMMIT, error));
    journal->open = false;
    return LT_OK;
}

void journal_rollback(struct journal *journal)
{
    struct lt_error error;
    if (journal->open)
        run_plain(journal, ROLLBACK, &error);
    journal->open = false;
}

static bool read_bytes(sqlite3_stmt *s, int column, void *out, size_t bytes)
{
    if ((size_t)sqlite3_column_bytes(s, column) != bytes)
        return false;
    memcpy(out, sqlite3_column_blob(s, column), bytes);
    return true;
}

static lt_status damaged(const struct journal *journal, const char *what, struct lt_error *error)
{
    return lt_fail(error, LT_CORRUPT, "journal %s: a %s row does not make sense", journal->path,
                   what);
}

static bool read_job(sqlite3_stmt *s, struct journal_job *job)
{
    *job = (struct journal_job){
        .id = (uint32_t)sqlite3_column_int64(s, 0),
        .json = (const char *)sqlite3_column_text(s, 2),
        .state = (uint32_t)sqlite3_column_int64(s, 3),
        .priority = (int32_t)sqlite3_column_int64(s, 4),
        .created_us = sqlite3_column_int64(s, 5),
        .started_us = sqlite3_column_int64(s, 6),
        .finished_us = sqlite3_column_int64(s, 7),
        .status = (uint32_t)sqlite3_column_int64(s, 8),
        .reason = (const char *)sqlite3_column_text(s, 9),
        .kernel_class = (const char *)sqlite3_column_text(s, 10),
    };
    return job->json && job->reason && job->kernel_class &&
           read_bytes(s, 1, job->digest.byte, LT_DIGEST_BYTES) &&
           read_bytes(s, 11, job->pin, sizeof job->pin);
}

/* Steps a query; *more_out false: it has ended. */
static lt_status next_row(struct journal *journal, enum statement which, bool *more_out,
                          struct lt_error *error)
{
    const int code = sqlite3_step(journal->statement[which]);
    *more_out = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE
               ? LT_OK
               : fail_sqlite(journal, statements[which], error);
}

lt_status journal_each_job(struct journal *journal, journal_job_fn *fn, void *context,
                           struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(prepare(journal, EACH_JOB, &s, error));
    lt_status status;
    for (bool more = true;;) {
        struct journal_job job;
        LT_TRY_OR(next_row(journal, EACH_JOB, &more, error), out);
        if (!more)
            break;
        LT_TRY_OR(read_job(s, &job) ? LT_OK : damaged(journal, "job", error), out);
        LT_TRY_OR(fn(context, &job, error), out);
    }
out:
    sqlite3_reset(s);
    return status;
}

lt_status journal_each_task(struct journal *journal, uint32_t job, journal_task_fn *fn,
                            void *context, struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(prepare(journal, EACH_TASK, &s, error));
    sqlite3_bind_int64(s, 1, job);
    lt_status status;
    for (bool more = true;;) {
        LT_TRY_OR(next_row(journal, EACH_TASK, &more, error), out);
        if (!more)
            break;
        struct journal_task task = {
            .task = (uint32_t)sqlite3_column_int64(s, 0),
            .state = (uint32_t)sqlite3_column_int64(s, 1),
            .epoch = (uint64_t)sqlite3_column_int64(s, 2),
            .attempts = (uint32_t)sqlite3_column_int64(s, 3),
        };
        const bool fine = read_bytes(s, 4, task.peer.id, sizeof task.peer.id);
        LT_TRY_OR(fine ? LT_OK : damaged(journal, "task", error), out);
        LT_TRY_OR(fn(context, &task, error), out);
    }
out:
    sqlite3_reset(s);
    return status;
}

lt_status journal_each_frame(struct journal *journal, uint32_t job, journal_frame_fn *fn,
                             void *context, struct lt_error *error)
{
    sqlite3_stmt *s = NULL;
    LT_TRY(prepare(journal, EACH_FRAME, &s, error));
    sqlite3_bind_int64(s, 1, job);
    lt_status status;
    for (bool more = true;;) {
        LT_TRY_OR(next_row(journal, EACH_FRAME, &more, error), out);
        if (!more)
            break;
        LT_TRY_OR(fn(context, (uint32_t)sqlite3_column_int64(s, 0),
                     (uint32_t)sqlite3_column_int64(s, 1), error),
                  out);
    }
out:
    sqlite3_reset(s);
    return status;
}
