/* machine.h - what this machine can do, measured: the limits that every figure
 * of the CPU kernels is a fraction of. For tools/limits, tools/bench_kernels and tools/bench_attend. */
#ifndef MACHINE_H
#define MACHINE_H
#include "../src/base/pool.h"

typedef struct {
    double best, median; /* of all repetitions; a second */
} Rate;

/* The best of repetitions is what the machine can do; the median what other
 * programs left of it meanwhile. `seconds` bounds all repetitions together. */

/* Fills memory to read, each part by the thread that will read it. `bytes` is
 * rounded down to whole windows. NULL: no memory. */
typedef struct {
    unsigned char *p;
    size_t bytes, window, at; /* of all; of a repetition, of all threads together; where it is */
} ReadBuffer;
bool read_buffer_new(ReadBuffer *b, Pool *p, size_t bytes, size_t window);
void read_buffer_free(ReadBuffer *b);
/* Bytes read, a window after the other, so that one has left the caches when
 * its turn comes again. */
Rate measure_read(Pool *p, ReadBuffer *b, double seconds);

enum MacKind { MAC_F32, MAC_INT8, MAC_BF16, MAC_KINDS };

/* Multiply-accumulates, all threads of p together, by the best instruction of
 * the kind that this CPU has and a kernel of the set `isa` may use (NULL: any).
 * *name is the instruction; NULL, and rates of 0, where there is none. */
Rate measure_macs(Pool *p, enum MacKind kind, const char *isa, double seconds, const char **name);

#endif
