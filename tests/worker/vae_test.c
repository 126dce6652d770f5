/* If the VAE differed from the original, every frame would be blurred, shifted or flicker at latent
 * boundaries. Goldens: tests/golden/vae, from diffusers' AutoencoderKLWan in f32. */
#include "tests/worker/vae_model.h"

static const struct shape small = {"small", 8, 4, 4, 6, 0}, full = {"full", 96, 16, 4, 4, 0};
static const int64_t lengths[] = {1, 2, 3, 5, 0}, two[] = {2, 0}, three[] = {3, 0};

static void small_vae(void **state)
{
    (void)state;
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
        write_file(&small, (enum vae_part)part);
        all_lengths(&small, (enum vae_part)part, "ref", LT_PRECISION_F32, three, 1e-4);
        all_lengths(&small, (enum vae_part)part, "best", LT_PRECISION_F32, lengths, 1e-4);
    }
}

/* At two latent frames every convolution has a frame before it and every resampling its other half;
 * more of them is the small one's part. */
static void full_width_vae(void **state)
{
    (void)state;
    for (int part = VAE_DECODER; part <= VAE_ENCODER; part++) {
        write_file(&full, (enum vae_part)part);
        all_lengths(&full, (enum vae_part)part, "best", LT_PRECISION_F32, two, 1e-4);
        /* bf16 keeps 8 bits: 2^-9 a rounding, over some thirty layers of residual sums */
        all_lengths(&full, (enum vae_part)part, "best", LT_PRECISION_BF16, two, 3e-2);
    }
}

static int open_goldens(void **state)
{
    (void)state;
    return begin("vae.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vae),
        cmocka_unit_test(full_width_vae),
    };
    return cmocka_run_group_tests(tests, open_goldens, end);
}
