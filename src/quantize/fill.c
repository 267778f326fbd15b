/* fill.c - one function a format. Speed matters: the full model has 86.7 GB.
 *
 * Where codes are uniform, the scale follows from their spread: q is the
 * standard deviation of a value whose block scale is 1. */
#include "fill.h"
#include "../base/rng.h"
#include "../quant/float.h"
#include <assert.h>
#include <math.h>

enum { PIECE = 1 << 20 };

/* Mean and spread of a tensor's values. Matrices keep inputs of variance 1 at
 * variance 1. */
typedef struct {
    float mean, spread;
} Values;

static Values values_of(const PlanTensor *t)
{
    switch (t->spec.kind) {
    case KIND_EMBED: return (Values){ 0, 1 };
    case KIND_NORM: return (Values){ 1, 0.1f };
    case KIND_HC_SCALE: return (Values){ 0.5f, 0 };
    case KIND_HC_BASE: return (Values){ 0, 0.5f };
    case KIND_APE: return (Values){ 0, 0.2f };
    case KIND_SINKS: return (Values){ 0, 1 };
    case KIND_ROUTE_BIAS: return (Values){ 0, 0.05f };
    default: return (Values){ 0, 1 / sqrtf((float)t->spec.dims[0]) };
    }
}

static void random_bytes(unsigned char *p, uint64_t n, uint64_t *s)
{
    uint64_t v;
    for (; n >= 8; p += 8, n -= 8) {
        v = rng_next(s);
        memcpy(p, &v, 8);
    }
    v = rng_next(s);
    memcpy(p, &v, (size_t)n);
}

/* ---- floats: four random bytes added up are near enough to a normal variate -- */

enum { SUMS = 4 * 255 + 1 };

static unsigned byte_sum(uint64_t v)
{
    return (unsigned)((v & 255) + (v >> 8 & 255) + (v >> 16 & 255) + (v >> 24 & 255));
}

static float sum_value(Values d, int sum)
{
    return d.mean + d.spread * ((float)sum - 510.0f) / 147.8f;
}

static void fill_f32(unsigned char *p, uint64_t n, Values d, uint64_t *s)
{
    float table[SUMS];
    for (int i = 0; i < SUMS; i++)
        table[i] = sum_value(d, i);
    for (; n; p += 4, n -= 4)
        memcpy(p, &table[byte_sum(rng_next(s))], 4);
}

/* Halves and bfloat16, two from a random word. */
static void fill_16(unsigned char *p, uint64_t n, Values d, bool bf16, uint64_t *s)
{
    uint16_t table[SUMS];
    for (int i = 0; i < SUMS; i++)
        table[i] = bf16 ? bf16_from_f32(sum_value(d, i)) : f16_from_f32(sum_value(d, i));
    for (; n >= 4; p += 4, n -= 4) {
        uint64_t v = rng_next(s);
        memcpy(p, &table[byte_sum(v)], 2);
        memcpy(p + 2, &table[byte_sum(v >> 32)], 2);
    }
    if (n)
        memcpy(p, &table[byte_sum(rng_next(s))], 2);
}

/* ---- blocks: random bytes, then the scales put in place -------------------- */

enum { N_SCALES = 16 };

/* Scales of 0.8 to 1.2 of what gives the spread. */
static void scales_of(uint16_t out[N_SCALES], float scale)
{
    for (int i = 0; i < N_SCALES; i++)
        out[i] = f16_from_f32(scale * (0.8f + 0.4f * (float)i / (N_SCALES - 1)));
}

/* Codes -127..127: q = 73.3. */
static void fill_q8_0(unsigned char *p, uint64_t n, float spread, uint64_t *s)
{
    uint16_t d[N_SCALES];
    scales_of(d, spread / 73.3f);
    random_bytes(p, n, s);
    for (unsigned char *end = p + n; p < end; p += 34) {
        u16_put(p, d[p[0] & 15]);
        for (int i = 2; i < 34; i++)
            p[i] = p[i] == 0x80 ? 0x81 : p[i];
    }
}

/* (0.5 + 0..15) / 4 * (8, 25 or 43): q = 54. */
static void fill_iq2_xxs(unsigned char *p, uint64_t n, float spread, uint64_t *s)
{
    uint16_t d[N_SCALES];
    scales_of(d, spread / 54.2f);
    random_bytes(p, n, s);
    for (unsigned char *end = p + n; p < end; p += 66)
        u16_put(p, d[p[0] & 15]);
}

/* 0..15 * 0..3 - 1.5 * 0..15, of mean 0: q = 13.9. */
static void fill_q2_k(unsigned char *p, uint64_t n, float spread, uint64_t *s)
{
    uint16_t d[N_SCALES], m[N_SCALES];
    scales_of(d, spread / 13.9f);
    scales_of(m, spread / 13.9f * 1.5f);
    random_bytes(p, n, s);
    for (unsigned char *end = p + n; p < end; p += 84) {
        int i = p[80] & 15;
        u16_put(p + 80, d[i]);
        u16_put(p + 82, m[i]);
    }
}

/* 0..63 * 0..15 - 7.5 * 0..63, of mean 0: q = 258. */
static void fill_q4_k(unsigned char *p, uint64_t n, float spread, uint64_t *s)
{
    uint16_t d[N_SCALES], m[N_SCALES];
    scales_of(d, spread / 258.0f);
    scales_of(m, spread / 258.0f * 7.5f);
    random_bytes(p, n, s);
    for (unsigned char *end = p + n; p < end; p += 144) {
        int i = p[0] & 15;
        u16_put(p, d[i]);
        u16_put(p + 2, m[i]);
    }
}

/* Magnitudes 0 .5 1 1.5 2 3 4 6: q = 2.93, times powers of two. A quarter of
 * the blocks at twice the scale, a quarter at half of it. */
static void fill_mxfp4(unsigned char *p, uint64_t n, float spread, uint64_t *s)
{
    int e = 127 + (int)lrintf(log2f(spread / 2.93f));
    random_bytes(p, n, s);
    for (unsigned char *end = p + n; p < end; p += 17)
        p[0] = (unsigned char)(e + (p[0] & 1) - (p[0] >> 1 & 1));
}

/* Distinct expert ids in each row. */
static void fill_ids(unsigned char *p, uint64_t n, int n_active, int n_experts, uint64_t *s)
{
    for (unsigned char *end = p + n; p < end; p += 4 * n_active) {
        for (int i = 0; i < n_active; i++) {
            uint32_t id = (uint32_t)(rng_next(s) % (uint64_t)n_experts);
            for (int k = 0; k < i; k++)
                if (u32_at(p + 4 * k) == id) {
                    id = (id + 1) % (uint32_t)n_experts;
                    k = -1;
                }
            u32_put(p + 4 * i, id);
        }
    }
}

/* ---- pieces ------------------------------------------------------------------ */

uint64_t fill_piece(const Fill *f)
{
    const PlanTensor *t = f->tensor;
    const uint64_t unit = t->spec.kind == KIND_ROUTE_HASH
                              ? 4 * t->spec.dims[0]
                              : (uint64_t)quant_format(t->type)->block_bytes;
    return MAX(PIECE / unit, 1) * unit;
}

void fill_run(const Fill *f, uint64_t i, unsigned char *out, uint64_t n)
{
    const PlanTensor *t = f->tensor;
    const Values d = values_of(t);
    uint64_t seed = f->seed + i * 0xd1342543de82ef95u, *s = &seed;
    rng_next(s);
    switch (t->type) {
    case QUANT_F32: fill_f32(out, n, d, s); break;
    case QUANT_F16:
    case QUANT_BF16: fill_16(out, n, d, t->type == QUANT_BF16, s); break;
    case QUANT_Q8_0: fill_q8_0(out, n, d.spread, s); break;
    case QUANT_IQ2_XXS: fill_iq2_xxs(out, n, d.spread, s); break;
    case QUANT_Q2_K: fill_q2_k(out, n, d.spread, s); break;
    case QUANT_Q4_K: fill_q4_k(out, n, d.spread, s); break;
    case QUANT_MXFP4: fill_mxfp4(out, n, d.spread, s); break;
    case QUANT_I32: fill_ids(out, n, (int)t->spec.dims[0], f->n_experts, s); break;
    default: assert(false); /* no recipe has it */
    }
}
