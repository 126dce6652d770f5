/* One line that tells how far a long job is and how long it will take. On a terminal it is redrawn
 * in place; elsewhere a plain line appears every ten seconds. Nothing is shown in the first two
 * seconds. Time is the caller's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct lt_progress_bar {
    FILE *to;
    bool terminal;
    int64_t start_us, shown_us;
};

void lt_progress_begin(struct lt_progress_bar *bar, FILE *to, int64_t now_us);
/* `fraction` 0…1; `left_seconds` negative: not known yet; `text` says what is counted. */
void lt_progress_show(struct lt_progress_bar *bar, int64_t now_us, double fraction,
                      double left_seconds, const char *text);
/* Clears the line on a terminal. */
void lt_progress_end(struct lt_progress_bar *bar);
/* "1:05:09", "3:20", "12 s" */
const char *lt_duration_format(double seconds, char text[32]);
