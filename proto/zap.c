#include "proto/zap.h"

#include "common/file.h"
#include "common/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

enum { KEY_BYTES = 32, KEY_TEXT = 40, FIELD_BYTES = 256, KEYS_MAX = 20000 };

struct lt_zap {
    void *socket;
    char *path;
    struct timespec read_at; /* mtime of the file as read */
    uint8_t (*key)[KEY_BYTES];
    size_t count;
    pthread_t thread;
    atomic_bool stop;
};

static lt_status read_keys(struct lt_zap *zap, struct lt_error *error)
{
    void *data;
    size_t bytes, count = 0;
    struct stat info;
    if (stat(zap->path, &info) != 0)
        return lt_fail(error, LT_NOT_FOUND, "%s: cannot read the authorized keys", zap->path);
    LT_TRY(lt_file_read(zap->path, KEYS_MAX * 64, &data, &bytes, error));
    uint8_t(*keys)[KEY_BYTES] = calloc(KEYS_MAX, KEY_BYTES);
    lt_status status = keys ? LT_OK : lt_fail(error, LT_NO_MEMORY, "%s: no memory", zap->path);
    char *rest = data, *line;
    for (int number = 1; status == LT_OK && (line = strsep(&rest, "\n")) != NULL; number++) {
        const size_t length = strcspn(line, " \t\r"); /* what follows a key is a comment */
        if (length == 0 ||
            (length == 1 &&
             line[0] == '#')) /* a key may begin with # too: a comment has a space there */
            continue;
        line[length] = 0;
        if (length != KEY_TEXT || count == KEYS_MAX || !zmq_z85_decode(keys[count], line))
            status =
                lt_fail(error, LT_BAD_INPUT, "%s:%d: expected a public key of 40 Z85 characters",
                        zap->path, number);
        count++;
    }
    free(data);
    if (status != LT_OK) {
        free(keys);
        return status;
    }
    free(zap->key);
    zap->key = keys;
    zap->count = count;
    zap->read_at = info.st_mtim;
    return LT_OK;
}

static void read_again_if_changed(struct lt_zap *zap)
{
    struct stat info;
    struct lt_error error;
    if (stat(zap->path, &info) == 0 &&
        (info.st_mtim.tv_sec != zap->read_at.tv_sec ||
         info.st_mtim.tv_nsec != zap->read_at.tv_nsec) &&
        read_keys(zap, &error) != LT_OK)
        lt_log(LT_LOG_ERROR, "zap.keys", "%s; the keys read before stay in force", error.text);
}

static bool is_authorized(struct lt_zap *zap, const uint8_t *key, size_t bytes)
{
    read_again_if_changed(zap);
    for (size_t i = 0; i < zap->count && bytes == KEY_BYTES; i++)
        if (memcmp(zap->key[i], key, KEY_BYTES) == 0)
            return true;
    return false;
}

/* One request: version, request id, domain, address, identity, mechanism, credentials. */
static void answer(struct lt_zap *zap)
{
    uint8_t field[7][FIELD_BYTES];
    size_t size[7] = {0};
    int count = 0, more = 1;
    size_t more_bytes = sizeof more;
    while (more) {
        uint8_t spare[FIELD_BYTES];
        const int got =
            zmq_recv(zap->socket, count < 7 ? field[count] : spare, FIELD_BYTES, ZMQ_DONTWAIT);
        if (got < 0)
            return;
        if (count < 7)
            size[count] = (size_t)got < FIELD_BYTES ? (size_t)got : FIELD_BYTES;
        count++;
        zmq_getsockopt(zap->socket, ZMQ_RCVMORE, &more, &more_bytes);
    }
    const bool curve = count == 7 && size[5] == 5 && memcmp(field[5], "CURVE", 5) == 0;
    const bool allowed = curve && is_authorized(zap, field[6], size[6]);
    char user[KEY_TEXT + 1] = "";
    if (curve && size[6] == KEY_BYTES)
        zmq_z85_encode(user, field[6], KEY_BYTES);
    lt_log(allowed ? LT_LOG_INFO : LT_LOG_WARN, allowed ? "zap.allowed" : "zap.refused",
           "address=%.*s key=%.10s…", (int)size[3], (const char *)field[3], user);
    zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap->socket, field[1], size[1], ZMQ_SNDMORE);
    zmq_send(zap->socket, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(zap->socket, allowed ? "OK" : "key not authorized", allowed ? 2 : 18, ZMQ_SNDMORE);
    zmq_send(zap->socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(zap->socket, "", 0, 0);
}

static void *zap_main(void *context)
{
    struct lt_zap *zap = context;
    while (!atomic_load(&zap->stop)) {
        zmq_pollitem_t item = {zap->socket, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, 100) > 0)
            answer(zap);
    }
    return NULL;
}

lt_status lt_zap_start(void *context, const char *authorized_file, struct lt_zap **zap_out,
                       struct lt_error *error)
{
    struct lt_zap *zap = calloc(1, sizeof *zap);
    if (!zap || !(zap->path = strdup(authorized_file))) {
        free(zap);
        return lt_fail(error, LT_NO_MEMORY, "no memory");
    }
    lt_status status = read_keys(zap, error);
    if (status == LT_OK) {
        zap->socket = zmq_socket(context, ZMQ_REP);
        const int none = 0;
        if (zap->socket)
            zmq_setsockopt(zap->socket, ZMQ_LINGER, &none, sizeof none);
        if (!zap->socket || zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0)
            status = lt_fail(error, LT_BUSY, "cannot start the key check: %s",
                             zmq_strerror(zmq_errno()));
    }
    if (status == LT_OK && pthread_create(&zap->thread, NULL, zap_main, zap) != 0)
        status = lt_fail(error, LT_NO_MEMORY, "cannot start the key check");
    if (status != LT_OK) {
        if (zap->socket)
            zmq_close(zap->socket);
        free(zap->key);
        free(zap->path);
        free(zap);
        return status;
    }
    *zap_out = zap;
    return LT_OK;
}

void lt_zap_stop(struct lt_zap **zap)
{
    if (!*zap)
        return;
    atomic_store(&(*zap)->stop, true);
    pthread_join((*zap)->thread, NULL);
    zmq_close((*zap)->socket);
    free((*zap)->key);
    free((*zap)->path);
    free(*zap);
    *zap = NULL;
}
