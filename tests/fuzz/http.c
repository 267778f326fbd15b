/* http.c - any bytes as HTTP requests, one after the other: read whole or cut
 * they give the same, and nothing goes beyond the limits. */
#include "../../src/server/http_parse.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const HttpLimits limits = {
    .max_line = 100, .max_header = 600, .max_body = 500, .max_fields = 12
};

static void insist(bool holds)
{
    if (!holds)
        abort();
}

/* One request from p in pieces of `piece` bytes; returns the bytes it took. */
static size_t read_one(HttpParser *h, const char *p, size_t n, size_t piece, enum HttpStep *step)
{
    size_t at = 0;
    do {
        size_t k = MIN(piece, n - at), took;
        *step = http_parse(h, p + at, k, &took);
        insist(took <= k);
        at += took;
    } while (*step == HTTP_HEAD || (*step == HTTP_MORE && at < n));
    return at;
}

static void check(const HttpParser *h, enum HttpStep step)
{
    insist(h->body.n <= limits.max_body);
    insist(h->text.n <= limits.max_header + 3 + (size_t)(2 * limits.max_fields));
    insist((step == HTTP_BAD) == (h->status >= 400 && h->message));
    if (step != HTTP_DONE)
        return;
    insist(*http_parse_method(h) && strlen(http_parse_path(h)) >= 1);
    insist(http_parse_field(h, "host") && !(h->n_length && h->n_coding));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    enum HttpStep step = HTTP_DONE;
    while (size && step == HTTP_DONE) {
        HttpParser whole = { .limits = limits }, cut = { .limits = limits };
        enum HttpStep same;
        size_t used = read_one(&whole, p, size, SIZE_MAX, &step);
        size_t piece = 1 + (unsigned char)p[size - 1] % 5;
        insist(read_one(&cut, p, size, piece, &same) == used && same == step);
        insist(str_eq(bytes_view(&whole.text), bytes_view(&cut.text)));
        insist(str_eq(bytes_view(&whole.body), bytes_view(&cut.body)));
        insist(whole.status == cut.status);
        check(&whole, step);
        http_parse_release(&whole);
        http_parse_release(&cut);
        p += used;
        size -= used;
    }
    return 0;
}
