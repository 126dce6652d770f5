#include "coordinator/memory_json.h"

void memory_json_add(json_t *object, const struct lt_beat_memory *memory)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"rss_bytes", memory->rss_bytes},
        {"device_bytes", memory->device_bytes},
        {"device_peak_bytes", memory->device_peak_bytes},
        {"read_bytes", memory->read_bytes},
        {"copied_bytes", memory->copied_bytes},
        {"swapping_faults", memory->swapping},
    };
    for (size_t i = 0; i < LT_COUNT(counts); i++)
        json_object_set_new(object, counts[i].name, json_integer((json_int_t)counts[i].value));
    json_object_set_new(object, "stall_seconds", json_real((double)memory->stall_us * 1e-6));
}
