/* Objects as files of a folder. Objects that grow by writes keep their descriptor open: there are
 * few. */
#include "coordinator/objects.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN_MAX_OBJECTS = 4, NAME_MAX_BYTES = 128 };

struct open_object {
    char name[NAME_MAX_BYTES];
    int fd;
};

struct dir_store {
    struct objects base;
    char dir[PATH_MAX];
    struct open_object open[OPEN_MAX_OBJECTS];
    size_t open_count;
};

void objects_destroy(struct objects **store)
{
    if (*store)
        (*store)->ops->destroy(*store);
    *store = NULL;
}

static lt_status path_of(struct dir_store *store, const char *name, char path[PATH_MAX],
                         struct lt_error *error)
{
    return lt_path_join(path, PATH_MAX, store->dir, name, error);
}

static lt_status fail_errno(struct lt_error *error, const char *what, const char *path)
{
    const int code = errno;
    return lt_fail(error, code == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot %s: %s", path, what,
                   strerror(code));
}

/* "predictions/17": makes the folder "predictions". */
static lt_status make_parent(const char *path, struct lt_error *error)
{
    char dir[PATH_MAX];
    memcpy(dir, path, strlen(path) + 1);
    *strrchr(dir, '/') = 0;
    return lt_dir_create(dir, error);
}

static lt_status dir_put(struct objects *base, const char *name, const void *data, size_t bytes,
                         struct lt_error *error)
{
    struct dir_store *store = (struct dir_store *)base;
    char path[PATH_MAX];
    LT_TRY(path_of(store, name, path, error));
    if (strchr(name, '/'))
        LT_TRY(make_parent(path, error));
    return lt_file_write(path, data, bytes, true, error);
}

static int find_open(const struct dir_store *store, const char *name)
{
    for (size_t i = 0; i < store->open_count; i++)
        if (strcmp(store->open[i].name, name) == 0)
            return store->open[i].fd;
    return -1;
}

static lt_status dir_write(struct objects *base, const char *name, uint64_t offset,
                           const void *data, size_t bytes, struct lt_error *error)
{
    struct dir_store *store = (struct dir_store *)base;
    char path[PATH_MAX];
    LT_TRY(path_of(store, name, path, error));
    int fd = find_open(store, name);
    if (fd < 0) {
        lt_assert(store->open_count < OPEN_MAX_OBJECTS && strlen(name) < NAME_MAX_BYTES);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return fail_errno(error, "create", path);
        struct open_object *object = &store->open[store->open_count++];
        memcpy(object->name, name, strlen(name) + 1);
        object->fd = fd;
    }
    const unsigned char *from = data;
    while (bytes > 0) {
        const ssize_t put = pwrite(fd, from, bytes, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_errno(error, "write", path);
        from += put;
        offset += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return LT_OK;
}

static lt_status dir_sync(struct objects *base, const char *name, struct lt_error *error)
{
    struct dir_store *store = (struct dir_store *)base;
    char path[PATH_MAX];
    LT_TRY(path_of(store, name, path, error));
    const int fd = find_open(store, name);
    if (fd >= 0 && fdatasync(fd) != 0)
        return fail_errno(error, "sync", path);
    return LT_OK;
}

static lt_status dir_read(struct objects *base, const char *name, uint64_t offset, void *data,
                          size_t bytes, struct lt_error *error)
{
    struct dir_store *store = (struct dir_store *)base;
    char path[PATH_MAX];
    LT_TRY(path_of(store, name, path, error));
    const int kept = find_open(store, name);
    if (kept >= 0)
        return lt_file_read_at(kept, path, offset, data, bytes, error);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, "open", path);
    const lt_status status = lt_file_read_at(fd, path, offset, data, bytes, error);
    close(fd);
    return status;
}

static lt_status dir_size(struct objects *base, const char *name, uint64_t *bytes_out,
                          struct lt_error *error)
{
    struct stat info;
    char path[PATH_MAX];
    LT_TRY(path_of((struct dir_store *)base, name, path, error));
    if (stat(path, &info) != 0)
        return lt_fail(error, errno == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: %s", path,
                       strerror(errno));
    *bytes_out = (uint64_t)info.st_size;
    return LT_OK;
}

static void dir_remove(struct objects *base, const char *name)
{
    struct dir_store *store = (struct dir_store *)base;
    struct lt_error error;
    char path[PATH_MAX];
    if (path_of(store, name, path, &error) != LT_OK)
        return;
    for (size_t i = 0; i < store->open_count; i++)
        if (strcmp(store->open[i].name, name) == 0) {
            close(store->open[i].fd);
            store->open[i] = store->open[--store->open_count];
            break;
        }
    unlink(path);
}

static void dir_destroy(struct objects *base)
{
    struct dir_store *store = (struct dir_store *)base;
    for (size_t i = 0; i < store->open_count; i++)
        close(store->open[i].fd);
    free(store);
}

static const struct objects_ops dir_ops = {
    .put = dir_put,
    .write = dir_write,
    .sync = dir_sync,
    .read = dir_read,
    .size = dir_size,
    .remove = dir_remove,
    .destroy = dir_destroy,
};

lt_status objects_open_dir(const char *dir, struct objects **store_out, struct lt_error *error)
{
    LT_TRY(lt_dir_create(dir, error));
    struct dir_store *store = calloc(1, sizeof *store);
    if (!store)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", dir);
    store->base.ops = &dir_ops;
    const lt_status status = lt_path_join(store->dir, sizeof store->dir, dir, "", error);
    if (status != LT_OK) {
        free(store);
        return status;
    }
    *store_out = &store->base;
    return LT_OK;
}
