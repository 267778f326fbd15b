/* safetensors.c - any bytes as a safetensors file, and its text as config.json
 * and tokenizer.json: parse, read what is promised. */
#include "../../src/quantize/config.h"
#include "../../src/quantize/safetensors.h"
#include "../../src/quantize/tokenizer.h"
#include <limits.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte that a tensor claims must be there. */
static unsigned touch(const StFile *f, const uint8_t *data, size_t size)
{
    unsigned sum = 0;
    for (size_t i = 0; i < f->n; i++) {
        const StTensor *t = &f->tensor[i];
        if (t->data < data || t->data + t->bytes > data + size ||
            t->bytes != t->count * (uint64_t)st_type_size(t->type))
            abort();
        if (i && memcmp(f->tensor[i - 1].name.p, t->name.p, t->name.n + 1) == 0)
            abort(); /* names are terminated, sorted and different */
        sum += t->bytes ? t->data[0] + t->data[t->bytes - 1] : 0u;
    }
    return sum;
}

static void must_say(bool ok, const ds4_err *err)
{
    if (!ok && !err->msg[0])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    StFile f;
    ds4_err err = { 0 };
    bool ok = st_parse(&f, data, size, &err);
    must_say(ok, &err);
    if (ok && touch(&f, data, size) == UINT_MAX) /* so that the reads are not optimized away */
        abort();
    st_release(&f);

    const Str text = { (const char *)data, size };
    Config c;
    err = (ds4_err){ 0 };
    must_say(config_parse(&c, text, &err), &err);

    GgufWriter w = { 0 };
    err = (ds4_err){ 0 };
    must_say(tokenizer_put_json(&w, text, 300, &err), &err);
    gguf_writer_release(&w);
    return 0;
}
