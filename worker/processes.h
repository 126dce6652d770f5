/* run --device A,B,…: a process for each device, of one name and a number. A card that breaks ends
 * its own process (docs/gpu.md); the others go on with their tasks. */
#pragma once

#include "common/status.h"

enum { PROCESS_DEVICES_MAX = 64, PROCESS_DEVICE_BYTES = 32 };

struct process_devices {
    char name[PROCESS_DEVICES_MAX][PROCESS_DEVICE_BYTES];
    size_t count;
};

/* "host", "cuda:0,cuda:1" or, for short, "cuda:0,1". LT_USAGE names what cannot be one. */
lt_status process_devices_parse(const char *text, struct process_devices *devices_out,
                                struct lt_error *error);

/* Runs `work(context, index)` in a process of its own for every index below `count`, which ends
 * when this one does. SIGTERM and SIGINT go on to all of them. In the parent: the end of the last
 * one, LT_OK or the first failure, which names its device. In a child: what `work` returned, to be
 * handed on as if it were alone. Call it before there are threads. */
lt_status processes_run(const struct process_devices *devices,
                        lt_status (*work)(void *context, size_t index, struct lt_error *error),
                        void *context, struct lt_error *error);
