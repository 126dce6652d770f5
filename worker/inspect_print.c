#include "worker/inspect.h"

#include "common/option.h"

#include <math.h>
#include <string.h>

enum { PROBLEMS_SHOWN = 40 };

static const char *kind_name(const struct inspect_report *report)
{
    static const char *const names[] = {"unknown", "transformer", "vae-z16",
                                        "vae-z48", "taew2_1",     "lora",
                                        "umt5",    "clip-vision", "wav2vec2"};
    if (report->kind == INSPECT_TAE && report->tae.patch == 2)
        return "taew2_2";
    return names[report->kind];
}

/* -- text -------------------------------------------------------------------------------------- */

static void print_safe(FILE *to, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, to);
}

static void print_lora(const struct lora_description *lora, FILE *to)
{
    fprintf(to, "keys         %s, %zu known\n", lora_form_name(lora->form), lora->key_count);
    fprintf(to, "pairs        %zu, rank %lld to %lld\n", lora->pair_count,
            (long long)lora->rank_min, (long long)lora->rank_max);
    if (lora->alpha_count > 0)
        fprintf(to, "alpha        %g to %g, of %zu\n", lora->alpha_min, lora->alpha_max,
                lora->alpha_count);
    else if (lora->pair_count > 0)
        fprintf(to, "alpha        none\n");
    if (lora->diff_count + lora->dora_count > 0)
        fprintf(to, "also         %zu differences of whole tensors, %zu DoRA magnitudes\n",
                lora->diff_count, lora->dora_count);
    if (lora->both_experts)
        fprintf(to, "experts      both: say which one when it is used\n");
}

static void print_model(const struct inspect_report *report, FILE *to)
{
    const struct dit_config *config = &report->config;
    char low[32], high[32], rest[32];
    switch (report->kind) {
    case INSPECT_TRANSFORMER:
        fprintf(to, "variant      %s\n", dit_variant_name(config->variant));
        fprintf(to,
                "sizes        width %lld, %lld heads, feed-forward %lld, %lld blocks, %lld to %lld "
                "channels, text %lld\n",
                (long long)config->dim, (long long)config->head_count, (long long)config->ffn_dim,
                (long long)config->layer_count, (long long)config->in_channels,
                (long long)config->out_channels, (long long)config->text_dim);
        fprintf(to, "blocks       %s to %s each, the rest %s\n",
                lt_size_format(report->block_bytes_min, low),
                lt_size_format(report->block_bytes_max, high),
                lt_size_format(report->rest_bytes, rest));
        break;
    case INSPECT_VAE_Z16:
        fprintf(to, "sizes        width %lld, %lld latent channels%s\n", (long long)report->vae.dim,
                (long long)report->vae.channels, report->vae.dim == 24 ? " (lightVAE)" : "");
        break;
    case INSPECT_VAE_Z48:
        fprintf(to, "sizes        widths %lld and %lld, %lld latent channels (for TI2V-5B)\n",
                (long long)report->vae.dim, (long long)report->vae.decoder_dim,
                (long long)report->vae.channels);
        break;
    case INSPECT_TAE:
        fprintf(to, "sizes        width %lld, %lld latent channels (for previews)\n",
                (long long)report->tae.dim, (long long)report->tae.channels);
        break;
    case INSPECT_LORA:
        print_lora(&report->lora, to);
        break;
    case INSPECT_TEXT:
        fprintf(to,
                "sizes        width %lld, %lld heads, feed-forward %lld, %lld blocks, %lld tokens\n"
                "vocabulary   %s\n",
                (long long)report->text.dim, (long long)report->text.head_count,
                (long long)report->text.ffn_dim, (long long)report->text.layer_count,
                (long long)report->text.vocabulary_rows,
                report->has_vocabulary ? "inside" : "none: give spiece.model as well");
        fprintf(to, "blocks       %s to %s each, the rest %s\n",
                lt_size_format(report->block_bytes_min, low),
                lt_size_format(report->block_bytes_max, high),
                lt_size_format(report->rest_bytes, rest));
        break;
    case INSPECT_VISION:
        fprintf(to,
                "sizes        width %lld, feed-forward %lld, %lld blocks, pictures of %lld x %lld "
                "in %lld tokens\n",
                (long long)report->vision.width, (long long)report->vision.ffn_dim,
                (long long)report->vision.layer_count,
                (long long)vision_image_size(&report->vision),
                (long long)vision_image_size(&report->vision),
                (long long)vision_token_count(&report->vision));
        break;
    case INSPECT_AUDIO:
        fprintf(to, "sizes        width %lld, feed-forward %lld, %lld blocks, %d frames a second\n",
                (long long)report->audio.width, (long long)report->audio.ffn_dim,
                (long long)report->audio.layer_count, AUDIO_FPS);
        break;
    case INSPECT_UNKNOWN:
        break;
    }
}

void inspect_print(const struct tensor_file *file, const struct inspect_report *report, FILE *to)
{
    char size[32], digest[LT_DIGEST_HEX];
    lt_digest_format(&report->fingerprint, digest);
    fprintf(to, "file         ");
    print_safe(to, tensor_file_path(file));
    fprintf(to, "\nformat       %s, %s\n", tensor_file_format(file),
            lt_size_format(tensor_file_bytes(file), size));
    fprintf(to, "fingerprint  %s\n", digest);
    lt_digest_format(&report->content, digest);
    if (!lt_digest_is_zero(&report->content))
        fprintf(to, "sha256       %s\n", digest);
    fprintf(to, "kind         %s\n", kind_name(report));
    print_model(report, to);
    fprintf(to, "tensors      %zu, %.3f M parameters\n", tensor_file_count(file),
            (double)report->parameters * 1e-6);
    for (size_t i = 0; i < report->type_count; i++)
        fprintf(to, "  %-10s %6zu  %s\n", lt_type_info(report->type[i].type)->name,
                report->type[i].tensors, lt_size_format(report->type[i].bytes, size));
    if (tensor_file_count(file) > 0) {
        const struct tensor_info *largest = tensor_file_at(file, report->largest);
        fprintf(to, "largest      ");
        print_safe(to, largest->name);
        fprintf(to, ", %s\n", lt_size_format(largest->bytes, size));
    }
    fprintf(to, "problems     %zu\n", report->problem_count);
    for (size_t i = 0; i < report->problem_count && i < PROBLEMS_SHOWN; i++)
        fprintf(to, "  %s\n", report->problem[i]);
    if (report->problem_count > PROBLEMS_SHOWN)
        fprintf(to, "  and %zu more\n", report->problem_count - PROBLEMS_SHOWN);
}

/* -- JSON -------------------------------------------------------------------------------------- */

/* Bytes that are not printable ASCII become \u00XX: the output is JSON whatever the names are. */
static void print_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

static double finite_or_zero(double value)
{
    return isfinite(value) ? value : 0; /* JSON knows no other numbers */
}

static void print_json_lora(const struct lora_description *lora, FILE *to)
{
    fprintf(to,
            ", \"form\": \"%s\", \"keys\": %zu, \"pairs\": %zu, \"rank_min\": %lld, "
            "\"rank_max\": %lld, \"alphas\": %zu, \"alpha_min\": %.9g, \"alpha_max\": %.9g, "
            "\"differences\": %zu, \"magnitudes\": %zu, \"both_experts\": %s",
            lora_form_name(lora->form), lora->key_count, lora->pair_count,
            (long long)lora->rank_min, (long long)lora->rank_max, lora->alpha_count,
            finite_or_zero(lora->alpha_min), finite_or_zero(lora->alpha_max), lora->diff_count,
            lora->dora_count, lora->both_experts ? "true" : "false");
}

static void print_json_text(const struct inspect_report *report, FILE *to)
{
    fprintf(to,
            ", \"dim\": %lld, \"heads\": %lld, \"ffn\": %lld, \"layers\": %lld, \"tokens\": %lld, "
            "\"vocabulary\": %s",
            (long long)report->text.dim, (long long)report->text.head_count,
            (long long)report->text.ffn_dim, (long long)report->text.layer_count,
            (long long)report->text.vocabulary_rows, report->has_vocabulary ? "true" : "false");
}

static void print_json_model(const struct inspect_report *report, FILE *to)
{
    const struct dit_config *config = &report->config;
    if (report->kind == INSPECT_TRANSFORMER)
        fprintf(to,
                ", \"variant\": \"%s\", \"dim\": %lld, \"heads\": %lld, \"ffn\": %lld, \"layers\": "
                "%lld, \"in_channels\": %lld, \"out_channels\": %lld, \"text_dim\": %lld, "
                "\"freq_dim\": %lld",
                dit_variant_name(config->variant), (long long)config->dim,
                (long long)config->head_count, (long long)config->ffn_dim,
                (long long)config->layer_count, (long long)config->in_channels,
                (long long)config->out_channels, (long long)config->text_dim,
                (long long)config->freq_dim);
    if (report->kind == INSPECT_TAE)
        fprintf(to, ", \"dim\": %lld, \"z\": %lld", (long long)report->tae.dim,
                (long long)report->tae.channels);
    if (report->kind == INSPECT_LORA)
        print_json_lora(&report->lora, to);
    if (report->kind == INSPECT_TEXT)
        print_json_text(report, to);
    if (report->kind == INSPECT_VAE_Z16 || report->kind == INSPECT_VAE_Z48)
        fprintf(to, ", \"dim\": %lld, \"z\": %lld", (long long)report->vae.dim,
                (long long)report->vae.channels);
    if (report->kind == INSPECT_VISION)
        fprintf(to, ", \"dim\": %lld, \"ffn\": %lld, \"layers\": %lld, \"size\": %lld",
                (long long)report->vision.width, (long long)report->vision.ffn_dim,
                (long long)report->vision.layer_count,
                (long long)vision_image_size(&report->vision));
    if (report->kind == INSPECT_AUDIO)
        fprintf(to, ", \"dim\": %lld, \"ffn\": %lld, \"layers\": %lld",
                (long long)report->audio.width, (long long)report->audio.ffn_dim,
                (long long)report->audio.layer_count);
}

void inspect_print_json(const struct tensor_file *file, const struct inspect_report *report,
                        FILE *to)
{
    char digest[LT_DIGEST_HEX];
    lt_digest_format(&report->fingerprint, digest);
    fprintf(to, "{\"file\": ");
    print_string(to, tensor_file_path(file));
    fprintf(to, ", \"format\": \"%s\", \"bytes\": %llu, \"fingerprint\": \"%s\", \"kind\": \"%s\"",
            tensor_file_format(file), (unsigned long long)tensor_file_bytes(file), digest,
            kind_name(report));
    lt_digest_format(&report->content, digest);
    if (!lt_digest_is_zero(&report->content))
        fprintf(to, ", \"sha256\": \"%s\"", digest);
    print_json_model(report, to);
    fprintf(to, ", \"parameters\": %llu, \"tensors\": %zu, \"tensor_bytes\": %llu, \"types\": {",
            (unsigned long long)report->parameters, tensor_file_count(file),
            (unsigned long long)report->tensor_bytes);
    for (size_t i = 0; i < report->type_count; i++)
        fprintf(to, "%s\"%s\": {\"tensors\": %zu, \"bytes\": %llu}", i ? ", " : "",
                lt_type_info(report->type[i].type)->name, report->type[i].tensors,
                (unsigned long long)report->type[i].bytes);
    fprintf(to,
            "}, \"blocks\": %zu, \"block_bytes_min\": %llu, \"block_bytes_max\": %llu, "
            "\"rest_bytes\": %llu",
            report->block_count, (unsigned long long)report->block_bytes_min,
            (unsigned long long)report->block_bytes_max, (unsigned long long)report->rest_bytes);
    if (tensor_file_count(file) > 0) {
        fprintf(to, ", \"largest\": {\"name\": ");
        print_string(to, tensor_file_at(file, report->largest)->name);
        fprintf(to, ", \"bytes\": %llu}",
                (unsigned long long)tensor_file_at(file, report->largest)->bytes);
    }
    fprintf(to, ", \"problems\": [");
    for (size_t i = 0; i < report->problem_count; i++) {
        fprintf(to, "%s", i ? ", " : "");
        print_string(to, report->problem[i]);
    }
    fprintf(to, "]}\n");
}
