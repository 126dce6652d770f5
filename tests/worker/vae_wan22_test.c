/* If the VAE of TI2V-5B differed from the original, its frames would be checkered (folded pixels in
 * a wrong order), washed out (a shortcut left out) or flicker at latent boundaries. Goldens:
 * tests/golden/vae, from diffusers' AutoencoderKLWan in its 2.2 configuration, f32. */
#include "tests/worker/vae_model.h"

static const struct shape shapes[] = {
    {"a", 8, 6, 2, 3, 16}, {"b", 10, 5, 3, 1, 12}, {"c", 16, 48, 1, 2, 24}};
static const int64_t lengths[] = {1, 2, 3, 5, 0}, last[] = {5, 0};

static void matches_the_original(void **state)
{
    (void)state;
    for (size_t i = 0; i < LT_COUNT(shapes); i++)
        for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
            write_file(&shapes[i], (enum vae_part)part);
            all_lengths(&shapes[i], (enum vae_part)part, "best", LT_PRECISION_F32, lengths, 1e-4);
            /* bf16 keeps 8 bits: 2^-9 a rounding, over some forty layers of residual sums */
            all_lengths(&shapes[i], (enum vae_part)part, "best", LT_PRECISION_BF16, last, 3e-2);
        }
}

static void matches_the_original_by_the_reference(void **state)
{
    (void)state;
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
        write_file(&shapes[2], (enum vae_part)part);
        all_lengths(&shapes[2], (enum vae_part)part, "ref", LT_PRECISION_F32, last, 1e-4);
    }
}

static int open_goldens(void **state)
{
    (void)state;
    return begin("z48.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_original),
        cmocka_unit_test(matches_the_original_by_the_reference),
    };
    return cmocka_run_group_tests(tests, open_goldens, end);
}
