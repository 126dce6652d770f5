#include "worker/lora_option.h"

#include <stdlib.h>
#include <string.h>

enum { STRENGTHS_MAX = 256 };

struct parsed {
    char *path; /* malloc'ed */
    float strength[STRENGTHS_MAX];
    size_t count;
};

static bool parse_strengths(const char *text, struct parsed *parsed)
{
    size_t count = 0;
    char *end;
    for (;; text = end + 1) {
        if (count == STRENGTHS_MAX)
            return false;
        parsed->strength[count++] = strtof(text, &end);
        if (end == text || (*end && *end != ','))
            return false;
        if (!*end)
            break;
    }
    parsed->count = count;
    return true;
}

static bool parse(const char *item, struct parsed *parsed)
{
    const char *colon = strrchr(item, ':');
    const bool given = colon && parse_strengths(colon + 1, parsed);
    parsed->path = strndup(item, given ? (size_t)(colon - item) : strlen(item));
    return parsed->path != NULL;
}

lt_status lora_option_parse(const struct lt_text_list *list, const struct lora_source *choice,
                            struct lora_option *option_out, struct lt_error *error)
{
    struct parsed *parsed = calloc(list->count + 1, sizeof *parsed);
    struct lora_option option = {calloc(list->count + 1, sizeof *option.source), 0, parsed};
    bool whole = parsed && option.source;
    for (size_t i = 0; i < list->count && whole; i++, option.count++) {
        whole = parse(list->item[i], &parsed[i]);
        option.source[i] = *choice;
        option.source[i].path = parsed[i].path;
        option.source[i].strength = parsed[i].strength;
        option.source[i].strength_count = parsed[i].count;
    }
    if (!whole) {
        lora_option_fini(&option);
        return lt_fail(error, LT_NO_MEMORY, "no memory for --lora");
    }
    *option_out = option;
    return LT_OK;
}

void lora_option_fini(struct lora_option *option)
{
    struct parsed *parsed = option->held;
    for (size_t i = 0; parsed && i < option->count; i++)
        free(parsed[i].path);
    free(parsed);
    free(option->source);
    *option = (struct lora_option){0};
}
