/* Runs a fuzz target without a fuzzer: every file of a corpus folder, then seeded mutations of
 * them.
 *
 *   replay-gguf FOLDER [MUTATIONS [SEED]]     replay-gguf FILE
 *
 * The input at hand is kept in NAME.input beside the program, and removed at the end: whatever
 * stops the process, the bytes that did it are there to be replayed and added to the corpus. */
#include "common/file.h"
#include "common/rng.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 1 << 16, FILES_MAX = 1024, EDITS_MAX = 8 };

struct input {
    uint8_t *data;
    size_t bytes;
};

struct replay {
    struct input corpus[FILES_MAX];
    size_t corpus_count;
    struct lt_philox random;
    uint64_t drawn;
    int kept; /* descriptor of the input at hand */
    char kept_path[PATH_MAX];
};

static uint32_t draw(struct replay *r, size_t below)
{
    uint32_t value;
    lt_philox_u32(&r->random, r->drawn++, &value, 1);
    return below ? (uint32_t)(value % below) : value;
}

static void run(struct replay *r, const uint8_t *data, size_t bytes)
{
    if (ftruncate(r->kept, 0) != 0 || pwrite(r->kept, data, bytes, 0) != (ssize_t)bytes) {
        perror(r->kept_path);
        exit(1);
    }
    uint8_t *exact =
        malloc(bytes ? bytes : 1); /* its own allocation: a read past the end is seen by ASan */
    lt_assert(exact);
    memcpy(exact, data, bytes);
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

static void overwrite_number(struct replay *r, uint8_t *data, size_t bytes)
{
    static const uint64_t values[] = {0,          1,          0x7f,       0xff,
                                      0x7fff,     0xffff,     0x7fffffff, 0x80000000,
                                      0xffffffff, 1ull << 63, UINT64_MAX, INT64_MAX};
    const uint64_t value = values[draw(r, LT_COUNT(values))];
    const size_t width = (size_t)1 << draw(r, 4);
    if (bytes >= width)
        memcpy(data + draw(r, bytes - width + 1), &value, width);
}

static size_t insert(struct replay *r, uint8_t *data, size_t bytes)
{
    const struct input *other = &r->corpus[draw(r, r->corpus_count)];
    const size_t from = other->bytes ? draw(r, other->bytes) : 0;
    size_t length = 1 + draw(r, 32);
    length = length < other->bytes - from ? length : other->bytes - from;
    length = length < INPUT_BYTES_MAX - bytes ? length : INPUT_BYTES_MAX - bytes;
    const size_t at = draw(r, bytes + 1);
    memmove(data + at + length, data + at, bytes - at);
    memcpy(data + at, other->data + from, length);
    return bytes + length;
}

static size_t delete_some(struct replay *r, uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    const size_t at = draw(r, bytes);
    size_t length = 1 + draw(r, 32);
    length = length < bytes - at ? length : bytes - at;
    memmove(data + at, data + at + length, bytes - at - length);
    return bytes - length;
}

static size_t edit(struct replay *r, uint8_t *data, size_t bytes)
{
    switch (draw(r, 6)) {
    case 0:
        if (bytes)
            data[draw(r, bytes)] ^= (uint8_t)(1u << draw(r, 8));
        return bytes;
    case 1:
        if (bytes)
            data[draw(r, bytes)] = (uint8_t)draw(r, 256);
        return bytes;
    case 2:
        overwrite_number(r, data, bytes);
        return bytes;
    case 3:
        return insert(r, data, bytes);
    case 4:
        return delete_some(r, data, bytes);
    default:
        return draw(r, 8) == 0 ? draw(r, bytes + 1) : bytes; /* sometimes cut */
    }
}

static void run_mutations(struct replay *r, size_t count)
{
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    lt_assert(data);
    for (size_t i = 0; i < count; i++) {
        const struct input *from = &r->corpus[draw(r, r->corpus_count)];
        size_t bytes = from->bytes;
        memcpy(data, from->data, bytes);
        for (uint32_t edits = 1 + draw(r, EDITS_MAX); edits > 0; edits--)
            bytes = edit(r, data, bytes);
        run(r, data, bytes);
    }
    free(data);
}

static void add_file(struct replay *r, const char *path)
{
    struct lt_error error;
    void *data;
    struct input *input = &r->corpus[r->corpus_count];
    if (lt_file_read(path, INPUT_BYTES_MAX, &data, &input->bytes, &error) != LT_OK) {
        fprintf(stderr, "replay: %s\n", error.text);
        exit(1);
    }
    input->data = data;
    r->corpus_count++;
}

static int is_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Sorted by name, so that a seed gives the same inputs on every file system. */
static void add_folder(struct replay *r, const char *folder)
{
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_file, alphasort);
    if (count <= 0 || count > FILES_MAX) {
        fprintf(stderr, "replay: %s: expected 1 to %d files\n", folder, FILES_MAX);
        exit(1);
    }
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        add_file(r, path);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [MUTATIONS [SEED]] | FILE\n", argv[0]);
        return 2;
    }
    struct replay *r = calloc(1, sizeof *r);
    lt_assert(r);
    const size_t mutations = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    r->random = lt_philox_stream(argc > 3 ? strtoull(argv[3], NULL, 10) : 1, LT_STREAM_TEST, 0, 0);
    snprintf(r->kept_path, sizeof r->kept_path, "%s.input", argv[0]);
    r->kept = open(r->kept_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (r->kept < 0) {
        perror(r->kept_path);
        return 1;
    }
    struct stat info;
    if (stat(argv[1], &info) == 0 && S_ISREG(info.st_mode))
        add_file(r, argv[1]);
    else
        add_folder(r, argv[1]);
    run(r, (const uint8_t *)"", 0);
    for (size_t i = 0; i < r->corpus_count; i++)
        run(r, r->corpus[i].data, r->corpus[i].bytes);
    run_mutations(r, mutations);
    printf("%zu files of the corpus and %zu mutations of them\n", r->corpus_count, mutations);
    for (size_t i = 0; i < r->corpus_count; i++)
        free(r->corpus[i].data);
    close(r->kept);
    unlink(r->kept_path);
    free(r);
    return 0;
}
