/* traffic.h - what an op has to read and to multiply.
 *
 * Bytes: each weight once for all rows, each routed expert that any row chose,
 * the KV rows that the queries see (decoded once a row of the step). Activations
 * are left out. Multiply-accumulates: of weights and rows, and of queries, keys
 * and values; norms and mixtures are left out. */
#ifndef TRAFFIC_H
#define TRAFFIC_H
#include "ops.h"

typedef struct {
    uint64_t bytes, macs;
} Traffic;

/* be is the backend that holds the buffers: traffic_experts reads the ids. */
#define OP(name, params, args) Traffic traffic_##name(Backend *be, const Step *step, LIST params);
OPS(OP)
#undef OP

#endif
