/* The pieces of a unigram tokenizer and how text is normalised for it (encoders.md 7.1, 7.2): read
 * from a sentencepiece model, on its own or inside a ComfyUI text encoder, or from the metadata of
 * a GGUF. Immutable once open; any number of threads may use one. Memory: the stored bytes, 24
 * bytes a piece and up to 16 for finding it; 17 MiB for UMT5's 256,384 pieces. */
#pragma once

#include "common/status.h"
#include "worker/weights/tensor_file.h"

struct vocabulary;

enum piece_type { /* numbered as in the files */
                  PIECE_NORMAL = 1,
                  PIECE_UNKNOWN,
                  PIECE_CONTROL,
                  PIECE_USER_DEFINED,
                  PIECE_UNUSED,
                  PIECE_BYTE,
};

struct piece {
    const char *text; /* not terminated */
    uint32_t bytes;
    float score;
    enum piece_type type;
};

/* By what the file is, not by its name: a sentencepiece model, safetensors with `spiece_model`, or
 * GGUF with `tokenizer.ggml.*`. LT_UNSUPPORTED says what to give instead. */
lt_status vocabulary_open(const char *path, struct vocabulary **vocabulary_out,
                          struct lt_error *error);
/* The one inside a model file; LT_NOT_FOUND when it has none. */
lt_status vocabulary_of_file(struct tensor_file *file, struct vocabulary **vocabulary_out,
                             struct lt_error *error);
/* A serialized sentencepiece ModelProto; `path` is for messages. */
lt_status vocabulary_parse(const void *model, size_t bytes, const char *path,
                           struct vocabulary **vocabulary_out, struct lt_error *error);
void vocabulary_close(struct vocabulary **vocabulary);

size_t vocabulary_count(const struct vocabulary *vocabulary);
const struct piece *vocabulary_piece(const struct vocabulary *vocabulary, int32_t id);
/* -1: no such piece. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes);

/* Every piece that the text begins with, of any type, shortest first. The visitor gets its id and
 * length. */
typedef void vocabulary_visit(void *context, int32_t id, size_t bytes);
void vocabulary_match(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                      vocabulary_visit *visit, void *context);

struct vocabulary_rules {
    bool dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    bool byte_fallback;   /* all 256 byte pieces are there, and wanted */
    int32_t unknown, end; /* <unk>, </s> */
    int32_t byte[256];    /* ids, with byte_fallback */
    float score_min;      /* of normal pieces */
    bool has_user_defined;
    size_t piece_bytes_max;
};
const struct vocabulary_rules *vocabulary_rules(const struct vocabulary *vocabulary);

/* The longest entry of the character map that `text` begins with: its length and what stands for
 * it; 0: none. */
size_t vocabulary_map(const struct vocabulary *vocabulary, const char *text, size_t bytes,
                      const char **replacement_out, size_t *replacement_bytes_out);
