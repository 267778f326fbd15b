/* characters.c - holds back at most the three bytes that may still grow. */
#include "characters.h"
#include "../base/utf8.h"

/* Could these 1 to 3 bytes be the beginning of a character? */
static bool may_grow(const char *p, size_t n)
{
    unsigned char lead = (unsigned char)p[0];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
    char low[4], high[4];
    if (n >= want)
        return false;
    memset(low, 0x80, sizeof low);
    memset(high, 0xbf, sizeof high);
    memcpy(low, p, n);
    memcpy(high, p, n);
    return utf8_char(low, want) || utf8_char(high, want);
}

void characters_put(Characters *c, Str text, bool end, Bytes *out)
{
    Bytes all = { 0 };
    bytes_put(&all, c->held, c->n);
    bytes_put(&all, text.p, text.n);
    size_t i = 0;
    while (i < all.n) {
        size_t n = (size_t)utf8_char(all.p + i, all.n - i);
        if (n == 0 && !end && may_grow(all.p + i, all.n - i))
            break;
        bytes_put(out, n ? all.p + i : "\xef\xbf\xbd", n ? n : 3);
        i += n ? n : 1;
    }
    c->n = all.n - i;
    if (c->n)
        memcpy(c->held, all.p + i, c->n);
    out->failed = out->failed || all.failed;
    bytes_release(&all);
}
