/* Protobuf bodies to plain structs: a function for each message, and a table of them at the foot.
 * An allocator on the caller's arena has a limit, so a hostile body cannot take more. */
#include "proto/message.h"

#include "longtake.pb-c.h"

#include <string.h>

enum { DECODE_BYTES_MAX = 512 * 1024 };

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
        .tile = from->tile,
        .tile_stride = from->tile_stride,
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
    if (from->tile_stride > from->tile || (from->tile > 0 && from->tile_stride == 0))
        reject(d, "tile_stride", "out of range");
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

static const struct {
    void (*decode)(struct decoder *d, const ProtobufCMessage *raw, struct lt_message *message);
    const ProtobufCMessageDescriptor *descriptor;
} codecs[LT_MESSAGE_COUNT] = {
#define CODEC(name, member, channel, worker, coordinator)                                          \
    [LT_MESSAGE_##name] = {decode_##member, &longtake__##member##__descriptor},
    LT_MESSAGE_LIST(CODEC)
#undef CODEC
};

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
