/* cpu.h - the ops on the processor: loops over the microkernels of kernels.h. */
#ifndef CPU_H
#define CPU_H
#include "../../ops/ops.h"

/* shape stays borrowed. Weights are used where they lie: binding keeps the
 * pointer. Results depend on the instruction set (opt->isa) alone, never on
 * the number of threads or on what else is in the step. */
Backend *cpu_open(const Shape *shape, const BackendOptions *opt, ds4_err *err);

/* Bytes of scratch that cpu_open allocates for these; UINT64_MAX: too many. */
uint64_t cpu_scratch(const Shape *shape, const BackendOptions *opt);

#endif
