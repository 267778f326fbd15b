/* fill.h - random tensors: blocks of random codes with scales such that the
 * values have the spread of trained ones, and activations stay finite. */
#ifndef FILL_H
#define FILL_H
#include "plan.h"

/* A tensor is filled in pieces of whole blocks, each from its own seed, so that
 * threads need not agree. */
typedef struct {
    const PlanTensor *tensor;
    int n_experts; /* ids of a hash table lie below it */
    uint64_t seed; /* of the tensor */
} Fill;

/* Bytes of a piece: all but the last of a tensor have so many. */
uint64_t fill_piece(const Fill *f);
/* Fill piece i. n: its bytes. */
void fill_run(const Fill *f, uint64_t i, unsigned char *out, uint64_t n);

#endif
