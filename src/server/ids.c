/* ids.c - random identifiers: clients take one that they have seen before for
 * what it was then, so they must never come twice, not even after a restart. */
#include "dialect.h"
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

const char *new_id(char buf[64], const char *prefix)
{
    unsigned char random[16];
    /* Without randomness nothing that follows can be kept apart. */
    if (RAND_bytes(random, sizeof random) != 1)
        abort();
    int n = snprintf(buf, 64 - 2 * sizeof random, "%s", prefix);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(buf + n + 2 * i, 3, "%02x", random[i]);
    return buf;
}
