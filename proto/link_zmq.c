/* Sockets: control and bulk, plus an eventfd that wakes a waiting receive. Every packet is
 * [routing id (ROUTER only)][header][body][payload (CHUNK only)]; anything else is dropped, counted
 * and logged. */
#include "proto/link_zmq.h"

#include "common/file.h"
#include "common/log.h"
#include "proto/frame.h"
#include "proto/zap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { PARTS_MAX = 4, KEY_TEXT = 41, ENDPOINT_BYTES = 512 };

struct zmq_link {
    struct lt_link link;
    bool router;
    void *context, *socket[2]; /* by enum lt_channel */
    int wake_fd;
    uint32_t sequence;
    uint64_t rejected;
    struct lt_zap *zap;
    struct lt_arena arena;     /* of the packet last received */
    zmq_msg_t part[PARTS_MAX]; /* of the packet last received */
    int part_count;
    int turn; /* the channel looked at first, in turns */
};

/* -- sending and receiving --------------------------------------------------------------------- */

static lt_status send_failed(struct lt_error *error)
{
    if (errno == EAGAIN)
        return lt_fail(error, LT_BUSY, "the peer's queue is full");
    return lt_fail(error, LT_LINK, "cannot send: %s", zmq_strerror(errno));
}

static lt_status zmq_link_send(struct lt_link *link, const struct lt_packet *packet,
                               struct lt_error *error)
{
    struct zmq_link *l = (struct zmq_link *)(void *)link;
    struct lt_arena arena;
    uint8_t header[LT_FRAME_HEADER_BYTES], *body = NULL;
    size_t body_bytes = 0;
    void *socket = l->socket[lt_message_channel(packet->message.kind)];
    lt_arena_init(&arena, 0);
    lt_status status =
        lt_frame_pack(&packet->message, ++l->sequence, &arena, header, &body, &body_bytes, error);
    const int more = ZMQ_SNDMORE | ZMQ_DONTWAIT, last = ZMQ_DONTWAIT;
    /* Only the first part of a message can be refused: the others go with it. */
    if (status == LT_OK && l->router &&
        zmq_send(socket, packet->peer.id, sizeof packet->peer.id, more) < 0)
        status = send_failed(error);
    if (status == LT_OK && zmq_send(socket, header, sizeof header, more) < 0)
        status = send_failed(error);
    if (status == LT_OK &&
        zmq_send(socket, body, body_bytes, packet->payload_bytes ? more : last) < 0)
        status = send_failed(error);
    if (status == LT_OK && packet->payload_bytes &&
        zmq_send(socket, packet->payload, packet->payload_bytes, last) < 0)
        status = send_failed(error);
    if (status == LT_OK) {
        struct lt_traffic *traffic = &link->traffic[lt_message_channel(packet->message.kind)];
        traffic->sent_bytes += sizeof header + body_bytes + packet->payload_bytes;
        traffic->sent_payload_bytes += packet->payload_bytes;
    }
    lt_arena_fini(&arena);
    return status;
}

static void close_parts(struct zmq_link *l)
{
    for (int i = 0; i < l->part_count; i++)
        zmq_msg_close(&l->part[i]);
    l->part_count = 0;
}

/* Takes all parts of one message; surplus parts are thrown away and make it invalid. False: nothing
 * there. */
static bool take_parts(struct zmq_link *l, void *socket, bool *valid)
{
    int more = 1;
    size_t more_bytes = sizeof more;
    *valid = true;
    close_parts(l);
    for (bool first = true; more; first = false) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            if (first)
                return false;
            *valid = false;
            return true;
        }
        if (l->part_count < PARTS_MAX) {
            l->part[l->part_count++] = part;
        } else {
            zmq_msg_close(&part);
            *valid = false;
        }
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes);
    }
    return true;
}

static lt_status unpack(struct zmq_link *l, struct lt_packet *packet, struct lt_error *error)
{
    const int first = l->router ? 1 : 0, count = l->part_count - first;
    if (count < 2 || count > 3)
        return lt_fail(error, LT_BAD_INPUT, "a message of %d parts", l->part_count);
    *packet = (struct lt_packet){0};
    if (l->router) {
        if (zmq_msg_size(&l->part[0]) != sizeof packet->peer.id)
            return lt_fail(error, LT_BAD_INPUT, "a routing id of %zu bytes",
                           zmq_msg_size(&l->part[0]));
        memcpy(packet->peer.id, zmq_msg_data(&l->part[0]), sizeof packet->peer.id);
    }
    if (count == 3) {
        packet->payload = zmq_msg_data(&l->part[first + 2]);
        packet->payload_bytes = zmq_msg_size(&l->part[first + 2]);
    }
    lt_arena_rewind(&l->arena, (struct lt_mark){0});
    return lt_frame_unpack(zmq_msg_data(&l->part[first]), zmq_msg_size(&l->part[first]),
                           zmq_msg_data(&l->part[first + 1]), zmq_msg_size(&l->part[first + 1]),
                           packet->payload_bytes, l->router, &l->arena, &packet->message, error);
}

static void count_received(struct zmq_link *l, enum lt_channel channel,
                           const struct lt_packet *packet)
{
    struct lt_traffic *traffic = &l->link.traffic[channel];
    for (int i = l->router ? 1 : 0; i < l->part_count; i++)
        traffic->received_bytes += zmq_msg_size(&l->part[i]);
    traffic->received_payload_bytes += packet->payload_bytes;
}

/* Looks at both channels once, control and bulk in turns, so that neither starves the other. */
static bool receive_now(struct zmq_link *l, struct lt_packet *packet)
{
    for (int i = 0; i < 2; i++) {
        bool valid;
        const int channel = (l->turn + i) % 2;
        while (take_parts(l, l->socket[channel], &valid)) {
            struct lt_error error;
            if (valid && unpack(l, packet, &error) == LT_OK &&
                lt_message_channel(packet->message.kind) == (enum lt_channel)channel) {
                l->turn = 1 - channel;
                count_received(l, (enum lt_channel)channel, packet);
                return true;
            }
            l->rejected++;
            lt_log(LT_LOG_WARN, "wire.rejected", "%s", valid ? error.text : "too many parts");
        }
    }
    return false;
}

static lt_status zmq_link_receive(struct lt_link *link, int timeout_ms,
                                  struct lt_packet *packet_out, bool *got_out,
                                  struct lt_error *error)
{
    struct zmq_link *l = (struct zmq_link *)(void *)link;
    *got_out = receive_now(l, packet_out);
    if (*got_out || timeout_ms == 0)
        return LT_OK;
    zmq_pollitem_t items[] = {{l->socket[0], 0, ZMQ_POLLIN, 0},
                              {l->socket[1], 0, ZMQ_POLLIN, 0},
                              {NULL, l->wake_fd, ZMQ_POLLIN, 0}};
    if (zmq_poll(items, 3, timeout_ms) < 0 && errno != EINTR)
        return lt_fail(error, LT_LINK, "cannot wait for packets: %s", zmq_strerror(errno));
    if (items[2].revents) {
        uint64_t count;
        if (read(l->wake_fd, &count, sizeof count) < 0)
            return LT_OK; /* somebody else's wake: nothing to take */
    }
    *got_out = receive_now(l, packet_out);
    return LT_OK;
}

static void zmq_link_wake(struct lt_link *link)
{
    struct zmq_link *l = (struct zmq_link *)(void *)link;
    const uint64_t one = 1;
    if (write(l->wake_fd, &one, sizeof one) < 0)
        lt_log(LT_LOG_DEBUG, "wire.wake", "already awake");
}

static void zmq_link_destroy(struct lt_link *link)
{
    struct zmq_link *l = (struct zmq_link *)(void *)link;
    close_parts(l);
    for (int i = 0; i < 2; i++)
        if (l->socket[i])
            zmq_close(l->socket[i]);
    lt_zap_stop(&l->zap);
    if (l->context)
        zmq_ctx_term(l->context);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    lt_arena_fini(&l->arena);
    free(l);
}

static const struct lt_link_ops zmq_ops = {zmq_link_send, zmq_link_receive, zmq_link_wake,
                                           zmq_link_destroy};

/* -- endpoints --------------------------------------------------------------------------------- */

static bool is_local(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "tcp://127.", 10) == 0 ||
           strncmp(endpoint, "tcp://localhost:", 16) == 0 ||
           strncmp(endpoint, "tcp://[::1]:", 12) == 0;
}

static lt_status bulk_endpoint(const char *endpoint, char bulk[ENDPOINT_BYTES],
                               struct lt_error *error)
{
    const char *colon = strrchr(endpoint, ':');
    char *end;
    if (strlen(endpoint) > ENDPOINT_BYTES - 16)
        return lt_fail(error, LT_USAGE, "address '%.64s…' is too long", endpoint);
    if (strncmp(endpoint, "ipc://", 6) == 0 && endpoint[6]) {
        snprintf(bulk, ENDPOINT_BYTES, "%s.bulk", endpoint);
        return LT_OK;
    }
    const long port = colon ? strtol(colon + 1, &end, 10) : 0;
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon <= endpoint + 5 || *end || port < 1 ||
        port > 65534)
        return lt_fail(error, LT_USAGE,
                       "address '%s': expected tcp://host:port (port 1 to 65534) or ipc:///path",
                       endpoint);
    snprintf(bulk, ENDPOINT_BYTES, "%.*s:%ld", (int)(colon - endpoint), endpoint, port + 1);
    return LT_OK;
}

/* -- keys -------------------------------------------------------------------------------------- */

static lt_status read_key(const char *path, char key[KEY_TEXT], struct lt_error *error)
{
    void *data;
    size_t bytes;
    uint8_t raw[32];
    LT_TRY(lt_file_read(path, 4096, &data, &bytes, error));
    const size_t length = strcspn(data, " \r\n\t");
    const bool whole = length == KEY_TEXT - 1;
    if (whole) {
        memcpy(key, data, length);
        key[length] = 0;
    }
    explicit_bzero(data, bytes);
    free(data);
    if (!whole || !zmq_z85_decode(raw, key))
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: expected a key of 40 Z85 characters (made by 'longtake keygen')", path);
    return LT_OK;
}

lt_status lt_keygen(const char *path, struct lt_error *error)
{
    char public_key[KEY_TEXT], secret[KEY_TEXT], public_path[4096], text[KEY_TEXT + 1];
    if (zmq_curve_keypair(public_key, secret) != 0)
        return lt_fail(error, LT_UNSUPPORTED, "this libzmq has no CURVE encryption");
    if (snprintf(public_path, sizeof public_path, "%s.pub", path) >= (int)sizeof public_path)
        return lt_fail(error, LT_BAD_INPUT, "%s: path too long", path);
    if (access(path, F_OK) == 0 || access(public_path, F_OK) == 0)
        return lt_fail(error, LT_CONFLICT,
                       "%s: a key is already there; remove it first if it is not used", path);
    const mode_t before = umask(0077);
    snprintf(text, sizeof text, "%s\n", secret);
    lt_status status = lt_file_write(path, text, KEY_TEXT, true, error);
    umask(before);
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(text, sizeof text);
    if (status != LT_OK)
        return status;
    snprintf(text, sizeof text, "%s\n", public_key);
    return lt_file_write(public_path, text, KEY_TEXT, true, error);
}

static lt_status check_security(const struct lt_zmq_params *params, bool router,
                                struct lt_error *error)
{
    if (!params->key_file && !params->insecure && !is_local(params->endpoint))
        return lt_fail(error, LT_USAGE,
                       "%s is not a local address: it needs encryption. Make keys with 'longtake "
                       "keygen' and give --key%s, "
                       "or accept the risk with --insecure",
                       params->endpoint, router ? " and --authorized" : " and --server-key");
    if (params->key_file && router && !params->authorized_file)
        return lt_fail(error, LT_USAGE,
                       "--key needs --authorized: the file with the public keys of your workers");
    if (params->key_file && !router && !params->server_key_file)
        return lt_fail(error, LT_USAGE, "--key needs --server-key: the coordinator's .pub file");
    return LT_OK;
}

static lt_status set_keys(struct zmq_link *l, const struct lt_zmq_params *params,
                          struct lt_error *error)
{
    char secret[KEY_TEXT], own[KEY_TEXT], server[KEY_TEXT];
    const int one = 1;
    LT_TRY(read_key(params->key_file, secret, error));
    if (l->router) {
        LT_TRY(lt_zap_start(l->context, params->authorized_file, &l->zap, error));
    } else {
        LT_TRY(read_key(params->server_key_file, server, error));
        zmq_curve_public(own, secret);
    }
    for (int i = 0; i < 2; i++) {
        zmq_setsockopt(l->socket[i], ZMQ_CURVE_SECRETKEY, secret, KEY_TEXT);
        if (l->router) {
            zmq_setsockopt(l->socket[i], ZMQ_CURVE_SERVER, &one, sizeof one);
            zmq_setsockopt(l->socket[i], ZMQ_ZAP_DOMAIN, "longtake", 8);
        } else {
            zmq_setsockopt(l->socket[i], ZMQ_CURVE_PUBLICKEY, own, KEY_TEXT);
            zmq_setsockopt(l->socket[i], ZMQ_CURVE_SERVERKEY, server, KEY_TEXT);
        }
    }
    explicit_bzero(secret, sizeof secret);
    return LT_OK;
}

/* -- opening ----------------------------------------------------------------------------------- */

static void set(void *socket, int option, int value)
{
    zmq_setsockopt(socket, option, &value, sizeof value);
}

/* farm.md 3.4: bounded sizes and queues, peers that are gone noticed, nothing lingering. */
static void set_options(struct zmq_link *l, enum lt_channel channel, const struct lt_peer *peer)
{
    void *socket = l->socket[channel];
    const bool bulk = channel == LT_CHANNEL_BULK;
    const int64_t size_max = bulk ? LT_CHUNK_BYTES_MAX + 1024 : LT_BODY_BYTES_MAX;
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &size_max, sizeof size_max);
    set(socket, ZMQ_SNDHWM, bulk ? 256 : 64);
    set(socket, ZMQ_RCVHWM, bulk ? 256 : 64);
    set(socket, ZMQ_LINGER, bulk ? 0 : 500); /* a BYE may still leave */
    set(socket, ZMQ_IPV6, 1);
    set(socket, ZMQ_HANDSHAKE_IVL, 10000);
    set(socket, ZMQ_HEARTBEAT_IVL, 5000);
    set(socket, ZMQ_HEARTBEAT_TIMEOUT, 15000);
    set(socket, ZMQ_HEARTBEAT_TTL, 20000);
    set(socket, ZMQ_TCP_KEEPALIVE, 1);
    if (l->router) {
        set(socket, ZMQ_ROUTER_MANDATORY, 1);
        /* A worker that connects again has the id of its last connection, which may not be noticed
         * as closed yet: without this the new one would be ignored, silently and for good. */
        set(socket, ZMQ_ROUTER_HANDOVER, 1);
        set(socket, ZMQ_BACKLOG, 4096);
    } else {
        set(socket, ZMQ_IMMEDIATE, 0); /* HELLO waits for the connection */
        set(socket, ZMQ_RECONNECT_IVL, 200);
        set(socket, ZMQ_RECONNECT_IVL_MAX, 5000);
        zmq_setsockopt(socket, ZMQ_ROUTING_ID, peer->id, sizeof peer->id);
    }
}

static lt_status open_link(const struct lt_zmq_params *params, bool router,
                           struct lt_link **link_out, struct lt_error *error)
{
    char bulk[ENDPOINT_BYTES];
    LT_TRY(bulk_endpoint(params->endpoint, bulk, error));
    LT_TRY(check_security(params, router, error));
    struct zmq_link *l = calloc(1, sizeof *l);
    if (!l)
        return lt_fail(error, LT_NO_MEMORY, "no memory for a link");
    l->link.ops = &zmq_ops;
    l->router = router;
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->context = zmq_ctx_new();
    lt_arena_init(&l->arena, 0);
    lt_status status = l->context && l->wake_fd >= 0
                           ? LT_OK
                           : lt_fail(error, LT_NO_MEMORY, "no resources for a link");
    for (int i = 0; i < 2 && status == LT_OK; i++) {
        l->socket[i] = zmq_socket(l->context, router ? ZMQ_ROUTER : ZMQ_DEALER);
        if (l->socket[i])
            set_options(l, (enum lt_channel)i, &params->peer);
        else
            status = lt_fail(error, LT_NO_MEMORY, "cannot make a socket: %s", zmq_strerror(errno));
    }
    if (status == LT_OK && params->key_file)
        status = set_keys(l, params, error);
    const char *const endpoints[] = {params->endpoint, bulk};
    for (int i = 0; i < 2 && status == LT_OK; i++)
        if ((router ? zmq_bind(l->socket[i], endpoints[i])
                    : zmq_connect(l->socket[i], endpoints[i])) != 0)
            status =
                lt_fail(error, errno == EADDRINUSE ? LT_BUSY : LT_USAGE, "cannot %s %s: %s",
                        router ? "listen on" : "connect to", endpoints[i], zmq_strerror(errno));
    if (status != LT_OK) {
        zmq_link_destroy(&l->link);
        return status;
    }
    *link_out = &l->link;
    return LT_OK;
}

lt_status lt_zmq_bind(const struct lt_zmq_params *params, struct lt_link **link_out,
                      struct lt_error *error)
{
    return open_link(params, true, link_out, error);
}

lt_status lt_zmq_connect(const struct lt_zmq_params *params, struct lt_link **link_out,
                         struct lt_error *error)
{
    return open_link(params, false, link_out, error);
}

uint64_t lt_zmq_rejected(const struct lt_link *link)
{
    return ((const struct zmq_link *)(const void *)link)->rejected;
}
