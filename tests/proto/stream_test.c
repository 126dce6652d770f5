/* If a stream lost its place, a prediction would arrive with a hole in it, or a broken connection
 * would cost the whole transfer again. */
#include "tests/test.h"

#include "proto/stream.h"

#include <stdlib.h>

enum { CHUNKS = 40, BYTES = CHUNKS * LT_CHUNK_BYTES_MAX - 77, WINDOW = 8 * LT_CHUNK_BYTES_MAX };

static uint8_t *make_blob(void)
{
    uint8_t *blob = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        blob[i] = (uint8_t)(i * 2654435761u >> 13);
    return blob;
}

/* Moves chunks until the sender has none, or `cut` chunks were sent; gives how many bytes went over
 * the wire. */
static uint64_t pump(struct lt_stream_sender *sender, struct lt_stream_receiver *receiver, int cut)
{
    struct lt_error error;
    struct lt_chunk chunk;
    const void *payload;
    size_t bytes;
    uint64_t credit, sent = 0;
    for (int n = 0; n != cut && lt_stream_sender_next(sender, &chunk, &payload, &bytes); n++) {
        lt_stream_sender_sent(sender, bytes);
        sent += bytes;
        assert_true(sender->offset <= receiver->granted);
        assert_ok(lt_stream_receiver_chunk(receiver, &chunk, payload, bytes, &credit, &error));
        lt_stream_sender_credit(sender, credit);
    }
    return sent;
}

static void cut_at_every_chunk_and_resume(void **state)
{
    (void)state;
    struct lt_error error;
    uint8_t *blob = make_blob();
    const struct lt_digest digest = lt_sha256(blob, BYTES);
    for (int cut = 0; cut <= CHUNKS; cut++) {
        struct lt_stream_sender sender;
        struct lt_stream_receiver receiver;
        uint64_t offset, credit;
        assert_ok(lt_stream_receiver_open(&receiver, 1, &digest, BYTES, WINDOW, &error));
        lt_stream_receiver_reopen(&receiver, 1, &offset, &credit);
        lt_stream_sender_open(&sender, 1, blob, BYTES, offset, credit);
        uint64_t sent = cut ? pump(&sender, &receiver, cut) : 0;
        lt_stream_receiver_reopen(&receiver, 2, &offset, &credit); /* a new connection */
        lt_stream_sender_open(&sender, 2, blob, BYTES, offset, credit);
        sent += pump(&sender, &receiver, -1);
        assert_int_equal(sent, BYTES); /* not one byte twice */
        assert_true(lt_stream_sender_done(&sender) && lt_stream_receiver_done(&receiver));
        assert_true(lt_stream_receiver_verify(&receiver));
        lt_stream_receiver_close(&receiver);
    }
    free(blob);
}

static void credit_bounds_what_is_under_way(void **state)
{
    (void)state;
    uint8_t *blob = make_blob();
    struct lt_stream_sender sender;
    struct lt_chunk chunk;
    const void *payload;
    size_t bytes;
    lt_stream_sender_open(&sender, 1, blob, BYTES, 0, WINDOW);
    int chunks = 0;
    for (; lt_stream_sender_next(&sender, &chunk, &payload, &bytes); chunks++)
        lt_stream_sender_sent(&sender, bytes);
    assert_int_equal(chunks, 8);
    free(blob);
}

static void bad_chunks(void **state)
{
    (void)state;
    struct lt_error error;
    uint8_t *blob = make_blob();
    const struct lt_digest digest = lt_sha256(blob, BYTES);
    struct lt_stream_receiver receiver;
    uint64_t offset, credit;
    assert_ok(lt_stream_receiver_open(&receiver, 1, &digest, BYTES, WINDOW, &error));
    lt_stream_receiver_reopen(&receiver, 1, &offset, &credit);
    struct lt_chunk chunk = {1, 0, lt_crc32c(0, blob, 1000)};
    assert_ok(lt_stream_receiver_chunk(&receiver, &chunk, blob, 1000, &credit, &error));
    assert_ok(lt_stream_receiver_chunk(&receiver, &chunk, blob, 1000, &credit,
                                       &error)); /* repeated: ignored */
    assert_int_equal(receiver.offset, 1000);
    chunk.offset = 5000; /* a gap: ignored */
    assert_ok(lt_stream_receiver_chunk(&receiver, &chunk, blob, 1000, &credit, &error));
    assert_int_equal(receiver.offset, 1000);
    chunk.offset = 1000; /* damaged */
    assert_fails(lt_stream_receiver_chunk(&receiver, &chunk, blob + 1, 1000, &credit, &error),
                 LT_BAD_INPUT, "CRC");
    chunk.offset = BYTES - 10;
    assert_fails(lt_stream_receiver_chunk(&receiver, &chunk, blob, 1000, &credit, &error),
                 LT_BAD_INPUT, "fit");
    receiver.granted = 1000;
    chunk.offset = 1000;
    assert_fails(lt_stream_receiver_chunk(&receiver, &chunk, blob, 1000, &credit, &error),
                 LT_BAD_INPUT, "credit");
    lt_stream_receiver_close(&receiver);
    assert_fails(lt_stream_receiver_open(&receiver, 1, &digest, UINT64_MAX, WINDOW, &error),
                 LT_NO_MEMORY, "bytes");
    free(blob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_every_chunk_and_resume),
        cmocka_unit_test(credit_bounds_what_is_under_way),
        cmocka_unit_test(bad_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
