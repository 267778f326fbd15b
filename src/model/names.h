/* names.h - the tensors of a model: what each is called in a GGUF, which
 * layers have it, its dimensions, and where in a Model it goes. */
#ifndef NAMES_H
#define NAMES_H
#include "model.h"

enum TensorWhere { IN_MODEL, IN_LAYER, IN_POOLED, IN_INDEXED, IN_HASHED, IN_SCORED };
enum TensorRole { ROLE_VECTOR, ROLE_MATRIX, ROLE_EMBEDDING, ROLE_EXPERTS, ROLE_HASH };

enum { NAME_BYTES = 64 };

typedef struct {
    const char *name; /* after "blk.N." for those of layers */
    enum TensorWhere where;
    enum TensorRole role;
    size_t at;   /* of a Buf (vectors, hash) or Weight in Model or Layer */
    int dims[3]; /* indexes of dims_of's table; 0: 1 */
} TensorName;

extern const TensorName tensor_names[];
extern const size_t n_tensor_names;

/* Does this layer (-1: the model itself) have the tensor? */
bool names_apply(const TensorName *t, const Shape *s, int layer);
/* "blk.3.attn_norm.weight" */
void names_full(char out[NAME_BYTES], const TensorName *t, int layer);
/* dims[0] contiguous; unused ones are 1. */
void names_dims(uint64_t out[3], const TensorName *t, const Shape *s, int layer);

#endif
