/* Connections, bodies and tokens; routes.c knows what is asked. */
#include "coordinator/http/route.h"

#include "common/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 256, SILENT_SECONDS_MAX = 60 };

struct http_server {
    struct http_params params;
    struct http_metrics *metrics;
    char *token;
    struct MHD_Daemon *daemon;
    int socket;
};

/* One request under way: its body so far. */
struct exchange {
    const struct http_route *route;
    uint32_t job;
    char *body;
    size_t bytes, room;
    lt_status status; /* not LT_OK: refused already, the rest of the body is dropped */
    struct lt_error error;
    unsigned code; /* of the refusal; 0: by status */
};

/* -- answers ----------------------------------------------------------------------------------- */

static enum MHD_Result send_response(struct MHD_Connection *connection, unsigned code,
                                     struct MHD_Response *response, const char *type)
{
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (code == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    const enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned code, char *text,
                                 const char *type)
{
    return send_response(connection, code,
                         MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE),
                         type);
}

static enum MHD_Result send_json(struct MHD_Connection *connection, unsigned code, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(json);
    return text ? send_text(connection, code, text, "application/json") : MHD_NO;
}

static enum MHD_Result send_error(struct MHD_Connection *connection, unsigned code,
                                  const struct lt_error *error)
{
    return send_json(connection, code ? code : http_error_code(error->code),
                     http_error_json(error));
}

static enum MHD_Result send_file(struct MHD_Connection *connection, int file, const char *type)
{
    struct stat info;
    if (fstat(file, &info) != 0 || info.st_size < 0) {
        close(file);
        return MHD_NO;
    }
    return send_response(connection, MHD_HTTP_OK,
                         MHD_create_response_from_fd64((uint64_t)info.st_size, file), type);
}

static enum MHD_Result answer(const struct http_server *server, struct MHD_Connection *connection,
                              const struct exchange *exchange)
{
    const struct http_request request = {
        .server = &server->params,
        .metrics = server->metrics,
        .body = exchange->body,
        .body_bytes = exchange->bytes,
        .job = exchange->job,
        .priority = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "priority"),
    };
    struct http_response response = {.file = -1};
    struct lt_error error = {0};
    const lt_status status = exchange->route->handle(&request, &response, &error);
    const unsigned code = response.status ? response.status : MHD_HTTP_OK;
    if (status != LT_OK)
        return send_error(connection, 0, &error);
    if (response.file >= 0)
        return send_file(connection, response.file, response.file_type);
    return response.text ? send_text(connection, code, response.text, response.text_type)
                         : send_json(connection, code, response.json);
}

/* -- requests ---------------------------------------------------------------------------------- */

/* Takes as long for every token of a length, right or wrong. */
static bool token_fits(const char *given, const char *token)
{
    static const char scheme[] = "Bearer ";
    if (!given || strncmp(given, scheme, sizeof scheme - 1) != 0)
        return false;
    given += sizeof scheme - 1;
    const size_t length = strlen(token);
    unsigned difference = strlen(given) != length;
    for (size_t i = 0; i < length && given[i]; i++)
        difference |= (unsigned)(given[i] ^ token[i]);
    return difference == 0;
}

static lt_status refuse(struct exchange *exchange, unsigned code, lt_status status,
                        const char *text)
{
    exchange->code = code;
    exchange->status = lt_fail(&exchange->error, status, "%s", text);
    return status;
}

/* The content type is asked for because a browser cannot send it to another site without asking
 * first. */
static lt_status check(const struct http_server *server, struct MHD_Connection *connection,
                       const char *method, const char *url, struct exchange *exchange)
{
    bool path_known;
    const char *type =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    const char *authorization =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    const struct http_route *route = http_route_find(method, url, &exchange->job, &path_known);
    exchange->route = route;
    if (server->token && !(route && route->open) && !token_fits(authorization, server->token))
        return refuse(exchange, MHD_HTTP_UNAUTHORIZED, LT_USAGE,
                      "a token is needed: Authorization: Bearer … (longtake --token-file)");
    if (!route)
        return path_known ? refuse(exchange, MHD_HTTP_METHOD_NOT_ALLOWED, LT_USAGE,
                                   "this path has another method")
                          : refuse(exchange, MHD_HTTP_NOT_FOUND, LT_NOT_FOUND,
                                   "no such path; docs/operations.md has them");
    if (strcmp(method, "POST") == 0 &&
        !(type && route->body_type &&
          strncmp(type, route->body_type, strlen(route->body_type)) == 0)) {
        refuse(exchange, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, LT_BAD_INPUT, "");
        return lt_fail(&exchange->error, LT_BAD_INPUT, "Content-Type: expected %s, found %s",
                       route->body_type ? route->body_type : "application/json",
                       type ? type : "none");
    }
    return LT_OK;
}

static void take_body(struct exchange *exchange, const char *data, size_t bytes)
{
    if (exchange->status != LT_OK)
        return;
    if (bytes > exchange->route->body_max - exchange->bytes) {
        refuse(exchange, MHD_HTTP_CONTENT_TOO_LARGE, LT_BAD_INPUT, "");
        lt_fail(&exchange->error, LT_BAD_INPUT, "the body is longer than %zu bytes",
                exchange->route->body_max);
        return;
    }
    if (exchange->bytes + bytes > exchange->room) {
        const size_t room = 2 * exchange->room > exchange->bytes + bytes ? 2 * exchange->room
                                                                         : exchange->bytes + bytes;
        char *grown = realloc(exchange->body, room);
        if (!grown) {
            refuse(exchange, 0, LT_NO_MEMORY, "no memory for the body");
            return;
        }
        exchange->body = grown;
        exchange->room = room;
    }
    memcpy(exchange->body + exchange->bytes, data, bytes);
    exchange->bytes += bytes;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **state)
{
    const struct http_server *server = context;
    struct exchange *exchange = *state;
    (void)version;
    if (!exchange) {
        *state = exchange = calloc(1, sizeof *exchange);
        if (!exchange)
            return MHD_NO;
        exchange->status = check(server, connection, method, url, exchange);
        /* a refusal is sent at once: a long body is not waited for */
        return exchange->status == LT_OK ? MHD_YES
                                         : send_error(connection, exchange->code, &exchange->error);
    }
    if (*upload_bytes > 0) {
        take_body(exchange, upload, *upload_bytes);
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (exchange->status != LT_OK)
        return send_error(connection, exchange->code, &exchange->error);
    return answer(server, connection, exchange);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *state;
    (void)context;
    (void)connection;
    (void)how;
    if (exchange)
        free(exchange->body);
    free(exchange);
    *state = NULL;
}

/* -- life -------------------------------------------------------------------------------------- */

static lt_status split_address(const char *address, char host[256], char port[8],
                               struct lt_error *error)
{
    const char *colon = strrchr(address, ':');
    const size_t length = colon ? (size_t)(colon - address) : 0;
    const bool bracketed = length > 2 && address[0] == '[' && address[length - 1] == ']';
    const long number = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (length == 0 || length > 250 || number < 1 || number > 65535)
        return lt_fail(error, LT_USAGE, "address '%s': expected host:port, port 1 to 65535",
                       address);
    snprintf(host, 256, "%.*s", (int)(bracketed ? length - 2 : length),
             bracketed ? address + 1 : address);
    snprintf(port, 8, "%ld", number);
    return LT_OK;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 ==
               127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static lt_status listen_on(struct http_server *server, struct lt_error *error)
{
    char host[256], port[8];
    struct addrinfo *found;
    const int one = 1;
    LT_TRY(split_address(server->params.address, host, port, error));
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return lt_fail(error, LT_USAGE, "address '%s': no such host", server->params.address);
    lt_status status = LT_OK;
    if (!is_loopback(found->ai_addr) && !server->token && !server->params.insecure)
        status = lt_fail(error, LT_USAGE,
                         "%s is not a loopback address: give --token-file, or accept the risk with "
                         "--insecure",
                         server->params.address);
    if (status == LT_OK)
        server->socket = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (status == LT_OK &&
        (server->socket < 0 ||
         setsockopt(server->socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
         bind(server->socket, found->ai_addr, found->ai_addrlen) != 0 ||
         listen(server->socket, CONNECTIONS_MAX) != 0))
        status = lt_fail(error, errno == EADDRINUSE ? LT_BUSY : LT_IO, "cannot listen on %s: %s",
                         server->params.address, strerror(errno));
    freeaddrinfo(found);
    return status;
}

lt_status http_server_start(const struct http_params *params, struct http_server **server_out,
                            struct lt_error *error)
{
    struct http_server *server = calloc(1, sizeof *server);
    if (!server)
        return lt_fail(error, LT_NO_MEMORY, "no memory for the API");
    server->params = *params;
    server->socket = -1;
    server->token = params->token ? strdup(params->token) : NULL;
    lt_status status = http_metrics_create(&server->metrics, error);
    if (status == LT_OK)
        status = listen_on(server, error);
    if (status == LT_OK) {
        server->daemon = MHD_start_daemon(
            MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, 0, NULL, NULL, on_request, server,
            MHD_OPTION_LISTEN_SOCKET, server->socket, MHD_OPTION_CONNECTION_LIMIT,
            (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SILENT_SECONDS_MAX,
            MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
        if (!server->daemon)
            status = lt_fail(error, LT_INTERNAL, "cannot start the API on %s", params->address);
    }
    if (status != LT_OK) {
        http_server_stop(&server);
        return status;
    }
    *server_out = server;
    return LT_OK;
}

void http_server_stop(struct http_server **server)
{
    struct http_server *s = *server;
    if (!s)
        return;
    if (s->daemon)
        MHD_stop_daemon(s->daemon); /* closes the socket */
    else if (s->socket >= 0)
        close(s->socket);
    http_metrics_destroy(&s->metrics);
    free(s->token);
    free(s);
    *server = NULL;
}
