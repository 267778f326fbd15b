/* simd_x86.h - one vector type for two instruction sets.
 *
 * The x86 kernels that need nothing but loads, products and sums are written
 * once over Vec; a file compiled for AVX-512 gets 16 lanes, one compiled for
 * AVX2, or asking for EIGHT_LANES, gets 8. Tails are masked: what lies behind them is neither read nor
 * written, and reads as zero. */
#ifndef SIMD_X86_H
#define SIMD_X86_H
#include "../../quant/float.h"
#include <immintrin.h>
#include <math.h>

/* Sanitizers put a check before each load, and compilers need minutes for what
 * that makes of kernels in one piece: there they stay loops and functions. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IN_PARTS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define IN_PARTS 1
#endif
#endif

#ifdef IN_PARTS
#define ALWAYS_INLINE inline
#define UNROLL
#elif defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNROLL        _Pragma("clang loop unroll(full)")
#else
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNROLL        _Pragma("GCC unroll 32")
#endif

static ALWAYS_INLINE const uint8_t *weight_row(const void *w, size_t ldw, int j)
{
    return (const uint8_t *)w + (size_t)j * ldw;
}

/* Asks for bytes that will be read. They come to the second cache, which has
 * room for more that is on its way than the first: 1.3 times the bandwidth. */
static ALWAYS_INLINE void fetch(const uint8_t *p, int bytes)
{
    UNROLL
    for (int line = 0; line < bytes; line += 64)
        _mm_prefetch((const char *)p + line, _MM_HINT_T1);
}

/* Rows of `row` bytes are read side by side, and when they end those that are
 * `ahead` bytes on: what is read LEAD bytes after byte `at`. A core alone
 * finds it too late, at row and page ends. */
typedef struct {
    size_t row, ahead, far, near;
} Lead;
enum { LEAD = 4096 };

static ALWAYS_INLINE Lead lead_of(size_t row, size_t ahead)
{
    row = row ? row : 1; /* less than a block: nothing is fetched */
    return (Lead){ row, ahead, LEAD / row * ahead, LEAD % row };
}

static ALWAYS_INLINE size_t lead_from(Lead l, size_t at)
{
    at += l.near;
    return l.far + (at < l.row ? at : at - l.row + l.ahead);
}

/* s + the sums of four products each of unsigned and of signed bytes, for 8 lanes, where there
 * is vpdpbusd: AVX-VNNI's, or AVX-512's. */
#if defined(__AVXVNNI__)
#define I8_DOT(s, u, x) _mm256_dpbusd_avx_epi32(s, u, x)
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define I8_DOT(s, u, x) _mm256_dpbusd_epi32(s, u, x)
#endif

#if defined(__AVX512F__) && !defined(EIGHT_LANES)
#define SIXTEEN_LANES 1
enum { LANES = 16 };
typedef __m512 Vec;
typedef __m512i VecI;
typedef __m256i VecHalves; /* LANES numbers of 16 bits */

static ALWAYS_INLINE Vec v_set(float a) { return _mm512_set1_ps(a); }
static ALWAYS_INLINE Vec v_load(const void *p) { return _mm512_loadu_ps(p); }
static ALWAYS_INLINE void v_store(float *p, Vec a) { _mm512_storeu_ps(p, a); }
static ALWAYS_INLINE __mmask16 v_mask(int n) { return (__mmask16)((1u << n) - 1); }
/* The first n < LANES values. */
static ALWAYS_INLINE Vec v_load_n(const void *p, int n)
{
    return _mm512_maskz_loadu_ps(v_mask(n), p);
}
static ALWAYS_INLINE void v_store_n(float *p, Vec a, int n)
{
    _mm512_mask_storeu_ps(p, v_mask(n), a);
}
static ALWAYS_INLINE Vec v_add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static ALWAYS_INLINE Vec v_sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static ALWAYS_INLINE Vec v_mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static ALWAYS_INLINE Vec v_div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static ALWAYS_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
/* The second operand where one is NaN. */
static ALWAYS_INLINE Vec v_min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static ALWAYS_INLINE Vec v_max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static ALWAYS_INLINE Vec v_round(Vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n for integral n; rounds once, also into subnormals. */
static ALWAYS_INLINE Vec v_ldexp(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }

static ALWAYS_INLINE VecHalves v_halves(const void *p) { return _mm256_loadu_si256(p); }
static ALWAYS_INLINE Vec v_from_f16(VecHalves h) { return _mm512_cvtph_ps(h); }
static ALWAYS_INLINE Vec v_from_bf16(VecHalves h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Sums of the lanes of four vectors: lanes 8 apart first, then 4, 2, 1. */
static ALWAYS_INLINE __m128 v_sum4(Vec a, Vec b, Vec c, Vec d)
{
    Vec ab = v_add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    Vec cd = v_add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    Vec s = v_add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = v_add(s, _mm512_permute_ps(s, 0x4e));
    s = v_add(s, _mm512_permute_ps(s, 0xb1));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12), s));
}
#else
enum { LANES = 8 };
typedef __m256 Vec;
typedef __m256i VecI;
typedef __m128i VecHalves;

static ALWAYS_INLINE Vec v_set(float a) { return _mm256_set1_ps(a); }
static ALWAYS_INLINE Vec v_load(const void *p) { return _mm256_loadu_ps(p); }
static ALWAYS_INLINE void v_store(float *p, Vec a) { _mm256_storeu_ps(p, a); }
static ALWAYS_INLINE __m256i v_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static ALWAYS_INLINE Vec v_load_n(const void *p, int n) { return _mm256_maskload_ps(p, v_mask(n)); }
static ALWAYS_INLINE void v_store_n(float *p, Vec a, int n)
{
    _mm256_maskstore_ps(p, v_mask(n), a);
}
static ALWAYS_INLINE Vec v_add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
static ALWAYS_INLINE Vec v_sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
static ALWAYS_INLINE Vec v_mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
static ALWAYS_INLINE Vec v_div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
static ALWAYS_INLINE Vec v_fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
static ALWAYS_INLINE Vec v_min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
static ALWAYS_INLINE Vec v_max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
static ALWAYS_INLINE Vec v_round(Vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static ALWAYS_INLINE Vec v_exp2i(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/* Two factors, since 2^n alone may be out of range: |n| <= 252. */
static ALWAYS_INLINE Vec v_ldexp(Vec a, Vec n)
{
    __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1);
    return v_mul(v_mul(a, v_exp2i(half)), v_exp2i(_mm256_sub_epi32(i, half)));
}

static ALWAYS_INLINE VecHalves v_halves(const void *p) { return _mm_loadu_si128(p); }
static ALWAYS_INLINE Vec v_from_f16(VecHalves h) { return _mm256_cvtph_ps(h); }
static ALWAYS_INLINE Vec v_from_bf16(VecHalves h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Sums of the lanes of four vectors: lanes 4 apart first, then 2, 1. */
static ALWAYS_INLINE __m128 v_fold(Vec a)
{
    return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}
static ALWAYS_INLINE __m128 v_sum4(Vec a, Vec b, Vec c, Vec d)
{
    __m128 a4 = v_fold(a), b4 = v_fold(b), c4 = v_fold(c), d4 = v_fold(d);
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a4, b4), _mm_movehl_ps(b4, a4));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c4, d4), _mm_movehl_ps(d4, c4));
    return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}
#endif

static ALWAYS_INLINE Vec v_zero(void) { return v_set(0); }

static ALWAYS_INLINE float v_sum(Vec a)
{
    return _mm_cvtss_f32(v_sum4(a, v_zero(), v_zero(), v_zero()));
}

/* The first n values, or LANES when there are more. */
static ALWAYS_INLINE Vec v_load_upto(const void *p, int n)
{
    return n < LANES ? v_load_n(p, n) : v_load(p);
}
static ALWAYS_INLINE void v_store_upto(float *p, Vec a, int n)
{
    if (n < LANES)
        v_store_n(p, a, n);
    else
        v_store(p, a);
}
static ALWAYS_INLINE VecHalves v_halves_upto(const void *p, int n)
{
    uint16_t all[LANES] = { 0 };
    if (n >= LANES)
        return v_halves(p);
    memcpy(all, p, (size_t)n * sizeof *all);
    return v_halves(all);
}

/* e^a to about 1 ulp: a = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of e^r.
 * Beyond the range of F32 it gives 0 and infinity; NaN stays NaN. */
static ALWAYS_INLINE Vec v_exp(Vec a)
{
    a = v_max(v_set(-104), v_min(v_set(89), a));
    Vec n = v_round(v_mul(a, v_set(0x1.715476p+0f)));
    Vec r = v_fma(n, v_set(-0x1.62e43p-1f), a); /* ln 2 in two parts */
    r = v_fma(n, v_set(0x1.05c61p-29f), r);
    Vec p = v_fma(v_set(0x1.a01a02p-13f), r, v_set(0x1.6c16c2p-10f)); /* 1/7!, 1/6! */
    p = v_fma(p, r, v_set(0x1.111112p-7f));
    p = v_fma(p, r, v_set(0x1.555556p-5f));
    p = v_fma(p, r, v_set(0x1.555556p-3f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(v_mul(r, r), p, r);
    return v_ldexp(v_add(p, v_set(1)), n);
}
#endif
