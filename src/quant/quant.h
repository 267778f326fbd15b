/* quant.h - the number formats: one table, one file a format.
 *
 * Ids are GGUF's. A row of n values takes n / block_len * block_bytes bytes;
 * n must be a multiple of block_len. Layouts: blocks.h. */
#ifndef QUANT_H
#define QUANT_H
#include "../base/base.h"

enum Quant {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q4_K = 12,
    QUANT_IQ2_XXS = 16,
    QUANT_I32 = 26,
    QUANT_BF16 = 30,
    QUANT_MXFP4 = 39,
    QUANT_END = 40
};

/* n values, n a multiple of block_len. Blocks may have any alignment. */
typedef void (*QuantDecode)(float *dst, const void *src, size_t n);
/* importance: one weight >= 0 a value; NULL: all alike. Formats without a search ignore it. */
typedef void (*QuantEncode)(void *dst, const float *src, size_t n, const float *importance);

typedef struct {
    const char *name; /* "Q8_0" */
    int block_len, block_bytes;
    QuantDecode decode; /* NULL for I32 */
    QuantEncode encode; /* NULL for I32 */
} QuantFormat;

/* NULL: not one of ours. */
const QuantFormat *quant_format(int type);
/* The name for messages, also of GGUF types that we do not support. */
const char *quant_name(int type);
/* The type of a name, any case; -1: none. */
int quant_type(Str name);
/* *bytes of n values; false when n is no multiple of the block or it overflows. */
bool quant_bytes(int type, uint64_t n, uint64_t *bytes);

#endif
