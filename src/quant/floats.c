/* floats.c - rows of F32, F16 and BF16. */
#include "float.h"
#include "formats.h"

void f32_decode(float *dst, const void *src, size_t n) { memcpy(dst, src, n * sizeof *dst); }

void f32_encode(void *dst, const float *src, size_t n, const float *importance)
{
    (void)importance;
    memcpy(dst, src, n * sizeof *src);
}

void f16_decode(float *dst, const void *src, size_t n)
{
    const unsigned char *p = src;
    for (size_t i = 0; i < n; i++)
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
