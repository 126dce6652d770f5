/* What beats say of a worker's memory, as JSON: for the API and for reports. */
#pragma once

#include "proto/message.h"

#include <jansson.h>

/* Adds the fields to an object. */
void memory_json_add(json_t *object, const struct lt_beat_memory *memory);
