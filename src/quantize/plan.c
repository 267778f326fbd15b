/* plan.c - formats, sizes and places. */
#include "plan.h"

static bool plan_tensor(PlanTensor *t, const TensorSpec *spec, const Shape *s, const Recipe *r,
                        const TypeRules *types, ds4_err *err)
{
    uint64_t n;
    *t = (PlanTensor){ .spec = *spec };
    t->type = recipe_type(r, spec, s->n_layers, &t->wanted);
    int own = types ? type_rules_find(types, spec) : -1;
    if (own >= 0) {
        t->wanted = types->rule[own].type;
        t->type = recipe_fitting(t->wanted, spec->dims[0]);
    }
    if (!mul_u64(spec->dims[0], spec->dims[1], &n) || !mul_u64(n, spec->dims[2], &n) ||
        !quant_bytes(t->type, n, &t->bytes))
        return fail(err, DS4_EINVAL, "%s: %llu x %llu x %llu values do not fit %s", spec->name,
                    (unsigned long long)spec->dims[0], (unsigned long long)spec->dims[1],
                    (unsigned long long)spec->dims[2], quant_name(t->type));
    return true;
}

/* A rule that decides about nothing is a misspelt one. */
static bool check_used(const Layout *l, const TypeRules *types, ds4_err *err)
{
    bool used[MAX_TYPE_RULES] = { false };
    for (size_t i = 0; i < l->n; i++) {
        int own = type_rules_find(types, &l->spec[i]);
        if (own >= 0)
            used[own] = true;
    }
    for (size_t i = 0; i < types->n; i++)
        if (!used[i])
            return fail(err, DS4_EINVAL,
                        "type %s of %s: that is no matrix of the model, or an "
                        "earlier pattern has it",
                        quant_name(types->rule[i].type), types->rule[i].pattern);
    return true;
}

/* Routed gates and ups are evaluated together. */
static bool check_pairs(const Plan *p, ds4_err *err)
{
    const PlanTensor *gate = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const PlanTensor *t = &p->tensor[i];
        if (strstr(t->spec.name, ".ffn_gate_exps."))
            gate = t;
        else if (gate && strstr(t->spec.name, ".ffn_up_exps.") && t->type != gate->type)
            return fail(err, DS4_EINVAL,
                        "%s would be %s and %s of the same layer %s: they must "
                        "be of one type",
                        gate->spec.name, quant_name(gate->type), "ffn_up_exps",
                        quant_name(t->type));
    }
    return true;
}

static bool make(Plan *p, const Shape *s, const TypeRules *types, ds4_err *err)
{
    Layout l;
    if (!layout_make(&l, s, &p->arena, err))
        return false;
    p->tensor = arena_array(&p->arena, l.n, sizeof *p->tensor);
    if (!p->tensor)
        return fail(err, DS4_ENOMEM, "no memory for the plan of %zu tensors", l.n);
    for (; p->n < l.n; p->n++) {
        if (!plan_tensor(&p->tensor[p->n], &l.spec[p->n], s, p->recipe, types, err))
            return false;
        p->bytes += p->tensor[p->n].bytes;
    }
    return (!types || check_used(&l, types, err)) && check_pairs(p, err);
}

bool plan_make(Plan *p, const Shape *s, const Recipe *r, const TypeRules *types, ds4_err *err)
{
    *p = (Plan){ .recipe = r };
    if (make(p, s, types, err))
        return true;
    plan_release(p);
    return false;
}

void plan_release(Plan *p)
{
    arena_release(&p->arena);
    *p = (Plan){ 0 };
}

static bool alike(const PlanTensor *a, const PlanTensor *b)
{
    return a->type == b->type && a->spec.kind == b->spec.kind && a->spec.n_dims == b->spec.n_dims &&
           memcmp(a->spec.dims, b->spec.dims, sizeof a->spec.dims) == 0;
}

static const PlanTensor *owner_of(const Plan *p, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (!p->tensor[k].shared && alike(&p->tensor[k], &p->tensor[i]))
            return &p->tensor[k];
    return NULL;
}

bool plan_put(Plan *p, GgufWriter *w, bool alias, ds4_err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        PlanTensor *t = &p->tensor[i];
        const PlanTensor *owner = alias ? owner_of(p, i) : NULL;
        t->shared = owner != NULL;
        if (!gguf_put_tensor(w, str_of(t->spec.name), t->type, t->spec.n_dims, t->spec.dims,
                             owner ? owner->offset : UINT64_MAX, &t->offset, &t->bytes, err))
            return false;
    }
    return true;
}

void plan_list(const Plan *p, Bytes *out)
{
    for (size_t i = 0; i < p->n; i++) {
        const PlanTensor *t = &p->tensor[i];
        bytes_printf(out, "%s\t%d\t", t->spec.name, t->spec.n_dims);
        for (int d = 0; d < t->spec.n_dims; d++)
            bytes_printf(out, "%s%llu", d ? "," : "", (unsigned long long)t->spec.dims[d]);
        bytes_printf(out, "\t%s\t%d\t%llu\n", quant_name(t->type), t->type,
                     (unsigned long long)t->bytes);
    }
}
