/* layout.h - the tensors of a model: what they are called in a GGUF and in the
 * published checkpoint, and their dimensions, from the model's shape.
 *
 * One table describes all of it; conversion, synthetic models and the tests
 * against the published files' tensor lists walk the same list. Names are
 * those of spec 8.3 and 9.2. */
#ifndef LAYOUT_H
#define LAYOUT_H
#include "../base/arena.h"
#include "../ops/shape.h"

/* What a tensor does: recipes go by names, random values by this. */
enum TensorKind {
    KIND_MATRIX,  /* y = W x */
    KIND_EXPERTS, /* n_experts matrices, stacked */
    KIND_EMBED,
    KIND_NORM,
    KIND_HC_SCALE,
    KIND_HC_BASE,
    KIND_APE,
    KIND_SINKS,
    KIND_ROUTE_BIAS,
    KIND_ROUTE_HASH /* I32, expert ids */
};

typedef struct {
    char name[56];     /* "blk.3.ffn_gate_exps.weight" */
    char official[64]; /* "layers.3.ffn.experts.%d.w1.weight", %d for KIND_EXPERTS only */
    int kind;          /* enum TensorKind */
    int layer;         /* -1: none */
    int n_dims;
    uint64_t dims[3]; /* dims[0] contiguous; unused ones are 1 */
} TensorSpec;

typedef struct {
    TensorSpec *spec;
    size_t n;
} Layout;

/* Every tensor of a model of this shape, in the order of the published lists.
 * Allocates from a. */
bool layout_make(Layout *l, const Shape *s, Arena *a, ds4_err *err);

#endif
