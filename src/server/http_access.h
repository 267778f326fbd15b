/* http_access.h - who may ask: names in Host, API keys, origins of web pages. */
#ifndef HTTP_ACCESS_H
#define HTTP_ACCESS_H
#include "../base/base.h"

enum { KEY_DIGEST = 32 }; /* SHA-256 */

typedef struct {
    unsigned char (*keys)[KEY_DIGEST];
    size_t n_keys;
    char **hosts, **origins;
    size_t n_hosts, n_origins;
    bool any_address; /* Host may be any IP address: it is no name to rebind */
} Access;

bool access_init(Access *a, const char *const *hosts, size_t n_hosts, const char *const *origins,
                 size_t n_origins, ds4_err *err);
bool access_add_host(Access *a, const char *host, ds4_err *err);
void access_release(Access *a);
/* Replaces all keys, or leaves them when it fails. */
bool access_set_keys(Access *a, const char *const *keys, size_t n, ds4_err *err);

/* A web page whose own name was bent to our address sends that name. */
bool access_host(const Access *a, const char *host);
/* True without keys. The time taken does not depend on what is wrong. */
bool access_key(const Access *a, const char *authorization, const char *x_api_key);
/* What Access-Control-Allow-Origin should say; NULL: nothing. */
const char *access_origin(const Access *a, const char *origin);

#endif
