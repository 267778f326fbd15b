/* cpu.h - the ops on the processor: loops over the microkernels of kernels.h. */
#ifndef CPU_H
#define CPU_H
#include "../../ops/ops.h"

/* shape stays borrowed. Weights are used where they lie: binding keeps the
 * pointer. Results depend on the instruction set (opt->isa) and on opt->exact
 * alone, never on the number of threads or on what else is in the step.
 *
 * Activations are packed to int8 (acts.h) where they meet weights of Q8_0, the
 * K formats, IQ2_XXS and MXFP4: projections of attention, experts, the head.
 * opt->exact leaves them F32. What routes, pools, mixes streams and selects has
 * F32 activations always. */
Backend *cpu_open(const Shape *shape, const BackendOptions *opt, ds4_err *err);

/* Bytes of scratch that cpu_open allocates for these; UINT64_MAX: too many. */
uint64_t cpu_scratch(const Shape *shape, const BackendOptions *opt);

#endif
