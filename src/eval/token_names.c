/* token_names.c - the token of given bytes: sorted once, then searched. */
#include "token_names.h"
#include <stdlib.h>

typedef struct {
    Str bytes;
    int32_t id;
    bool special;
} Name;

static int compare_bytes(Str a, Str b)
{
    size_t n = MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_bytes(const void *a, const void *b)
{
    const Name *x = a, *y = b;
    int c = compare_bytes(x->bytes, y->bytes);
    if (!c)
        c = x->special - y->special;
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

bool token_names_init(TokenNames *t, const ds4_vocab *v, ds4_err *err)
{
    size_t n = (size_t)vocab_size(v);
    Name *name = calloc(n, sizeof *name);
    *t = (TokenNames){ .vocab = v, .id = calloc(n, sizeof *t->id), .n = n };
    if (!name || !t->id) {
        free(name);
        token_names_release(t);
        return fail(err, DS4_ENOMEM, "no memory for the names of %zu tokens", n);
    }
    for (size_t i = 0; i < n; i++)
        name[i] = (Name){ vocab_bytes(v, (int32_t)i), (int32_t)i, vocab_is_special(v, (int32_t)i) };
    qsort(name, n, sizeof *name, by_bytes);
    for (size_t i = 0; i < n; i++)
        t->id[i] = name[i].id;
    free(name);
    return true;
}

int32_t token_named(const TokenNames *t, Str bytes)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare_bytes(vocab_bytes(t->vocab, t->id[mid]), bytes) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool found = lo < t->n && str_eq(vocab_bytes(t->vocab, t->id[lo]), bytes);
    return found ? t->id[lo] : -1;
}

void token_names_release(TokenNames *t)
{
    free(t->id);
    *t = (TokenNames){ 0 };
}
