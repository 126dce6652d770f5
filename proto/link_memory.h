/* Links in one process, for tests and the simulator. A hub joins one coordinator link and any
 * number of worker links; packets are encoded and decoded as on a real wire. A fault hook sees
 * every packet and says what becomes of it, so loss, delay, repetition and cut connections are
 * decided by the test's seed; time is the test's too. */
#pragma once

#include "proto/link.h"

struct lt_hub;

enum { LT_FAULT_DROP = -1 };

/* Called for every packet: returns its delay in microseconds, or LT_FAULT_DROP. *repeat_us >= 0
 * delivers it again after that long. `to_worker`: direction. */
typedef int64_t lt_fault(void *context, const struct lt_packet *packet, bool to_worker,
                         int64_t *repeat_us);

lt_status lt_hub_create(lt_fault *fault, void *context, struct lt_hub **hub_out,
                        struct lt_error *error);
void lt_hub_destroy(struct lt_hub **hub); /* after every link of it */

/* The hub's clock; packets due at or before it can be received. */
void lt_hub_set_time(struct lt_hub *hub, int64_t now_us);
/* When the next packet that cannot be received yet is due; INT64_MAX: there is none. */
int64_t lt_hub_next_us(const struct lt_hub *hub);

lt_status lt_hub_coordinator(struct lt_hub *hub, struct lt_link **link_out, struct lt_error *error);
lt_status lt_hub_worker(struct lt_hub *hub, struct lt_peer peer, struct lt_link **link_out,
                        struct lt_error *error);
/* Everything on its way to or from the peer is lost, as when a connection breaks. */
void lt_hub_cut(struct lt_hub *hub, struct lt_peer peer);
/* Receive never waits: *got is false when nothing is due. */
