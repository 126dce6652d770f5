#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static lt_status fail_errno(struct lt_error *error, const char *what, const char *path)
{
    const int code = errno;
    return lt_fail(error, code == ENOENT ? LT_NOT_FOUND : LT_IO, "%s: cannot %s: %s", path, what,
                   strerror(code));
}

lt_status lt_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t bytes,
                          struct lt_error *error)
{
    unsigned char *to = data;
    size_t done = 0;
    while (done < bytes) {
        const ssize_t got = pread(fd, to + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(error, "read", path);
        if (got == 0)
            return lt_fail(error, LT_CORRUPT,
                           "%s: file ends at byte %llu, expected %llu more (was it cut short?)",
                           path, (unsigned long long)(offset + done),
                           (unsigned long long)(bytes - done));
        done += (size_t)got;
    }
    return LT_OK;
}

lt_status lt_file_read(const char *path, size_t bytes_max, void **data_out, size_t *bytes_out,
                       struct lt_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, "open", path);
    lt_status status = LT_OK;
    unsigned char *data = NULL;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = fail_errno(error, "stat", path);
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        status = lt_fail(error, LT_BAD_INPUT, "%s: not a regular file", path);
        goto out;
    }
    if ((uint64_t)info.st_size > bytes_max) {
        status = lt_fail(error, LT_BAD_INPUT, "%s: %lld bytes, more than the %zu allowed", path,
                         (long long)info.st_size, bytes_max);
        goto out;
    }
    const size_t bytes = (size_t)info.st_size;
    data = malloc(bytes + 1);
    if (!data) {
        status = lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu bytes", path, bytes);
        goto out;
    }
    LT_TRY_OR(lt_file_read_at(fd, path, 0, data, bytes, error), out);
    data[bytes] = 0;
    *data_out = data;
    *bytes_out = bytes;
    data = NULL;
out:
    free(data);
    close(fd);
    return status;
}

static lt_status write_all(int fd, const char *path, const unsigned char *data, size_t bytes,
                           struct lt_error *error)
{
    while (bytes > 0) {
        const ssize_t put = write(fd, data, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_errno(error, "write", path);
        data += put;
        bytes -= (size_t)put;
    }
    return LT_OK;
}

static void parent_of(const char *path, char *dir, size_t size)
{
    snprintf(dir, size, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash)
        snprintf(dir, size, ".");
    else if (slash == dir)
        dir[1] = 0;
    else
        *slash = 0;
}

lt_status lt_dir_sync(const char *path, struct lt_error *error)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, "open", path);
    const int failed = fsync(fd);
    const lt_status status = failed ? fail_errno(error, "sync", path) : LT_OK;
    close(fd);
    return status;
}

lt_status lt_file_write(const char *path, const void *data, size_t bytes, bool durable,
                        struct lt_error *error)
{
    char temporary[PATH_MAX], dir[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid()) >=
        (int)sizeof temporary)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", path);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail_errno(error, "create", temporary);
    lt_status status = write_all(fd, temporary, data, bytes, error);
    if (status == LT_OK && durable && fsync(fd) != 0)
        status = fail_errno(error, "sync", temporary);
    if (close(fd) != 0 && status == LT_OK)
        status = fail_errno(error, "close", temporary);
    if (status == LT_OK && rename(temporary, path) != 0)
        status = fail_errno(error, "rename to its final name", path);
    if (status != LT_OK) {
        unlink(temporary);
        return status;
    }
    if (!durable)
        return LT_OK;
    parent_of(path, dir, sizeof dir);
    return lt_dir_sync(dir, error);
}

lt_status lt_dir_create(const char *path, struct lt_error *error)
{
    char partial[PATH_MAX];
    if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", path);
    for (char *slash = partial + 1;; slash++) {
        if (*slash != '/' && *slash != 0)
            continue;
        const char end = *slash;
        *slash = 0;
        if (mkdir(partial, 0755) != 0 && errno != EEXIST)
            return fail_errno(error, "create folder", partial);
        *slash = end;
        if (end == 0)
            break;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return lt_fail(error, LT_IO, "%s: not a folder", path);
    return LT_OK;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

lt_status lt_dir_remove(const char *path, struct lt_error *error)
{
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return LT_OK;
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return fail_errno(error, "remove", path);
    return LT_OK;
}

lt_status lt_path_join(char *path_out, size_t size, const char *dir, const char *name,
                       struct lt_error *error)
{
    char joined[PATH_MAX];
    const size_t dir_length = strlen(dir);
    const char *separator = dir_length == 0 || dir[dir_length - 1] == '/' ? "" : "/";
    const int length = snprintf(joined, sizeof joined, "%s%s%s", dir, separator, name);
    if (length < 0 || (size_t)length >= size || (size_t)length >= sizeof joined)
        return lt_fail(error, LT_BAD_INPUT, "%s/%s: path too long", dir, name);
    memcpy(path_out, joined, (size_t)length + 1);
    return LT_OK;
}
