/* Plain structs to protobuf bodies: a function for each message, and a table of them at the foot.
 */
#include "proto/message.h"

#include "longtake.pb-c.h"

#include <string.h>

struct encoder {
    struct lt_arena *arena;
    enum lt_message_kind kind;
    lt_status status;
    struct lt_error *error;
};

static void refuse(struct encoder *e, lt_status status, const char *what)
{
    if (e->status == LT_OK)
        e->status = lt_fail(e->error, status, "%s: %s", lt_message_name(e->kind), what);
}

static void *make(struct encoder *e, size_t count, size_t bytes)
{
    void *memory = lt_arena_take_array(e->arena, count ? count : 1, bytes);
    if (!memory)
        refuse(e, LT_NO_MEMORY, "no memory");
    return memory;
}

static char *text(struct encoder *e, const char *value)
{
    if (value && strnlen(value, LT_TEXT_BYTES_MAX + 1) > LT_TEXT_BYTES_MAX) {
        refuse(e, LT_BAD_INPUT, "a text is too long");
        value = NULL;
    }
    return (char *)(value ? value : "");
}

static ProtobufCBinaryData digest(const struct lt_digest *value)
{
    return (ProtobufCBinaryData){LT_DIGEST_BYTES, (uint8_t *)value->byte};
}

static bool fits(struct encoder *e, size_t count)
{
    if (count > LT_REPEAT_MAX)
        refuse(e, LT_BAD_INPUT, "a list is too long");
    return e->status == LT_OK;
}

static void encode_file(struct encoder *e, const struct lt_model_file *from,
                        Longtake__ModelFile *to)
{
    longtake__model_file__init(to);
    to->name = text(e, from->name);
    to->fingerprint = digest(&from->fingerprint);
    to->size = from->bytes;
}

static Longtake__TaskRef **encode_refs(struct encoder *e, const struct lt_task_ref *from,
                                       size_t count)
{
    if (!fits(e, count))
        return NULL;
    Longtake__TaskRef **list = make(e, count, sizeof *list), *items = make(e, count, sizeof *items);
    for (size_t i = 0; i < count && list && items; i++) {
        longtake__task_ref__init(&items[i]);
        items[i].task = from[i].task;
        items[i].epoch = from[i].epoch;
        list[i] = &items[i];
    }
    return list;
}

#define INIT(Type, init)                                                                           \
    Type *to = make(e, 1, sizeof *to);                                                             \
    if (!to)                                                                                       \
        return NULL;                                                                               \
    init(to)

static ProtobufCMessage *encode_hello(struct encoder *e, const struct lt_message *message)
{
    const struct lt_hello *from = &message->hello;
    INIT(Longtake__Hello, longtake__hello__init);
    if (!fits(e, from->model_count) || !fits(e, from->held_count))
        return NULL;
    Longtake__ModelFile *files = make(e, from->model_count, sizeof *files);
    Longtake__Held *held = make(e, from->held_count, sizeof *held);
    to->model = make(e, from->model_count, sizeof *to->model);
    to->held = make(e, from->held_count, sizeof *to->held);
    if (e->status != LT_OK)
        return NULL;
    to->name = text(e, from->name);
    to->boot_nonce = from->boot_nonce;
    to->version_min = from->version_min;
    to->version_max = from->version_max;
    to->build = text(e, from->build);
    to->device = text(e, from->device);
    to->kernel_class = text(e, from->kernel_class);
    to->memory_bytes = from->memory_bytes;
    to->slot_count = from->slot_count;
    for (size_t i = 0; i < from->model_count; i++) {
        encode_file(e, &from->model[i], &files[i]);
        to->model[i] = &files[i];
    }
    for (size_t i = 0; i < from->held_count; i++) {
        longtake__held__init(&held[i]);
        held[i].task = from->held[i].task;
        held[i].epoch = from->held[i].epoch;
        held[i].finished = from->held[i].finished;
        to->held[i] = &held[i];
    }
    to->n_model = from->model_count;
    to->n_held = from->held_count;
    to->version_minor = from->version_minor;
    return &to->base;
}

static ProtobufCMessage *encode_welcome(struct encoder *e, const struct lt_message *message)
{
    const struct lt_welcome *from = &message->welcome;
    INIT(Longtake__Welcome, longtake__welcome__init);
    to->session = from->session;
    to->heartbeat_ms = from->heartbeat_ms;
    to->lease_ms = from->lease_ms;
    to->credit_bytes = from->credit_bytes;
    to->keep = encode_refs(e, from->keep, from->keep_count);
    to->n_keep = from->keep_count;
    to->draining = from->draining;
    return &to->base;
}

static ProtobufCMessage *encode_reject(struct encoder *e, const struct lt_message *message)
{
    const struct lt_reject *from = &message->reject;
    INIT(Longtake__Reject, longtake__reject__init);
    to->status = from->status;
    to->text = text(e, from->text);
    to->retry_after_ms = from->retry_after_ms;
    to->version_min = from->version_min;
    to->version_max = from->version_max;
    return &to->base;
}

static void encode_loras(struct encoder *e, const struct lt_task_spec *from, Longtake__TaskSpec *to)
{
    to->lora = make(e, from->lora_count, sizeof *to->lora);
    Longtake__Lora *loras = make(e, from->lora_count, sizeof *loras);
    for (size_t i = 0; i < from->lora_count && e->status == LT_OK; i++) {
        longtake__lora__init(&loras[i]);
        loras[i].file = make(e, 1, sizeof *loras[i].file);
        if (e->status != LT_OK)
            return;
        encode_file(e, &from->lora[i].file, loras[i].file);
        loras[i].strength = from->lora[i].strength;
        loras[i].expert = from->lora[i].expert;
        loras[i].plain_peft = from->lora[i].plain_peft;
        to->lora[i] = &loras[i];
    }
    to->n_lora = from->lora_count;
    if (!from->addon.name)
        return;
    to->addon = make(e, 1, sizeof *to->addon);
    if (e->status == LT_OK)
        encode_file(e, &from->addon, to->addon);
}

static Longtake__TaskSpec *encode_spec(struct encoder *e, const struct lt_task_spec *from)
{
    INIT(Longtake__TaskSpec, longtake__task_spec__init);
    if (from->blob_count > LT_SPEC_BLOBS_MAX || from->frame_at_count > LT_SPEC_SLOTS_MAX ||
        from->clean_slot_count > LT_SPEC_SLOTS_MAX || from->lora_count > LT_SPEC_LORAS_MAX ||
        from->skip_layer_count > LT_SPEC_SLOTS_MAX || from->reuse_count > LT_SPEC_PREDICTIONS) {
        refuse(e, LT_BAD_INPUT, "too many blobs, slots, layers or LoRAs");
        return NULL;
    }
    to->model = make(e, 1, sizeof *to->model);
    to->blob = make(e, from->blob_count, sizeof *to->blob);
    Longtake__Blob *blobs = make(e, from->blob_count, sizeof *blobs);
    to->shape = make(e, 4, sizeof *to->shape);
    encode_loras(e, from, to);
    if (e->status != LT_OK)
        return NULL;
    encode_file(e, &from->model, to->model);
    for (size_t i = 0; i < from->blob_count; i++) {
        longtake__blob__init(&blobs[i]);
        blobs[i].role = from->blob[i].role;
        blobs[i].digest = digest(&from->blob[i].digest);
        blobs[i].size = from->blob[i].bytes;
        to->blob[i] = &blobs[i];
    }
    memcpy(to->shape, from->shape, sizeof from->shape);
    to->kind = from->kind;
    to->n_blob = from->blob_count;
    to->n_shape = 4;
    to->timestep = from->timestep;
    to->guidance = from->guidance;
    to->precision = from->precision;
    to->drop_frames = from->drop_frames;
    to->text_len = from->text_len;
    to->result_size = from->result_bytes;
    to->frame_at = (uint32_t *)(uintptr_t)from->frame_at;
    to->n_frame_at = from->frame_at_count;
    to->clean_slot = (uint32_t *)(uintptr_t)from->clean_slot;
    to->n_clean_slot = from->clean_slot_count;
    to->handoff_frames = from->handoff_frames;
    to->handoff_length = from->handoff_length;
    to->tile = from->tile;
    to->tile_stride = from->tile_stride;
    to->match = from->match;
    to->match_strength = from->match_strength;
    to->text_style = from->text_style;
    to->guide = from->guide;
    to->no_velocity = from->no_velocity;
    to->nag = (double *)(uintptr_t)from->nag;
    to->n_nag = from->nag_count;
    to->audio_guidance = from->audio_guidance;
    to->audio_formula = from->audio_formula;
    to->cache = from->cache;
    if (from->cache != LT_CACHE_NONE)
        to->cache_key = digest(&from->cache_key);
    to->cache_step = from->cache_step;
    to->reuse = (uint32_t *)(uintptr_t)from->reuse;
    to->n_reuse = from->reuse_count;
    to->cache_threshold = from->cache_threshold;
    to->time_projected = from->time_projected;
    to->skip_layer = (uint32_t *)(uintptr_t)from->skip_layer;
    to->n_skip_layer = from->skip_layer_count;
    to->riflex_index = from->riflex_index;
    to->riflex_frames = from->riflex_frames;
    to->strength = (double *)(uintptr_t)from->strength;
    to->n_strength = from->strength_count;
    return to;
}

static ProtobufCMessage *encode_assign(struct encoder *e, const struct lt_message *message)
{
    const struct lt_assign *from = &message->assign;
    INIT(Longtake__Assign, longtake__assign__init);
    to->task = from->task;
    to->epoch = from->epoch;
    to->lease_ms = from->lease_ms;
    to->spec = encode_spec(e, &from->spec);
    return &to->base;
}

static ProtobufCMessage *encode_decline(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Decline, longtake__decline__init);
    to->task = message->decline.task;
    to->epoch = message->decline.epoch;
    to->status = message->decline.status;
    to->text = text(e, message->decline.text);
    return &to->base;
}

static ProtobufCMessage *encode_beat(struct encoder *e, const struct lt_message *message)
{
    const struct lt_beat *from = &message->beat;
    INIT(Longtake__Beat, longtake__beat__init);
    if (!fits(e, from->lease_count))
        return NULL;
    Longtake__Progress *items = make(e, from->lease_count, sizeof *items);
    to->lease = make(e, from->lease_count, sizeof *to->lease);
    for (size_t i = 0; i < from->lease_count && items && to->lease; i++) {
        longtake__progress__init(&items[i]);
        items[i].task = from->lease[i].task;
        items[i].epoch = from->lease[i].epoch;
        items[i].phase = from->lease[i].phase;
        items[i].done = from->lease[i].done;
        items[i].total = from->lease[i].total;
        to->lease[i] = &items[i];
    }
    to->sequence = from->sequence;
    to->n_lease = from->lease_count;
    to->rss_bytes = from->memory.rss_bytes;
    to->slot_count = from->slot_count;
    to->device_bytes = from->memory.device_bytes;
    to->device_peak_bytes = from->memory.device_peak_bytes;
    to->read_bytes = from->memory.read_bytes;
    to->copied_bytes = from->memory.copied_bytes;
    to->stall_us = from->memory.stall_us;
    to->swapping = from->memory.swapping;
    if (!lt_digest_is_zero(&from->resident))
        to->resident = digest(&from->resident);
    return &to->base;
}

static ProtobufCMessage *encode_beat_ack(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__BeatAck, longtake__beat_ack__init);
    to->sequence = message->beat_ack.sequence;
    to->revoked = encode_refs(e, message->beat_ack.revoked, message->beat_ack.revoked_count);
    to->n_revoked = message->beat_ack.revoked_count;
    return &to->base;
}

static ProtobufCMessage *encode_fail(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Fail, longtake__fail__init);
    to->task = message->fail.task;
    to->epoch = message->fail.epoch;
    to->status = message->fail.status;
    to->text = text(e, message->fail.text);
    return &to->base;
}

static ProtobufCMessage *encode_cancel(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Cancel, longtake__cancel__init);
    to->task = message->cancel.task;
    to->epoch = message->cancel.epoch;
    return &to->base;
}

static ProtobufCMessage *encode_release(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Release, longtake__release__init);
    to->task = message->release.task;
    to->epoch = message->release.epoch;
    to->reason = message->release.reason;
    return &to->base;
}

static ProtobufCMessage *encode_drain(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Drain, longtake__drain__init);
    to->deadline_ms = message->drain.deadline_ms;
    return &to->base;
}

static ProtobufCMessage *encode_bye(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Bye, longtake__bye__init);
    to->text = text(e, message->bye.text);
    return &to->base;
}

static ProtobufCMessage *encode_committed(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Committed, longtake__committed__init);
    to->task = message->committed.task;
    to->epoch = message->committed.epoch;
    to->verdict = message->committed.verdict;
    return &to->base;
}

static ProtobufCMessage *encode_offer(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Offer, longtake__offer__init);
    to->stream = message->offer.stream;
    to->task = message->offer.task;
    to->epoch = message->offer.epoch;
    to->digest = digest(&message->offer.digest);
    to->size = message->offer.bytes;
    return &to->base;
}

static ProtobufCMessage *encode_want(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Want, longtake__want__init);
    to->stream = message->want.stream;
    to->verdict = message->want.verdict;
    to->offset = message->want.offset;
    to->credit = message->want.credit;
    to->epoch = message->want.epoch;
    return &to->base;
}

static ProtobufCMessage *encode_fetch(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Fetch, longtake__fetch__init);
    to->stream = message->fetch.stream;
    to->digest = digest(&message->fetch.digest);
    to->offset = message->fetch.offset;
    to->credit = message->fetch.credit;
    return &to->base;
}

static ProtobufCMessage *encode_chunk(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Chunk, longtake__chunk__init);
    to->stream = message->chunk.stream;
    to->offset = message->chunk.offset;
    to->crc32c = message->chunk.crc32c;
    return &to->base;
}

static ProtobufCMessage *encode_credit(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Credit, longtake__credit__init);
    to->stream = message->credit.stream;
    to->credit = message->credit.credit;
    to->offset = message->credit.offset;
    return &to->base;
}

static ProtobufCMessage *encode_abort(struct encoder *e, const struct lt_message *message)
{
    INIT(Longtake__Abort, longtake__abort__init);
    to->stream = message->abort.stream;
    to->status = message->abort.status;
    to->text = text(e, message->abort.text);
    return &to->base;
}

static ProtobufCMessage *(*const encode[LT_MESSAGE_COUNT])(struct encoder *e,
                                                           const struct lt_message *message) = {
#define ENCODE(name, member, channel, worker, coordinator) [LT_MESSAGE_##name] = encode_##member,
    LT_MESSAGE_LIST(ENCODE)
#undef ENCODE
};

lt_status lt_message_encode(const struct lt_message *message, struct lt_arena *arena,
                            uint8_t **body_out, size_t *bytes_out, struct lt_error *error)
{
    lt_assert(message->kind > LT_MESSAGE_NONE && message->kind < LT_MESSAGE_COUNT);
    struct encoder e = {arena, message->kind, LT_OK, error};
    const ProtobufCMessage *raw = encode[message->kind](&e, message);
    LT_TRY(e.status);
    const size_t bytes = protobuf_c_message_get_packed_size(raw);
    if (bytes > LT_BODY_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: a body of %zu bytes, at most %d",
                       lt_message_name(message->kind), bytes, LT_BODY_BYTES_MAX);
    uint8_t *body = lt_arena_take(arena, bytes);
    if (!body)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory", lt_message_name(message->kind));
    protobuf_c_message_pack(raw, body);
    *body_out = body;
    *bytes_out = bytes;
    return LT_OK;
}
