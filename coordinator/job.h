/* A job: what a user asks for. Parsed once from JSON (docs/job.md holds the schema), validated,
 * then immutable. Unknown keys, wrong types and values out of range are LT_BAD_INPUT with a JSON
 * pointer ("/window/overlap: …"). */
#pragma once

#include "common/arena.h"
#include "common/digest.h"
#include "common/status.h"

enum { JOB_LIST_MAX = 1000, JOB_FRAMES_MAX = 100000 };

enum window_schedule {
    WINDOW_STATIC_STANDARD,
    WINDOW_STATIC_BALANCED,
    WINDOW_UNIFORM_STANDARD,
    WINDOW_UNIFORM_LOOPED,
    WINDOW_UNIFORM_STANDARD_COMFY, /* ComfyUI's variant, pipeline.md 1.3 */
    WINDOW_UNIFORM_LOOPED_OPEN,    /* ComfyUI's closed_loop off */
    WINDOW_BATCHED,
    WINDOW_BATCHED_SHIFTED,
};

enum window_fuse {
    WINDOW_FUSE_LINEAR,
    WINDOW_FUSE_PYRAMID,
    WINDOW_FUSE_PYRAMID_COMFY,
    WINDOW_FUSE_FLAT,
    WINDOW_FUSE_OVERLAP_LINEAR,
    WINDOW_FUSE_RELATIVE,
    WINDOW_FUSE_HANN,
    WINDOW_FUSE_GAUSSIAN,
};

enum sampler_kind {
    SAMPLER_EULER,
    SAMPLER_UNIPC,
    SAMPLER_DPMPP,
    SAMPLER_DPMPP_SDE,
    SAMPLER_LCM,
    SAMPLER_FLOWMATCH_DISTILL,
    SAMPLER_FLOWMATCH_CAUSVID, /* these two: Euler on lists of their own */
    SAMPLER_MULTITALK,
};

enum noise_kind { NOISE_TORCH, NOISE_PHILOX }; /* "torch" | "counter" */

struct job_model {
    const char *name;             /* file name, or a path as given */
    struct lt_digest fingerprint; /* zero: pinned when the first worker reports the file */
};

enum job_kind { JOB_TEXT_TO_VIDEO, JOB_IMAGE_TO_VIDEO, JOB_ANIMATE, JOB_TALK };

/* windows: overlapping windows of one latent video, all at once; loop: a chain of clips, each of
 * which starts on the last frames of the one before (pipeline.md 2.1) */
enum job_mode { JOB_MODE_WINDOWS, JOB_MODE_LOOP };

/* How an image or video of another shape is brought to the job's size; auto: as the kind's original
 * does it, animate with bars, the others cropped. */
enum job_fit { JOB_FIT_AUTO, JOB_FIT_CROP, JOB_FIT_STRETCH, JOB_FIT_LETTERBOX };

/* What a job is given beside its text: raw (a picture, a video, a voice), or encoded already.
 *
 *   name, section, key, shape once uploaded (u8 unless it says f32) */
#define JOB_INPUT_LIST(X)                                                                          \
    X(IMAGE, "media", "image")           /* [1, H, W, 3] of the job's size */                      \
    X(END_IMAGE, "media", "end_image")   /* the same */                                            \
    X(CLIP_IMAGE, "media", "clip_image") /* [1, h, w, 3], as it was before it was fitted */        \
    X(END_CLIP_IMAGE, "media", "end_clip_image")                                                   \
    X(POSE_FRAMES, "media", "pose")      /* [n, H, W, 3] */                                        \
    X(FACE_FRAMES, "media", "face")      /* [n, 512, 512, 3] */                                    \
    X(BACKGROUND, "media", "background") /* [n, H, W, 3]: animate in place of the person */        \
    X(MASK, "media", "mask")             /* f32 [n, 1, h, w]: 1 where the background is kept */    \
    X(VIDEO_FRAMES, "media", "video")    /* [n, H, W, 3]: talk, a picture for each clip */         \
    X(VOICE, "media", "voice")           /* f32 [1, 1, 1, samples], mono, 16 kHz */                \
    X(VOICE_2, "media", "voice_2")       /* of the second speaker */                               \
    X(CLIP, "conditioning", "clip")      /* f32 [257 or 514, 1280] */                              \
    X(Y, "conditioning", "y")            /* f32 [in_channels - C, T, h, w] */                      \
    X(POSE, "conditioning", "pose")      /* f32 [C, T - 1, h, w] */                                \
    X(AUDIO, "conditioning", "audio")    /* f32 [speakers, frames, layers, width] */               \
    X(SPEAKER_MASKS, "conditioning", "speaker_masks") /* f32 [1, 3, h/2, w/2] */

enum job_input_kind {
#define JOB_INPUT_ENUM(name, section, key) JOB_INPUT_##name,
    JOB_INPUT_LIST(JOB_INPUT_ENUM)
#undef JOB_INPUT_ENUM
        JOB_INPUT_COUNT
};

enum { JOB_INPUT_RANK = 4 };

/* A path, as the user wrote it, or bytes that were uploaded: {"sha256": …, "shape": […]}. */
struct job_input {
    const char *path; /* NULL: uploaded, or not given */
    bool uploaded;
    struct lt_digest digest;
    uint32_t shape[JOB_INPUT_RANK]; /* leading 1s where the rank is less */
};

/* What leads the predictions beside plain guidance (pipeline.md 3.8, 5.5). */
struct job_guide {
    bool zero_star;                       /* CFG-zero-star */
    int64_t zero_steps;                   /* of it: so many first steps have no velocity at all */
    double nag_scale, nag_tau, nag_alpha; /* away from the negative text in attention; 0: off */
    const double *skip_layer; /* blocks that the prediction without the prompt leaves out … */
    size_t skip_layer_count;
    double skip_start, skip_end; /* … in this share of the steps */
    int64_t riflex;              /* which frequency of time is stretched over the take; 0: none */
};

enum { JOB_LORAS_MAX = 8 };

enum job_expert { JOB_EXPERT_BOTH, JOB_EXPERT_HIGH, JOB_EXPERT_LOW };

struct job_lora {
    struct job_model file;
    const double *strength; /* one value, or one per step (extended by its last) */
    size_t strength_count;
    unsigned on;     /* enum job_expert: which transformers of the job get it */
    bool combined;   /* the file holds LoRAs of both experts */
    bool plain_peft; /* docs/lora.md */
};

enum job_talk { JOB_TALK_MULTITALK, JOB_TALK_INFINITETALK };

/* How steps reuse the work of earlier ones (pipeline.md 5.1 to 5.3). */
enum job_cache_kind { JOB_CACHE_NONE, JOB_CACHE_TEACACHE, JOB_CACHE_MAGCACHE, JOB_CACHE_EASYCACHE };

struct job_cache {
    enum job_cache_kind kind;
    unsigned model;     /* enum skip_model: whose published numbers */
    double threshold;   /* 0: the kind's own */
    int64_t start, end; /* the steps in question; -1: the kind's own */
    int64_t skips;      /* in a row, MagCache */
    unsigned curve;     /* enum skip_curve, TeaCache */
    bool neighbours;    /* TeaCache: compare with the step before, not with the last computed */
    bool compat;        /* as the wrapper computes it */
};

struct job {
    enum job_kind kind;
    enum job_mode mode;
    const char *name;      /* for people; default: the output's stem */
    int64_t width, height; /* floored to a multiple of 16 */
    int64_t frame_count;   /* as asked; `frame_count_padded` is the 4k+1 at or above it that is
                              rendered */
    int64_t frame_count_padded;
    double fps;
    uint64_t seed;
    enum noise_kind noise;

    struct job_model transformer;     /* the only expert, or the high-noise one */
    struct job_model transformer_low; /* name NULL: one expert */
    double boundary;                  /* high expert while timestep >= 1000 * boundary */
    struct job_model vae;
    struct job_model text_encoder;  /* with a prompt */
    struct job_model audio_encoder; /* talk */
    struct job_model talk;          /* talk: the add-on, merged onto the transformer */
    struct job_model vision;        /* image-to-video 2.1, animate, talk: for image attention */
    int64_t latent_channels;        /* 16; 48: TI2V-5B, whose VAE divides by 16 */
    int64_t face_side;              /* pixels, of Animate's faces: 512 */
    int64_t text_width;             /* of the encoder's features: 4096 */
    int64_t text_len;               /* 512 */
    bool precision_bf16;

    const char
        *text; /* safetensors file with `text` [n, text_dim], or "sha256:<hex>" once uploaded */
    const char *text_negative; /* NULL when every guidance is 1 */
    const char *prompt; /* in place of `text`: several are split by |, one for each part of the take
                         */
    const char *prompt_negative;
    unsigned text_style; /* how a prompt is cleaned: 0 wan, 1 comfy */
    struct job_input input[JOB_INPUT_COUNT];
    enum job_fit fit;
    int64_t decode_tile, decode_overlap; /* pixels; 0: the picture whole. Overlap -1: half of it */
    unsigned match;                      /* enum lt_match: colours of every clip as in the image */
    double match_strength;               /* 0 … 1 */
    int64_t clip_frames, clip_overlap;   /* loop mode, pixel frames: 0: the model's own */

    enum sampler_kind sampler;
    bool beta_schedule;   /* "unipc/beta" … */
    bool official_sigmas; /* constructor shift 1 (pipeline.md 3.2) */
    int64_t step_count;
    double shift;
    const double
        *sigma; /* own list, NULL: from sampler and shift; `sigma_count` without the final 0 */
    size_t sigma_count;
    int64_t start_step, end_step; /* end_step -1: all */
    const double *guidance;       /* one value, or one per step (extended by its last) */
    size_t guidance_count;
    struct job_lora lora[JOB_LORAS_MAX];
    size_t lora_count;
    unsigned talk_variant;             /* enum job_talk */
    double audio_guidance;             /* 1: the audio is in every prediction */
    unsigned audio_formula;            /* 0 official, 1 wrapper */
    int64_t audio_layers, audio_width; /* of the audio encoder: 12, 768 */

    struct job_guide guide;
    struct job_cache cache;
    double pose_strength, face_strength; /* animate: 1 */

    enum window_schedule schedule;
    enum window_fuse fuse;
    int64_t window_frames, window_overlap, window_stride; /* latent frames: n, o, d */
    bool freenoise;
    bool barrier; /* every step waits for all windows: for comparison */

    int64_t decode_segment,
        decode_warmup; /* latent frames; segment 0: the whole take in one task */
};

void job_defaults(struct job *job);
/* `text` need not be terminated. Everything lives in `arena`. `origin` names the file in messages.
 * Relative paths are kept as written: the client resolves them. */
lt_status job_parse(const char *text, size_t bytes, const char *origin, struct lt_arena *arena,
                    struct job *job_out, struct lt_error *error);
/* The canonical JSON of a job: equal jobs give equal text; job_parse(job_format(j)) = j. In
 * `arena`. */
lt_status job_format(const struct job *job, struct lt_arena *arena, char **text_out,
                     struct lt_error *error);
/* SHA-256 of the canonical JSON. */
lt_status job_digest(const struct job *job, struct lt_digest *digest_out, struct lt_error *error);
