/* model.h - a GGUF as a model: shape from its metadata, tensors bound by name.
 *
 * Nothing about Flash is hard-coded: toys, Flash and Pro are read by the same
 * code. All that is wrong with a file is reported at once, one line a tensor. */
#ifndef MODEL_H
#define MODEL_H
#include "../gguf/gguf.h"
#include "../ops/ops.h"

typedef struct {
    Shape     shape;
    Weight    embedding, head;
    HcWeights hc_out;
    Buf       out_norm;
    Layer     layer[MAX_LAYERS];
    /* what backends were asked to hold, to be freed by model_release */
    Buf      *owned;
    size_t    n_owned;
    uint64_t  weight_bytes;  /* of all tensors of the model */
    uint64_t  step_bytes;    /* that decoding one token reads */
} Model;

/* The dimensions from metadata; checks that they make sense together. */
bool shape_read(Shape *s, const Gguf *g, ds4_err *err);

/* Find every tensor, check its dimensions and type, and bind it. The Gguf's
 * bytes must stay mapped as long as the backend is open. */
bool model_init(Model *m, const Gguf *g, Backend *be, ds4_err *err);
void model_release(Model *m, Backend *be);

/* Sizes without binding: reads the tensor table only. */
bool model_bytes(const Gguf *g, const Shape *s, uint64_t *weights, uint64_t *step, ds4_err *err);

#endif
