/* traffic.h - the bytes that an op has to read: each weight once for all rows,
 * each routed expert that any row chose, the KV rows that the queries see
 * (decoded once a row of the step). Activations are left out. */
#ifndef TRAFFIC_H
#define TRAFFIC_H
#include "ops.h"

/* be is the backend that holds the buffers: traffic_experts reads the ids. */
#define OP(name, params, args) uint64_t traffic_##name(Backend *be, const Step *step, LIST params);
OPS(OP)
#undef OP

#endif
