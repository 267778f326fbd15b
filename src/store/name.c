/* name.c - chained SHA-1 names. */
#include "name.h"
#include "store.h"
#include <assert.h>
#include <openssl/evp.h>

bool name_of(ChunkName *out, const ChunkName *parent, const ChunkModel *m, const int32_t *tokens,
             int n)
{
    enum { HEX = 40, FIXED = HEX + 32 + 4 };
    unsigned char text[FIXED + STORE_CHUNK * sizeof *tokens];
    char hex[HEX + 1];

    assert(n > 0 && n <= STORE_CHUNK);
    name_hex(parent, hex);
    memcpy(text, hex, HEX);
    memcpy(text + HEX, m->fingerprint, 32);
    memcpy(text + HEX + 32, &m->numerics, 4);
    memcpy(text + FIXED, tokens, (size_t)n * sizeof *tokens);
    return EVP_Digest(text, FIXED + (size_t)n * sizeof *tokens, out->sha, NULL, EVP_sha1(), NULL) ==
           1;
}

bool name_eq(const ChunkName *a, const ChunkName *b)
{
    return memcmp(a->sha, b->sha, sizeof a->sha) == 0;
}

bool name_none(const ChunkName *n)
{
    const ChunkName none = { 0 };
    return name_eq(n, &none);
}

void name_hex(const ChunkName *n, char out[41])
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof n->sha; i++) {
        out[2 * i] = digit[n->sha[i] >> 4];
        out[2 * i + 1] = digit[n->sha[i] & 15];
    }
    out[2 * sizeof n->sha] = '\0';
}

static int value_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool name_read(ChunkName *out, const char *hex, size_t n)
{
    if (n != 2 * sizeof out->sha)
        return false;
    for (size_t i = 0; i < sizeof out->sha; i++) {
        const int high = value_of(hex[2 * i]), low = value_of(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->sha[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
