/* model.c - find, check and bind the tensors of the table in names.c. */
#include "model.h"
#include "names.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- checking ------------------------------------------------------------- */

typedef struct {
    const Gguf *g;
    const Shape *shape;
    ModelBytes *bytes;
    Bytes *report; /* or NULL */
    Bytes first;
    int problems;
} Check;

static void problem(Check *c, const char *name, const char *what)
{
    Bytes line = { 0 };

    bytes_printf(&line, "tensor %s %s", name, what);
    if (c->report) {
        bytes_put(c->report, line.p, line.n);
        bytes_byte(c->report, '\n');
    }
    if (!c->problems++)
        bytes_put(&c->first, line.p, line.n);
    bytes_release(&line);
}

static bool right_dims(Check *c, const char *name, const GgufTensor *t, const uint64_t want[3])
{
    char what[160];

    if (t->dims[0] == want[0] && t->dims[1] == want[1] && t->dims[2] == want[2] && t->dims[3] == 1)
        return true;
    snprintf(what, sizeof what,
             "has dimensions %" PRIu64 ",%" PRIu64 ",%" PRIu64 ", expected %" PRIu64 ",%" PRIu64
             ",%" PRIu64,
             t->dims[0], t->dims[1], t->dims[2], want[0], want[1], want[2]);
    problem(c, name, what);
    return false;
}

static bool type_fits(enum TensorRole role, int type)
{
    switch (role) {
    case ROLE_VECTOR: return type == QUANT_F32 || type == QUANT_F16 || type == QUANT_BF16;
    case ROLE_HASH: return type == QUANT_I32;
    default: return quant_format(type) && quant_format(type)->decode;
    }
}

static bool right_type(Check *c, const char *name, const GgufTensor *t, enum TensorRole role)
{
    static const char *const expected[] = {
        [ROLE_VECTOR] = "F32, F16 or BF16",
        [ROLE_HASH] = "I32",
        [ROLE_MATRIX] = "F32, F16, BF16, Q8_0, Q4_K, Q2_K, IQ2_XXS or MXFP4",
        [ROLE_EMBEDDING] = "F32, F16, BF16, Q8_0, Q4_K, Q2_K, IQ2_XXS or MXFP4",
        [ROLE_EXPERTS] = "F32, F16, BF16, Q8_0, Q4_K, Q2_K, IQ2_XXS or MXFP4",
    };
    char what[160];

    if (type_fits(role, t->type))
        return true;
    snprintf(what, sizeof what, "is of type %s (%d), expected %s", quant_name(t->type), t->type,
             expected[role]);
    problem(c, name, what);
    return false;
}

static uint64_t elements(const uint64_t dims[3])
{
    return dims[0] * dims[1] * dims[2]; /* of a Shape that passed: below 2^53 */
}

/* What decoding one token reads of a tensor. */
static uint64_t step_share(const TensorName *t, const Shape *s, uint64_t bytes)
{
    switch (t->role) {
    case ROLE_EMBEDDING:
    case ROLE_HASH: return bytes / (uint64_t)s->vocab;
    case ROLE_EXPERTS: return bytes / (uint64_t)s->n_experts * (uint64_t)s->n_active;
    default: return bytes;
    }
}

/* Vectors begin at multiples of 64 bytes of their common memory. */
static uint64_t vector_room(uint64_t n) { return (n * sizeof(float) + 63) / 64 * 64; }

static void count(Check *c, const TensorName *t, const uint64_t dims[3], uint64_t bytes)
{
    c->bytes->weights += bytes;
    c->bytes->step += step_share(t, c->shape, bytes);
    if (t->role == ROLE_VECTOR || t->role == ROLE_HASH)
        c->bytes->vectors += vector_room(elements(dims));
}

static void check_tensor(Check *c, const TensorName *name, int layer)
{
    char full[NAME_BYTES], what[160];
    uint64_t want[3], bytes = 0;

    names_full(full, name, layer);
    names_dims(want, name, c->shape, layer);
    const GgufTensor *t = gguf_tensor(c->g, full);
    if (!t) {
        problem(c, full, "is missing");
        return;
    }
    if (!right_dims(c, full, t, want) || !right_type(c, full, t, name->role))
        return;
    const int block = quant_format(t->type)->block_len;
    if (want[0] % (uint64_t)block || !quant_bytes(t->type, elements(want), &bytes)) {
        snprintf(what, sizeof what,
                 "has rows of %" PRIu64 " values, no multiple of the %d of a "
                 "%s block",
                 want[0], block, quant_name(t->type));
        problem(c, full, what);
    } else if (bytes != t->bytes) {
        snprintf(what, sizeof what, "has %" PRIu64 " bytes, expected %" PRIu64, t->bytes, bytes);
        problem(c, full, what);
    } else {
        count(c, name, want, bytes);
    }
}

/* Gate and up are evaluated together; types may differ between layers. */
static void check_pair(Check *c, int layer)
{
    char gate[NAME_BYTES], up[NAME_BYTES], what[160];

    snprintf(gate, sizeof gate, "blk.%d.ffn_gate_exps.weight", layer);
    snprintf(up, sizeof up, "blk.%d.ffn_up_exps.weight", layer);
    const GgufTensor *a = gguf_tensor(c->g, gate), *b = gguf_tensor(c->g, up);
    if (!a || !b || a->type == b->type)
        return;
    snprintf(what, sizeof what, "is of type %s, but ffn_up_exps of the same layer is %s",
             quant_name(a->type), quant_name(b->type));
    problem(c, gate, what);
}

bool model_check(const Gguf *g, const Shape *s, ModelBytes *bytes, Bytes *report, ds4_err *err)
{
    ModelBytes ignored;
    Check c = { .g = g, .shape = s, .bytes = bytes ? bytes : &ignored, .report = report };

    *c.bytes = (ModelBytes){ 0 };
    for (int layer = -1; layer < s->n_layers; layer++) {
        for (size_t i = 0; i < n_tensor_names; i++)
            if (names_apply(&tensor_names[i], s, layer))
                check_tensor(&c, &tensor_names[i], layer);
        if (layer >= 0)
            check_pair(&c, layer);
    }
    if (c.problems == 1)
        fail(err, DS4_EFORMAT, "%.*s", (int)c.first.n, c.first.p);
    else if (c.problems)
        fail(err, DS4_EFORMAT, "%.*s (and %d more tensors are wrong)", (int)MIN(c.first.n, 180),
             c.first.p, c.problems - 1);
    bytes_release(&c.first);
    return !c.problems;
}

/* ---- binding -------------------------------------------------------------- */

typedef struct {
    Model *model;
    const Gguf *g;
    Backend *be;
    uint64_t used; /* of model->vectors */
    ds4_err *err;
} Binder;

static bool place_vector(Binder *b, Buf *out, const void *host, uint64_t n)
{
    *out = buf_at(b->model->vectors, b->used);
    b->be->op->write(b->be, *out, host, n * sizeof(float));
    b->used += vector_room(n);
    return true;
}

static bool bind_vector(Binder *b, Buf *out, const GgufTensor *t, uint64_t n)
{
    float *x = malloc(n * sizeof *x);
    if (!x)
        return fail(b->err, DS4_ENOMEM, "tensor %.*s: no memory for %" PRIu64 " values",
                    STR_ARG(t->name), n);
    quant_format(t->type)->decode(x, t->data, n);
    bool ok = place_vector(b, out, x, n);
    free(x);
    return ok;
}

static bool bind_hash(Binder *b, Buf *out, const GgufTensor *t, uint64_t n)
{
    const int n_experts = b->model->shape.n_experts, n_active = b->model->shape.n_active;

    for (uint64_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, t->data + i * sizeof id, sizeof id);
        if (id < 0 || id >= n_experts)
            return fail(b->err, DS4_EFORMAT,
                        "tensor %.*s sends token %" PRIu64 " to expert %d of %d", STR_ARG(t->name),
                        i / (uint64_t)n_active, id, n_experts);
    }
    return place_vector(b, out, t->data, n);
}

static bool bind_matrix(Binder *b, Weight *w, const GgufTensor *t, const uint64_t dims[3])
{
    *w = (Weight){
        .type = t->type, .cols = (int)dims[0], .rows = (int)dims[1], .count = (int)dims[2]
    };
    return b->be->op->bind(b->be, w, t->data, b->err);
}

static bool bind_tensor(Binder *b, const TensorName *name, int layer)
{
    Model *m = b->model;
    char full[NAME_BYTES];
    uint64_t dims[3];
    void *at = (char *)(layer < 0 ? (void *)m : (void *)&m->layer[layer]) + name->at;

    names_full(full, name, layer);
    names_dims(dims, name, &m->shape, layer);
    const GgufTensor *t = gguf_tensor(b->g, full);
    switch (name->role) {
    case ROLE_VECTOR: return bind_vector(b, at, t, elements(dims));
    case ROLE_HASH: return bind_hash(b, at, t, elements(dims));
    default: return bind_matrix(b, at, t, dims);
    }
}

static bool bind_layer(Binder *b, int layer)
{
    const Shape *s = &b->model->shape;

    if (layer >= 0)
        b->model->layer[layer].index = layer;
    for (size_t i = 0; i < n_tensor_names; i++)
        if (names_apply(&tensor_names[i], s, layer) && !bind_tensor(b, &tensor_names[i], layer))
            return false;
    return true;
}

bool model_init(Model *m, const Gguf *g, const Shape *s, Backend *be, ds4_progress progress,
                void *user, ds4_err *err)
{
    Binder b = { .model = m, .g = g, .be = be, .err = err };
    ModelBytes bytes;

    memset(m, 0, sizeof *m);
    m->shape = *s;
    if (!model_check(g, s, &bytes, NULL, err))
        return false;
    m->vectors = be->op->alloc(be, bytes.vectors);
    if (!m->vectors.base)
        return fail(err, DS4_ENOMEM, "no room for %" PRIu64 " bytes of norms and tables",
                    bytes.vectors);
    for (int layer = -1; layer < s->n_layers; layer++) {
        if (!bind_layer(&b, layer)) {
            model_release(m, be);
            return false;
        }
        if (progress)
            progress(user, "loading", (uint64_t)layer + 2, (uint64_t)s->n_layers + 1);
    }
    return true;
}

void model_release(Model *m, Backend *be)
{
    if (m->vectors.base)
        be->op->free(be, m->vectors);
    memset(m, 0, sizeof *m);
}
