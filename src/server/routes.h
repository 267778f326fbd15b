/* routes.h - paths and what is done for them. */
#ifndef ROUTES_H
#define ROUTES_H
#include "server_parts.h"

/* One request on its way to what answers it; rest: what a star of its path stands for. */
typedef struct {
    Server *s;
    HttpRequest *r;
    Str rest;
} Visit;

/* An HttpHandler; user: the Server. */
void routes_handle(void *server, HttpRequest *r);
/* An HttpErrorFn: in the form of the API that the path belongs to. It is counted, and
 * who had no right to ask is named in the log, once a second. */
void routes_error(void *server, const HttpRequest *r, int status, const char *code,
                  const char *message, Bytes *out);

#endif
