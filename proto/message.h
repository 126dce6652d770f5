/* What the coordinator and a worker say to each other, as plain structs. message_encode.c and
 * message_decode.c turn them into protobuf bodies and back; nobody else includes a protobuf header.
 * docs/wire.md tells who may say what, when. */
#pragma once

#include "common/arena.h"
#include "common/digest.h"
#include "common/status.h"

enum {
    LT_WIRE_MAJOR = 1,
    LT_WIRE_MINOR = 1,
    LT_BODY_BYTES_MAX = 64 * 1024,
    LT_CHUNK_BYTES_MAX = 256 * 1024,
    LT_REPEAT_MAX = 256,      /* entries of any repeated field */
    LT_TEXT_BYTES_MAX = 4096, /* bytes of any string */
    LT_SLOTS_MAX = 64,        /* tasks a worker may ask for at a time */
    LT_CREDIT_BYTES_DEFAULT = 2 * 1024 * 1024,
};

enum lt_channel { LT_CHANNEL_CONTROL, LT_CHANNEL_BULK };

/*   name, channel, from worker, from coordinator */
#define LT_MESSAGE_LIST(X)                                                                         \
    X(HELLO, hello, CONTROL, 1, 0)                                                                 \
    X(WELCOME, welcome, CONTROL, 0, 1)                                                             \
    X(REJECT, reject, CONTROL, 0, 1)                                                               \
    X(ASSIGN, assign, CONTROL, 0, 1)                                                               \
    X(DECLINE, decline, CONTROL, 1, 0)                                                             \
    X(BEAT, beat, CONTROL, 1, 0)                                                                   \
    X(BEAT_ACK, beat_ack, CONTROL, 0, 1)                                                           \
    X(FAIL, fail, CONTROL, 1, 0)                                                                   \
    X(CANCEL, cancel, CONTROL, 0, 1)                                                               \
    X(RELEASE, release, CONTROL, 1, 0)                                                             \
    X(DRAIN, drain, CONTROL, 0, 1)                                                                 \
    X(BYE, bye, CONTROL, 1, 1)                                                                     \
    X(COMMITTED, committed, CONTROL, 0, 1)                                                         \
    X(OFFER, offer, BULK, 1, 0)                                                                    \
    X(WANT, want, BULK, 0, 1)                                                                      \
    X(FETCH, fetch, BULK, 1, 0)                                                                    \
    X(CHUNK, chunk, BULK, 1, 1)                                                                    \
    X(CREDIT, credit, BULK, 1, 1)                                                                  \
    X(ABORT, abort, BULK, 1, 1)

enum lt_message_kind {
    LT_MESSAGE_NONE,
#define LT_MESSAGE_ENUM(name, member, channel, worker, coordinator) LT_MESSAGE_##name,
    LT_MESSAGE_LIST(LT_MESSAGE_ENUM)
#undef LT_MESSAGE_ENUM
        LT_MESSAGE_COUNT
};

struct lt_model_file {
    const char *name;
    struct lt_digest fingerprint;
    uint64_t bytes;
};

struct lt_task_ref {
    uint64_t task, epoch;
};

struct lt_held {
    uint64_t task, epoch;
    bool finished;
};

struct lt_hello {
    const char *name;
    uint64_t boot_nonce;
    uint32_t version_min, version_max;
    const char *build, *device, *kernel_class;
    uint64_t memory_bytes;
    uint32_t slot_count;
    struct lt_model_file *model;
    size_t model_count;
    struct lt_held *held;
    size_t held_count;
    uint32_t version_minor; /* of version_max; 0: knows predict, vae-decode and vae-encode only */
};

struct lt_welcome {
    uint64_t session;
    uint32_t heartbeat_ms, lease_ms;
    uint64_t credit_bytes;
    struct lt_task_ref *keep;
    size_t keep_count;
    bool draining;
};

struct lt_reject {
    uint32_t status; /* lt_status */
    const char *text;
    uint32_t retry_after_ms, version_min, version_max;
};

enum lt_task_kind {
    LT_TASK_PREDICT = 1,
    LT_TASK_VAE_DECODE,
    LT_TASK_VAE_ENCODE,
    LT_TASK_ENCODE_TEXT, /* since 1.1 */
    LT_TASK_ENCODE_IMAGE,
    LT_TASK_ENCODE_AUDIO,
    LT_TASK_COMPARE_TIMES, /* how much time embeddings differ: f32 [steps, steps] */
};

enum lt_blob_role {
    LT_BLOB_LATENTS = 1,        /* f32, shape of the spec: the slice to work on */
    LT_BLOB_TEXT = 2,           /* f32 [n, text_dim], positive prompt */
    LT_BLOB_TEXT_NEGATIVE = 3,  /* needed when guidance != 1 */
    LT_BLOB_PIXELS = 4,         /* u8 [frames, H, W, 3]: what vae-encode or encode-image is given */
    LT_BLOB_Y = 5,              /* f32 [in_channels - C, F, h, w]: mask and conditioning latents */
    LT_BLOB_CLIP = 6,           /* f32 [257 or 514, 1280] */
    LT_BLOB_POSE = 7,           /* f32 [C, F - 1, h, w] */
    LT_BLOB_FACE = 8,           /* u8 [P, side, side, 3] */
    LT_BLOB_AUDIO = 9,          /* f32 [speakers, 5 + 8 (F - 1), layers, width] */
    LT_BLOB_SPEAKER_MASKS = 10, /* f32 [3, h/2, w/2] */
    LT_BLOB_PROMPT = 11,        /* encode-text: UTF-8 */
    LT_BLOB_SAMPLES = 12,       /* encode-audio: f32 mono, 16 kHz */
    LT_BLOB_REFERENCE = 13,     /* vae-decode: u8 [H, W, 3], whose colours are matched */
    LT_BLOB_TIMES = 14,         /* compare-times: f64 timesteps */
    LT_BLOB_ROLE_LAST = LT_BLOB_TIMES,
};

struct lt_blob_ref {
    enum lt_blob_role role;
    struct lt_digest digest;
    uint64_t bytes;
};

enum { LT_SPEC_BLOBS_MAX = 16, LT_SPEC_SLOTS_MAX = 32, LT_SPEC_LORAS_MAX = 8 };

enum lt_match { LT_MATCH_NONE, LT_MATCH_REINHARD, LT_MATCH_MKL };

enum { LT_SPEC_NAG = 3, LT_SPEC_STRENGTHS = 2 };

/* What guidance g makes of the predictions with and without the prompt. */
enum lt_guide {
    LT_GUIDE_CFG,       /* u + g (c - u) */
    LT_GUIDE_ZERO_STAR, /* the same around u scaled to fit c */
};

struct lt_spec_lora {
    struct lt_model_file file;
    double strength;
    uint32_t expert; /* of a file with both: 1 high noise, 2 low noise; 0: has one */
    bool plain_peft;
};

/* How a prediction uses the work of earlier steps of its window. */
enum lt_cache {
    LT_CACHE_NONE,
    LT_CACHE_PLANNED, /* as `reuse` says */
    LT_CACHE_EASY,    /* EasyCache: as its latents change */
};

enum { LT_SPEC_PREDICTIONS = 3 };

/* Everything a worker needs to compute a task: with equal specs any worker of one kernel class
 * gives equal bytes. */
struct lt_task_spec {
    enum lt_task_kind kind;
    struct lt_model_file model;
    struct lt_blob_ref blob[LT_SPEC_BLOBS_MAX];
    size_t blob_count;
    /* predict: C F h w; vae-decode: z T h w; vae-encode: 3 F H W; encode-text: rows, width, 1, 1 of
     * the result; encode-image: 3, images, H, W; encode-audio: frames, layers, width, samples;
     * compare-times: as the job's predict */
    uint32_t shape[4];
    double timestep;    /* 0..1000, as the model takes it */
    double guidance;    /* 1: one prediction; else u + g (c - u), on the worker */
    uint32_t precision; /* enum lt_precision */
    uint32_t drop_frames;
    uint32_t text_len;
    /* predict: f32 [C,F,h,w]; vae-decode: u8 [frames, H, W, 3], then the latents of the hand-off;
     * others: f32 features or latents */
    uint64_t result_bytes;
    uint32_t frame_at[LT_SPEC_SLOTS_MAX]; /* vae-encode: where the given frames stand; the others
                                             are grey; none: all F are given */
    size_t frame_at_count;
    uint32_t clean_slot[LT_SPEC_SLOTS_MAX]; /* predict: slots that are fed timestep 0 */
    size_t clean_slot_count;
    uint32_t handoff_frames, handoff_length; /* vae-decode: the last frames, encoded for the next
                                                clip as the first of `handoff_length`, the others
                                                grey; 0: none */
    uint32_t tile,
        tile_stride; /* vae-decode: latents a side of a tile, and to the next; 0: whole */
    uint32_t match;  /* enum lt_match: vae-decode */
    double match_strength;
    enum lt_guide guide;
    bool no_velocity;        /* predict: the result is 0, nothing is computed */
    double nag[LT_SPEC_NAG]; /* predict: scale, tau, alpha against the negative text */
    size_t nag_count;        /* 0: off */
    uint32_t skip_layer[LT_SPEC_SLOTS_MAX]; /* predict: blocks left out without the prompt */
    size_t skip_layer_count;
    uint32_t riflex_index, riflex_frames;        /* predict: 0: off */
    double strength[LT_SPEC_STRENGTHS];          /* predict: of Animate's pose and face */
    size_t strength_count;                       /* 0: 1 and 1 */
    struct lt_spec_lora lora[LT_SPEC_LORAS_MAX]; /* predict: on its model */
    size_t lora_count;
    struct lt_model_file addon; /* talk: the file merged onto the model; name NULL: none */
    double audio_guidance;
    uint32_t audio_formula; /* 0 official, 1 wrapper (pipeline.md 3.8) */
    enum lt_cache cache;    /* predict; with equal specs bytes may then depend on what is kept */
    struct lt_digest cache_key;          /* of job and window: whose work it is */
    uint32_t cache_step;                 /* this one */
    uint32_t reuse[LT_SPEC_PREDICTIONS]; /* 0: compute and keep; n: what step n - 1 or a later one
                                            added to the tokens, if it is there */
    size_t reuse_count;
    double cache_threshold; /* EasyCache; 0: compute */
    bool time_projected;    /* compare-times: what blocks are fed, not what the head is */
    uint32_t text_style;    /* encode-text: 0 as Wan cleans a prompt, 1 as ComfyUI */
};

struct lt_assign {
    uint64_t task, epoch;
    uint32_t lease_ms;
    struct lt_task_spec spec;
};

struct lt_decline {
    uint64_t task, epoch;
    uint32_t status;
    const char *text;
};

enum lt_phase {
    LT_PHASE_WAITING = 1,
    LT_PHASE_FETCHING,
    LT_PHASE_LOADING,
    LT_PHASE_RUNNING,
    LT_PHASE_SENDING
};

struct lt_progress {
    uint64_t task, epoch;
    uint32_t phase;       /* enum lt_phase */
    uint32_t done, total; /* transformer blocks (times predictions), or latent frames decoded */
};

/* Since the start of the worker, where it is not a present amount. */
struct lt_beat_memory {
    uint64_t rss_bytes, device_bytes, device_peak_bytes;
    uint64_t read_bytes, copied_bytes; /* from model files; to the device */
    uint64_t stall_us;                 /* the model waited for copies */
    uint64_t swapping;                 /* major faults while a model computed */
};

struct lt_beat {
    uint32_t sequence;
    struct lt_progress *lease;
    size_t lease_count;
    uint32_t slot_count; /* 0: as before */
    struct lt_beat_memory memory;
    struct lt_digest resident; /* fingerprint of the transformer it holds; zero: none */
};

struct lt_beat_ack {
    uint32_t sequence;
    struct lt_task_ref *revoked;
    size_t revoked_count;
};

struct lt_task_fail {
    uint64_t task, epoch;
    uint32_t status;
    const char *text;
};

struct lt_cancel {
    uint64_t task, epoch;
};

struct lt_release {
    uint64_t task, epoch;
    uint32_t reason; /* lt_status: LT_CANCELLED, LT_BUSY (draining) … */
};

struct lt_drain {
    uint32_t deadline_ms;
};

struct lt_bye {
    const char *text;
};

struct lt_offer {
    uint64_t stream, task, epoch;
    struct lt_digest digest;
    uint64_t bytes;
};

enum lt_verdict {
    LT_VERDICT_WANT = 1,  /* send from `offset` */
    LT_VERDICT_HAVE = 2,  /* already there: treat as committed */
    LT_VERDICT_STALE = 3, /* the lease moved on: drop the result */
    LT_VERDICT_LATER = 4, /* no room now: offer again later */
};

struct lt_want {
    uint64_t stream;
    uint32_t verdict; /* enum lt_verdict */
    uint64_t offset, credit, epoch;
};

struct lt_fetch {
    uint64_t stream;
    struct lt_digest digest;
    uint64_t offset, credit;
};

struct lt_chunk {
    uint64_t stream, offset;
    uint32_t crc32c;
};

struct lt_credit {
    uint64_t stream, credit, offset;
};

struct lt_abort {
    uint64_t stream;
    uint32_t status;
    const char *text;
};

struct lt_committed {
    uint64_t task, epoch;
    uint32_t
        verdict; /* HAVE: it is durable, drop the spool; STALE: drop it too; WANT: send it again */
};

struct lt_message {
    enum lt_message_kind kind;
    union {
        struct lt_hello hello;
        struct lt_welcome welcome;
        struct lt_reject reject;
        struct lt_assign assign;
        struct lt_decline decline;
        struct lt_beat beat;
        struct lt_beat_ack beat_ack;
        struct lt_task_fail fail;
        struct lt_cancel cancel;
        struct lt_release release;
        struct lt_drain drain;
        struct lt_bye bye;
        struct lt_committed committed;
        struct lt_offer offer;
        struct lt_want want;
        struct lt_fetch fetch;
        struct lt_chunk chunk;
        struct lt_credit credit;
        struct lt_abort abort;
    };
};

const char *lt_message_name(enum lt_message_kind kind);
enum lt_channel lt_message_channel(enum lt_message_kind kind);
bool lt_message_from_worker(enum lt_message_kind kind);
bool lt_message_from_coordinator(enum lt_message_kind kind);

/* Body bytes in `arena`. LT_BAD_INPUT when a bound above is broken. */
lt_status lt_message_encode(const struct lt_message *message, struct lt_arena *arena,
                            uint8_t **body_out, size_t *bytes_out, struct lt_error *error);
/* Checks every bound before it allocates; strings and arrays of the result live in `arena`. Unknown
 * enum values, digests that are not 32 bytes and missing required fields are LT_BAD_INPUT naming
 * message and field. */
lt_status lt_message_decode(enum lt_message_kind kind, const uint8_t *body, size_t bytes,
                            struct lt_arena *arena, struct lt_message *message_out,
                            struct lt_error *error);
