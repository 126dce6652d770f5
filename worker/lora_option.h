/* --lora FILE[:S[,S…]] as `eval` and `memory` take it. */
#pragma once

#include "common/option.h"
#include "worker/weights/lora.h"

struct lora_option {
    struct lora_source *source; /* [count] */
    size_t count;
    void *held; /* what the sources point to */
};

/* Each source is `choice` with the path and the strengths of an item. The part behind the last ':'
 * is strengths when it is numbers; otherwise it is of the path. */
lt_status lora_option_parse(const struct lt_text_list *list, const struct lora_source *choice,
                            struct lora_option *option_out, struct lt_error *error);
void lora_option_fini(struct lora_option *option); /* accepts a zeroed option */
