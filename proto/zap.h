/* Who may connect: a thread that answers ZeroMQ's authentication requests (27/ZAP) from a file of
 * public keys, one a line, '#' starts a comment. Whoever is not listed is refused. */
#pragma once

#include "common/status.h"

struct lt_zap;
/* Reads the file at once and again whenever it changes. `context` is the ZeroMQ context of the
 * sockets. */
lt_status lt_zap_start(void *context, const char *authorized_file, struct lt_zap **zap_out,
                       struct lt_error *error);
void lt_zap_stop(struct lt_zap **zap); /* after the sockets are closed; accepts NULL */
