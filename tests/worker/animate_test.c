/* If Animate's parts differed from the original, a character would move, but not as its driver
 * does. Numbers: dit.md 8.5, made by the original PyTorch code in f64. */
#include "tests/test.h"

#include "common/file.h"
#include "tests/worker/fill.h"
#include "worker/model/animate.h"
#include "worker/model/dit_parts.h"
#include "worker/model/motion.h"

#include <math.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static char path[256];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/parts.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

/* dit.md 8.5: the motion encoder's weights are the whole fill, its biases a tenth as everywhere. */
static void fill_motion(const struct catalogue_entry *entry, float *to, size_t count)
{
    const size_t length = strlen(entry->name);
    fill_weights(entry->name, to, count);
    if (strncmp(entry->name, "motion_encoder.", 15) == 0 &&
        strcmp(entry->name + length - 7, ".weight") == 0)
        fill_values(entry->name, to, count);
}

struct run {
    struct dit_config config;
    struct tensor_file *file;
    struct store *store;
    struct lt_kernels kernels;
    struct lt_exec *exec;
    struct dit *dit;
};

/* What the catalogue lists and `wants` takes; a dit of it only when that is a whole one. */
static void begin(struct run *run, const struct dit_config *config, bool (*wants)(const char *name))
{
    struct lt_error error;
    struct catalogue catalogue;
    memset(run, 0, sizeof *run);
    run->config = *config;
    assert_ok(catalogue_of_dit(config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_motion, wants, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &run->file, &error));
    assert_ok(store_load(run->file, NULL, NULL, &run->store, &error));
    assert_ok(lt_kernels_select(&run->kernels, lt_caps_detect(), "best", &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, LT_PRECISION_F32}, &run->exec, &error));
    if (wants) {
        run->dit = calloc(1, sizeof *run->dit);
        run->dit->config = *config;
        run->dit->net =
            (struct net){.store = run->store, .kernels = &run->kernels, .exec = run->exec};
        net_init(&run->dit->net);
        return;
    }
    assert_ok(dit_config_detect(run->file, &run->config, &error));
    run->config.text_len = config->text_len;
    assert_memory_equal(&run->config, config, sizeof *config);
    assert_ok(dit_create(config, run->store, &run->kernels, run->exec, &run->dit, &error));
}

static void end(struct run *run)
{
    dit_destroy(&run->dit);
    lt_exec_destroy(&run->exec);
    store_destroy(&run->store);
    tensor_file_close(&run->file);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 2e-4 * fmax(1, fabs(want))))
        fail_msg("got %.9g, expected %.9g", got, want);
}

/* Where numbers are small, their size is the measure. */
static void near_of(double got, double want, double size)
{
    if (!(fabs(got - want) <= 2e-4 * size))
        fail_msg("got %.9g, expected %.9g", got, want);
}

static double sum_of(const float *x, int64_t count, bool magnitude)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += magnitude ? fabs((double)x[i]) : (double)x[i];
    return sum;
}

static const struct face_config whole_face = {.size = 512,
                                              .channels = {32, 64, 128, 256, 512, 512, 512, 512},
                                              .every = 5,
                                              .motion_dim = 512,
                                              .motion_basis = 20,
                                              .dim = 1024,
                                              .heads = 4};

static struct dit_config tiny(int64_t layers)
{
    return (struct dit_config){.variant = DIT_VARIANT_ANIMATE,
                               .dim = 256,
                               .ffn_dim = 64,
                               .head_count = 2,
                               .layer_count = layers,
                               .in_channels = 36,
                               .out_channels = 16,
                               .text_dim = 24,
                               .freq_dim = 64,
                               .text_len = 8,
                               .epsilon = 1e-6f};
}

/* -- goldens ----------------------------------------------------------------------------------- */

static void the_basis_has_lapacks_signs(void **state)
{
    (void)state;
    enum { ROWS = 512, COLUMNS = 20 };
    static float direction[ROWS * COLUMNS];
    static double a[ROWS * COLUMNS], q[ROWS * COLUMNS];
    fill_values("motion_encoder.dec.direction.weight", direction, LT_COUNT(direction));
    for (int i = 0; i < ROWS * COLUMNS; i++)
        a[i] = (double)direction[i] + 1e-8;
    motion_orthonormal(a, ROWS, COLUMNS, q);
    static const double first[] = {-0.036086676, 0.032167851, -0.047233151, -0.033270887};
    for (int i = 0; i < 4; i++)
        assert_true(fabs(q[i] - first[i]) < 1e-7);
    assert_true(fabs(q[511 * COLUMNS + 19] - 0.003905819) < 1e-7);
    for (int i = 0; i < COLUMNS; i++)
        for (int j = 0; j <= i; j++) {
            double dot = 0;
            for (int r = 0; r < ROWS; r++)
                dot += q[r * COLUMNS + i] * q[r * COLUMNS + j];
            assert_true(fabs(dot - (i == j)) < 1e-12);
        }
}

/* Below the diagonal all zeros: nothing to reflect, no division by zero. */
static void a_basis_of_axes_stays_itself(void **state)
{
    (void)state;
    double a[] = {-3, 0, 0, 2, 0, 0}, q[6];
    motion_orthonormal(a, 3, 2, q);
    static const double want[] = {1, 0, 0, 1, 0, 0};
    assert_memory_equal(q, want, sizeof want);
}

static bool wants_motion(const char *name)
{
    return strncmp(name, "motion_encoder.", 15) == 0;
}

static void motion_encoder_of_full_size(void **state)
{
    (void)state;
    enum { PIXELS = 3 * 512 * 512 };
    struct run run;
    struct lt_error error;
    struct dit_config config = tiny(1);
    config.face = whole_face;
    begin(&run, &config, wants_motion);
    float motion[512], *face = malloc(PIXELS * sizeof *face);
    fill_values("input.face", face, PIXELS);
    const struct lt_view faces = lt_view_4d(face, LT_TYPE_F32, 3, 1, 512, 512),
                         out = lt_view_2d(motion, LT_TYPE_F32, 1, 512);
    const struct net_mark mark = net_mark(&run.dit->net);
    assert_ok(motion_encode(&run.dit->net, &config.face, &faces, &out, &error));
    net_rewind(&run.dit->net, mark);
    const double size = 4.637687638 / 512; /* of a number, on average */
    near_of(motion[0], 0.001415064, size);
    near_of(motion[1], -0.010049575, size);
    near_of(motion[2], -0.017605046, size);
    near_of(motion[3], -0.011117688, size);
    near_of(sum_of(motion, 512, false), 0.096839809, 1);
    near(sum_of(motion, 512, true), 4.637687638);

    /* two faces take what was told */
    float pair[2 * 512], *faces_of_two = malloc(2 * PIXELS * sizeof *faces_of_two);
    for (int c = 0; c < 3; c++)
        for (int f = 0; f < 2; f++)
            memcpy(faces_of_two + (c * 2 + f) * (PIXELS / 3), face + c * (PIXELS / 3),
                   PIXELS / 3 * sizeof *face);
    const struct lt_view two = lt_view_4d(faces_of_two, LT_TYPE_F32, 3, 2, 512, 512),
                         out_of_two = lt_view_2d(pair, LT_TYPE_F32, 2, 512);
    assert_ok(motion_encode(&run.dit->net, &config.face, &two, &out_of_two, &error));
    assert_memory_equal(pair, motion, sizeof motion);
    assert_memory_equal(pair + 512, motion, sizeof motion);
    const size_t taken = run.dit->net.arena.peak_bytes + run.dit->net.host.peak_bytes,
                 told = motion_bytes(&config.face);
    assert_true(taken >= told && taken <= told + (1 << 20));
    struct lt_scratch scratch = {0};
    motion_scratch(&config.face, &scratch);
    print_message("scratch %zu, told %zu\n", lt_exec_scratch_bytes(run.exec),
                  lt_scratch_bytes(&scratch, 2));
    assert_true(lt_exec_scratch_bytes(run.exec) <= lt_scratch_bytes(&scratch, 2));
    free(faces_of_two);
    free(face);
    end(&run);
}

static bool wants_face(const char *name)
{
    return strncmp(name, "face_", 5) == 0;
}

/* The fuser sees the frames that the face encoder made. */
static void face_encoder_and_fuser(void **state)
{
    (void)state;
    enum { FRAMES = 4, EACH = 5, D = 256, S = 6, TOKENS = FRAMES * S };
    struct run run;
    struct lt_error error;
    struct dit_config config = tiny(1);
    config.face = whole_face;
    begin(&run, &config, wants_face);
    static float motion[9 * 512], tokens[FRAMES * EACH * D], x[TOKENS * D], before[TOKENS * D],
        a[TOKENS * D], q[TOKENS * D];
    fill_values("input.motion", motion, LT_COUNT(motion));
    const struct lt_view in = lt_view_2d(motion, LT_TYPE_F32, 9, 512),
                         made = lt_view_2d(tokens, LT_TYPE_F32, FRAMES * EACH, D);
    assert_ok(animate_encode_face(run.dit, &in, &made, &error));
    const float *y = tokens + EACH * D;
    const int64_t count = (FRAMES - 1) * EACH * D;
    for (int i = 0; i < EACH * D; i++)
        assert_true(tokens[i] == 0);
    near(y[0], -0.581458698);
    near(y[1], 1.361670768);
    near(y[2], 0.927947649);
    near(y[(2 * EACH + 3) * D + 255], -0.240559852);
    near(sum_of(y, count, false), -30.023753548);
    near(sum_of(y, count, true), 2741.000532);

    fill_values("input.tokens", x, LT_COUNT(x));
    memcpy(before, x, sizeof x);
    struct lt_view key = {0};
    struct animate_context context = {.dit = run.dit,
                                      .motion = made,
                                      .keys = &key,
                                      .cache = {.exec = run.exec, .bytes_max = 1 << 20}};
    const struct dit_inputs inputs = {.animate = &context};
    const struct pass pass = {.inputs = &inputs,
                              .options = &dit_options_default,
                              .frames = FRAMES,
                              .rows = 2,
                              .columns = 3,
                              .tokens = TOKENS,
                              .x = lt_view_2d(x, LT_TYPE_F32, TOKENS, D)};
    struct forward forward = {.dit = run.dit,
                              .a = lt_view_2d(a, LT_TYPE_F32, TOKENS, D),
                              .q = lt_view_2d(q, LT_TYPE_F32, TOKENS, D)};
    assert_ok(animate_fuse(&forward, &pass, 0, &error));
    for (int i = 0; i < TOKENS * D; i++)
        before[i] = x[i] - before[i];
    near(before[0], 0.047943417);
    near(before[1], 0.009563564);
    near(before[2], 0.133603604);
    near(before[23 * D + 255], 0.701075435);
    near(sum_of(before, TOKENS * D, false), 185.940068949);
    near(sum_of(before, TOKENS * D, true), 2214.101704579);
    assert_int_equal(context.cache.computed, 1);
    memcpy(before, x, sizeof x);
    assert_ok(animate_fuse(&forward, &pass, 1, &error)); /* only every fifth block has one */
    assert_memory_equal(before, x, sizeof x);
    dit_cache_drop(&context.cache, &key);
    end(&run);
}

/* -- whole models ------------------------------------------------------------------------------ */

enum { F = 3, H = 4, W = 6, LATENT = 16 * F * H * W, PIXEL_FRAMES = 5, FACE = 8 };

static struct dit_config small(bool image, bool pose, bool face)
{
    struct dit_config config = tiny(6); /* two fusers, one block beyond */
    config.image_attention = image;
    config.pose_channels = pose ? 16 : 0;
    if (face)
        config.face = (struct face_config){.size = FACE,
                                           .channels = {5, 7}, /* widths follow no rule */
                                           .every = 5,
                                           .motion_dim = 12,
                                           .motion_basis = 3,
                                           .dim = 20,
                                           .heads = 2};
    return config;
}

struct given {
    bool pose, face;
    double strength; /* of both */
    size_t cache_bytes;
    uint64_t computed; /* out */
};

static void forward_twice(struct run *run, struct given *given, float out[LATENT])
{
    struct lt_error error;
    static float x[LATENT], y[20 * F * H * W], text[3 * 24], pose[16 * (F - 1) * H * W],
        face[3 * PIXEL_FRAMES * FACE * FACE], clip[257 * 1280];
    fill_values("input.x", x, LT_COUNT(x));
    fill_values("input.y", y, LT_COUNT(y));
    fill_values("input.context", text, LT_COUNT(text));
    fill_values("input.pose", pose, LT_COUNT(pose));
    fill_values("input.face", face, LT_COUNT(face));
    fill_values("input.clip", clip, LT_COUNT(clip));
    const struct dit_prompt prompt = {.text = lt_view_2d(text, LT_TYPE_F32, 3, 24),
                                      .clip = lt_view_2d(clip, LT_TYPE_F32, 257, 1280)};
    const struct animate_window window = {
        .pose = lt_view_4d(given->pose ? pose : NULL, LT_TYPE_F32, 16, F - 1, H, W),
        .face = lt_view_4d(given->face ? face : NULL, LT_TYPE_F32, 3, PIXEL_FRAMES, FACE, FACE)};
    struct dit_options options = dit_options_default;
    options.pose_strength = options.face_strength = given->strength;
    struct dit_inputs inputs = {.x = lt_view_4d(x, LT_TYPE_F32, 16, F, H, W),
                                .y = lt_view_4d(y, LT_TYPE_F32, 20, F, H, W),
                                .timestep = 400,
                                .options = &options};
    struct lt_view v = lt_view_4d(out, LT_TYPE_F32, 16, F, H, W);
    assert_ok(dit_context_create(run->dit, &prompt, 1 << 24, &inputs.context, &error));
    assert_ok(
        animate_context_create(run->dit, &window, given->cache_bytes, &inputs.animate, &error));
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error));
    assert_ok(dit_forward(run->dit, &inputs, 1, &v, &error));
    given->computed = animate_context_computed(inputs.animate);
    animate_context_destroy(&inputs.animate);
    dit_context_destroy(&inputs.context);
}

static void what_is_constant_is_computed_once(void **state)
{
    (void)state;
    struct run run;
    struct given kept = {true, true, 1, 1 << 24, 0}, fresh = {true, true, 1, 0, 0};
    static float with[LATENT], without[LATENT];
    const struct dit_config config = small(false, true, true);
    begin(&run, &config, NULL);
    forward_twice(&run, &kept, with);
    forward_twice(&run, &fresh, without);
    struct lt_scratch told;
    struct lt_error error;
    assert_ok(dit_scratch(&config, LT_PRECISION_F32, F * H * W / 4, &told, &error));
    assert_true(lt_exec_scratch_bytes(run.exec) <= lt_scratch_bytes(&told, 2));
    assert_int_equal(kept.computed, 1 + 1 + 2);        /* motion, pose, two fusers */
    assert_int_equal(fresh.computed, 1 + 2 * (1 + 2)); /* motion once all the same */
    assert_memory_equal(with, without, sizeof with);
    end(&run);
}

/* Without its input a part does nothing; with no strength as well. */
static void parts_work_where_they_are_given(void **state)
{
    (void)state;
    struct run run;
    struct given all = {true, true, 1, 0, 0}, weak = {true, true, 0.5, 0, 0},
                 off = {true, true, 0, 0, 0}, none = {false, false, 1, 0, 0},
                 posed = {true, false, 1, 0, 0};
    static float out[5][LATENT];
    const struct dit_config config = small(false, true, true);
    begin(&run, &config, NULL);
    forward_twice(&run, &all, out[0]);
    forward_twice(&run, &weak, out[1]);
    forward_twice(&run, &posed, out[2]);
    forward_twice(&run, &off, out[3]);
    forward_twice(&run, &none, out[4]);
    assert_memory_equal(out[3], out[4], sizeof out[3]);
    for (int i = 0; i < 3; i++)
        assert_memory_not_equal(out[i], out[i + 1], sizeof out[i]);
    end(&run);
}

/* Files without some of the parts run with what they have, and what is given in vain is ignored. */
static void files_run_with_what_they_have(void **state)
{
    (void)state;
    static const bool parts[][3] = {
        /* image, pose, face */ {true, true, false}, {false, false, true}, {false, true, false}};
    for (size_t i = 0; i < LT_COUNT(parts); i++) {
        struct run run;
        struct given all = {true, true, 1, 0, 0}, own = {parts[i][1], parts[i][2], 1, 0, 0};
        static float with[LATENT], without[LATENT];
        const struct dit_config config = small(parts[i][0], parts[i][1], parts[i][2]);
        begin(&run, &config, NULL);
        forward_twice(&run, &all, with);
        forward_twice(&run, &own, without);
        assert_memory_equal(with, without, sizeof with);
        end(&run);
    }
}

/* ComfyUI keeps fusers beside the block they follow. */
static void fill_file_as_comfyui_does(struct catalogue *catalogue)
{
    static char names[64][96];
    size_t used = 0;
    for (size_t i = 0; i < catalogue->count; i++) {
        int block, length;
        const char *name = catalogue->entry[i].name;
        if (sscanf(name, "face_adapter.fuser_blocks.%d.%n", &block, &length) != 1)
            continue;
        assert_true(used < LT_COUNT(names));
        snprintf(names[used], sizeof names[used], "blocks.%d.fuser_block.%s", 5 * block,
                 name + length);
        catalogue->entry[i].name = names[used++];
    }
    assert_int_equal(used, 2 * 8);
}

/* Values follow the original names, so that both files hold the same. */
static void fill_by_original_name(const struct catalogue_entry *entry, float *to, size_t count)
{
    char name[128];
    struct catalogue_entry original = *entry;
    int block, length = 0;
    if (strstr(entry->name, ".fuser_block.") &&
        sscanf(entry->name, "blocks.%d.fuser_block.%n", &block, &length) == 1) {
        snprintf(name, sizeof name, "face_adapter.fuser_blocks.%d.%s", block / 5,
                 entry->name + length);
        original.name = name;
    }
    fill_motion(&original, to, count);
}

static void both_names_of_fusers_are_found(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    struct catalogue catalogue;
    struct given all = {true, true, 1, 0, 0};
    static float ours[LATENT], theirs[LATENT];
    const struct dit_config config = small(false, true, true);
    begin(&run, &config, NULL);
    forward_twice(&run, &all, ours);
    end(&run);
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    fill_file_as_comfyui_does(&catalogue);
    assert_ok(fill_file(path, &catalogue, fill_by_original_name, NULL, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &run.file, &error));
    assert_ok(dit_config_detect(run.file, &run.config, &error));
    run.config.text_len = config.text_len;
    assert_memory_equal(&run.config, &config, sizeof config);
    assert_ok(store_load(run.file, NULL, NULL, &run.store, &error));
    assert_ok(lt_exec_create(&(struct lt_exec_params){2, LT_PRECISION_F32}, &run.exec, &error));
    assert_ok(dit_create(&config, run.store, &run.kernels, run.exec, &run.dit, &error));
    forward_twice(&run, &all, theirs);
    assert_memory_equal(ours, theirs, sizeof ours);
    end(&run);
}

/* A fuser's weights come and go with the block before it; the pose's stay. */
static void streamed_blocks_bring_their_fusers(void **state)
{
    (void)state;
    for (int64_t every = 5; every >= 2; every -= 3)
        for (size_t on_disk = 0; on_disk <= 6; on_disk += 6) {
            const struct store_params params = {.blocks_to_swap = 6,
                                                .disk_blocks = on_disk,
                                                .group_tier =
                                                    on_disk ? STORE_TIER_DISK : STORE_TIER_RAM};
            struct run run;
            struct lt_error error;
            struct given all = {true, true, 1, 0, 0};
            static float resident[LATENT], streamed[LATENT];
            struct dit_config config = small(false, true, true);
            config.face.every = every;
            begin(&run, &config, NULL);
            forward_twice(&run, &all, resident);
            dit_destroy(&run.dit);
            store_destroy(&run.store);
            assert_ok(store_open(run.file, NULL, NULL, &params, &run.store, &error));
            assert_ok(dit_create(&config, run.store, &run.kernels, run.exec, &run.dit, &error));
            forward_twice(&run, &all, streamed);
            assert_memory_equal(resident, streamed, sizeof resident);
            end(&run);
        }
}

/* Fusers of another depth are spread evenly; when that does not go, the file is refused. */
static void fusers_of_another_depth(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    struct catalogue catalogue;
    struct given all = {true, true, 1, 1 << 20, 0};
    static float out[LATENT];
    struct dit_config config = small(false, true, true);
    config.face.every = 2; /* three fusers for six blocks */
    begin(&run, &config, NULL);
    forward_twice(&run, &all, out);
    assert_int_equal(all.computed, 1 + 1 + 3);
    end(&run);
    config.face.every = 2;
    config.layer_count = 7;
    assert_ok(catalogue_of_dit(&config, &catalogue, &error));
    assert_ok(fill_file(path, &catalogue, fill_motion, NULL, &error));
    catalogue_fini(&catalogue);
    assert_ok(tensor_file_open(path, &run.file, &error));
    assert_fails(dit_config_detect(run.file, &config, &error), LT_BAD_INPUT,
                 "4 of 'face_adapter.fuser_blocks' for 7 blocks");
    tensor_file_close(&run.file);
}

static void wrong_conditioning_is_refused(void **state)
{
    (void)state;
    struct run run;
    struct lt_error error;
    static float values[LATENT * 4];
    struct animate_context *context = NULL;
    const struct dit_config config = small(false, true, true);
    begin(&run, &config, NULL);
    struct animate_window window = {.face = lt_view_4d(values, LT_TYPE_F32, 3, 1, 4, 8)};
    assert_fails(animate_context_create(run.dit, &window, 0, &context, &error), LT_BAD_INPUT,
                 "face: expected [3, P, 8, 8]");
    const struct dit_prompt prompt = {.text = lt_view_2d(values, LT_TYPE_F32, 3, 24)};
    struct dit_inputs inputs = {.x = lt_view_4d(values, LT_TYPE_F32, 16, F, H, W),
                                .y = lt_view_4d(values, LT_TYPE_F32, 20, F, H, W)};
    struct lt_view v = inputs.x;
    assert_ok(dit_context_create(run.dit, &prompt, 0, &inputs.context, &error));
    window = (struct animate_window){.face = lt_view_4d(values, LT_TYPE_F32, 3, 9, FACE, FACE)};
    assert_ok(animate_context_create(run.dit, &window, 0, &inputs.animate, &error));
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT,
                 "face: moves 3 latent frames behind the reference, x has 2");
    animate_context_destroy(&inputs.animate);
    window = (struct animate_window){.pose = lt_view_4d(values, LT_TYPE_F32, 16, F, H, W)};
    assert_ok(animate_context_create(run.dit, &window, 0, &inputs.animate, &error));
    assert_fails(dit_forward(run.dit, &inputs, 1, &v, &error), LT_BAD_INPUT,
                 "pose: expected [16, 2, 4, 6]");
    animate_context_destroy(&inputs.animate);
    dit_context_destroy(&inputs.context);
    end(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_basis_has_lapacks_signs),
        cmocka_unit_test(a_basis_of_axes_stays_itself),
        cmocka_unit_test(motion_encoder_of_full_size),
        cmocka_unit_test(face_encoder_and_fuser),
        cmocka_unit_test(what_is_constant_is_computed_once),
        cmocka_unit_test(parts_work_where_they_are_given),
        cmocka_unit_test(files_run_with_what_they_have),
        cmocka_unit_test(both_names_of_fusers_are_found),
        cmocka_unit_test(streamed_blocks_bring_their_fusers),
        cmocka_unit_test(fusers_of_another_depth),
        cmocka_unit_test(wrong_conditioning_is_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
