/* acts.h - a row of activations as int8: what the integer kernels multiply.
 *
 * A row of n values, n a multiple of 32, in one piece of memory that starts at
 * a multiple of 64:
 *
 *   q[n]          int8
 *   scale[n/32]   F32       x[i] ~ scale[i / 32] * q[i]
 *   sum[n/16]     int16     q[16 g] + ... + q[16 g + 15], for formats with a minimum
 *
 * scale is amax / 127 of its 32 values, q is x * (127 / amax), rounded to
 * nearest, ties to even; -128 never occurs. A block whose amax is below
 * act_tiny has scale 0 and codes 0, since 127 / amax might be infinite. A block
 * with NaN or infinity has scale NaN and codes 0, so that what is made of it is
 * NaN. All instruction sets make the same bits: amax is the largest of the
 * absolute values' bits, so NaN counts as the largest. */
#ifndef ACTS_H
#define ACTS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { ACT_BLOCK = 32, ACT_GROUP = 16, ACT_ALIGN = 64 };

static const float act_tiny = 0x1p-100f;

/* Bytes of a row, a multiple of ACT_ALIGN. */
static inline size_t act_bytes(int n)
{
    size_t blocks = (size_t)n / ACT_BLOCK;
    size_t bytes = blocks * (ACT_BLOCK + sizeof(float) + ACT_BLOCK / ACT_GROUP * sizeof(int16_t));
    return (bytes + ACT_ALIGN - 1) & ~(size_t)(ACT_ALIGN - 1);
}

static inline int8_t *act_q(const void *row) { return (int8_t *)(uintptr_t)row; }
static inline float *act_scale(const void *row, int n)
{
    return (float *)((uintptr_t)row + (size_t)n);
}
static inline int16_t *act_sum(const void *row, int n)
{
    return (int16_t *)((uintptr_t)row + (size_t)n + (size_t)n / ACT_BLOCK * sizeof(float));
}

/* Values [at, at + n) of a row of `length` from a row of n, both multiples of ACT_BLOCK. */
static inline void act_put(void *row, int length, int at, const void *part, int n)
{
    memcpy(act_q(row) + at, act_q(part), (size_t)n);
    memcpy(act_scale(row, length) + at / ACT_BLOCK, act_scale(part, n),
           (size_t)n / ACT_BLOCK * sizeof(float));
    memcpy(act_sum(row, length) + at / ACT_GROUP, act_sum(part, n),
           (size_t)n / ACT_GROUP * sizeof(int16_t));
}

#endif
