/* encode.h - rows of a tensor, from its source to its format, and how far they came out. */
#ifndef ENCODE_H
#define ENCODE_H
#include "plan.h"
#include "source.h"
#include "../base/pool.h"
#include <stdatomic.h>

/* Squares of errors and of values, as they are and weighted by importance. */
typedef struct {
    double error, size, weighted_error, weighted_size, worst;
} RowError;

/* The rows [first, first + n) of a tensor. */
typedef struct {
    const PlanTensor *t;
    const Source *part;      /* [experts or 1] */
    const float *const *row; /* importance, like part; NULL: none */
    int n_experts;           /* ids lie below it */
    uint64_t first, n;
    unsigned char *out; /* [n] rows of the format */
    bool encoded;       /* out has them already */
    RowError *error;    /* [n], or NULL */
    float *values;      /* [threads][2][dims[0]] */
    atomic_ullong bad;  /* the lowest row that is wrong; UINT64_MAX: none */
} Rows;

/* By all threads. False where a value is none or does not fit; then encode_bad says it of `name`,
 * the row's expert or (whole) all of the tensor. */
bool encode_rows(Rows *b, Pool *pool);
bool encode_bad(const Rows *b, const char *name, bool whole, ds4_err *err);

static inline uint64_t plan_row_bytes(const PlanTensor *t) { return t->bytes / plan_rows(t); }

#endif
