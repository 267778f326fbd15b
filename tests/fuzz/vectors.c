/* vectors.c - any bytes as reference vectors: read, and all that is promised is there. */
#include "../../src/eval/vectors.h"
#include <limits.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned touch_text(Str s)
{
    unsigned sum = 0;
    for (size_t i = 0; i < s.n; i++)
        sum += (unsigned char)s.p[i];
    return sum;
}

static unsigned touch_token(const VectorToken *t)
{
    if ((t->id >= 0) == (t->bytes.n > 0) || t->logprob > 1)
        abort();
    return touch_text(t->bytes);
}

static unsigned touch_case(const VectorCase *c)
{
    unsigned sum = touch_text(c->id) + touch_text(c->continuation);
    if ((c->n_messages > 0) + (c->prompt.p != NULL) + (c->prompt_file.n > 0) + (c->n_ids > 0) !=
            1 ||
        (c->n_steps > 0) == (c->continuation.n > 0))
        abort();
    sum += touch_text(c->prompt) + touch_text(c->prompt_file);
    for (size_t i = 0; i < c->n_messages; i++)
        sum += touch_text(c->messages[i].content);
    for (size_t i = 0; i < c->n_ids; i++)
        sum += (unsigned)c->ids[i];
    for (size_t i = 0; i < c->n_steps; i++) {
        sum += touch_token(&c->step[i].token);
        for (size_t k = 0; k < c->step[i].n_top; k++)
            sum += touch_token(&c->step[i].top[k]);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Vectors v;
    ds4_err err = { 0 };
    unsigned sum = 0;
    if (!vectors_read(&v, (Str){ (const char *)data, size }, "vectors", &err)) {
        if (!err.msg[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < v.n; i++)
        sum += touch_case(&v.cases[i]);
    if (sum == UINT_MAX) /* so that the reads are not optimized away */
        abort();
    vectors_release(&v);
    return 0;
}
