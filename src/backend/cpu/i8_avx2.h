/* i8_avx2.h - matrix products with int8 activations for AVX2, for any weight format.
 *
 * Weight rows go by 8, a lane each. vpmaddubsw multiplies unsigned with signed
 * bytes and adds neighbours in 16 bits, with saturation, which must never
 * happen: a signed code lends its sign to x (vpsignb), and no more products
 * meet in 16 bits than fit there. |q| <= 127 (acts.h), so a sum of
 *
 *    2 products of Q8_0     is at most  2 * 128 * 127 = 32512
 *    6 products of IQ2_XXS              6 *  43 * 127 = 32766
 *   16 products of MXFP4               16 *  12 * 127 = 24384
 *   16 products of Q4_K                16 *  15 * 127 = 30480
 *    8 crumbs of Q2_K                   8 *   3 * 127 =  3048
 *
 * of the 32767 that 16 bits hold; -128 becomes 128, unsigned. vpmaddwd then
 * adds neighbours in 32 bits, and multiplies crumbs of Q2_K with their scales.
 *
 * With AVX-VNNI vpdpbusd adds four such products in 32 bits. There expanded
 * codes are unsigned: signed ones + 128, which the sums of x set right, and
 * crumbs times their scales, at most 45.
 *
 * One row of x, or few: the codes of a row stay side by side, and the sums of 8
 * rows are folded by a tree that leaves each in its lane. More: 8 weight rows
 * are expanded, 4 columns of each side by side, and x is broadcast 4 columns at
 * a time. PANEL weight rows x RUN columns are expanded at once and used by all
 * rows of x; between runs the sums wait in `out`. Sums of a block are exact and
 * blocks are added in ascending order, so both ways give the same bits. */
#ifndef I8_AVX2_H
#define I8_AVX2_H
#include "acts.h"
#include "kernels.h"
#include "simd_x86.h"

#define INLINE static ALWAYS_INLINE

/* I8_X: rows of x at a time. Each has a sum and an output; with what they need
 * besides these are 16 registers. vpdpbusd needs many sums, since each waits for
 * the one before. */
enum {
    I8_ROWS = 8,
#ifdef I8_DOT
    I8_X = 6,
#else
    I8_X = 4,
#endif
    I8_PANEL = 32,
    I8_RUN = 8, /* blocks of 32 columns; as many as the longest block of a format has */
};

typedef struct Rows8 Rows8; /* i8_panels.h */

/* What belongs to 32 columns of 8 weight rows, by rows. */
typedef struct {
    _Alignas(32) float a[8], m[8];
    int32_t min[8];    /* two int16: factors of the two sums of 16 */
    int32_t sub[2][8]; /* two int16, equal: factors of the codes of each 16 columns; I8_DOT: none */
} Factors;

/* What a format works out once for a block of 8 rows. */
typedef struct {
    Factors of[I8_RUN];
    _Alignas(32) uint8_t rest[I8_ROWS][32]; /* the format's own */
} Open8;

/* 32 codes of a row: magnitudes, or all there is of unsigned ones, and what has their signs. */
typedef struct {
    __m256i u, sign;
} Codes;

typedef struct {
    int len, bytes; /* of a block */
    bool is_signed; /* codes */
    bool has_min;   /* m and min are used */
    bool has_sub;   /* sub is used */
    bool has_few;   /* codes are told so quickly that 2 to 4 rows of x go as one does */
    int unroll;     /* 32s of a block whose codes lie in the same bytes */
    /* Without I8_DOT: */
    int steps; /* of 2 products each that fit 16 bits in one lane: 1, 3, 4 or 8 */
    int folds; /* of the tree, each doubling a sum, that fit 16 bits: 0, 1 or 3 */
    /* w: blocks of 8 rows. for_panel: sub is wanted, else sub_of will be */
    void (*open)(Open8 *s, const Rows8 *w, bool for_panel);
    /* 32s g of row r of an open block */
    Codes (*codes)(const Open8 *s, const uint8_t *block, int r, int g);
    /* its factors for each 16 columns, 8 int16 each; NULL: 1 */
    __m256i (*sub_of)(const Open8 *s, int r, int g);
} Format8;

/* 32 columns of 8 rows as many rows of x need them. */
typedef struct {
    _Alignas(32) uint8_t code[8][I8_ROWS][4];
    Factors of;
} Block8;

/* 8 numbers, one a weight row. */
typedef __m256 Eight;
typedef __m256i Sums;

#include "i8_panels.h"

INLINE __m256i load8(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store8(void *p, __m256i v) { _mm256_storeu_si256((__m256i *)p, v); }

/* Products of 32 codes and x, two in each lane of 16 bits. */
INLINE __m256i times(const Format8 f, __m256i u, __m256i sign, __m256i x)
{
    return _mm256_maddubs_epi16(u, f.is_signed ? _mm256_sign_epi8(x, sign) : x);
}

INLINE Eight finish(const Format8 f, const Factors *by, const Sums s, const int16_t *sum,
                    float scale, Eight out)
{
    __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_load_ps(by->a));
    if (f.has_min) {
        const __m256i min = _mm256_load_si256((const __m256i *)by->min);
        const __m256i msum = _mm256_madd_epi16(min, _mm256_set1_epi32((int)u32_at(sum)));
        t = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(msum), _mm256_load_ps(by->m), t);
    }
    return _mm256_fmadd_ps(t, _mm256_set1_ps(scale), out);
}

INLINE Eight zeros(void) { return v_zero(); }
INLINE Eight load_upto(const float *p, int n) { return v_load_upto(p, n); }

INLINE void store_upto(float *p, Eight v, int n)
{
    if (n >= I8_ROWS)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, v_mask(n), v);
}

/* ---- one row of x -------------------------------------------------------------- */

INLINE __m256i add(bool wide, __m256i a, __m256i b)
{
    return wide ? _mm256_add_epi32(a, b) : _mm256_add_epi16(a, b);
}

/* Sums of 8 vectors, each in its lane. What has 32 bits is added as such;
 * before, the two halves of a lane travel together. */
INLINE __m256i fold8(const int folds, __m256i v[I8_ROWS])
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int r = 0; r < 4; r++) {
        v[r] = add(folds < 1, _mm256_unpacklo_epi32(v[2 * r], v[2 * r + 1]),
                   _mm256_unpackhi_epi32(v[2 * r], v[2 * r + 1]));
        if (folds == 1)
            v[r] = _mm256_madd_epi16(v[r], ones);
    }
    UNROLL
    for (int r = 0; r < 2; r++)
        v[r] = add(folds < 2, _mm256_unpacklo_epi64(v[2 * r], v[2 * r + 1]),
                   _mm256_unpackhi_epi64(v[2 * r], v[2 * r + 1]));
    v[0] = add(folds < 3, _mm256_permute2x128_si256(v[0], v[1], 0x20),
               _mm256_permute2x128_si256(v[0], v[1], 0x31));
    return folds == 3 ? _mm256_madd_epi16(v[0], ones) : v[0];
}

#ifdef I8_DOT
/* Where one fold fits 16 bits, AVX2's way is the shorter one: vpdpbusd wants a zero first. */
INLINE int narrow_folds(const Format8 f) { return f.folds == 1 ? 1 : 0; }

/* The sums of 32 products in 8 lanes, in 16 where some folds are. sub: factors of each 16. */
INLINE __m256i sums32(const Format8 f, Codes c, __m256i x, __m256i sub)
{
    if (f.folds == 1)
        return times(f, c.u, c.sign, x);
    if (f.sub_of)
        return _mm256_madd_epi16(times(f, c.u, c.sign, x), sub);
    return I8_DOT(_mm256_setzero_si256(), c.u, f.is_signed ? _mm256_sign_epi8(x, c.sign) : x);
}
#else
INLINE int narrow_folds(const Format8 f) { return f.folds; }

/* The sums of 32 products in 8 lanes, in 16 where some folds are. sub: factors of each 16, or 1. */
INLINE __m256i sums32(const Format8 f, Codes c, __m256i x, __m256i sub)
{
    const __m256i two = times(f, c.u, c.sign, x);
    return f.folds == 0 ? _mm256_madd_epi16(two, sub) : two;
}
#endif

/* The sums of 32 columns. c: their codes; NULL: to be told. */
INLINE Sums dot8(const Format8 f, const Open8 *s, const Rows8 *w, int g, const Codes *c, __m256i x)
{
    __m256i v[I8_ROWS];
    UNROLL
    for (int r = 0; r < I8_ROWS; r++) {
        const Codes code = c ? c[r] : f.codes(s, row8(w, r), r, g);
        v[r] = sums32(f, code, x, f.sub_of ? f.sub_of(s, r, g) : _mm256_set1_epi16(1));
    }
    return fold8(narrow_folds(f), v);
}

/* 8 weight rows, n_w of them real, with n_x rows of x. */
INLINE void few8(const Format8 f, const int n_x, Eight out[I8_X], const void *w, size_t ldw,
                 int n_w, const uint8_t *x, size_t ldx, int cols)
{
    const size_t row = (size_t)(cols / f.len) * (size_t)f.bytes;
    const Lead lead = lead_of(row, I8_ROWS * ldw);
    Rows8 rows = rows8(w, ldw, n_w);
    Codes c[I8_ROWS];
    Open8 s;
    int b = 0;

    UNROLL
    for (int i = 0; i < n_x; i++)
        out[i] = zeros();
    for (size_t at = 0; at < row; at += (size_t)f.bytes, rows.p += f.bytes) {
        const size_t next = lead_from(lead, at) - at;
        UNROLL
        for (int r = 0; r < I8_ROWS; r++)
            fetch(row8(&rows, r) + next, f.bytes);
        f.open(&s, &rows, false);
        for (int g = 0; g < f.len / ACT_BLOCK; g += f.unroll) {
            UNROLL
            for (int k = 0; k < f.unroll; k++, b++) {
                UNROLL
                for (int r = 0; n_x > 1 && r < I8_ROWS; r++)
                    c[r] = f.codes(&s, row8(&rows, r), r, g + k);
                UNROLL
                for (int i = 0; i < n_x; i++) {
                    const uint8_t *xi = x + (size_t)i * ldx;
                    const Sums isum = dot8(f, &s, &rows, g + k, n_x > 1 ? c : NULL,
                                           load8(act_q(xi) + b * ACT_BLOCK));
                    out[i] = finish(f, &s.of[g + k], isum, act_sum(xi, cols) + 2 * b,
                                    act_scale(xi, cols)[b], out[i]);
                }
            }
        }
    }
}

INLINE Eight gemv8(const Format8 f, const void *w, size_t ldw, int n_w, const void *x, int cols)
{
    Eight out[I8_X];
    few8(f, 1, out, w, ldw, n_w, x, 0, cols);
    return out[0];
}

INLINE void gemm_few8(const Format8 f, const int n_x, float *out, size_t ldo, const void *w,
                      size_t ldw, int n_w, const void *x, size_t ldx, int cols)
{
    for (int j = 0; j < n_w; j += I8_ROWS) {
        Eight sum[I8_X];
        few8(f, n_x, sum, (const uint8_t *)w + (size_t)j * ldw, ldw, n_w - j, x, ldx, cols);
        UNROLL
        for (int i = 0; i < n_x; i++)
            store_upto(out + (size_t)i * ldo + j, sum[i], n_w - j);
    }
}

/* ---- many rows of x ------------------------------------------------------------ */

/* Element i of vector k becomes element k of vector i. */
INLINE void transpose8(__m256i v[8])
{
    __m256i t[8], u[8];
    UNROLL
    for (int k = 0; k < 4; k++) {
        t[2 * k] = _mm256_unpacklo_epi32(v[2 * k], v[2 * k + 1]);
        t[2 * k + 1] = _mm256_unpackhi_epi32(v[2 * k], v[2 * k + 1]);
    }
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        u[k] = _mm256_unpacklo_epi64(t[k], t[k + 2]);
        u[k + 1] = _mm256_unpackhi_epi64(t[k], t[k + 2]);
        u[k + 2] = _mm256_unpacklo_epi64(t[k + 1], t[k + 3]);
        u[k + 3] = _mm256_unpackhi_epi64(t[k + 1], t[k + 3]);
    }
    UNROLL
    for (int k = 0; k < 4; k++) {
        v[k] = _mm256_permute2x128_si256(u[k], u[k + 4], 0x20);
        v[k + 4] = _mm256_permute2x128_si256(u[k], u[k + 4], 0x31);
    }
}

#ifdef I8_DOT
static const bool whole_codes = true; /* their factors of each 16 are in them */

/* Unsigned bytes times the 16-bit numbers of their places, less than 256. */
INLINE __m256i bytes_times(__m256i u, __m256i by)
{
    const __m256i even = _mm256_mullo_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), by);
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(u, 8), by);
    return _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
}

/* 32s g of row r, as panels have them. */
INLINE __m256i expanded(const Format8 f, const Open8 *s, Codes c, int r, int g)
{
    if (f.sub_of)
        return bytes_times(c.u, f.sub_of(s, r, g));
    return f.is_signed ? _mm256_xor_si256(_mm256_sign_epi8(c.u, c.sign), _mm256_set1_epi8(-128))
                       : c.u;
}
#else
static const bool whole_codes = false;

INLINE __m256i expanded(const Format8 f, const Open8 *s, Codes c, int r, int g)
{
    (void)s, (void)r, (void)g;
    return f.is_signed ? _mm256_sign_epi8(c.u, c.sign) : c.u;
}
#endif

INLINE void expand8(const Format8 f, Block8 *to, Rows8 rows, size_t ahead, int n)
{
    Open8 s;
    for (; n > 0; n -= f.len / ACT_BLOCK, rows.p += f.bytes) {
        UNROLL
        for (int r = 0; r < I8_ROWS; r++)
            fetch(row8(&rows, r) + ahead, f.bytes);
        f.open(&s, &rows, !whole_codes);
        for (int g = 0; g < f.len / ACT_BLOCK; g += f.unroll) {
            UNROLL
            for (int k = 0; k < f.unroll; k++, to++) {
                __m256i v[I8_ROWS];
                UNROLL
                for (int r = 0; r < I8_ROWS; r++) {
                    v[r] = expanded(f, &s, f.codes(&s, row8(&rows, r), r, g + k), r, g + k);
                }
                transpose8(v);
                UNROLL
                for (int r = 0; r < 8; r++)
                    store8(to->code[r], v[r]);
                to->of = s.of[g + k];
            }
        }
    }
}

#ifdef I8_DOT
INLINE void multiply(const Format8 f, const int n_x, Sums s[I8_X], const Block8 *w,
                     const int8_t *const q[I8_X], const int16_t *const sum[I8_X], int b)
{
    const int at = b * ACT_BLOCK;
    UNROLL
    for (int i = 0; i < n_x; i++)
        s[i] = f.is_signed ? _mm256_madd_epi16(_mm256_set1_epi32((int)u32_at(sum[i] + 2 * b)),
                                               _mm256_set1_epi16(-128))
                           : _mm256_setzero_si256();
    UNROLL
    for (int e = 0; e < 8; e++) {
        const __m256i code = load8(w->code[e]);
        UNROLL
        for (int i = 0; i < n_x; i++)
            s[i] = I8_DOT(s[i], code, _mm256_set1_epi32((int)u32_at(q[i] + at + 4 * e)));
    }
}
#else
INLINE void multiply(const Format8 f, const int n_x, Sums s[I8_X], const Block8 *w,
                     const int8_t *const q[I8_X], const int16_t *const sum[I8_X], int b)
{
    const int at = b * ACT_BLOCK;
    (void)sum;
    UNROLL
    for (int k = 0; k < 8; k += f.steps) {
        __m256i part[I8_X];
        UNROLL
        for (int e = k; e < MIN(8, k + f.steps); e++) {
            const __m256i code = load8(w->code[e]);
            const __m256i u = f.is_signed ? _mm256_abs_epi8(code) : code;
            UNROLL
            for (int i = 0; i < n_x; i++) {
                const __m256i x = _mm256_set1_epi32((int)u32_at(q[i] + at + 4 * e));
                const __m256i two = times(f, u, code, x);
                part[i] = e == k ? two : _mm256_add_epi16(part[i], two);
            }
        }
        const __m256i by = f.has_sub ? load8(w->of.sub[k / 4]) : _mm256_set1_epi16(1);
        UNROLL
        for (int i = 0; i < n_x; i++) {
            const __m256i four = _mm256_madd_epi16(part[i], by);
            s[i] = k == 0 ? four : _mm256_add_epi32(s[i], four);
        }
    }
}
#endif

INLINE void tiles8(const Format8 f, const Place *p, const Block8 *w, int n_x)
{
    switch (n_x) {
    case 1: tile8(f, 1, p, w); break;
    case 2: tile8(f, 2, p, w); break;
    case 3: tile8(f, 3, p, w); break;
#ifdef I8_DOT
    case 4: tile8(f, 4, p, w); break;
    case 5: tile8(f, 5, p, w); break;
#endif
    default: tile8(f, I8_X, p, w); break;
    }
}

#endif
