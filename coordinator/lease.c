#include "coordinator/lease.h"

#include <stdlib.h>
#include <string.h>

/* Faults of a machine or a link are retried, faults of the job are not. A worker that is told to
 * stop or has no room is not to blame. */
static const struct lease_rule rules[] = {
    [LT_OK] = {LEASE_RETRY, false},
    [LT_INTERNAL] = {LEASE_RETRY, true},
    [LT_USAGE] = {LEASE_GIVE_UP, true},
    [LT_BAD_INPUT] = {LEASE_GIVE_UP, true},
    [LT_NOT_FOUND] = {LEASE_RETRY_ELSEWHERE, false},
    [LT_UNSUPPORTED] = {LEASE_GIVE_UP, true},
    [LT_NO_MEMORY] = {LEASE_RETRY, true},
    [LT_NO_DEVICE_MEMORY] = {LEASE_RETRY, true},
    [LT_IO] = {LEASE_RETRY, true},
    [LT_DEVICE] = {LEASE_RETRY, true},
    [LT_LINK] = {LEASE_RETRY, true},
    [LT_TIMEOUT] = {LEASE_RETRY, true},
    [LT_CANCELLED] = {LEASE_RETRY, false},
    [LT_CORRUPT] = {LEASE_RETRY_ELSEWHERE, false},
    [LT_CONFLICT] = {LEASE_RETRY_ELSEWHERE, false},
    [LT_BUSY] = {LEASE_RETRY, false},
};
_Static_assert(LT_COUNT(rules) == LT_STATUS_COUNT, "every status has a rule");

struct lease_rule lease_rule(lt_status status)
{
    return (size_t)status < LT_COUNT(rules) ? rules[status] : rules[LT_INTERNAL];
}

void lease_table_init(struct lease_table *table)
{
    *table = (struct lease_table){.free_first = LEASE_NONE};
}

void lease_table_fini(struct lease_table *table)
{
    free(table->item);
    lease_table_init(table);
}

static lt_status grow(struct lease_table *table, struct lt_error *error)
{
    const uint32_t capacity = table->capacity ? 2 * table->capacity : 16;
    struct lease *item = realloc(table->item, capacity * sizeof *item);
    if (!item)
        return lt_fail(error, LT_NO_MEMORY, "no memory for %u leases", capacity);
    for (uint32_t i = capacity; i-- > table->capacity;) {
        item[i] = (struct lease){.next = table->free_first};
        table->free_first = i;
    }
    table->item = item;
    table->capacity = capacity;
    return LT_OK;
}

lt_status lease_add(struct lease_table *table, const struct lease *lease, uint32_t *index_out,
                    struct lt_error *error)
{
    if (table->free_first == LEASE_NONE)
        LT_TRY(grow(table, error));
    const uint32_t index = table->free_first;
    table->free_first = table->item[index].next;
    table->item[index] = *lease;
    table->item[index].next = LEASE_NONE;
    table->item[index].used = true;
    table->count++;
    *index_out = index;
    return LT_OK;
}

void lease_remove(struct lease_table *table, uint32_t index)
{
    lt_assert(lease_at(table, index)->used);
    table->item[index] = (struct lease){.next = table->free_first};
    table->free_first = index;
    table->count--;
}

struct lease *lease_at(struct lease_table *table, uint32_t index)
{
    lt_assert(index < table->capacity);
    return &table->item[index];
}

uint32_t lease_next(const struct lease_table *table, uint32_t index)
{
    while (index < table->capacity && !table->item[index].used)
        index++;
    return index < table->capacity ? index : LEASE_NONE;
}

bool lease_peer_equal(const struct lt_peer *a, const struct lt_peer *b)
{
    return memcmp(a->id, b->id, sizeof a->id) == 0;
}
