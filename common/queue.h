/* A bounded queue of fixed-size items between threads: first in, first out; nothing is lost,
 * nothing comes twice. Closing it lets what is in it out and wakes everybody. Any thread may call
 * anything but destroy. */
#pragma once

#include "common/status.h"

struct lt_queue;

/* Room for `capacity` items of `item_bytes`, all of it taken now. */
lt_status lt_queue_create(size_t capacity, size_t item_bytes, struct lt_queue **queue_out,
                          struct lt_error *error);
/* Nobody may wait in it any more. */
void lt_queue_destroy(struct lt_queue **queue);

/* Copies the item in. Waits for room at most `timeout_ms` (-1: for ever, 0: not at all).
 * LT_TIMEOUT: it is full; LT_CANCELLED: it is closed. */
lt_status lt_queue_push(struct lt_queue *queue, const void *item, int timeout_ms);
/* Copies the oldest item out. LT_TIMEOUT: none came; LT_CANCELLED: it is closed and empty. */
lt_status lt_queue_pop(struct lt_queue *queue, void *item_out, int timeout_ms);
void lt_queue_close(struct lt_queue *queue);
size_t lt_queue_count(struct lt_queue *queue);
