/* Plain structs to protobuf bodies and back. Each message has a pair of functions; the table at the
 * foot is the list. Decoding uses an allocator on the caller's arena with a limit, so a hostile
 * body cannot take more. */
#include "proto/message.h"

#include "longtake.pb-c.h"

#include <string.h>

enum { DECODE_BYTES_MAX = 512 * 1024 };

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

/* -- encoding ---------------------------------------------------------------------------------- */

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

/* -- decoding ---------------------------------------------------------------------------------- */

struct decoder {
    struct lt_arena *arena;
    enum lt_message_kind kind;
    lt_status status;
    struct lt_error *error;
};

static void reject(struct decoder *d, const char *field, const char *what)
{
    if (d->status == LT_OK)
        d->status =
            lt_fail(d->error, LT_BAD_INPUT, "%s: %s: %s", lt_message_name(d->kind), field, what);
}

static const char *take_text(struct decoder *d, const char *field, const char *value)
{
    if (strnlen(value, LT_TEXT_BYTES_MAX + 1) > LT_TEXT_BYTES_MAX)
        reject(d, field, "too long");
    return value;
}

static struct lt_digest take_digest(struct decoder *d, const char *field, ProtobufCBinaryData value)
{
    struct lt_digest digest_out = {{0}};
    if (value.len == LT_DIGEST_BYTES)
        memcpy(digest_out.byte, value.data, LT_DIGEST_BYTES);
    else
        reject(d, field, "expected 32 bytes");
    return digest_out;
}

static uint32_t take_enum(struct decoder *d, const char *field, uint32_t value, uint32_t low,
                          uint32_t high)
{
    if (value < low || value > high)
        reject(d, field, "unknown value");
    return value;
}

static void *take_list(struct decoder *d, const char *field, size_t count, size_t bytes)
{
    if (count > LT_REPEAT_MAX) {
        reject(d, field, "too many entries");
        return NULL;
    }
    void *list = lt_arena_take_array(d->arena, count ? count : 1, bytes);
    if (!list)
        reject(d, field, "no memory");
    return list;
}

static struct lt_task_ref *take_refs(struct decoder *d, const char *field, Longtake__TaskRef **from,
                                     size_t count)
{
    struct lt_task_ref *list = take_list(d, field, count, sizeof *list);
    for (size_t i = 0; i < count && list; i++)
        list[i] = (struct lt_task_ref){from[i]->task, from[i]->epoch};
    return list;
}

static struct lt_model_file take_file(struct decoder *d, const char *field,
                                      const Longtake__ModelFile *from)
{
    if (!from) {
        reject(d, field, "missing");
        return (struct lt_model_file){0};
    }
    return (struct lt_model_file){take_text(d, field, from->name),
                                  take_digest(d, field, from->fingerprint), from->size};
}

static void decode_hello(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Hello *from = (const void *)raw;
    struct lt_hello *to = &message->hello;
    *to = (struct lt_hello){.name = take_text(d, "name", from->name),
                            .boot_nonce = from->boot_nonce,
                            .version_min = from->version_min,
                            .version_max = from->version_max,
                            .build = take_text(d, "build", from->build),
                            .device = take_text(d, "device", from->device),
                            .kernel_class = take_text(d, "kernel_class", from->kernel_class),
                            .memory_bytes = from->memory_bytes,
                            .slot_count =
                                take_enum(d, "slot_count", from->slot_count, 1, LT_SLOTS_MAX),
                            .model_count = from->n_model,
                            .held_count = from->n_held,
                            .version_minor = from->version_minor};
    to->model = take_list(d, "model", from->n_model, sizeof *to->model);
    to->held = take_list(d, "held", from->n_held, sizeof *to->held);
    for (size_t i = 0; i < from->n_model && d->status == LT_OK; i++)
        to->model[i] = take_file(d, "model", from->model[i]);
    for (size_t i = 0; i < from->n_held && d->status == LT_OK; i++)
        to->held[i] =
            (struct lt_held){from->held[i]->task, from->held[i]->epoch, from->held[i]->finished};
}

static void decode_welcome(struct decoder *d, const ProtobufCMessage *raw,
                           struct lt_message *message)
{
    const Longtake__Welcome *from = (const void *)raw;
    message->welcome =
        (struct lt_welcome){from->session,
                            take_enum(d, "heartbeat_ms", from->heartbeat_ms, 1, 3600000),
                            take_enum(d, "lease_ms", from->lease_ms, 1, 86400000),
                            from->credit_bytes,
                            take_refs(d, "keep", from->keep, from->n_keep),
                            from->n_keep,
                            from->draining};
}

static void decode_reject(struct decoder *d, const ProtobufCMessage *raw,
                          struct lt_message *message)
{
    const Longtake__Reject *from = (const void *)raw;
    message->reject =
        (struct lt_reject){take_enum(d, "status", from->status, 1, LT_STATUS_COUNT - 1),
                           take_text(d, "text", from->text), from->retry_after_ms,
                           from->version_min, from->version_max};
}

static size_t take_slots(struct decoder *d, const char *field, const uint32_t *from, size_t count,
                         uint32_t to[LT_SPEC_SLOTS_MAX])
{
    if (count > LT_SPEC_SLOTS_MAX) {
        reject(d, field, "too many entries");
        return 0;
    }
    if (count > 0)
        memcpy(to, from, count * sizeof *to);
    return count;
}

/* None, or exactly `count` finite numbers. */
static size_t take_numbers(struct decoder *d, const char *field, const double *from, size_t given,
                           size_t count, double *to)
{
    bool right = given == 0 || given == count;
    for (size_t i = 0; right && i < given; i++) {
        right = from[i] > -1e6 && from[i] < 1e6;
        to[i] = from[i];
    }
    if (!right)
        reject(d, field, "out of range, or another count");
    return right ? given : 0;
}

static bool is_sane(double number)
{
    return number > -1e6 && number < 1e6; /* and is a number */
}

static void decode_loras(struct decoder *d, const Longtake__TaskSpec *from, struct lt_task_spec *to)
{
    if (from->n_lora > LT_SPEC_LORAS_MAX) {
        reject(d, "lora", "too many entries");
        return;
    }
    for (size_t i = 0; i < from->n_lora; i++) {
        to->lora[i] = (struct lt_spec_lora){
            take_file(d, "lora.file", from->lora[i]->file), from->lora[i]->strength,
            take_enum(d, "lora.expert", from->lora[i]->expert, 0, 2), from->lora[i]->plain_peft};
        if (!is_sane(from->lora[i]->strength))
            reject(d, "lora.strength", "out of range");
    }
    to->lora_count = from->n_lora;
    if (from->addon)
        to->addon = take_file(d, "addon", from->addon);
    if (!is_sane(from->audio_guidance))
        reject(d, "audio_guidance", "out of range");
}

static void decode_cache(struct decoder *d, const Longtake__TaskSpec *from, struct lt_task_spec *to)
{
    if (from->n_reuse > LT_SPEC_PREDICTIONS) {
        reject(d, "reuse", "too many entries");
        return;
    }
    for (size_t i = 0; i < from->n_reuse; i++) {
        to->reuse[i] = from->reuse[i];
        if (from->reuse[i] > from->cache_step)
            reject(d, "reuse", "a step that is yet to come");
    }
    to->reuse_count = from->n_reuse;
    if (from->cache != LT_CACHE_NONE)
        to->cache_key = take_digest(d, "cache_key", from->cache_key);
    if (!(from->cache_threshold >= 0 && is_sane(from->cache_threshold)))
        reject(d, "cache_threshold", "out of range");
}

static void decode_spec(struct decoder *d, const Longtake__TaskSpec *from, struct lt_task_spec *to)
{
    if (!from || !from->model || from->n_shape != 4) {
        reject(d, "spec", "model or shape is missing");
        return;
    }
    if (from->n_blob > LT_SPEC_BLOBS_MAX) {
        reject(d, "blob", "too many entries");
        return;
    }
    *to = (struct lt_task_spec){
        .kind = (enum lt_task_kind)take_enum(d, "kind", from->kind, LT_TASK_PREDICT,
                                             LT_TASK_COMPARE_TIMES),
        .model = take_file(d, "model", from->model),
        .blob_count = from->n_blob,
        .timestep = from->timestep,
        .guidance = from->guidance,
        .precision = take_enum(d, "precision", from->precision, 0, 1),
        .drop_frames = from->drop_frames,
        .text_len = from->text_len,
        .result_bytes = from->result_size,
        .handoff_frames = from->handoff_frames,
        .handoff_length = from->handoff_length,
        .match = take_enum(d, "match", from->match, LT_MATCH_NONE, LT_MATCH_MKL),
        .match_strength = from->match_strength,
        .text_style = take_enum(d, "text_style", from->text_style, 0, 1),
        .guide =
            (enum lt_guide)take_enum(d, "guide", from->guide, LT_GUIDE_CFG, LT_GUIDE_ZERO_STAR),
        .no_velocity = from->no_velocity,
        .audio_guidance = from->audio_guidance,
        .audio_formula = take_enum(d, "audio_formula", from->audio_formula, 0, 1),
        .cache = (enum lt_cache)take_enum(d, "cache", from->cache, LT_CACHE_NONE, LT_CACHE_EASY),
        .cache_step = from->cache_step,
        .cache_threshold = from->cache_threshold,
        .time_projected = from->time_projected,
        .riflex_index = from->riflex_index,
        .riflex_frames = from->riflex_frames,
    };
    memcpy(to->shape, from->shape, sizeof to->shape);
    to->frame_at_count = take_slots(d, "frame_at", from->frame_at, from->n_frame_at, to->frame_at);
    decode_loras(d, from, to);
    to->clean_slot_count =
        take_slots(d, "clean_slot", from->clean_slot, from->n_clean_slot, to->clean_slot);
    to->skip_layer_count =
        take_slots(d, "skip_layer", from->skip_layer, from->n_skip_layer, to->skip_layer);
    to->nag_count = take_numbers(d, "nag", from->nag, from->n_nag, LT_SPEC_NAG, to->nag);
    to->strength_count = take_numbers(d, "strength", from->strength, from->n_strength,
                                      LT_SPEC_STRENGTHS, to->strength);
    decode_cache(d, from, to);
    for (size_t i = 0; i < from->n_blob; i++)
        to->blob[i] = (struct lt_blob_ref){
            (enum lt_blob_role)take_enum(d, "blob.role", from->blob[i]->role, LT_BLOB_LATENTS,
                                         LT_BLOB_ROLE_LAST),
            take_digest(d, "blob.digest", from->blob[i]->digest), from->blob[i]->size};
    if (!(from->timestep >= 0 && from->timestep <= 1000) ||
        !(from->guidance > -1e6 && from->guidance < 1e6))
        reject(d, "timestep or guidance", "out of range");
    if (!(from->match_strength >= 0 && from->match_strength <= 1))
        reject(d, "match_strength", "out of range");
}

static void decode_assign(struct decoder *d, const ProtobufCMessage *raw,
                          struct lt_message *message)
{
    const Longtake__Assign *from = (const void *)raw;
    message->assign =
        (struct lt_assign){.task = from->task, .epoch = from->epoch, .lease_ms = from->lease_ms};
    decode_spec(d, from->spec, &message->assign.spec);
}

static void decode_decline(struct decoder *d, const ProtobufCMessage *raw,
                           struct lt_message *message)
{
    const Longtake__Decline *from = (const void *)raw;
    message->decline = (struct lt_decline){
        from->task, from->epoch, take_enum(d, "status", from->status, 1, LT_STATUS_COUNT - 1),
        take_text(d, "text", from->text)};
}

static void decode_beat(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Beat *from = (const void *)raw;
    struct lt_beat *to = &message->beat;
    *to = (struct lt_beat){
        .sequence = from->sequence,
        .lease = take_list(d, "lease", from->n_lease, sizeof *to->lease),
        .lease_count = from->n_lease,
        .slot_count = take_enum(d, "slot_count", from->slot_count, 0, LT_SLOTS_MAX),
        .memory = {.rss_bytes = from->rss_bytes,
                   .device_bytes = from->device_bytes,
                   .device_peak_bytes = from->device_peak_bytes,
                   .read_bytes = from->read_bytes,
                   .copied_bytes = from->copied_bytes,
                   .stall_us = from->stall_us,
                   .swapping = from->swapping},
    };
    if (from->resident.len > 0)
        to->resident = take_digest(d, "resident", from->resident);
    for (size_t i = 0; i < from->n_lease && d->status == LT_OK; i++)
        to->lease[i] = (struct lt_progress){
            from->lease[i]->task, from->lease[i]->epoch,
            take_enum(d, "lease.phase", from->lease[i]->phase, LT_PHASE_WAITING, LT_PHASE_SENDING),
            from->lease[i]->done, from->lease[i]->total};
}

static void decode_beat_ack(struct decoder *d, const ProtobufCMessage *raw,
                            struct lt_message *message)
{
    const Longtake__BeatAck *from = (const void *)raw;
    message->beat_ack = (struct lt_beat_ack){
        from->sequence, take_refs(d, "revoked", from->revoked, from->n_revoked), from->n_revoked};
}

static void decode_fail(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Fail *from = (const void *)raw;
    message->fail = (struct lt_task_fail){
        from->task, from->epoch, take_enum(d, "status", from->status, 1, LT_STATUS_COUNT - 1),
        take_text(d, "text", from->text)};
}

static void decode_cancel(struct decoder *d, const ProtobufCMessage *raw,
                          struct lt_message *message)
{
    (void)d;
    const Longtake__Cancel *from = (const void *)raw;
    message->cancel = (struct lt_cancel){from->task, from->epoch};
}

static void decode_release(struct decoder *d, const ProtobufCMessage *raw,
                           struct lt_message *message)
{
    const Longtake__Release *from = (const void *)raw;
    message->release = (struct lt_release){
        from->task, from->epoch, take_enum(d, "reason", from->reason, 0, LT_STATUS_COUNT - 1)};
}

static void decode_drain(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    (void)d;
    message->drain.deadline_ms = ((const Longtake__Drain *)(const void *)raw)->deadline_ms;
}

static void decode_bye(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    message->bye.text = take_text(d, "text", ((const Longtake__Bye *)(const void *)raw)->text);
}

static void decode_committed(struct decoder *d, const ProtobufCMessage *raw,
                             struct lt_message *message)
{
    const Longtake__Committed *from = (const void *)raw;
    message->committed = (struct lt_committed){
        from->task, from->epoch,
        take_enum(d, "verdict", from->verdict, LT_VERDICT_WANT, LT_VERDICT_LATER)};
}

static void decode_offer(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Offer *from = (const void *)raw;
    message->offer = (struct lt_offer){from->stream, from->task, from->epoch,
                                       take_digest(d, "digest", from->digest), from->size};
}

static void decode_want(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Want *from = (const void *)raw;
    message->want = (struct lt_want){
        from->stream, take_enum(d, "verdict", from->verdict, LT_VERDICT_WANT, LT_VERDICT_LATER),
        from->offset, from->credit, from->epoch};
}

static void decode_fetch(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Fetch *from = (const void *)raw;
    message->fetch = (struct lt_fetch){from->stream, take_digest(d, "digest", from->digest),
                                       from->offset, from->credit};
}

static void decode_chunk(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    (void)d;
    const Longtake__Chunk *from = (const void *)raw;
    message->chunk = (struct lt_chunk){from->stream, from->offset, from->crc32c};
}

static void decode_credit(struct decoder *d, const ProtobufCMessage *raw,
                          struct lt_message *message)
{
    (void)d;
    const Longtake__Credit *from = (const void *)raw;
    message->credit = (struct lt_credit){from->stream, from->credit, from->offset};
}

static void decode_abort(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message)
{
    const Longtake__Abort *from = (const void *)raw;
    message->abort = (struct lt_abort){from->stream,
                                       take_enum(d, "status", from->status, 1, LT_STATUS_COUNT - 1),
                                       take_text(d, "text", from->text)};
}

/* -- the table --------------------------------------------------------------------------------- */

static const struct {
    ProtobufCMessage *(*encode)(struct encoder *e, const struct lt_message *message);
    void (*decode)(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message);
    const ProtobufCMessageDescriptor *descriptor;
} codecs[LT_MESSAGE_COUNT] = {
#define CODEC(name, member, channel, worker, coordinator)                                          \
    [LT_MESSAGE_##name] = {encode_##member, decode_##member, &longtake__##member##__descriptor},
    LT_MESSAGE_LIST(CODEC)
#undef CODEC
};

lt_status lt_message_encode(const struct lt_message *message, struct lt_arena *arena,
                            uint8_t **body_out, size_t *bytes_out, struct lt_error *error)
{
    lt_assert(message->kind > LT_MESSAGE_NONE && message->kind < LT_MESSAGE_COUNT);
    struct encoder e = {arena, message->kind, LT_OK, error};
    const ProtobufCMessage *raw = codecs[message->kind].encode(&e, message);
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

struct budget {
    struct lt_arena *arena;
    size_t left;
};

static void *budget_take(void *context, size_t bytes)
{
    struct budget *budget = context;
    if (bytes > budget->left)
        return NULL;
    budget->left -= bytes;
    return lt_arena_take(budget->arena, bytes);
}

static void budget_free(void *context, void *pointer)
{
    (void)context; /* the arena goes as a whole */
    (void)pointer;
}

lt_status lt_message_decode(enum lt_message_kind kind, const uint8_t *body, size_t bytes,
                            struct lt_arena *arena, struct lt_message *message_out,
                            struct lt_error *error)
{
    lt_assert(kind > LT_MESSAGE_NONE && kind < LT_MESSAGE_COUNT);
    struct budget budget = {arena, DECODE_BYTES_MAX};
    ProtobufCAllocator allocator = {budget_take, budget_free, &budget};
    struct decoder d = {arena, kind, LT_OK, error};
    struct lt_message message = {.kind = kind};
    if (bytes > LT_BODY_BYTES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: a body of %zu bytes, at most %d",
                       lt_message_name(kind), bytes, LT_BODY_BYTES_MAX);
    const ProtobufCMessage *raw =
        protobuf_c_message_unpack(codecs[kind].descriptor, &allocator, bytes, body);
    if (!raw)
        return lt_fail(error, LT_BAD_INPUT, "%s: the body is not a valid message",
                       lt_message_name(kind));
    codecs[kind].decode(&d, raw, &message);
    if (d.status == LT_OK)
        *message_out = message;
    return d.status;
}
