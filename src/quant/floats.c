/* floats.c - rows of F32, F16 and BF16. */
#include "float.h"
#include "formats.h"

void f32_decode(float *dst, const void *src, size_t n) { memcpy(dst, src, n * sizeof *dst); }

void f32_encode(void *dst, const float *src, size_t n, const float *importance)
{
    (void)importance;
    memcpy(dst, src, n * sizeof *src);
}

/* By sixteens in variables of its own, which a compiler turns into vectors. */
void f16_decode(float *dst, const void *src, size_t n)
{
    const unsigned char *p = src;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint16_t half[16];
        float value[16];
        memcpy(half, p + 2 * i, sizeof half);
        for (int j = 0; j < 16; j++)
            value[j] = f32_from_f16(half[j]);
        memcpy(dst + i, value, sizeof value);
    }
    for (; i < n; i++)
        dst[i] = f32_from_f16(u16_at(p + 2 * i));
}

void f16_encode(void *dst, const float *src, size_t n, const float *importance)
{
    unsigned char *p = dst;
    (void)importance;
    for (size_t i = 0; i < n; i++)
        u16_put(p + 2 * i, f16_from_f32(src[i]));
}

void bf16_decode(float *dst, const void *src, size_t n)
{
    const unsigned char *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = f32_from_bf16(u16_at(p + 2 * i));
}

void bf16_encode(void *dst, const float *src, size_t n, const float *importance)
{
    unsigned char *p = dst;
    (void)importance;
    for (size_t i = 0; i < n; i++)
        u16_put(p + 2 * i, bf16_from_f32(src[i]));
}
