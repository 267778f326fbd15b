/* kvrow.c - packing KV rows and index rows, and what goes before it. */
#include "kvrow.h"
#include "fp8.h"
#include <assert.h>
#include <math.h>

KvRowFormat kvrow_format(int head_dim, int rope_dim, bool packed)
{
    KvRowFormat f = { .dim = head_dim, .rope = rope_dim, .block = 64, .packed = packed };
    int nope = head_dim - rope_dim;
    while (nope % f.block != 0)
        f.block /= 2;
    f.bytes =
        packed ? (nope + 2 * rope_dim + nope / f.block + 7) / 8 * 8 : head_dim * (int)sizeof(float);
    return f;
}

IdxRowFormat idxrow_format(int idx_dim, bool packed)
{
    assert(!packed || idx_dim % 32 == 0);
    int bytes = packed ? idx_dim / 2 + idx_dim / 32 : idx_dim * (int)sizeof(float);
    return (IdxRowFormat){ .dim = idx_dim, .packed = packed, .bytes = bytes };
}

/* The largest magnitude; NaN if there is one, so that it is not lost. */
static float amax_of(const float *x, int n, float floor)
{
    float amax = floor;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        if (!(a <= amax))
            amax = a;
        if (isnan(a))
            return a;
    }
    return amax;
}

/* Below this a block counts as zero. */
static const float e4m3_floor = 1e-4f, e2m1_floor = 6 * 0x1p-126f;

void kvrow_pack(const KvRowFormat *f, void *row, const float *x)
{
    if (!f->packed) {
        memcpy(row, x, (size_t)f->bytes);
        return;
    }
    int nope = f->dim - f->rope;
    uint8_t *codes = row, *tail = codes + nope, *scale = tail + 2 * f->rope;
    uint8_t *end = codes + f->bytes;
    for (int b = 0; b < nope; b += f->block) {
        uint8_t e = e8m0_for(amax_of(x + b, f->block, e4m3_floor), 448);
        float inverse = e8m0_inverse(e);
        for (int i = b; i < b + f->block; i++)
            codes[i] = e4m3_encode(x[i] * inverse);
        *scale++ = e;
    }
    for (int i = 0; i < f->rope; i++)
        u16_put(tail + 2 * i, bf16_from_f32(x[nope + i]));
    memset(scale, 0, (size_t)(end - scale));
}

void kvrow_unpack(const KvRowFormat *f, float *x, const void *row)
{
    if (!f->packed) {
        memcpy(x, row, (size_t)f->bytes);
        return;
    }
    int nope = f->dim - f->rope;
    const uint8_t *codes = row, *tail = codes + nope, *scale = tail + 2 * f->rope;
    for (int b = 0; b < nope; b += f->block) {
        float s = e8m0_decode(*scale++);
        for (int i = b; i < b + f->block; i++)
            x[i] = s * e4m3_decode(codes[i]);
    }
    for (int i = 0; i < f->rope; i++)
        x[nope + i] = f32_from_bf16(u16_at(tail + 2 * i));
}

void idxrow_pack(const IdxRowFormat *f, void *row, const float *x)
{
    if (!f->packed) {
        memcpy(row, x, (size_t)f->bytes);
        return;
    }
    uint8_t *codes = row, *scale = codes + f->dim / 2;
    for (int b = 0; b < f->dim; b += 32) {
        uint8_t e = e8m0_for(amax_of(x + b, 32, e2m1_floor), 6);
        float inverse = e8m0_inverse(e);
        for (int i = b; i < b + 32; i += 2)
            *codes++ =
                (uint8_t)(e2m1_encode(x[i] * inverse) | e2m1_encode(x[i + 1] * inverse) << 4);
        *scale++ = e;
    }
}

void idxrow_unpack(const IdxRowFormat *f, float *x, const void *row)
{
    if (!f->packed) {
        memcpy(x, row, (size_t)f->bytes);
        return;
    }
    const uint8_t *codes = row, *scale = codes + f->dim / 2;
    for (int b = 0; b < f->dim; b += 32) {
        float s = e8m0_decode(*scale++);
        for (int i = b; i < b + 32; i += 2, codes++) {
            x[i] = s * e2m1_decode(*codes);
            x[i + 1] = s * e2m1_decode(*codes >> 4);
        }
    }
}

void fp4_round(float *x, int n)
{
    assert(n % 32 == 0);
    for (int b = 0; b < n; b += 32) {
        uint8_t e = e8m0_for(amax_of(x + b, 32, e2m1_floor), 6);
        float s = e8m0_decode(e), inverse = e8m0_inverse(e);
        for (int i = b; i < b + 32; i++)
            x[i] = s * e2m1_decode(e2m1_encode(x[i] * inverse));
    }
}

void hadamard(float *x, int n)
{
    assert(n > 0 && (n & (n - 1)) == 0);
    for (int half = 1; half < n; half *= 2) {
        for (int b = 0; b < n; b += 2 * half) {
            for (int i = b; i < b + half; i++) {
                float p = x[i], q = x[i + half];
                x[i] = p + q;
                x[i + half] = p - q;
            }
        }
    }
    float norm = (float)(1 / sqrt(n));
    for (int i = 0; i < n; i++)
        x[i] *= norm;
}
