/* http_access.c - the three questions asked before a request is handled.
 *
 * Keys are kept and compared as digests, so neither their length nor a common
 * beginning shows in the time that a comparison takes. */
#include "http_access.h"
#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <strings.h>

enum { MAX_NAME = 256 };

static void free_list(char **list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        free(list[i]);
    free(list);
}

static char **copy_list(const char *const *list, size_t n)
{
    char **copy = calloc(n + 1, sizeof *copy);
    bool ok = copy;
    for (size_t i = 0; ok && i < n; i++)
        ok = (copy[i] = strdup(list[i])) != NULL;
    if (ok)
        return copy;
    free_list(copy, n);
    return NULL;
}

bool access_init(Access *a, const char *const *hosts, size_t n_hosts, const char *const *origins,
                 size_t n_origins, ds4_err *err)
{
    a->hosts = copy_list(hosts, n_hosts);
    a->n_hosts = a->hosts ? n_hosts : 0;
    a->origins = copy_list(origins, n_origins);
    a->n_origins = a->origins ? n_origins : 0;
    if (!a->hosts || !a->origins)
        return fail(err, DS4_ENOMEM, "no memory for %zu names of hosts and origins",
                    n_hosts + n_origins);
    return true;
}

bool access_add_host(Access *a, const char *host, ds4_err *err)
{
    char *copy = strdup(host), **list = realloc(a->hosts, (a->n_hosts + 2) * sizeof *list);
    if (list)
        a->hosts = list;
    if (!copy || !list) {
        free(copy);
        return fail(err, DS4_ENOMEM, "no memory for the name of a host");
    }
    list[a->n_hosts++] = copy;
    return true;
}

static void forget_keys(Access *a)
{
    if (a->keys)
        OPENSSL_cleanse(a->keys, a->n_keys * sizeof *a->keys);
    free(a->keys);
    a->keys = NULL;
    a->n_keys = 0;
}

void access_release(Access *a)
{
    forget_keys(a);
    free_list(a->hosts, a->n_hosts);
    free_list(a->origins, a->n_origins);
    *a = (Access){ 0 };
}

/* ---- keys ------------------------------------------------------------------- */

static bool digest(const char *key, unsigned char out[KEY_DIGEST])
{
    return EVP_Digest(key, strlen(key), out, NULL, EVP_sha256(), NULL) == 1;
}

bool access_set_keys(Access *a, const char *const *keys, size_t n, ds4_err *err)
{
    unsigned char(*all)[KEY_DIGEST] = calloc(n + 1, sizeof *all);
    if (!all)
        return fail(err, DS4_ENOMEM, "no memory for %zu API keys", n);
    for (size_t i = 0; i < n; i++) {
        if (!*keys[i] || !digest(keys[i], all[i])) {
            free(all);
            return fail(err, DS4_EINVAL, "API key %zu of %zu is empty or cannot be hashed", i + 1,
                        n);
        }
    }
    forget_keys(a);
    a->keys = all;
    a->n_keys = n;
    return true;
}

/* Every key is looked at, whichever fits. */
static bool is_key(const Access *a, const char *candidate)
{
    unsigned char mine[KEY_DIGEST];
    int found = 0;
    if (!candidate || !digest(candidate, mine))
        return false;
    for (size_t i = 0; i < a->n_keys; i++)
        found |= CRYPTO_memcmp(mine, a->keys[i], KEY_DIGEST) == 0;
    return found;
}

/* What follows "Bearer" (RFC 6750), or NULL. */
static const char *bearer(const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    return authorization + 7 + strspn(authorization + 7, " ");
}

bool access_key(const Access *a, const char *authorization, const char *x_api_key)
{
    bool by_bearer = is_key(a, bearer(authorization)), by_header = is_key(a, x_api_key);
    return a->n_keys == 0 || by_bearer || by_header;
}

/* ---- hosts -------------------------------------------------------------------- */

/* The name of "name", "name:port", "1.2.3.4:port" or "[::1]:port", without
 * brackets; false when it is none of these. */
static bool host_name(const char *host, char name[MAX_NAME])
{
    const char *end;
    if (*host == '[') {
        host++;
        end = strchr(host, ']');
    } else {
        end = host + strcspn(host, ":");
    }
    size_t n = end ? (size_t)(end - host) : 0;
    if (n == 0 || n >= MAX_NAME)
        return false;
    memcpy(name, host, n);
    name[n] = 0;
    if (*end == ']')
        end++;
    if (*end == 0)
        return true;
    return *end == ':' && strspn(end + 1, "0123456789") == strlen(end + 1) && strlen(end + 1) <= 5;
}

static bool is_address(const char *name)
{
    unsigned char binary[16];
    return inet_pton(AF_INET, name, binary) == 1 || inet_pton(AF_INET6, name, binary) == 1;
}

static bool is_loopback(const char *name)
{
    unsigned char v4[4], v6[16];
    static const unsigned char one[16] = { [15] = 1 };
    if (inet_pton(AF_INET, name, v4) == 1)
        return v4[0] == 127;
    if (inet_pton(AF_INET6, name, v6) == 1)
        return memcmp(v6, one, sizeof one) == 0;
    return strcasecmp(name, "localhost") == 0 || strcasecmp(name, "localhost.") == 0;
}

bool access_host(const Access *a, const char *host)
{
    char name[MAX_NAME];
    if (!host || !host_name(host, name))
        return false;
    if (is_loopback(name) || (a->any_address && is_address(name)))
        return true;
    for (size_t i = 0; i < a->n_hosts; i++)
        if (strcasecmp(name, a->hosts[i]) == 0)
            return true;
    return false;
}

/* ---- origins -------------------------------------------------------------------- */

static bool is_local_origin(const char *origin)
{
    char name[MAX_NAME];
    const char *slashes = strstr(origin, "://");
    bool web = strncasecmp(origin, "http://", 7) == 0 || strncasecmp(origin, "https://", 8) == 0;
    return web && slashes && host_name(slashes + 3, name) && is_loopback(name);
}

const char *access_origin(const Access *a, const char *origin)
{
    for (size_t i = 0; origin && i < a->n_origins; i++) {
        if (strcmp(a->origins[i], "*") == 0)
            return "*";
        if (strcasecmp(a->origins[i], origin) == 0 ||
            (strcasecmp(a->origins[i], "localhost") == 0 && is_local_origin(origin)))
            return origin;
    }
    return NULL;
}
