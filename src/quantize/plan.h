/* plan.h - a recipe applied to a model: every tensor's format, size and place. */
#ifndef QUANTIZE_PLAN_H
#define QUANTIZE_PLAN_H
#include "recipe.h"
#include "../gguf/gguf.h"

typedef struct {
    TensorSpec spec;
    int type, wanted;       /* enum Quant; they differ where the recipe's does not fit */
    uint64_t bytes, offset; /* in the data section */
    bool shared;            /* its bytes are those of an earlier tensor */
} PlanTensor;

typedef struct {
    const Recipe *recipe;
    PlanTensor *tensor;
    size_t n;
    uint64_t bytes; /* of all tensors, shared ones counted each time */
    Arena arena;
} Plan;

/* types: the user's own, or NULL; each of them must decide about a tensor. */
bool plan_make(Plan *p, const Shape *s, const Recipe *r, const TypeRules *types, ds4_err *err);
void plan_release(Plan *p);

/* Enter the tensors into a GGUF under construction, which fixes their places.
 * alias: those of equal format, dimensions and kind use the same bytes. */
bool plan_put(Plan *p, GgufWriter *w, bool alias, ds4_err *err);

/* A line a tensor: name, number of dimensions, dimensions, type, its id, bytes,
 * separated by tabs; the form of tests/data/gguf_tensors_q2.tsv. */
void plan_list(const Plan *p, Bytes *out);

/* Rows and the values of one. */
static inline uint64_t plan_rows(const PlanTensor *t) { return t->spec.dims[1] * t->spec.dims[2]; }

#endif
