/* convert.c - finding a checkpoint's tensors and writing them as a GGUF. */
#include "convert.h"
#include "../base/pool.h"
#include "sink.h"
#include "tokenizer.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Bytes that are encoded before they are written: enough for all threads. */
#define BATCH ((size_t)8 << 20)
/* Tensors that are named one by one before only their number is told. */
enum { MAX_NAMED = 40 };

static void note(const ConvertOptions *opt, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void note(const ConvertOptions *opt, const char *fmt, ...)
{
    char line[300];
    va_list ap;
    if (!opt->note)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    opt->note(opt->user, line);
}

/* ---- finding -------------------------------------------------------------- */

static int n_parts(const PlanTensor *t)
{
    return t->spec.kind == KIND_EXPERTS ? (int)t->spec.dims[2] : 1;
}

static void part_name(char out[96], const PlanTensor *t, int part)
{
    const char *mark = strstr(t->spec.official, "%d");
    if (mark)
        snprintf(out, 96, "%.*s%d%s", (int)(mark - t->spec.official), t->spec.official, part,
                 mark + 2);
    else
        snprintf(out, 96, "%s", t->spec.official);
}

static enum SourceFound find_part(Source *s, const Convert *c, const PlanTensor *t,
                                  const char *name, ds4_err *err)
{
    if (t->spec.kind == KIND_ROUTE_HASH)
        return source_find_ids(s, &c->checkpoint, name, t->spec.dims, err);
    return source_find(s, &c->checkpoint, name, MIN(t->spec.n_dims, 2), t->spec.dims, err);
}

static bool find_sources(Convert *c, ds4_err *err)
{
    size_t missing = 0;
    char name[96], first[96] = "";
    c->source = arena_array(&c->arena, c->plan.n, sizeof *c->source);
    if (!c->source)
        return fail(err, DS4_ENOMEM, "no memory for the sources of %zu tensors", c->plan.n);
    for (size_t i = 0; i < c->plan.n; i++) {
        const PlanTensor *t = &c->plan.tensor[i];
        c->source[i] = arena_array(&c->arena, (size_t)n_parts(t), sizeof **c->source);
        if (!c->source[i])
            return fail(err, DS4_ENOMEM, "no memory for the sources of %s", t->spec.name);
        for (int k = 0; k < n_parts(t); k++) {
            part_name(name, t, k);
            switch (find_part(&c->source[i][k], c, t, name, err)) {
            case SOURCE_WRONG: return false;
            case SOURCE_MISSING:
                if (missing < MAX_NAMED)
                    note(&c->opt, "missing: %s", name);
                if (!missing++)
                    memcpy(first, name, sizeof first);
                break;
            case SOURCE_OK: break;
            }
        }
    }
    return !missing || fail(err, DS4_EFORMAT, "%s lacks %zu tensors of the model, first %s",
                            c->opt.in, missing, first);
}

static int by_address(const void *a, const void *b)
{
    const StTensor *x = *(const StTensor *const *)a, *y = *(const StTensor *const *)b;
    return (x > y) - (x < y);
}

/* Every tensor of the checkpoint has a place in the file, or is a draft head's. */
static bool check_unused(const Convert *c, ds4_err *err)
{
    size_t n = 0, unknown = 0, draft = 0;
    const StTensor **used = calloc(2 * c->checkpoint.n_tensors + 1, sizeof *used);
    Str first = { 0 };
    if (!used)
        return fail(err, DS4_ENOMEM, "no memory to check %zu tensors", c->checkpoint.n_tensors);
    for (size_t i = 0; i < c->plan.n; i++) {
        for (int k = 0; k < n_parts(&c->plan.tensor[i]); k++) {
            used[n++] = c->source[i][k].weight;
            if (c->source[i][k].scale)
                used[n++] = c->source[i][k].scale;
        }
    }
    qsort(used, n, sizeof *used, by_address);
    for (size_t i = 0; i < c->checkpoint.n_tensors; i++) {
        const StTensor *t = c->checkpoint.tensor[i];
        if (bsearch(&t, used, n, sizeof *used, by_address))
            continue;
        if (t->name.n > 4 && memcmp(t->name.p, "mtp.", 4) == 0) {
            draft++;
            continue;
        }
        if (unknown < MAX_NAMED)
            note(&c->opt, "not a tensor of this model: %.*s", STR_ARG(t->name));
        if (!unknown++)
            first = t->name;
    }
    free(used);
    if (draft)
        note(&c->opt, "%zu tensors of the draft head (mtp.*) are left out", draft);
    return !unknown ||
           fail(err, DS4_EFORMAT, "%s has %zu tensors that this model has not, first %.*s",
                c->opt.in, unknown, STR_ARG(first));
}

/* The tensor's name without its layer. */
static const char *suffix(const PlanTensor *t)
{
    const char *dot = t->spec.layer < 0 ? NULL : strchr(t->spec.name + 4, '.');
    return dot ? dot + 1 : t->spec.name;
}

static bool same_fallback(const PlanTensor *a, const PlanTensor *b)
{
    return a->type == b->type && a->wanted == b->wanted && a->spec.dims[0] == b->spec.dims[0] &&
           strcmp(suffix(a), suffix(b)) == 0;
}

/* Say once what happened to a tensor of many layers. */
static void note_fallback(const Convert *c, size_t i)
{
    const PlanTensor *t = &c->plan.tensor[i];
    size_t n = 0;
    for (size_t k = 0; k < i; k++)
        if (same_fallback(&c->plan.tensor[k], t))
            return;
    for (size_t k = i; k < c->plan.n; k++)
        n += same_fallback(&c->plan.tensor[k], t);
    note(&c->opt, "%s (%zu of them): rows of %llu values do not fit %s, written as %s", suffix(t),
         n, (unsigned long long)t->spec.dims[0], quant_name(t->wanted), quant_name(t->type));
}

static bool copies_fp4(const Convert *c, size_t i)
{
    return c->plan.tensor[i].type == QUANT_MXFP4 && source_is_fp4(&c->source[i][0]);
}

/* Each format must have an encoder, and fallbacks are said. */
static bool check_formats(const Convert *c, ds4_err *err)
{
    for (size_t i = 0; i < c->plan.n; i++) {
        const PlanTensor *t = &c->plan.tensor[i];
        if (t->type != QUANT_I32 && !quant_format(t->type)->encode && !copies_fp4(c, i))
            return fail(err, DS4_EINVAL, "recipe %s: there is no encoder for %s",
                        c->plan.recipe->name, quant_name(t->type));
        if (t->type != t->wanted)
            note_fallback(c, i);
    }
    return true;
}

bool convert_open(Convert *c, const ConvertOptions *opt, ds4_err *err)
{
    *c = (Convert){ .opt = *opt };
    const Recipe *r = recipe_find(opt->recipe, err);
    bool ok = r && config_read(&c->config, opt->in, err) &&
              checkpoint_open(&c->checkpoint, opt->in, err) &&
              plan_make(&c->plan, &c->config.shape, r, err) && find_sources(c, err) &&
              check_unused(c, err) && check_formats(c, err);
    if (!ok)
        convert_close(c);
    return ok;
}

void convert_close(Convert *c)
{
    plan_release(&c->plan);
    checkpoint_close(&c->checkpoint);
    arena_release(&c->arena);
    *c = (Convert){ 0 };
}

/* ---- the header -------------------------------------------------------------- */

static void model_name(char out[64], const Convert *c)
{
    if (c->opt.name) {
        snprintf(out, 64, "%s", c->opt.name);
    } else if (c->config.name[0]) {
        snprintf(out, 64, "%s", c->config.name);
    } else {
        size_t n = strlen(c->opt.in);
        while (n > 1 && c->opt.in[n - 1] == '/')
            n--;
        size_t at = n;
        while (at > 0 && c->opt.in[at - 1] != '/')
            at--;
        snprintf(out, 64, "%.*s", (int)(n - at), c->opt.in + at);
    }
}

static bool put_tokenizer(const Convert *c, GgufWriter *w, ds4_err *err)
{
    const int vocab = c->config.shape.vocab;
    Bytes path = { 0 };
    bytes_printf(&path, "%s/tokenizer.json", c->opt.in);
    bool ok = !path.failed || fail(err, DS4_ENOMEM, "no memory for the tokenizer's path");
    if (ok && access(path.p, F_OK) == 0) {
        ok = tokenizer_put_file(w, path.p, vocab, err);
    } else if (ok) {
        note(&c->opt, "no tokenizer.json: one token a byte, and control tokens");
        ok = tokenizer_put_default(w, vocab, err);
    }
    bytes_release(&path);
    tokenizer_put_ids(w, c->config.bos, c->config.eos, c->config.pad);
    return ok;
}

static bool make_header(Convert *c, Bytes *header, ds4_err *err)
{
    GgufWriter w = { 0 };
    char name[64];
    model_name(name, c);
    config_put(&w, &c->config.shape, name, c->plan.recipe->file_type);
    bool ok = put_tokenizer(c, &w, err) && plan_put(&c->plan, &w, false, err) &&
              gguf_header(&w, header, err);
    gguf_writer_release(&w);
    return ok;
}

/* ---- the data ------------------------------------------------------------------ */

/* The rows [first, first + n) of a tensor, encoded by all threads. */
typedef struct {
    const PlanTensor *t;
    const Source *part;
    int n_experts;
    uint64_t first, n, row_bytes;
    unsigned char *out;
    float *values;     /* [threads][dims[0]] */
    atomic_ullong bad; /* the lowest row that is wrong */
} Rows;

static bool encode_row(const Rows *b, uint64_t row, unsigned char *out, float *x)
{
    const size_t n = (size_t)b->t->spec.dims[0];
    const Source *s = &b->part[b->t->spec.kind == KIND_EXPERTS ? row / b->t->spec.dims[1] : 0];
    const uint64_t r = b->t->spec.kind == KIND_EXPERTS ? row % b->t->spec.dims[1] : row;

    if (b->t->type == QUANT_MXFP4 && source_is_fp4(s))
        return source_mxfp4(s, r, out, n);
    if (b->t->spec.kind == KIND_ROUTE_HASH)
        return source_ids(s, r, (int32_t *)(void *)x, n, b->n_experts) && memcpy(out, x, n * 4);
    if (!source_row(s, r, x, n))
        return false;
    quant_format(b->t->type)->encode(out, x, n, NULL);
    return true;
}

static void encode_rows(void *arg, int ith, int nth)
{
    Rows *b = arg;
    float *x = b->values + (size_t)ith * b->t->spec.dims[0];
    for (uint64_t i = (uint64_t)ith; i < b->n; i += (uint64_t)nth) {
        if (encode_row(b, b->first + i, b->out + i * b->row_bytes, x))
            continue;
        unsigned long long low = atomic_load(&b->bad), row = b->first + i;
        while (row < low && !atomic_compare_exchange_weak(&b->bad, &low, row))
            ;
    }
}

typedef struct {
    Convert *c;
    Sink sink;
    Pool *pool;
    unsigned char *batch;
    float *values;
    uint64_t done, total;
} Writer;

static bool bad_row(const Rows *b, ds4_err *err)
{
    const uint64_t row = atomic_load(&b->bad);
    char name[96];
    int part = b->t->spec.kind == KIND_EXPERTS ? (int)(row / b->t->spec.dims[1]) : 0;
    part_name(name, b->t, part);
    if (b->t->spec.kind == KIND_ROUTE_HASH)
        return fail(err, DS4_EFORMAT, "%s: row %llu names an expert outside 0..%d", name,
                    (unsigned long long)row, b->n_experts - 1);
    return fail(err, DS4_EFORMAT, "%s: row %llu has a value that is infinite or no number", name,
                (unsigned long long)(part ? row % b->t->spec.dims[1] : row));
}

static bool write_tensor(Writer *w, size_t i, uint64_t data_at, ds4_err *err)
{
    const PlanTensor *t = &w->c->plan.tensor[i];
    const uint64_t rows = plan_rows(t), row_bytes = t->bytes / rows;
    const uint64_t step = MAX(BATCH / row_bytes, 1);

    if (!sink_pad(&w->sink, data_at + t->offset, err))
        return false;
    for (uint64_t r = 0; r < rows; r += step) {
        Rows b = { .t = t,
                   .part = w->c->source[i],
                   .n_experts = w->c->config.shape.n_experts,
                   .first = r,
                   .n = MIN(step, rows - r),
                   .row_bytes = row_bytes,
                   .out = w->batch,
                   .values = w->values };
        atomic_init(&b.bad, UINT64_MAX);
        pool_run(w->pool, encode_rows, &b);
        if (atomic_load(&b.bad) != UINT64_MAX)
            return bad_row(&b, err);
        if (!sink_write(&w->sink, w->batch, (size_t)(b.n * row_bytes), err))
            return false;
        w->done += b.n * row_bytes;
        if (w->c->opt.progress)
            w->c->opt.progress(w->c->opt.user, "converting", w->done, w->total);
        if (w->c->opt.stop && w->c->opt.stop())
            return fail(err, DS4_ECANCELED, "canceled");
    }
    return true;
}

static bool writer_init(Writer *w, Convert *c, ds4_err *err)
{
    uint64_t row = 1, row_bytes = 1;
    for (size_t i = 0; i < c->plan.n; i++) {
        const PlanTensor *t = &c->plan.tensor[i];
        row = MAX(row, t->spec.dims[0]);
        row_bytes = MAX(row_bytes, t->bytes / plan_rows(t));
    }
    w->c = c;
    w->total = c->plan.bytes;
    w->pool = pool_new(c->opt.threads, err);
    if (!w->pool)
        return false;
    w->batch = malloc((size_t)MAX(BATCH, row_bytes));
    w->values = calloc((size_t)row * (size_t)pool_threads(w->pool), sizeof *w->values);
    return (w->batch && w->values) ||
           fail(err, DS4_ENOMEM, "no memory to convert rows of %llu values",
                (unsigned long long)row);
}

static void writer_release(Writer *w)
{
    pool_free(w->pool);
    free(w->batch);
    free(w->values);
}

bool convert_write(Convert *c, const char *path, ds4_err *err)
{
    Bytes header = { 0 };
    File f = { .fd = -1 };
    Writer w = { .sink = { .file = &f } };
    bool ok = make_header(c, &header, err) && writer_init(&w, c, err) &&
              sink_room(path, header.n + c->plan.bytes, err) && file_create(&f, path, err) &&
              sink_write(&w.sink, header.p, header.n, err);
    for (size_t i = 0; ok && i < c->plan.n; i++)
        ok = write_tensor(&w, i, header.n, err);
    ok = ok && file_commit(&f, err);
    file_release(&f);
    writer_release(&w);
    bytes_release(&header);
    return ok;
}
