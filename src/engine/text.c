/* text.c - tokens and sampling: the public names of what lower layers do. */
#include "engine.h"

size_t ds4_encode(const ds4_vocab *v, const char *text, size_t len, bool special, int32_t *out,
                  size_t cap)
{
    Tokens t = { 0 };
    size_t n = SIZE_MAX;

    if (bpe_encode(v, (Str){ text, len }, special, &t, NULL) && !t.failed) {
        n = t.n;
        if (MIN(n, cap))
            memcpy(out, t.id, MIN(n, cap) * sizeof *out);
    }
    tokens_release(&t);
    return n;
}

const char *ds4_token_bytes(const ds4_vocab *v, int32_t token, size_t *len)
{
    Str s = vocab_bytes(v, token);

    if (len)
        *len = s.n;
    return s.p;
}

const float *ds4_logits(const ds4_session *s) { return s->has_logits ? s->logits : NULL; }

int32_t ds4_sample(const ds4_session *s, const ds4_sampling *how)
{
    const ds4_engine *e = s->engine;

    if (!s->has_logits)
        return -1;
    const float *logits = sample_adjust(s->logits, e->shape.vocab, how, e->adjusted);
    return logits ? sample(logits, e->shape.vocab, how, e->choices) : -1;
}

int ds4_top(const ds4_session *s, ds4_choice *out, int k)
{
    return s->has_logits ? sample_top(s->logits, s->engine->shape.vocab, out, k) : 0;
}

float ds4_logprob(const ds4_session *s, int32_t token)
{
    static const float nothing[1] = { 0 };

    return s->has_logits ? sample_logprob(s->logits, s->engine->shape.vocab, token)
                         : sample_logprob(nothing, 0, token);
}
