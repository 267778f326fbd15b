/* blocks.h - how a block of each format lies in memory.
 *
 * Plain C without includes of its own beyond stdint, so that .cu and .metal
 * files read the same text. Everything is bytes: a block may start anywhere
 * (weights are used straight from a file's mapping), and numbers of several
 * bytes are little endian.
 *
 * Elements of a block count from 0; "half" is an IEEE binary16. */
#ifndef BLOCKS_H
#define BLOCKS_H
#include <stdint.h>

/* Values in a block of the formats with long blocks. */
#define QK 256

/* 32 values: d * q[i] */
typedef struct {
    uint8_t d[2]; /* half */
    int8_t q[32];
} BlockQ8_0;

/* 256 values. Element e = 128 n + 32 j + 16 h + l (n < 2, j < 4, h < 2, l < 16):
 *   code  = q[32 n + 16 h + l] >> 2 j & 3
 *   scale = scales[e / 16] & 15, min = scales[e / 16] >> 4
 *   value = d * scale * code - dmin * min */
typedef struct {
    uint8_t scales[16];
    uint8_t q[64];
    uint8_t d[2], dmin[2]; /* halves */
} BlockQ2_K;

/* 256 values, 8 groups of 32. Group j has a 6-bit scale and a 6-bit min:
 *   j <  4: scale = s[j] & 63,                            min = s[j + 4] & 63
 *   j >= 4: scale = s[j + 4] & 15 | s[j - 4] >> 6 << 4,   min = s[j + 4] >> 4 | s[j] >> 6 << 4
 *   code  = low (j even) or high (j odd) nibble of q[32 (j / 2) + l]
 *   value = d * scale * code - dmin * min */
typedef struct {
    uint8_t d[2], dmin[2]; /* halves */
    uint8_t s[12];
    uint8_t q[128];
} BlockQ4_K;

/* 256 values, 8 groups of 32, each four 8-tuples k:
 *   a     = signs as a 32-bit number: bits 7k .. 7k + 6 sign index t, bits 28 .. 31 scale s
 *   mask  = t with bit 7 set where t has an odd number of bits
 *   value = d * (0.5 + s) * 0.25 * byte j of grid[index[k]], negative where bit j of mask is set */
typedef struct {
    uint8_t d[2]; /* half */
    struct {
        uint8_t index[4];
        uint8_t signs[4];
    } g[8];
} BlockIQ2_XXS;

/* 32 values: element i is the low nibble of q[i], element i + 16 the high one;
 * E2M1(nibble) * 2^(e - 127) */
typedef struct {
    uint8_t e; /* E8M0 */
    uint8_t q[16];
} BlockMXFP4;

#endif
