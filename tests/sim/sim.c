/* sim --schedules N --seed S: N farms with faults drawn from seeds S, S + 1, …; prints a one-line
 * reproduction of the first that breaks a promise. If this fails, a crash, a lost packet or a slow
 * machine somewhere costs a user the take, or worse, gives a wrong one. */
#include "tests/sim/world.h"

#include "common/log.h"
#include "common/option.h"

#include <stdlib.h>
#include <time.h>

struct settings {
    int64_t schedules, seed;
    bool verbose;
};

static const struct lt_option options[] = {
    LT_OPTION(struct settings, schedules, INT, "N", "100", .min = 1, .max = 1e9,
              .help = "schedules to run"),
    LT_OPTION(struct settings, seed, INT, "S", "1",
              .help = "seed of the first; the next has S + 1"),
    LT_OPTION(struct settings, verbose, FLAG, NULL, NULL, .help = "a line for each schedule"),
};

static const struct lt_command command = {
    .program = "sim",
    .usage = "[options]",
    .summary = "Runs whole farms under a virtual clock with faults drawn from a seed.",
    .options = options,
    .option_count = LT_COUNT(options),
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int run(const struct settings *settings)
{
    struct world_reference reference[24];
    struct world *world = malloc(sizeof *world);
    char text[512];
    lt_assert(world && world_job_kinds() <= LT_COUNT(reference));
    for (uint32_t kind = 0; kind < world_job_kinds(); kind++)
        if (world_reference(kind, &reference[kind], text, sizeof text) != LT_OK) {
            fprintf(stderr, "sim: the reference run fails: %s\n", text);
            free(world);
            return 1;
        }
    const double start = seconds();
    double virtual_seconds = 0;
    unsigned long long packets = 0, crashes = 0;
    int64_t i = 0;
    bool fine = true;
    for (; i < settings->schedules && fine; i++) {
        fine = world_run((uint64_t)(settings->seed + i), reference, world, settings->verbose);
        virtual_seconds += (double)world->now_us * 1e-6;
        packets += world->events;
        crashes += world->crashes;
    }
    if (!fine)
        fprintf(stderr, "sim: %s\n  at %.6f s; again: sim --schedules 1 --seed %lld --verbose\n",
                world->failure, (double)world->now_us * 1e-6, (long long)(settings->seed + i - 1));
    else
        printf("%lld schedules: %.0f virtual s in %.1f s, %llu packets, %llu coordinator crashes\n",
               (long long)i, virtual_seconds, seconds() - start, packets, crashes);
    free(world);
    return fine ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct lt_operands operands;
    struct lt_error error;
    bool help;
    if (lt_options_parse(&command, argc, argv, &settings, sizeof settings, &operands, &help,
                         &error) != LT_OK) {
        fprintf(stderr, "sim: %s\n", error.text);
        return 2;
    }
    lt_log_set_level(settings.verbose ? LT_LOG_INFO : LT_LOG_OFF);
    const int code = help ? 0 : run(&settings);
    lt_options_free(&command, &settings, &operands);
    return code;
}
