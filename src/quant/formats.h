/* formats.h - what the files of this folder offer the table in quant.c. */
#ifndef FORMATS_H
#define FORMATS_H
#include "quant.h"

void f32_decode(float *dst, const void *src, size_t n);
void f16_decode(float *dst, const void *src, size_t n);
void bf16_decode(float *dst, const void *src, size_t n);
void q8_0_decode(float *dst, const void *src, size_t n);
void q2_k_decode(float *dst, const void *src, size_t n);
void q4_k_decode(float *dst, const void *src, size_t n);
void iq2_xxs_decode(float *dst, const void *src, size_t n);
void mxfp4_decode(float *dst, const void *src, size_t n);

void f32_encode(void *dst, const float *src, size_t n, const float *importance);
void f16_encode(void *dst, const float *src, size_t n, const float *importance);
void bf16_encode(void *dst, const float *src, size_t n, const float *importance);
void q8_0_encode(void *dst, const float *src, size_t n, const float *importance);
void q2_k_encode(void *dst, const float *src, size_t n, const float *importance);
void q4_k_encode(void *dst, const float *src, size_t n, const float *importance);
void mxfp4_encode(void *dst, const float *src, size_t n, const float *importance);
void iq2_xxs_encode(void *dst, const float *src, size_t n, const float *importance);

#endif
