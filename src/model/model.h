/* model.h - a GGUF as a model: shape from its metadata, tensors bound by name.
 *
 * Nothing about Flash is hard-coded: toys, Flash and Pro are read by the same
 * code. All that is wrong with a file is reported at once, one line a tensor. */
#ifndef MODEL_H
#define MODEL_H
#include "../ops/ops.h"
#include "shape.h"

typedef struct {
    Shape shape;
    Weight embedding, head;
    HcWeights hc_out;
    Buf out_norm;
    Layer layer[MAX_LAYERS];
    Buf vectors; /* device memory that all vectors and hash tables lie in */
} Model;

typedef struct {
    uint64_t weights; /* of all tensors of the model, in the file */
    uint64_t step;    /* that decoding one token reads */
    uint64_t vectors; /* copied to the device, whatever it does with the rest */
} ModelBytes;

/* Look at every tensor's presence, dimensions and type, without binding any;
 * reads the tensor table only. *err has the first problem and the number of
 * others; *report (may be NULL) gets all of them, a line each. */
bool model_check(const Gguf *g, const Shape *s, ModelBytes *bytes, Bytes *report, ds4_err *err);

/* Bind the tensors of a file that model_check passed. The Gguf's bytes must
 * stay mapped as long as the backend is open. progress may be NULL. */
bool model_init(Model *m, const Gguf *g, const Shape *s, Backend *be, ds4_progress progress,
                void *user, ds4_err *err);
void model_release(Model *m, Backend *be);

#endif
