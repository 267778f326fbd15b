/* importance.c - finding what is important for each row. */
#include "importance.h"
#include <stdio.h>
#include <xxhash.h>

/* Tensors that are named one by one before only their number is told. */
enum { MAX_NAMED = 40 };

typedef struct {
    Importance *m;
    void (*note)(void *user, const char *line);
    void *user;
    size_t wanted, found, missing; /* tensors whose encoder searches */
    size_t judged;                 /* others, of which only the error is weighed */
} Finder;

static void tell(const Finder *f, const char *line)
{
    if (f->note)
        f->note(f->user, line);
}

static bool searches(int type)
{
    return type == QUANT_Q2_K || type == QUANT_Q4_K || type == QUANT_IQ2_XXS;
}

static int n_parts(const PlanTensor *t)
{
    return t->spec.kind == KIND_EXPERTS ? (int)t->spec.dims[2] : 1;
}

/* Only what a column counts beside the others of its row matters, so each row's mean
 * is made 1, far from the ends of what a float holds. */
static bool normalize(float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i];
    if (!(sum > 0))
        return false;
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((double)v[i] * (double)n / sum);
    return true;
}

/* All experts from one entry. */
static bool take_entry(Finder *f, ImatrixEntry *e, const PlanTensor *t, const float **row,
                       ds4_err *err)
{
    const int n = n_parts(t);
    const size_t cols = (size_t)t->spec.dims[0];
    if (!imatrix_shape(e, n, (int)cols, err))
        return false;
    for (int k = 0; k < n; k++) {
        float *v = e->sums + (size_t)k * cols;
        row[k] = e->counts[k] > 0 && normalize(v, cols) ? v : NULL;
    }
    f->found++;
    return true;
}

/* An entry for each expert, under its official name. */
static bool take_official(Finder *f, const PlanTensor *t, const float **row, bool *any,
                          ds4_err *err)
{
    const char *mark = strstr(t->spec.official, "%d");
    for (int k = 0; k < n_parts(t); k++) {
        char name[96];
        if (mark)
            snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - t->spec.official),
                     t->spec.official, k, mark + 2);
        else
            snprintf(name, sizeof name, "%s", t->spec.official);
        ImatrixEntry *e = imatrix_find(&f->m->matrix, str_of(name));
        if (!e)
            continue;
        if (!imatrix_shape(e, 1, (int)t->spec.dims[0], err))
            return false;
        *any = true;
        if (e->counts[0] > 0 && normalize(e->sums, (size_t)e->n_columns))
            row[k] = e->sums;
    }
    f->found += *any;
    return true;
}

static void tell_unseen(const Finder *f, const PlanTensor *t, const float *const *row)
{
    char line[300];
    int n = 0, unseen = 0;
    for (int k = 0; k < n_parts(t); k++)
        unseen += !row[k];
    if (!unseen)
        return;
    n = snprintf(line, sizeof line,
                 "%s: %d of %d experts were never seen, and all their columns "
                 "count alike:",
                 t->spec.name, unseen, n_parts(t));
    for (int k = 0; k < n_parts(t) && n < (int)sizeof line - 16; k++)
        if (!row[k])
            n += snprintf(line + n, sizeof line - (size_t)n, " %d", k);
    if (n >= (int)sizeof line - 16)
        snprintf(line + n, sizeof line - (size_t)n, " ...");
    tell(f, line);
}

static bool find(Finder *f, const PlanTensor *t, const float **row, ds4_err *err)
{
    bool any = false;
    ImatrixEntry *e = imatrix_find(&f->m->matrix, str_of(t->spec.name));
    if (e ? !take_entry(f, e, t, row, err) : !take_official(f, t, row, &any, err))
        return false;
    if (e || any) {
        tell_unseen(f, t, row);
    } else if (f->missing++ < MAX_NAMED) {
        char line[200];
        snprintf(line, sizeof line, "no importance for %s: all its columns count alike",
                 t->spec.name);
        tell(f, line);
    }
    return true;
}

/* What does not fit is no error here: of what is not searched, other programs collect in shapes
 * of their own. */
static void find_judged(Finder *f, const PlanTensor *t, const float **row)
{
    const size_t before = f->found;
    bool any = false;
    ds4_err unfit;
    ImatrixEntry *e = imatrix_find(&f->m->matrix, str_of(t->spec.name));
    if (e)
        take_entry(f, e, t, row, &unfit);
    else
        take_official(f, t, row, &any, &unfit);
    f->judged += f->found - before;
    f->found = before;
}

static bool find_all(Finder *f, const Plan *p, const char *path, ds4_err *err)
{
    f->m->row = arena_array(&f->m->arena, p->n, sizeof *f->m->row);
    if (!f->m->row)
        return fail(err, DS4_ENOMEM, "no memory for the importance of %zu tensors", p->n);
    for (size_t i = 0; i < p->n; i++) {
        const PlanTensor *t = &p->tensor[i];
        const float **row = arena_array(&f->m->arena, (size_t)n_parts(t), sizeof *row);
        if (!row)
            return fail(err, DS4_ENOMEM, "no memory for the importance of %s", t->spec.name);
        f->m->row[i] = row;
        f->wanted += searches(t->type);
        if (!searches(t->type))
            find_judged(f, t, row);
        else if (!find(f, t, row, err))
            return false;
    }
    if (f->wanted ? !f->found : !f->judged)
        return fail(err, DS4_EFORMAT,
                    "%s: none of its %zu entries is of this model, the first is %s", path,
                    f->m->matrix.n, f->m->matrix.entry[0].name);
    if (f->missing > MAX_NAMED) {
        char line[80];
        snprintf(line, sizeof line, "and none for %zu more tensors", f->missing - MAX_NAMED);
        tell(f, line);
    }
    return true;
}

static uint64_t hash_of(const Imatrix *m)
{
    uint64_t h = m->n;
    for (size_t i = 0; i < m->n; i++) {
        const ImatrixEntry *e = &m->entry[i];
        const size_t n = (size_t)e->n_experts * (size_t)e->n_columns;
        h = XXH3_64bits_withSeed(e->name, strlen(e->name), h);
        h = XXH3_64bits_withSeed(e->sums, n * sizeof *e->sums, h);
        h = XXH3_64bits_withSeed(e->counts, (size_t)e->n_experts * sizeof *e->counts, h);
    }
    return h;
}

bool importance_read(Importance *m, const char *path, const Plan *p,
                     void (*note)(void *user, const char *line), void *user, ds4_err *err)
{
    Finder f = { .m = m, .note = note, .user = user };
    *m = (Importance){ 0 };
    if (!imatrix_read(&m->matrix, path, err))
        return false;
    m->hash = hash_of(&m->matrix);
    if (find_all(&f, p, path, err)) {
        m->decides = f.wanted > 0;
        return true;
    }
    importance_release(m);
    return false;
}

void importance_release(Importance *m)
{
    imatrix_release(&m->matrix);
    arena_release(&m->arena);
    *m = (Importance){ 0 };
}

void importance_put(const Importance *m, GgufWriter *w, const char *path)
{
    gguf_put_str(w, "quantize.imatrix.file", str_of(path));
    if (m->matrix.dataset)
        gguf_put_str(w, "quantize.imatrix.dataset", str_of(m->matrix.dataset));
    gguf_put_int(w, "quantize.imatrix.entries_count", GGUF_U64, (int64_t)m->matrix.n);
    gguf_put_int(w, "quantize.imatrix.chunks_count", GGUF_U64, (int64_t)m->matrix.chunks);
}
