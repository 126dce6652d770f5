#include "proto/link_memory.h"

#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

struct transit { /* one packet on its way, in wire form */
    struct transit *next;
    int64_t due_us;
    struct lt_peer peer;
    bool to_worker;
    uint8_t header[LT_FRAME_HEADER_BYTES];
    size_t body_bytes, payload_bytes;
    uint8_t data[]; /* body, payload */
};

struct memory_link;

struct lt_hub {
    lt_fault *fault;
    void *context;
    int64_t now_us;
    struct transit *first;      /* by due time; equal times keep their order */
    struct memory_link *worker; /* those that joined */
};

struct memory_link {
    struct lt_link link;
    struct lt_hub *hub;
    struct memory_link *next; /* of the hub's workers */
    bool is_worker;
    struct lt_peer peer;
    struct lt_arena arena;    /* of the packet last received */
    struct transit *received; /* its payload */
};

static bool same_peer(const struct lt_peer *a, const struct lt_peer *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void insert(struct lt_hub *hub, struct transit *transit)
{
    struct transit **at = &hub->first;
    while (*at && (*at)->due_us <= transit->due_us)
        at = &(*at)->next;
    transit->next = *at;
    *at = transit;
}

static lt_status post(struct lt_hub *hub, const struct lt_packet *packet, bool to_worker,
                      int64_t delay_us, struct lt_error *error)
{
    struct lt_arena arena;
    uint8_t header[LT_FRAME_HEADER_BYTES], *body;
    size_t body_bytes;
    lt_arena_init(&arena, 0);
    lt_status status =
        lt_frame_pack(&packet->message, 0, &arena, header, &body, &body_bytes, error);
    if (status == LT_OK) {
        struct transit *transit = malloc(sizeof *transit + body_bytes + packet->payload_bytes);
        lt_assert(transit);
        *transit = (struct transit){.due_us = hub->now_us + delay_us,
                                    .peer = packet->peer,
                                    .to_worker = to_worker,
                                    .body_bytes = body_bytes,
                                    .payload_bytes = packet->payload_bytes};
        memcpy(transit->header, header, sizeof header);
        memcpy(transit->data, body, body_bytes);
        if (packet->payload_bytes)
            memcpy(transit->data + body_bytes, packet->payload, packet->payload_bytes);
        insert(hub, transit);
    }
    lt_arena_fini(&arena);
    return status;
}

static bool is_joined(const struct lt_hub *hub, const struct lt_peer *peer)
{
    const struct memory_link *l = hub->worker;
    while (l && !same_peer(&l->peer, peer))
        l = l->next;
    return l;
}

static lt_status memory_send(struct lt_link *link, const struct lt_packet *packet,
                             struct lt_error *error)
{
    struct memory_link *l = (struct memory_link *)(void *)link;
    struct lt_packet addressed = *packet;
    int64_t repeat_us = -1, delay_us = 0;
    if (l->is_worker)
        addressed.peer = l->peer;
    else if (!is_joined(l->hub, &packet->peer))
        return lt_fail(error, LT_LINK, "the peer is not reachable");
    if (l->hub->fault)
        delay_us = l->hub->fault(l->hub->context, &addressed, !l->is_worker, &repeat_us);
    if (repeat_us >= 0)
        LT_TRY(post(l->hub, &addressed, !l->is_worker, repeat_us, error));
    return delay_us < 0 ? LT_OK : post(l->hub, &addressed, !l->is_worker, delay_us, error);
}

static struct transit *take_due(struct memory_link *l)
{
    for (struct transit **at = &l->hub->first; *at && (*at)->due_us <= l->hub->now_us;
         at = &(*at)->next)
        if ((*at)->to_worker == l->is_worker &&
            (!l->is_worker || same_peer(&(*at)->peer, &l->peer))) {
            struct transit *transit = *at;
            *at = transit->next;
            return transit;
        }
    return NULL;
}

static lt_status memory_receive(struct lt_link *link, int timeout_ms, struct lt_packet *packet_out,
                                bool *got_out, struct lt_error *error)
{
    (void)timeout_ms;
    struct memory_link *l = (struct memory_link *)(void *)link;
    *got_out = false;
    for (;;) {
        free(l->received);
        l->received = take_due(l);
        if (!l->received)
            return LT_OK;
        const struct transit *t = l->received;
        lt_arena_rewind(&l->arena, (struct lt_mark){0});
        struct lt_packet packet = {
            .peer = t->peer, .payload = t->data + t->body_bytes, .payload_bytes = t->payload_bytes};
        if (lt_frame_unpack(t->header, sizeof t->header, t->data, t->body_bytes, t->payload_bytes,
                            !l->is_worker, &l->arena, &packet.message, error) != LT_OK)
            continue;
        *packet_out = packet;
        *got_out = true;
        return LT_OK;
    }
}

static void memory_wake(struct lt_link *link)
{
    (void)link; /* receive never waits */
}

static void memory_destroy(struct lt_link *link)
{
    struct memory_link *l = (struct memory_link *)(void *)link;
    for (struct memory_link **at = &l->hub->worker; *at; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    free(l->received);
    lt_arena_fini(&l->arena);
    free(l);
}

static const struct lt_link_ops memory_ops = {memory_send, memory_receive, memory_wake,
                                              memory_destroy};

static lt_status join(struct lt_hub *hub, bool is_worker, struct lt_peer peer,
                      struct lt_link **link_out, struct lt_error *error)
{
    struct memory_link *l = calloc(1, sizeof *l);
    if (!l)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a link");
    *l = (struct memory_link){
        .link = {.ops = &memory_ops}, .hub = hub, .is_worker = is_worker, .peer = peer};
    lt_arena_init(&l->arena, 0);
    if (is_worker) {
        l->next = hub->worker;
        hub->worker = l;
    }
    *link_out = &l->link;
    return LT_OK;
}

lt_status lt_hub_coordinator(struct lt_hub *hub, struct lt_link **link_out, struct lt_error *error)
{
    return join(hub, false, (struct lt_peer){{0}}, link_out, error);
}

lt_status lt_hub_worker(struct lt_hub *hub, struct lt_peer peer, struct lt_link **link_out,
                        struct lt_error *error)
{
    return join(hub, true, peer, link_out, error);
}

lt_status lt_hub_create(lt_fault *fault, void *context, struct lt_hub **hub_out,
                        struct lt_error *error)
{
    struct lt_hub *hub = calloc(1, sizeof *hub);
    if (!hub)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a hub");
    hub->fault = fault;
    hub->context = context;
    *hub_out = hub;
    return LT_OK;
}

void lt_hub_destroy(struct lt_hub **hub)
{
    if (!*hub)
        return;
    for (struct transit *t = (*hub)->first; t;) {
        struct transit *next = t->next;
        free(t);
        t = next;
    }
    free(*hub);
    *hub = NULL;
}

void lt_hub_set_time(struct lt_hub *hub, int64_t now_us)
{
    hub->now_us = now_us;
}

int64_t lt_hub_next_us(const struct lt_hub *hub)
{
    const struct transit *transit = hub->first;
    while (transit && transit->due_us <= hub->now_us)
        transit = transit->next;
    return transit ? transit->due_us : INT64_MAX;
}

void lt_hub_cut(struct lt_hub *hub, struct lt_peer peer)
{
    for (struct transit **at = &hub->first; *at;) {
        struct transit *transit = *at;
        if (same_peer(&transit->peer, &peer)) {
            *at = transit->next;
            free(transit);
        } else {
            at = &transit->next;
        }
    }
}
