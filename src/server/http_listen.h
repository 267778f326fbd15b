/* http_listen.h - the sockets that connections come from. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H
#include "http.h"
#include <sys/types.h>

enum { MAX_LISTENERS = 8 };

typedef struct {
    int fd[MAX_LISTENERS];
    size_t n;
    int port;            /* 0: a Unix socket */
    bool open_to_others; /* some address is not of this machine alone */
    char where[256];     /* for people: "http://127.0.0.1:8080, http://[::1]:8080" */
    char *unix_path;
    dev_t dev; /* of unix_path */
    ino_t ino;
} Listeners;

bool listen_open(Listeners *l, const HttpOptions *opt, ds4_err *err);
/* Removes the Unix socket if it is still ours. The sockets are closed by who
 * took them over, or here when nobody did. */
void listen_close(Listeners *l);

#endif
