/* If the link let anybody in, or dropped what it promised to carry, farms on a network would render
 * for strangers or stand still. Real sockets, over ipc and loopback tcp, in the clear and under
 * CURVE. */
#include "tests/test.h"

#include "common/file.h"
#include "proto/link_zmq.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static char dir[] = "/tmp/longtake-test-XXXXXX";
static struct lt_error error;

static int make_dir(void **state)
{
    (void)state;
    return !mkdtemp(dir);
}

static int remove_dir(void **state)
{
    (void)state;
    return lt_dir_remove(dir, NULL) != LT_OK;
}

static const char *in_dir(const char *name)
{
    static char path[8][300];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

/* Two neighbouring free ports of loopback: gives the first. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static bool receive(struct lt_link *link, struct lt_packet *packet, int timeout_ms)
{
    bool got = false;
    for (int waited = 0; !got && waited < timeout_ms; waited += 50)
        assert_ok(link->ops->receive(link, 50, packet, &got, &error));
    return got;
}

/* A beat and a chunk to the coordinator, a cancel back. */
static void talk(struct lt_link *coordinator, struct lt_link *worker, const struct lt_peer *peer)
{
    static uint8_t payload[LT_CHUNK_BYTES_MAX];
    struct lt_packet packet = {.message = {.kind = LT_MESSAGE_BEAT, .beat = {.sequence = 5}}}, got;
    assert_ok(worker->ops->send(worker, &packet, &error));
    assert_true(receive(coordinator, &got, 5000));
    assert_int_equal(got.message.beat.sequence, 5);
    assert_memory_equal(&got.peer, peer, sizeof *peer);
    packet = (struct lt_packet){.message = {.kind = LT_MESSAGE_CHUNK, .chunk = {1, 2, 3}},
                                .payload = payload,
                                .payload_bytes = sizeof payload};
    payload[sizeof payload - 1] = 77;
    assert_ok(worker->ops->send(worker, &packet, &error));
    assert_true(receive(coordinator, &got, 5000));
    assert_int_equal(got.payload_bytes, sizeof payload);
    assert_int_equal(((const uint8_t *)got.payload)[sizeof payload - 1], 77);
    packet =
        (struct lt_packet){.peer = *peer, .message = {.kind = LT_MESSAGE_CANCEL, .cancel = {8, 9}}};
    assert_ok(coordinator->ops->send(coordinator, &packet, &error));
    assert_true(receive(worker, &got, 5000));
    assert_int_equal(got.message.cancel.epoch, 9);
}

static void in_the_clear(void **state)
{
    (void)state;
    char tcp[64], ipc[320];
    snprintf(tcp, sizeof tcp, "tcp://127.0.0.1:%d", free_port());
    snprintf(ipc, sizeof ipc, "ipc://%s", in_dir("socket"));
    const char *const endpoints[] = {tcp, ipc};
    for (int i = 0; i < 2; i++) {
        struct lt_link *coordinator, *worker;
        struct lt_zmq_params params = {.endpoint = endpoints[i], .peer = {{1, 2, 3}}};
        assert_ok(lt_zmq_bind(&params, &coordinator, &error));
        assert_ok(lt_zmq_connect(&params, &worker, &error));
        usleep(300000); /* IMMEDIATE: nothing is queued before the connection stands */
        talk(coordinator, worker, &params.peer);
        const struct lt_packet nobody = {.peer = {{9}}, .message = {.kind = LT_MESSAGE_CANCEL}};
        assert_fails(coordinator->ops->send(coordinator, &nobody, &error), LT_LINK, "");
        coordinator->ops->wake(coordinator);
        worker->ops->destroy(worker);
        coordinator->ops->destroy(coordinator);
    }
}

static void other_addresses_need_keys(void **state)
{
    (void)state;
    struct lt_link *link;
    struct lt_zmq_params params = {.endpoint = "tcp://0.0.0.0:17701"};
    assert_fails(lt_zmq_bind(&params, &link, &error), LT_USAGE, "keygen");
    params.endpoint = "tcp://farm.example:17701";
    assert_fails(lt_zmq_connect(&params, &link, &error), LT_USAGE, "--server-key");
    params.endpoint = "tcp://127.0.0.1:99999";
    assert_fails(lt_zmq_bind(&params, &link, &error), LT_USAGE, "port");
    params.endpoint = "http://127.0.0.1:80";
    assert_fails(lt_zmq_bind(&params, &link, &error), LT_USAGE, "tcp://");
}

static void curve_lets_in_who_is_listed(void **state)
{
    (void)state;
    char endpoint[64];
    const char *server = in_dir("server"), *friend = in_dir("friend"),
               *stranger = in_dir("stranger");
    const char *list = in_dir("authorized");
    char server_public[320], friend_public[320], lines[256];
    void *key;
    size_t bytes;
    assert_ok(lt_keygen(server, &error));
    assert_ok(lt_keygen(friend, &error));
    assert_ok(lt_keygen(stranger, &error));
    assert_fails(lt_keygen(friend, &error), LT_CONFLICT, "already");
    snprintf(server_public, sizeof server_public, "%s.pub", server);
    snprintf(friend_public, sizeof friend_public, "%s.pub", friend);
    assert_ok(lt_file_read(friend_public, 100, &key, &bytes, &error));
    /* '#' is a digit of keys: neither in one nor at its start may it be taken for a comment */
    const int length = snprintf(
        lines, sizeof lines,
        "# workers of the farm\n%.40s rack 1\n"
        "0000#0000#0000#0000#0000#0000#0000#0000#\n#00000000000000000000000000000000000000\n",
        (const char *)key);
    struct lt_link *coordinator, *good, *bad, *plain;
    struct lt_zmq_params params = {
        .endpoint = endpoint, .key_file = server, .authorized_file = list};
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", free_port());
    assert_ok(lt_file_write(list, lines, (size_t)length, false, &error));
    assert_fails(lt_zmq_bind(&params, &coordinator, &error), LT_BAD_INPUT,
                 "authorized:4"); /* 39 characters */
    assert_ok(lt_file_write(list, lines, (size_t)length - 40, false, &error));
    free(key);
    assert_ok(lt_zmq_bind(&params, &coordinator, &error));
    params = (struct lt_zmq_params){.endpoint = endpoint,
                                    .key_file = friend,
                                    .server_key_file = server_public,
                                    .peer = {{1, 1}}};
    assert_ok(lt_zmq_connect(&params, &good, &error));
    const struct lt_peer peer = params.peer;
    params.key_file = stranger;
    params.peer = (struct lt_peer){{2, 2}};
    assert_ok(lt_zmq_connect(&params, &bad, &error));
    params.key_file = params.server_key_file = NULL;
    params.peer = (struct lt_peer){{3, 3}};
    assert_ok(lt_zmq_connect(&params, &plain, &error));
    usleep(500000);
    talk(coordinator, good, &peer);
    const struct lt_packet beat = {.message = {.kind = LT_MESSAGE_BEAT}};
    struct lt_packet got;
    bad->ops->send(bad, &beat, &error);
    plain->ops->send(plain, &beat, &error);
    assert_false(receive(coordinator, &got, 500));
    good->ops->destroy(good);
    bad->ops->destroy(bad);
    plain->ops->destroy(plain);
    coordinator->ops->destroy(coordinator);
}

/* A worker's machine froze and it connects again under its id before the old connection is seen to
 * be gone. */
static void a_second_connection_takes_over(void **state)
{
    (void)state;
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/over", dir);
    struct lt_zmq_params params = {.endpoint = endpoint, .peer = {{7, 7}}};
    struct lt_link *coordinator, *first, *second;
    assert_ok(lt_zmq_bind(&params, &coordinator, &error));
    assert_ok(lt_zmq_connect(&params, &first, &error));
    talk(coordinator, first, &params.peer);
    assert_ok(lt_zmq_connect(&params, &second, &error)); /* the first is still open */
    usleep(300000);
    talk(coordinator, second, &params.peer); /* both channels, both ways */
    first->ops->destroy(first);
    second->ops->destroy(second);
    coordinator->ops->destroy(coordinator);
}

/* CVE-2020-15166: connections that never speak must not keep others out. */
static void silent_connections_disturb_nobody(void **state)
{
    (void)state;
    char endpoint[64];
    int fds[100];
    const int port = free_port();
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)port)};
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", port);
    struct lt_zmq_params params = {.endpoint = endpoint, .peer = {{1, 2}}};
    struct lt_link *coordinator, *worker;
    assert_ok(lt_zmq_bind(&params, &coordinator, &error));
    for (int i = 0; i < 100; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&address, sizeof address), 0);
        if (i % 2)
            assert_int_equal(send(fds[i], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    }
    assert_ok(lt_zmq_connect(&params, &worker, &error));
    usleep(300000);
    talk(coordinator, worker, &params.peer);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
    worker->ops->destroy(worker);
    coordinator->ops->destroy(coordinator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_clear),
        cmocka_unit_test(other_addresses_need_keys),
        cmocka_unit_test(curve_lets_in_who_is_listed),
        cmocka_unit_test(a_second_connection_takes_over),
        cmocka_unit_test(silent_connections_disturb_nobody),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
