/* fingerprint.c - which model it is: what a state is never used across.
 *
 * Metadata, the tensor table, and a few bytes of each tensor: reading all of an
 * 80 GB file would take longer than what a kept state spares. */
#include "engine.h"
#include <openssl/evp.h>

enum { SAMPLE = 256 };

static bool add(EVP_MD_CTX *sum, const void *p, size_t n)
{
    return EVP_DigestUpdate(sum, p, n) == 1;
}

/* The first, middle and last bytes. */
static bool add_sample(EVP_MD_CTX *sum, const GgufTensor *t)
{
    const size_t n = (size_t)MIN(t->bytes, (uint64_t)SAMPLE);

    if (!t->data)
        return true; /* of a type we do not know, so not the model's */
    return add(sum, t->data, n) && add(sum, t->data + (t->bytes - n) / 2, n) &&
           add(sum, t->data + (t->bytes - n), n);
}

static bool digest(const ds4_engine *e, EVP_MD_CTX *sum, unsigned char *out)
{
    const Gguf *g = &e->gguf;
    bool ok = EVP_DigestInit_ex(sum, EVP_sha256(), NULL) == 1 &&
              add(sum, e->file, (size_t)g->data_offset);

    for (size_t i = 0; i < g->n_tensors && ok; i++)
        ok = add_sample(sum, &g->tensor[i]);
    return ok && EVP_DigestFinal_ex(sum, out, NULL) == 1;
}

bool fingerprint_know(ds4_engine *e, ds4_err *err)
{
    if (e->has_fingerprint)
        return true;
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    e->has_fingerprint = sum && digest(e, sum, e->fingerprint);
    EVP_MD_CTX_free(sum);
    return e->has_fingerprint ||
           fail(err, DS4_ENOMEM, "the model's fingerprint could not be computed");
}

bool ds4_engine_fingerprint(ds4_engine *e, uint8_t out[32], ds4_err *err)
{
    if (!fingerprint_know(e, err))
        return false;
    memcpy(out, e->fingerprint, sizeof e->fingerprint);
    return true;
}
