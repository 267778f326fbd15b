/* gguf.c - any bytes as a GGUF file: parse, read everything, look names up. */
#include "../../src/gguf/gguf.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum_bytes(const void *p, size_t n)
{
    const unsigned char *b = p;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += b[i];
    return sum;
}

static uint64_t read_kv(const GgufKv *kv)
{
    int64_t i = 0;
    double f = 0;
    bool b = false;
    Str s = { 0 };
    uint64_t sum = sum_bytes(kv->key.p, kv->key.n) + sum_bytes(kv->value.p, kv->value.n);
    sum += (uint64_t)gguf_int(kv, &i) + gguf_float(kv, &f) + gguf_bool(kv, &b) + gguf_str(kv, &s);
    uint64_t strings = 0;
    for (size_t at = 0; gguf_next_str(kv, &at, &s); strings++)
        sum += sum_bytes(s.p, s.n);
    if (kv->type == GGUF_ARRAY && kv->elem == GGUF_STRING && strings != kv->count)
        abort(); /* the walk and the count must agree */
    uint64_t last = kv->count ? kv->count - 1 : 0;
    sum += (uint64_t)gguf_int_at(kv, last, &i) + gguf_float_at(kv, last, &f);
    if (gguf_int_at(kv, kv->count, &i))
        abort();
    return sum;
}

static uint64_t read_all(const Gguf *g)
{
    uint64_t sum = 0;
    char name[256];
    for (size_t i = 0; i < g->n_kv; i++)
        sum += read_kv(&g->kv[i]);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const GgufTensor *t = &g->tensor[i];
        memcpy(name, t->name.p, t->name.n);
        name[t->name.n] = '\0';
        if (!memchr(name, 0, t->name.n) && gguf_tensor(g, name) != t)
            abort();
        if (t->data && t->bytes)
            sum += sum_bytes(t->data, MIN(t->bytes, 64)) + t->data[t->bytes - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Gguf g;
    ds4_err err;
    if (gguf_parse(&g, data, size, &err)) {
        if (read_all(&g) == UINT64_MAX) /* so that the reads are not optimized away */
            abort();
    } else if (err.msg[0] == '\0') {
        abort(); /* a failure must say what is wrong */
    }
    gguf_release(&g);
    /* A header alone, of a file that is said to be long. */
    if (gguf_parse_header(&g, data, size, INT64_MAX, &err) && g.file_bytes != INT64_MAX)
        abort();
    gguf_release(&g);
    return 0;
}
