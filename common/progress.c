#include "common/progress.h"

#include <string.h>
#include <unistd.h>

enum { QUIET_US = 2000000, TERMINAL_US = 100000, PLAIN_US = 10000000, CELLS = 24 };

const char *lt_duration_format(double seconds, char text[32])
{
    const long long s = (long long)(seconds + 0.5);
    if (s < 60)
        snprintf(text, 32, "%lld s", s);
    else if (s < 3600)
        snprintf(text, 32, "%lld:%02lld", s / 60, s % 60);
    else
        snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    return text;
}

void lt_progress_begin(struct lt_progress_bar *bar, FILE *to, int64_t now_us)
{
    *bar = (struct lt_progress_bar){to, isatty(fileno(to)) == 1, now_us, 0};
}

void lt_progress_show(struct lt_progress_bar *bar, int64_t now_us, double fraction,
                      double left_seconds, const char *text)
{
    char cells[CELLS + 1], left[32] = "…";
    const int64_t pause = bar->terminal ? TERMINAL_US : PLAIN_US;
    if (now_us - bar->start_us < QUIET_US || (bar->shown_us && now_us - bar->shown_us < pause))
        return;
    bar->shown_us = now_us;
    fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
    if (left_seconds >= 0)
        lt_duration_format(left_seconds, left);
    if (!bar->terminal) {
        fprintf(bar->to, "%3.0f %%  %s  left %s\n", 100 * fraction, text, left);
        fflush(bar->to);
        return;
    }
    for (int i = 0; i < CELLS; i++)
        cells[i] = i < (int)(fraction * CELLS) ? '#' : '.';
    cells[CELLS] = 0;
    fprintf(bar->to, "\r\033[K[%s] %3.0f %%  %s  left %s", cells, 100 * fraction, text, left);
    fflush(bar->to);
}

void lt_progress_end(struct lt_progress_bar *bar)
{
    if (bar->terminal && bar->shown_us) {
        fprintf(bar->to, "\r\033[K");
        fflush(bar->to);
    }
}
