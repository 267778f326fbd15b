/* err.c - error messages: one clean line each, whatever a hostile file's
 * names put into them. */
#include "base.h"
#include <stdarg.h>
#include <stdio.h>

/* Bytes to drop from the end so that the text does not stop inside a UTF-8
 * sequence. */
static size_t broken_tail(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if (c < 0x80)
            return 0;
        if (c >= 0xc0) {
            size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
            return back < want ? back : 0;
        }
    }
    return 0;
}

bool fail(ds4_err *err, ds4_code code, const char *fmt, ...)
{
    if (!err)
        return false;
    char msg[sizeof err->msg]; /* the arguments may point into *err */
    va_list ap;
    va_start(ap, fmt);
    int full = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (full < 0)
        msg[0] = '\0';
    size_t n = strlen(msg);
    if (full >= (int)sizeof msg)
        n -= broken_tail(msg, n);
    for (size_t i = 0; i < n; i++)
        err->msg[i] = (unsigned char)msg[i] < 0x20 || msg[i] == 0x7f ? '?' : msg[i];
    err->msg[n] = '\0';
    err->code = code;
    return false;
}
