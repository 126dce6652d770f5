/* What the messages are called, and who may send them where. */
#include "proto/message.h"

static const struct {
    const char *name;
    enum lt_channel channel;
    bool worker, coordinator;
} kinds[LT_MESSAGE_COUNT] = {
#define KIND(name, member, channel, worker, coordinator)                                           \
    [LT_MESSAGE_##name] = {#name, LT_CHANNEL_##channel, worker, coordinator},
    LT_MESSAGE_LIST(KIND)
#undef KIND
};

const char *lt_message_name(enum lt_message_kind kind)
{
    return kind > LT_MESSAGE_NONE && kind < LT_MESSAGE_COUNT ? kinds[kind].name : "unknown message";
}

enum lt_channel lt_message_channel(enum lt_message_kind kind)
{
    lt_assert(kind > LT_MESSAGE_NONE && kind < LT_MESSAGE_COUNT);
    return kinds[kind].channel;
}

bool lt_message_from_worker(enum lt_message_kind kind)
{
    return kind > LT_MESSAGE_NONE && kind < LT_MESSAGE_COUNT && kinds[kind].worker;
}

bool lt_message_from_coordinator(enum lt_message_kind kind)
{
    return kind > LT_MESSAGE_NONE && kind < LT_MESSAGE_COUNT && kinds[kind].coordinator;
}
