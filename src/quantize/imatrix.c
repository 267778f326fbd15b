/* imatrix.c - importance matrices in memory, and their two forms of file. */
#include "imatrix.h"
#include "../base/file.h"
#include "../gguf/gguf.h"
#include "../quant/float.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>

static const Str SUMS = { ".in_sum2", 8 }, COUNTS = { ".counts", 7 };

/* The model has 1328 tensors, of which each expert may have an entry of its own. */
enum { MAX_ENTRIES = 1 << 16 };

/* ---- in memory --------------------------------------------------------------- */

static void release_entry(ImatrixEntry *e)
{
    free(e->sums);
    free(e->counts);
}

void imatrix_release(Imatrix *m)
{
    for (size_t i = 0; i < m->n; i++)
        release_entry(&m->entry[i]);
    free(m->entry);
    free(m->dataset);
    *m = (Imatrix){ 0 };
}

ImatrixEntry *imatrix_find(const Imatrix *m, Str name)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_eq(str_of(m->entry[i].name), name))
            return &m->entry[i];
    return NULL;
}

static size_t n_values(const ImatrixEntry *e)
{
    return (size_t)e->n_experts * (size_t)e->n_columns;
}

/* Doubled whenever it is full. */
static bool grow(Imatrix *m, ds4_err *err)
{
    if (m->n & (m->n - 1))
        return true;
    ImatrixEntry *more = realloc(m->entry, MAX(2 * m->n, 1) * sizeof *more);
    if (!more)
        return fail(err, DS4_ENOMEM, "no memory for %zu entries of importance", m->n);
    m->entry = more;
    return true;
}

ImatrixEntry *imatrix_add(Imatrix *m, Str name, int n_experts, int n_columns, ds4_err *err)
{
    if (name.n < 1 || name.n >= IMATRIX_NAME || memchr(name.p, 0, name.n) || n_experts < 1 ||
        n_columns < 1) {
        fail(err, DS4_EFORMAT, "importance: %d x %d values under a name of %zu bytes", n_experts,
             n_columns, name.n);
        return NULL;
    }
    if (m->n == MAX_ENTRIES) {
        fail(err, DS4_EFORMAT, "importance: more than %d entries", MAX_ENTRIES);
        return NULL;
    }
    if (imatrix_find(m, name)) {
        fail(err, DS4_EFORMAT, "importance of %.*s is there twice", STR_ARG(name));
        return NULL;
    }
    if (!grow(m, err))
        return NULL;
    ImatrixEntry e = { .n_experts = n_experts, .n_columns = n_columns };
    memcpy(e.name, name.p, name.n);
    e.sums = calloc(n_values(&e), sizeof *e.sums);
    e.counts = calloc((size_t)n_experts, sizeof *e.counts);
    if (!e.sums || !e.counts) {
        release_entry(&e);
        fail(err, DS4_ENOMEM, "no memory for the importance of %.*s", STR_ARG(name));
        return NULL;
    }
    m->entry[m->n] = e;
    return &m->entry[m->n++];
}

void imatrix_see(ImatrixEntry *e, int expert, const float *x)
{
    float *sum = e->sums + (size_t)expert * (size_t)e->n_columns;
    for (int i = 0; i < e->n_columns; i++)
        sum[i] += x[i] * x[i];
    e->counts[expert] += 1;
}

bool imatrix_add_dataset(Imatrix *m, Str name, ds4_err *err)
{
    size_t n = m->dataset ? strlen(m->dataset) : 0;
    char *more = realloc(m->dataset, n + name.n + 2);
    if (!more)
        return fail(err, DS4_ENOMEM, "no memory for the names of texts");
    if (n)
        more[n++] = '\n';
    memcpy(more + n, name.p, name.n);
    more[n + name.n] = '\0';
    m->dataset = more;
    return true;
}

/* The legacy form has no counts: who was never seen has equal values. */
static bool all_equal(const float *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (!(v[i] >= v[0] && v[i] <= v[0]))
            return false;
    return true;
}

bool imatrix_shape(ImatrixEntry *e, int n_experts, int n_columns, ds4_err *err)
{
    if (e->n_experts == n_experts && e->n_columns == n_columns)
        return true;
    if (e->n_experts != 1 || (uint64_t)n_experts * (uint64_t)n_columns != n_values(e))
        return fail(err, DS4_EFORMAT, "importance of %s: %d x %d values, expected %d x %d", e->name,
                    e->n_experts, e->n_columns, n_experts, n_columns);
    float *counts = calloc((size_t)n_experts, sizeof *counts);
    if (!counts)
        return fail(err, DS4_ENOMEM, "no memory for the importance of %s", e->name);
    for (int i = 0; i < n_experts; i++) {
        float *v = e->sums + (size_t)i * (size_t)n_columns;
        bool seen = !all_equal(v, (size_t)n_columns);
        counts[i] = seen ? e->counts[0] : 0;
        if (!seen)
            memset(v, 0, (size_t)n_columns * sizeof *v);
    }
    free(e->counts);
    e->counts = counts;
    e->n_experts = n_experts;
    e->n_columns = n_columns;
    return true;
}

static bool merge_entry(Imatrix *to, ImatrixEntry *from, ds4_err *err)
{
    ImatrixEntry *e = imatrix_find(to, str_of(from->name));
    if (!e)
        e = imatrix_add(to, str_of(from->name), from->n_experts, from->n_columns, err);
    if (!e)
        return false;
    if (from->n_experts == 1 && !imatrix_shape(from, e->n_experts, e->n_columns, err))
        return false;
    if (!imatrix_shape(e, from->n_experts, from->n_columns, err))
        return false;
    for (size_t i = 0; i < n_values(e); i++)
        e->sums[i] += from->sums[i];
    for (int i = 0; i < e->n_experts; i++)
        e->counts[i] += from->counts[i];
    return true;
}

bool imatrix_merge(Imatrix *to, Imatrix *from, ds4_err *err)
{
    for (size_t i = 0; i < from->n; i++)
        if (!merge_entry(to, &from->entry[i], err))
            return false;
    to->chunks += from->chunks;
    to->chunk_size = MAX(to->chunk_size, from->chunk_size);
    to->source = 0;
    return !from->dataset || imatrix_add_dataset(to, str_of(from->dataset), err);
}

/* ---- reading -------------------------------------------------------------------- */

/* Copies n floats that lie anywhere; counts and sums of squares are no less than 0. */
static bool take_floats(float *to, const void *from, size_t n, const char *name, ds4_err *err)
{
    memcpy(to, from, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        if (!(to[i] >= 0 && isfinite(to[i])))
            return fail(err, DS4_EFORMAT, "importance of %s: value %zu is %g", name, i,
                        (double)to[i]);
    return true;
}

static bool ends_with(Str s, Str end)
{
    return s.n > end.n && memcmp(s.p + s.n - end.n, end.p, end.n) == 0;
}

/* The counts that belong to sums. */
static const GgufTensor *counts_of(const Gguf *g, Str name)
{
    char full[IMATRIX_NAME + 16];
    if (name.n >= IMATRIX_NAME)
        return NULL;
    memcpy(full, name.p, name.n);
    memcpy(full + name.n, COUNTS.p, COUNTS.n + 1);
    return gguf_tensor(g, full);
}

static bool take_entry(Imatrix *m, const Gguf *g, const GgufTensor *t, ds4_err *err)
{
    Str name = { t->name.p, t->name.n - SUMS.n };
    const GgufTensor *c = counts_of(g, name);
    uint64_t experts = t->dims[1] * t->dims[2] * t->dims[3];
    if (!c)
        return fail(err, DS4_EFORMAT, "importance of %.*s has no counts", STR_ARG(name));
    if (t->type != QUANT_F32 || c->type != QUANT_F32)
        return fail(err, DS4_EFORMAT, "importance of %.*s is %s and %s, not F32", STR_ARG(name),
                    quant_name(t->type), quant_name(c->type));
    if (t->dims[0] > INT_MAX || experts > INT_MAX || c->bytes != experts * sizeof(float))
        return fail(err, DS4_EFORMAT, "importance of %.*s: %llu counts for %llu x %llu values",
                    STR_ARG(name), (unsigned long long)(c->bytes / sizeof(float)),
                    (unsigned long long)experts, (unsigned long long)t->dims[0]);
    ImatrixEntry *e = imatrix_add(m, name, (int)experts, (int)t->dims[0], err);
    return e && take_floats(e->sums, t->data, n_values(e), e->name, err) &&
           take_floats(e->counts, c->data, (size_t)experts, e->name, err);
}

static uint64_t whole(const Gguf *g, const char *key)
{
    int64_t v = 0;
    return gguf_int(gguf_kv(g, key), &v) && v > 0 ? (uint64_t)v : 0;
}

static bool parse_gguf(Imatrix *m, const void *p, size_t n, ds4_err *err)
{
    Gguf g;
    Str s;
    size_t at = 0;
    if (!gguf_parse(&g, p, n, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < g.n_tensors; i++)
        if (ends_with(g.tensor[i].name, SUMS))
            ok = take_entry(m, &g, &g.tensor[i], err);
    if (ok && !m->n)
        ok = fail(err, DS4_EFORMAT, "a GGUF without importance: no tensor is called *%s", SUMS.p);
    m->chunks = whole(&g, "imatrix.chunk_count");
    m->chunk_size = whole(&g, "imatrix.chunk_size");
    m->source = whole(&g, "ds4.imatrix.source");
    const GgufKv *texts = gguf_kv(&g, "imatrix.datasets");
    while (ok && gguf_next_str(texts, &at, &s))
        ok = imatrix_add_dataset(m, s, err);
    gguf_release(&g);
    return ok;
}

typedef struct {
    const unsigned char *p;
    size_t n;
} Rest;

static bool take(Rest *r, size_t n, const void **p)
{
    if (n > r->n)
        return false;
    *p = r->p;
    r->p += n;
    r->n -= n;
    return true;
}

static bool take_i32(Rest *r, int32_t *v)
{
    const void *p;
    if (!take(r, 4, &p))
        return false;
    *v = (int32_t)u32_at(p);
    return true;
}

static bool take_text(Rest *r, Str *s)
{
    int32_t n;
    const void *p;
    if (!take_i32(r, &n) || n < 0 || !take(r, (size_t)n, &p))
        return false;
    *s = (Str){ p, (size_t)n };
    return true;
}

static bool take_legacy_entry(Imatrix *m, Rest *r, int32_t i, ds4_err *err)
{
    Str name;
    int32_t calls, n;
    const void *p;
    if (!take_text(r, &name) || !take_i32(r, &calls) || !take_i32(r, &n) || n < 1 ||
        (size_t)n > r->n / sizeof(float) || !take(r, (size_t)n * sizeof(float), &p))
        return fail(err, DS4_EFORMAT, "importance: the file ends within entry %d, or it is none",
                    (int)i);
    ImatrixEntry *e = imatrix_add(m, name, 1, n, err);
    if (e)
        e->counts[0] = (float)MAX(calls, 1);
    return e && take_floats(e->sums, p, (size_t)n, e->name, err);
}

static bool parse_legacy(Imatrix *m, const void *p, size_t n, ds4_err *err)
{
    Rest r = { p, n };
    int32_t entries, chunks;
    Str text;
    if (!take_i32(&r, &entries) || entries < 1 || (size_t)entries > r.n / 16)
        return fail(err, DS4_EFORMAT, "%zu bytes are no importance matrix", n);
    for (int32_t i = 0; i < entries; i++)
        if (!take_legacy_entry(m, &r, i, err))
            return false;
    if (r.n == 0)
        return true;
    if (!take_i32(&r, &chunks) || !take_text(&r, &text) || r.n)
        return fail(err, DS4_EFORMAT, "importance: %zu bytes after the last entry", r.n);
    m->chunks = (uint64_t)MAX(chunks, 0);
    return imatrix_add_dataset(m, text, err);
}

bool imatrix_parse(Imatrix *m, const void *p, size_t n, ds4_err *err)
{
    *m = (Imatrix){ 0 };
    bool gguf = n >= 4 && memcmp(p, "GGUF", 4) == 0;
    if (gguf ? parse_gguf(m, p, n, err) : parse_legacy(m, p, n, err))
        return true;
    imatrix_release(m);
    return false;
}

bool imatrix_read(Imatrix *m, const char *path, ds4_err *err)
{
    Map map;
    ds4_err why = { 0 };
    *m = (Imatrix){ 0 };
    if (!map_open(&map, path, err))
        return false;
    bool ok = imatrix_parse(m, map.p, map.n, &why);
    map_close(&map);
    return ok || fail(err, why.code, "%s: %s", path, why.msg);
}

/* ---- writing -------------------------------------------------------------------- */

static void put_datasets(GgufWriter *w, const char *names)
{
    Bytes packed = { 0 };
    uint64_t n = 0;
    for (const char *p = names; p && *p; n++) {
        size_t k = strcspn(p, "\n");
        bytes_u64(&packed, k);
        bytes_put(&packed, p, k);
        p += k + (p[k] == '\n');
    }
    w->kv.failed |= packed.failed;
    gguf_put_array(w, "imatrix.datasets", GGUF_STRING, n, packed.p, packed.n);
    bytes_release(&packed);
}

static bool put_tensor(GgufWriter *w, const ImatrixEntry *e, Str end, int columns, ds4_err *err)
{
    char name[IMATRIX_NAME + 16];
    uint64_t offset, bytes, dims[2] = { (uint64_t)columns, (uint64_t)e->n_experts };
    size_t n = strlen(e->name);
    memcpy(name, e->name, n);
    memcpy(name + n, end.p, end.n + 1);
    return gguf_put_tensor(w, str_of(name), QUANT_F32, 2, dims, UINT64_MAX, &offset, &bytes, err);
}

/* Floats, and zeros up to where the next tensor begins. */
static bool write_floats(File *f, const float *v, size_t n, ds4_err *err)
{
    static const char zeros[32];
    return file_write(f, v, n * sizeof *v, err) &&
           file_write(f, zeros, (size_t)((32 - f->n % 32) % 32), err);
}

static bool write_gguf(const Imatrix *m, File *f, ds4_err *err)
{
    GgufWriter w = { 0 };
    Bytes header = { 0 };
    gguf_put_str(&w, "general.type", STR("imatrix"));
    put_datasets(&w, m->dataset);
    gguf_put_int(&w, "imatrix.chunk_count", GGUF_U32, (int64_t)MIN(m->chunks, UINT32_MAX));
    gguf_put_int(&w, "imatrix.chunk_size", GGUF_U32, (int64_t)MIN(m->chunk_size, UINT32_MAX));
    if (m->source)
        gguf_put_int(&w, "ds4.imatrix.source", GGUF_U64, (int64_t)m->source);
    bool ok = true;
    for (size_t i = 0; ok && i < m->n; i++)
        ok = put_tensor(&w, &m->entry[i], SUMS, m->entry[i].n_columns, err) &&
             put_tensor(&w, &m->entry[i], COUNTS, 1, err);
    ok = ok && gguf_header(&w, &header, err) && file_write(f, header.p, header.n, err);
    for (size_t i = 0; ok && i < m->n; i++) {
        const ImatrixEntry *e = &m->entry[i];
        ok = write_floats(f, e->sums, n_values(e), err) &&
             write_floats(f, e->counts, (size_t)e->n_experts, err);
    }
    gguf_writer_release(&w);
    bytes_release(&header);
    return ok;
}

/* The form has one number of calls for all experts, so it holds means times that.
 * Who was never seen gets equal values: readers that know nothing of that take all
 * columns for equally important. */
static void put_legacy_entry(Bytes *b, const ImatrixEntry *e)
{
    float calls = 1;
    for (int i = 0; i < e->n_experts; i++)
        calls = MAX(calls, MIN(e->counts[i], 1e9f));
    calls = rintf(calls);
    bytes_u32(b, (uint32_t)strlen(e->name));
    bytes_str(b, e->name);
    bytes_u32(b, (uint32_t)calls);
    bytes_u32(b, (uint32_t)n_values(e));
    for (int i = 0; i < e->n_experts; i++) {
        const float *v = e->sums + (size_t)i * (size_t)e->n_columns;
        for (int k = 0; k < e->n_columns; k++)
            bytes_f32(b, e->counts[i] > 0 ? v[k] / e->counts[i] * calls : calls);
    }
}

static bool flush(Bytes *b, File *f, ds4_err *err)
{
    bool ok = b->failed ? fail(err, DS4_ENOMEM, "no memory to write the importance")
                        : file_write(f, b->p, b->n, err);
    bytes_clear(b);
    return ok;
}

static bool write_legacy(const Imatrix *m, File *f, ds4_err *err)
{
    Bytes b = { 0 };
    const char *text = m->dataset ? m->dataset : "";
    bytes_u32(&b, (uint32_t)m->n);
    bool ok = true;
    for (size_t i = 0; ok && i < m->n; i++) {
        if (n_values(&m->entry[i]) > INT32_MAX)
            ok = fail(err, DS4_EINVAL, "importance of %s: too many values for the legacy form",
                      m->entry[i].name);
        else
            put_legacy_entry(&b, &m->entry[i]);
        ok = ok && flush(&b, f, err);
    }
    bytes_u32(&b, (uint32_t)MIN(m->chunks, INT32_MAX));
    bytes_u32(&b, (uint32_t)strlen(text));
    bytes_str(&b, text);
    ok = ok && flush(&b, f, err);
    bytes_release(&b);
    return ok;
}

bool imatrix_write(const Imatrix *m, const char *path, ds4_err *err)
{
    File f = { .fd = -1 };
    bool legacy = ends_with(str_of(path), STR(".dat"));
    bool ok = file_create(&f, path, err) &&
              (legacy ? write_legacy(m, &f, err) : write_gguf(m, &f, err)) && file_commit(&f, err);
    file_release(&f);
    return ok;
}
