/* convert_write.c - a batch of rows after the other, encoded and written in the file's order. */
#include "convert.h"
#include "encode.h"
#include "part.h"
#include "sink.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* Bytes that are encoded before they are written: enough for all threads. */
#define BATCH ((size_t)8 << 20)

enum { MARK_MS = 5000, IDENTITY = 80 };

typedef struct {
    Convert *c;
    Part *part; /* NULL: only compare */
    Pool *pool;
    unsigned char *batch;
    float *values;
    RowError *error; /* or NULL */
    RowError sum;    /* of the tensor */
    uint64_t header, done, total;
    int64_t marked_ns;
} Writer;

/* ---- the header and who we are --------------------------------------------------- */

static bool make_header(Convert *c, Bytes *header, ds4_err *err)
{
    GgufWriter w = { 0 };
    const bool imatrix = c->importance.decides;
    bool ok = input_put(&c->input, &w, c->opt.name, c->plan.recipe->file_type, imatrix, err);
    if (ok && imatrix)
        importance_put(&c->importance, &w, c->opt.imatrix);
    ok = ok && plan_put(&c->plan, &w, false, err) && gguf_header(&w, header, err);
    gguf_writer_release(&w);
    return ok;
}

/* What the encoders make of some values: other encoders, other bytes. */
static void put_encoders(Bytes *out)
{
    float x[256];
    unsigned char block[256 * sizeof(float)];
    for (int i = 0; i < 256; i++)
        x[i] = (float)(i * 37 % 101 - 50) / (float)(1 + i % 7);
    for (int type = 0; type < QUANT_END; type++) {
        const QuantFormat *f = quant_format(type);
        if (!f || !f->encode)
            continue;
        f->encode(block, x, 256, NULL);
        bytes_put(out, block, (size_t)(256 / f->block_len) * (size_t)f->block_bytes);
    }
}

/* A line that is another whenever one byte of the file might be. */
static bool identify(const Convert *c, const Bytes *header, char line[IDENTITY], ds4_err *err)
{
    Bytes b = { 0 };
    bytes_put(&b, header->p, header->n);
    bytes_u64(&b, c->importance.hash);
    put_encoders(&b);
    bool ok = input_identity(&c->input, &b, err);
    if (ok && b.failed)
        ok = fail(err, DS4_ENOMEM, "no memory for the identity of a conversion");
    if (ok) {
        XXH128_hash_t h = XXH3_128bits(b.p, b.n);
        snprintf(line, IDENTITY, "ds4 conversion 1 %016llx%016llx", (unsigned long long)h.high64,
                 (unsigned long long)h.low64);
    }
    bytes_release(&b);
    return ok;
}

/* ---- batches ---------------------------------------------------------------------- */

static uint64_t batch_rows(const PlanTensor *t)
{
    return MIN(MAX(BATCH / plan_row_bytes(t), 1), plan_rows(t));
}

static bool made_bad(const Writer *w, const Rows *b, ds4_err *err)
{
    char name[96];
    const uint64_t row = atomic_load(&b->bad);
    const bool whole = w->c->input.is_gguf;
    const int part = b->t->spec.kind == KIND_EXPERTS ? (int)(row / b->t->spec.dims[1]) : 0;
    input_name(name, &w->c->input, &b->t->spec, part);
    return encode_bad(b, name, whole || b->t->spec.kind != KIND_EXPERTS, err);
}

/* The rows have been read and will not be again. */
static void forget(const Writer *w, const Rows *b)
{
    const uint64_t rows = b->t->spec.dims[1], cols = b->t->spec.dims[0];
    for (uint64_t r = b->first, end = r + b->n; r < end;) {
        const bool experts = b->t->spec.kind == KIND_EXPERTS;
        const uint64_t k = experts ? r / rows : 0, at = experts ? r % rows : r;
        const uint64_t n = experts ? MIN(rows - at, end - r) : end - r;
        Str weights, scales;
        source_places(&b->part[k], at, n, cols, &weights, &scales);
        input_forget(&w->c->input, weights);
        input_forget(&w->c->input, scales);
        r += n;
    }
}

static void add_errors(Writer *w, uint64_t n)
{
    RowError *s = &w->sum;
    for (uint64_t i = 0; w->error && i < n; i++) {
        const RowError *e = &w->error[i];
        s->error += e->error;
        s->size += e->size;
        s->weighted_error += e->weighted_error;
        s->weighted_size += e->weighted_size;
        s->worst = fmax(s->worst, e->worst);
    }
}

/* The rows that an earlier attempt has written are only compared, or passed over. */
static bool write_rows(Writer *w, Rows *b, uint64_t at, ds4_err *err)
{
    const size_t bytes = (size_t)(b->n * plan_row_bytes(b->t));
    b->encoded = w->part && at + bytes <= w->part->done;
    if (b->encoded && !w->error)
        return true;
    if (b->encoded && !part_read(w->part, at, w->batch, bytes, err))
        return false;
    if (!encode_rows(b, w->pool))
        return made_bad(w, b, err);
    add_errors(w, b->n);
    forget(w, b);
    return !w->part || b->encoded || part_write(w->part, at, w->batch, bytes, err);
}

/* Now and then what is done is made to last, and it is asked whether to go on. */
static bool pause(Writer *w, uint64_t end, ds4_err *err)
{
    const ConvertOptions *opt = &w->c->opt;
    const int64_t every = (int64_t)(opt->mark_ms ? opt->mark_ms : MARK_MS) * 1000000;
    const bool stop = opt->stop && opt->stop();
    if (w->part && (stop || clock_ns() - w->marked_ns >= every)) {
        if (!part_mark(w->part, end, err))
            return false;
        w->marked_ns = clock_ns();
    }
    return !stop || fail(err, DS4_ECANCELED, "canceled");
}

static bool tell_comparison(const Writer *w, size_t i, ds4_err *err)
{
    const PlanTensor *t = &w->c->plan.tensor[i];
    const RowError *s = &w->sum;
    const Comparison c = {
        .name = t->spec.name,
        .from = source_type(w->c->source[i]),
        .to = quant_name(t->type),
        .values = plan_rows(t) * t->spec.dims[0],
        .bytes = t->bytes,
        .rms = s->size > 0 ? sqrt(s->error / s->size) : 0,
        .weighted = s->weighted_size > 0 ? sqrt(s->weighted_error / s->weighted_size) : NAN,
        .worst = s->worst,
    };
    return w->c->opt.compared(w->c->opt.user, &c, err);
}

static bool write_tensor(Writer *w, size_t i, ds4_err *err)
{
    const PlanTensor *t = &w->c->plan.tensor[i];
    const uint64_t rows = plan_rows(t), step = batch_rows(t), row_bytes = plan_row_bytes(t);
    w->sum = (RowError){ 0 };
    for (uint64_t r = 0; r < rows; r += step) {
        Rows b = { .t = t,
                   .part = w->c->source[i],
                   .row = w->c->importance.row ? w->c->importance.row[i] : NULL,
                   .n_experts = w->c->input.config.shape.n_experts,
                   .first = r,
                   .n = MIN(step, rows - r),
                   .out = w->batch,
                   .error = w->error,
                   .values = w->values };
        const uint64_t at = w->header + t->offset + r * row_bytes;
        if (!write_rows(w, &b, at, err))
            return false;
        w->done += b.n * row_bytes;
        const bool passed = b.encoded && !w->error; /* it took no time, so it tells no rate */
        if (w->c->opt.progress && !passed)
            w->c->opt.progress(w->c->opt.user, "converting", w->done, w->total);
        if (!pause(w, at + b.n * row_bytes, err))
            return false;
    }
    return !w->error || tell_comparison(w, i, err);
}

/* ---- the whole ------------------------------------------------------------------------- */

static bool writer_init(Writer *w, Convert *c, ds4_err *err)
{
    uint64_t row = 1, rows = 1, bytes = 1;
    for (size_t i = 0; i < c->plan.n; i++) {
        const PlanTensor *t = &c->plan.tensor[i];
        row = MAX(row, t->spec.dims[0]);
        rows = MAX(rows, batch_rows(t));
        bytes = MAX(bytes, batch_rows(t) * plan_row_bytes(t));
    }
    w->c = c;
    w->total = c->plan.bytes;
    w->marked_ns = clock_ns();
    w->pool = pool_new(c->opt.threads, err);
    if (!w->pool)
        return false;
    w->batch = malloc((size_t)bytes);
    w->values = calloc(2 * (size_t)row * (size_t)pool_threads(w->pool), sizeof *w->values);
    w->error = c->opt.compared ? calloc((size_t)rows, sizeof *w->error) : NULL;
    return (w->batch && w->values && (w->error || !c->opt.compared)) ||
           fail(err, DS4_ENOMEM, "no memory to convert rows of %llu values",
                (unsigned long long)row);
}

static void writer_release(Writer *w)
{
    pool_free(w->pool);
    free(w->batch);
    free(w->values);
    free(w->error);
}

/* Who writes over the input has neither when it turns out to be the wrong recipe. */
static bool is_another(const Convert *c, const char *path, ds4_err *err)
{
    if (input_has_file(&c->input, path))
        return fail(err, DS4_EINVAL, "%s is what is converted: another name for the output", path);
    return !c->opt.imatrix || !file_same(c->opt.imatrix, path) ||
           fail(err, DS4_EINVAL, "%s is the importance: another name for the output", path);
}

/* What is done is written already, so it needs no more room. */
static bool begin(Writer *w, Part *p, const char *path, const Bytes *header, ds4_err *err)
{
    char identity[IDENTITY];
    const uint64_t bytes = header->n + w->total;
    if (!is_another(w->c, path, err) || !identify(w->c, header, identity, err) ||
        !part_open(p, path, identity, w->c->opt.restart, err))
        return false;
    w->part = p;
    return sink_room(path, bytes - MIN(p->done, bytes), err) &&
           part_write(p, 0, header->p, header->n, err);
}

/* Bytes of tensors that this attempt or an earlier one has written. */
static uint64_t kept(const Writer *w)
{
    const uint64_t before = w->part ? w->part->done : 0;
    return MAX(w->done, before - MIN(before, w->header));
}

static void tell_kept(const Writer *w)
{
    char line[200];
    if (!w->c->opt.note)
        return;
    snprintf(line, sizeof line, "%.100s keeps %d %%: the same command goes on from there",
             w->part->part, (int)(100 * kept(w) / MAX(w->total, 1)));
    w->c->opt.note(w->c->opt.user, line);
}

bool convert_write(Convert *c, const char *path, ds4_err *err)
{
    Bytes header = { 0 };
    Part part = { .fd = -1, .journal = -1 };
    Writer w = { 0 };
    ds4_err why = { 0 };
    bool ok = make_header(c, &header, &why) && writer_init(&w, c, &why);
    w.header = header.n;
    ok = ok && (!path || begin(&w, &part, path, &header, &why));
    for (size_t i = 0; ok && i < c->plan.n; i++)
        ok = write_tensor(&w, i, &why);
    /* A journal is only good for what another attempt can mend. */
    const bool keep = kept(&w) > 0 &&
                      (why.code == DS4_ECANCELED || why.code == DS4_EIO || why.code == DS4_ENOMEM);
    if (!ok && keep && w.part)
        tell_kept(&w);
    ok = ok && (!w.part || part_commit(w.part, &why));
    if (w.part)
        part_close(w.part, keep);
    writer_release(&w);
    bytes_release(&header);
    return ok || fail(err, why.code, "%s", why.msg);
}
