/* convert.c - finding what a GGUF is made of. */
#include "convert.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Experts of a GGUF that is not there are one tensor. */
static bool is_same_tensor(const Convert *c, int part) { return c->input.is_gguf && part > 0; }

static bool find_sources(Convert *c, ds4_err *err)
{
    size_t missing = 0;
    char name[96], first[96] = "";
    c->source = arena_array(&c->arena, c->plan.n, sizeof *c->source);
    if (!c->source)
        return fail(err, DS4_ENOMEM, "no memory for the sources of %zu tensors", c->plan.n);
    for (size_t i = 0; i < c->plan.n; i++) {
        const TensorSpec *t = &c->plan.tensor[i].spec;
        c->source[i] = arena_array(&c->arena, (size_t)input_parts(t), sizeof **c->source);
        if (!c->source[i])
            return fail(err, DS4_ENOMEM, "no memory for the sources of %s", t->name);
        for (int k = 0; k < input_parts(t); k++) {
            enum SourceFound found = input_find(&c->source[i][k], &c->input, t, k, err);
            if (found == SOURCE_WRONG)
                return false;
            if (found == SOURCE_OK || is_same_tensor(c, k))
                continue;
            input_name(name, &c->input, t, k);
            if (missing < MAX_NAMED)
                note(&c->opt, "missing: %s", name);
            if (!missing++)
                memcpy(first, name, sizeof first);
        }
    }
    return !missing || fail(err, DS4_EFORMAT, "%s lacks %zu tensors of the model, first %s",
                            c->opt.in, missing, first);
}

static int by_text(const void *a, const void *b)
{
    const Str *x = a, *y = b;
    int c = memcmp(x->p, y->p, MIN(x->n, y->n));
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The names that sources have, sorted. */
static Str *used_names(const Convert *c, size_t *n, ds4_err *err)
{
    Str *used = calloc(2 * input_count(&c->input) + 2, sizeof *used);
    *n = 0;
    if (!used) {
        fail(err, DS4_ENOMEM, "no memory to check %zu tensors", input_count(&c->input));
        return NULL;
    }
    for (size_t i = 0; i < c->plan.n; i++) {
        for (int k = 0; k < input_parts(&c->plan.tensor[i].spec); k++) {
            const Source *s = &c->source[i][k];
            if (is_same_tensor(c, k))
                continue;
            used[(*n)++] = s->gguf ? s->gguf->name : s->weight->name;
            if (s->scale)
                used[(*n)++] = s->scale->name;
        }
    }
    qsort(used, *n, sizeof *used, by_text);
    return used;
}

/* Every tensor of the input has a place in the file, or is a draft head's. */
static bool check_unused(const Convert *c, ds4_err *err)
{
    size_t n, unknown = 0, draft = 0;
    Str first = { 0 }, *used = used_names(c, &n, err);
    if (!used)
        return false;
    for (size_t i = 0; i < input_count(&c->input); i++) {
        const Str name = input_tensor(&c->input, i);
        if (bsearch(&name, used, n, sizeof *used, by_text))
            continue;
        if (input_is_draft(&c->input, name)) {
            draft++;
            continue;
        }
        if (unknown < MAX_NAMED)
            note(&c->opt, "not a tensor of this model: %.*s", STR_ARG(name));
        if (!unknown++)
            first = name;
    }
    free(used);
    if (draft)
        note(&c->opt, "%zu tensors of the draft head are left out", draft);
    return !unknown ||
           fail(err, DS4_EFORMAT, "%s has %zu tensors that this model has not, first %.*s",
                c->opt.in, unknown, STR_ARG(first));
}

/* ---- what is worth saying --------------------------------------------------- */

/* The tensor's name without its layer. */
static const char *suffix(const PlanTensor *t)
{
    const char *dot = t->spec.layer < 0 ? NULL : strchr(t->spec.name + 4, '.');
    return dot ? dot + 1 : t->spec.name;
}

typedef bool (*Alike)(const Convert *c, size_t i, size_t k);

static bool same_name(const Convert *c, size_t i, size_t k)
{
    const PlanTensor *a = &c->plan.tensor[i], *b = &c->plan.tensor[k];
    return a->type == b->type && strcmp(suffix(a), suffix(b)) == 0;
}

static bool same_fallback(const Convert *c, size_t i, size_t k)
{
    const PlanTensor *a = &c->plan.tensor[i], *b = &c->plan.tensor[k];
    return same_name(c, i, k) && a->wanted == b->wanted && a->spec.dims[0] == b->spec.dims[0];
}

static bool same_loss(const Convert *c, size_t i, size_t k)
{
    return same_name(c, i, k) && c->source[i]->gguf->type == c->source[k]->gguf->type;
}

/* How many tensors are like i; 0 where an earlier one is, so that it is said once. */
static size_t n_alike(const Convert *c, size_t i, Alike alike)
{
    size_t n = 0;
    for (size_t k = 0; k < c->plan.n; k++) {
        if (!alike(c, i, k))
            continue;
        if (k < i)
            return 0;
        n++;
    }
    return n;
}

static void note_fallback(const Convert *c, size_t i)
{
    const PlanTensor *t = &c->plan.tensor[i];
    size_t n = t->type != t->wanted ? n_alike(c, i, same_fallback) : 0;
    if (n)
        note(&c->opt, "%s (%zu of them): rows of %llu values do not fit %s, written as %s",
             suffix(t), n, (unsigned long long)t->spec.dims[0], quant_name(t->wanted),
             quant_name(t->type));
}

static void note_loss(const Convert *c, size_t i)
{
    const PlanTensor *t = &c->plan.tensor[i];
    const Source *s = c->source[i];
    size_t n = source_lossy(s) && s->gguf->type != t->type ? n_alike(c, i, same_loss) : 0;
    if (n)
        note(&c->opt,
             "warning: %s (%zu of them) becomes %s from %s, which has lost something already: "
             "better convert the original",
             suffix(t), n, quant_name(t->type), quant_name(s->gguf->type));
}

/* Only the searching encoders look at importance. */
static bool read_importance(Convert *c, ds4_err *err)
{
    if (!c->opt.imatrix)
        return true;
    if (!importance_read(&c->importance, c->opt.imatrix, &c->plan, c->opt.note, c->opt.user, err))
        return false;
    return c->importance.decides || c->opt.compared ||
           fail(err, DS4_EINVAL,
                "importance decides about nothing in recipe %s: no tensor is Q2_K, Q4_K or IQ2_XXS",
                c->plan.recipe->name);
}

bool convert_open(Convert *c, const ConvertOptions *opt, ds4_err *err)
{
    *c = (Convert){ .opt = *opt };
    const Recipe *r = recipe_find(opt->recipe, err);
    bool ok = r && input_open(&c->input, opt->in, err) &&
              plan_make(&c->plan, &c->input.config.shape, r, opt->types, err) &&
              find_sources(c, err) && check_unused(c, err) && read_importance(c, err);
    for (size_t i = 0; ok && i < c->plan.n; i++) {
        note_fallback(c, i);
        note_loss(c, i);
    }
    if (ok && !input_has_tokenizer(&c->input))
        note(opt, "no tokenizer.json: one token a byte, and control tokens");
    if (!ok)
        convert_close(c);
    return ok;
}

void convert_close(Convert *c)
{
    plan_release(&c->plan);
    importance_release(&c->importance);
    input_close(&c->input);
    arena_release(&c->arena);
    *c = (Convert){ 0 };
}
