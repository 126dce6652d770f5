/* How much of their time workers work, with a wavefront and with a barrier per step: virtual time,
 * so the figures are the same on every machine. */
#include "tests/bench/wavefront.h"

#include <stdio.h>

static void print_case(uint32_t windows, uint32_t steps, uint32_t workers)
{
    enum { SEEDS = 20 };
    struct farm_result mean[2] = {0};
    for (int barrier = 0; barrier < 2; barrier++)
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            const struct farm farm = {windows, steps, workers, seed, barrier != 0};
            struct farm_result result;
            struct lt_error error;
            if (farm_run(&farm, &result, &error) != LT_OK) {
                fprintf(stderr, "%s\n", error.text);
                exit(1);
            }
            mean[barrier].makespan += result.makespan / SEEDS;
            mean[barrier].busy += result.busy / SEEDS;
            mean[barrier].busy_until_last += result.busy_until_last / SEEDS;
        }
    printf("%u windows x %u steps on %u uneven workers (mean of %d seeds)\n", windows, steps,
           workers, SEEDS);
    for (int barrier = 0; barrier < 2; barrier++)
        printf("  %-9s  busy %5.1f %%  until the last wave %5.1f %%  makespan %7.2f\n",
               barrier ? "barrier" : "wavefront", 100 * mean[barrier].busy,
               100 * mean[barrier].busy_until_last, mean[barrier].makespan);
    printf("  the wavefront job is %.2f times shorter\n", mean[1].makespan / mean[0].makespan);
}

int main(void)
{
    print_case(14, 20, 4);
    print_case(20, 20, 16);
    print_case(14, 20, 7);
    return 0;
}
