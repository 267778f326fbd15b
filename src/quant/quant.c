/* quant.c - the table of formats. */
#include "quant.h"
#include "blocks.h"
#include "formats.h"

_Static_assert(sizeof(BlockQ8_0) == 34, "Q8_0");
_Static_assert(sizeof(BlockQ2_K) == 84, "Q2_K");
_Static_assert(sizeof(BlockQ4_K) == 144, "Q4_K");
_Static_assert(sizeof(BlockIQ2_XXS) == 66, "IQ2_XXS");
_Static_assert(sizeof(BlockMXFP4) == 17, "MXFP4");

static const QuantFormat formats[QUANT_END] = {
    [QUANT_F32] = { "F32", 1, 4, f32_decode, f32_encode },
    [QUANT_F16] = { "F16", 1, 2, f16_decode, f16_encode },
    [QUANT_BF16] = { "BF16", 1, 2, bf16_decode, bf16_encode },
    [QUANT_I32] = { "I32", 1, 4, NULL, NULL },
    [QUANT_Q8_0] = { "Q8_0", 32, sizeof(BlockQ8_0), q8_0_decode, q8_0_encode },
    [QUANT_Q2_K] = { "Q2_K", QK, sizeof(BlockQ2_K), q2_k_decode, q2_k_encode },
    [QUANT_Q4_K] = { "Q4_K", QK, sizeof(BlockQ4_K), q4_k_decode, q4_k_encode },
    [QUANT_IQ2_XXS] = { "IQ2_XXS", QK, sizeof(BlockIQ2_XXS), iq2_xxs_decode, iq2_xxs_encode },
    [QUANT_MXFP4] = { "MXFP4", 32, sizeof(BlockMXFP4), mxfp4_decode, mxfp4_encode },
};

/* GGUF's names, so that a message can name what we do not support. */
static const char *const gguf_names[] = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
};

const QuantFormat *quant_format(int type)
{
    bool known = type >= 0 && type < QUANT_END && formats[type].name;
    return known ? &formats[type] : NULL;
}

const char *quant_name(int type)
{
    return type >= 0 && type < (int)COUNT(gguf_names) ? gguf_names[type] : "unknown";
}

static bool same_letters(Str a, const char *b)
{
    if (a.n != strlen(b))
        return false;
    for (size_t i = 0; i < a.n; i++) {
        char c = a.p[i];
        if ((c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c) != b[i])
            return false;
    }
    return true;
}

int quant_type(Str name)
{
    for (int t = 0; t < QUANT_END; t++) {
        if (formats[t].name && same_letters(name, formats[t].name))
            return t;
    }
    return -1;
}

bool quant_bytes(int type, uint64_t n, uint64_t *bytes)
{
    const QuantFormat *f = quant_format(type);
    if (!f || n % (uint64_t)f->block_len != 0)
        return false;
    return mul_u64(n / (uint64_t)f->block_len, (uint64_t)f->block_bytes, bytes);
}
