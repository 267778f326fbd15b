#include "utf8.h"

static bool is_tail(unsigned char c) { return (c & 0xc0) == 0x80; }

int utf8_char(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    if (n == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < 2 || !is_tail(s[1]))
        return 0;
    if (s[0] < 0xe0)
        return 2;
    /* The second byte rules out overlong forms, surrogates, and what lies
     * beyond U+10FFFF. */
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    if (n < 3 || !is_tail(s[2]))
        return 0;
    if (s[0] < 0xf0)
        return 3;
    return n >= 4 && is_tail(s[3]) ? 4 : 0;
}

size_t utf8_valid(Str s)
{
    size_t i = 0;
    while (i < s.n) {
        uint64_t eight;
        if (s.n - i >= sizeof eight) {
            memcpy(&eight, s.p + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        int len = utf8_char(s.p + i, s.n - i);
        if (len == 0)
            break;
        i += (size_t)len;
    }
    return i;
}
