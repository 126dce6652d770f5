#include "client/api.h"

#include "common/file.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TOKEN_BYTES_MAX = 1024,
    CONNECT_SECONDS = 10,
    STALLED_SECONDS = 60,
    ANSWER_BYTES_MAX = 64 << 20
};

struct api {
    CURL *curl;
    char url[512];
    char authorization[TOKEN_BYTES_MAX + 32];
};

struct answer {
    FILE *file; /* what a good answer is written to; NULL: memory */
    CURL *curl;
    char *data;
    size_t bytes;
};

/* -- life -------------------------------------------------------------------------------------- */

static lt_status read_token(struct api *api, const char *path, struct lt_error *error)
{
    void *data;
    size_t bytes;
    LT_TRY(lt_file_read(path, TOKEN_BYTES_MAX, &data, &bytes, error));
    const size_t length = strcspn(data, "\r\n");
    snprintf(api->authorization, sizeof api->authorization, "Authorization: Bearer %.*s",
             (int)length, (char *)data);
    explicit_bzero(data, bytes);
    free(data);
    return length ? LT_OK : lt_fail(error, LT_BAD_INPUT, "%s: the token is empty", path);
}

lt_status api_open(const char *url, const char *token_file, struct api **api_out,
                   struct lt_error *error)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        return lt_fail(error, LT_NO_MEMORY, "no memory");
    size_t length = strlen(url);
    while (length > 0 && url[length - 1] == '/')
        length--;
    lt_status status = LT_OK;
    if (length >= sizeof api->url ||
        (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        status = lt_fail(error, LT_USAGE,
                         "--url '%s': expected http://host:port or https://host:port", url);
    snprintf(api->url, sizeof api->url, "%.*s", (int)(length < sizeof api->url ? length : 0), url);
    if (status == LT_OK && token_file)
        status = read_token(api, token_file, error);
    if (status == LT_OK && !(api->curl = curl_easy_init()))
        status = lt_fail(error, LT_NO_MEMORY, "no memory for requests");
    if (status != LT_OK) {
        api_close(&api);
        return status;
    }
    *api_out = api;
    return LT_OK;
}

void api_close(struct api **api)
{
    if (!*api)
        return;
    if ((*api)->curl)
        curl_easy_cleanup((*api)->curl);
    explicit_bzero((*api)->authorization, sizeof(*api)->authorization);
    free(*api);
    *api = NULL;
}

/* -- requests ---------------------------------------------------------------------------------- */

static size_t take_bytes(char *data, size_t size, size_t count, void *context)
{
    struct answer *answer = context;
    long code = 0;
    (void)size; /* 1, says curl */
    curl_easy_getinfo(answer->curl, CURLINFO_RESPONSE_CODE, &code);
    if (answer->file && code == 200)
        return fwrite(data, 1, count, answer->file);
    if (answer->bytes + count > ANSWER_BYTES_MAX)
        return 0;
    char *grown = realloc(answer->data, answer->bytes + count + 1);
    if (!grown)
        return 0;
    memcpy(grown + answer->bytes, data, count);
    answer->data = grown;
    answer->bytes += count;
    answer->data[answer->bytes] = 0;
    return count;
}

/* {"error": {"status": "NOT_FOUND", "text": …}} back to what it was. */
static lt_status refused(const struct api *api, const char *path, long code, const json_t *json,
                         struct lt_error *error)
{
    const char *name = NULL, *text = NULL;
    if (json)
        json_unpack((json_t *)(uintptr_t)json, "{s:{s:s, s:s}}", "error", "status", &name, "text",
                    &text);
    for (int status = 1; name && status < LT_STATUS_COUNT; status++)
        if (strcmp(name, lt_status_name((lt_status)status)) == 0)
            return lt_fail(error, (lt_status)status, "%s", text);
    return lt_fail(error, LT_LINK, "%s%s: HTTP %ld; is this a longtake coordinator?", api->url,
                   path, code);
}

static lt_status perform(struct api *api, const char *path, const void *body, size_t bytes,
                         const char *type, struct answer *answer, long *code_out,
                         struct lt_error *error)
{
    char url[1024], content[128], reason[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    snprintf(url, sizeof url, "%s%s", api->url, path);
    snprintf(content, sizeof content, "Content-Type: %s", type ? type : "application/json");
    curl_easy_reset(api->curl);
    if (body)
        headers = curl_slist_append(headers, content);
    if (api->authorization[0])
        headers = curl_slist_append(headers, api->authorization);
    answer->curl = api->curl;
    curl_easy_setopt(api->curl, CURLOPT_URL, url);
    curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(api->curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(api->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(api->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(api->curl, CURLOPT_LOW_SPEED_TIME, (long)STALLED_SECONDS);
    curl_easy_setopt(api->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    if (body) {
        curl_easy_setopt(api->curl, CURLOPT_POST, 1L);
        curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(api->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    }
    const CURLcode result = curl_easy_perform(api->curl);
    curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, code_out);
    curl_slist_free_all(headers);
    if (result != CURLE_OK)
        return lt_fail(error, LT_LINK, "%s: %s. Is the coordinator running there? (--url)",
                       api->url, reason[0] ? reason : curl_easy_strerror(result));
    return LT_OK;
}

lt_status api_json(struct api *api, const char *path, const void *body, size_t bytes,
                   const char *type, json_t **json_out, struct lt_error *error)
{
    struct answer answer = {0};
    long code = 0;
    lt_status status = perform(api, path, body, bytes, type, &answer, &code, error);
    json_t *json =
        status == LT_OK && answer.data ? json_loadb(answer.data, answer.bytes, 0, NULL) : NULL;
    if (status == LT_OK && (code / 100 != 2 || !json))
        status = refused(api, path, code, json, error);
    free(answer.data);
    if (status != LT_OK) {
        json_decref(json);
        return status;
    }
    *json_out = json;
    return LT_OK;
}

static lt_status download(struct api *api, const char *path, const char *part,
                          struct lt_error *error)
{
    struct answer answer = {.file = fopen(part, "wb")};
    long code = 0;
    if (!answer.file)
        return lt_fail(error, LT_IO, "%s: cannot create: %s", part, strerror(errno));
    lt_status status = perform(api, path, NULL, 0, NULL, &answer, &code, error);
    json_t *json =
        status == LT_OK && answer.data ? json_loadb(answer.data, answer.bytes, 0, NULL) : NULL;
    if (status == LT_OK && code != 200)
        status = refused(api, path, code, json, error);
    if ((fflush(answer.file) != 0 || fsync(fileno(answer.file)) != 0) && status == LT_OK)
        status = lt_fail(error, LT_IO, "%s: cannot write: %s", part, strerror(errno));
    fclose(answer.file);
    json_decref(json);
    free(answer.data);
    return status;
}

lt_status api_download(struct api *api, const char *path, const char *file, bool overwrite,
                       struct lt_error *error)
{
    char part[PATH_MAX];
    struct stat info;
    if (snprintf(part, sizeof part, "%s.part", file) >= (int)sizeof part)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", file);
    if (!overwrite && stat(file, &info) == 0)
        return lt_fail(error, LT_CONFLICT,
                       "%s: it exists already; give --overwrite or another name", file);
    lt_status status = download(api, path, part, error);
    if (status == LT_OK && rename(part, file) != 0)
        status = lt_fail(error, LT_IO, "%s: cannot rename: %s", part, strerror(errno));
    if (status != LT_OK)
        unlink(part);
    return status;
}

lt_status api_job_number(const char *text, uint32_t *job_out, struct lt_error *error)
{
    char *end;
    errno = 0;
    const unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno != 0 || number > UINT32_MAX)
        return lt_fail(error, LT_USAGE, "'%s' is not a job's number ('longtake jobs' lists them)",
                       text);
    *job_out = (uint32_t)number;
    return LT_OK;
}
