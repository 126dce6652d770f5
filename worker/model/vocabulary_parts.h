/* The inside of a vocabulary: what its readers fill. Included by the vocabulary_*.c only. */
#pragma once

#include "worker/model/vocabulary.h"

enum { PIECES_MAX = 1 << 20, MODEL_BYTES_MAX = 64 << 20, PIECE_BYTES_MAX = 1024 };

struct vocabulary {
    char *path;
    uint8_t *data;      /* what the pieces' texts stand in */
    const uint8_t *map; /* character map: double-array trie, then texts; NULL: none */
    uint8_t *map_data;  /* when it does not stand in `data` */
    size_t map_bytes, trie_units, texts_at;
    struct piece *piece;
    size_t count, room;
    uint32_t *slot; /* id + 1 of the first piece of a text; 0: free */
    size_t slot_count;
    struct vocabulary_rules rules;
};

/* LT_BAD_INPUT with the path before it. */
lt_status vocabulary_bad(const struct vocabulary *v, struct lt_error *error, const char *what);
lt_status vocabulary_no_memory(const char *path, struct lt_error *error);

/* Its text is not copied: it stands in v->data. */
lt_status vocabulary_add_piece(struct vocabulary *v, const struct piece *piece,
                               struct lt_error *error);
/* Checks the character map, which stands in v->data or v->map_data. */
lt_status vocabulary_set_map(struct vocabulary *v, const uint8_t *map, size_t bytes,
                             struct lt_error *error);
/* Once the pieces are there. `bytes_wanted`: unknown characters become their bytes if all 256 byte
 * pieces exist. */
lt_status vocabulary_finish(struct vocabulary *v, bool bytes_wanted, struct lt_error *error);

/* Of the `bytes` of a ModelProto in v->data. */
lt_status vocabulary_read_sentencepiece(struct vocabulary *v, size_t bytes, struct lt_error *error);
lt_status vocabulary_read_gguf(struct tensor_file *file, struct vocabulary *v,
                               struct lt_error *error);
