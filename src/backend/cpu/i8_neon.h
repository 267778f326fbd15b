/* i8_neon.h - matrix products with int8 activations for NEON, for any weight format.
 *
 * Compiled twice: with the instruction sdot, which adds four products of bytes
 * to a lane of 32 bits, and for CPUs without it. There two products meet in 16
 * bits, at most 2 * 128 * 127 = 32512 of 32767, before they are added to 32.
 *
 * Weight rows go by 8. One row of x: the codes of a row stay side by side, and
 * pairwise additions leave the sums of 4 rows in the lanes of a vector. More
 * rows: 8 weight rows are expanded, 4 columns of each side by side, and 4
 * columns of x are multiplied with 4 rows at once. PANEL weight rows x RUN
 * columns are expanded at once and used by all rows of x; between runs the sums
 * wait in `out`. Sums of a block are exact and blocks are added in ascending
 * order, so both ways give the same bits. */
#ifndef I8_NEON_H
#define I8_NEON_H
#include "acts.h"
#include "kernels.h"
#include "simd_neon.h"
#include "../../quant/float.h"

/* I8_X: rows of x at a time. Each takes two sums, or four without sdot, two
 * outputs and x, of 32 registers. */
enum {
    I8_ROWS = 8,
#ifdef __ARM_FEATURE_DOTPROD
    I8_X = 4,
#else
    I8_X = 2,
#endif
    I8_PANEL = 32,
    I8_RUN = 8, /* blocks of 32 columns; as many as the longest block of a format has */
    I8_LEAD = 4096,
};

typedef struct Rows8 Rows8; /* i8_panels.h */

/* What belongs to 32 columns of 8 weight rows, by rows; min: factors of the two
 * sums of 16. */
typedef struct {
    float a[8], m[8];
    int16_t min[2][8];
} Factors;

/* What a format works out once for a block of 8 rows. */
typedef struct {
    Factors of[I8_RUN];
    uint8_t rest[I8_ROWS][32]; /* the format's own */
} Open8;

typedef struct {
    int len, bytes; /* of a block */
    bool has_min;   /* m and min are used */
    int unroll;     /* 32s of a block whose codes lie in the same bytes */
    void (*open)(Open8 *s, const Rows8 *w);
    /* 32s g of row r of an open block */
    int8x16x2_t (*codes)(const Open8 *s, const uint8_t *block, int r, int g);
} Format8;

/* 32 columns of 8 rows as many rows of x need them. */
typedef struct {
    int8_t code[8][2][4][4]; /* 4 columns each, 4 rows each, row, column */
    Factors of;
} Block8;

/* 8 numbers, one a weight row. */
typedef struct {
    float32x4_t v[2];
} Eight;
typedef int32x4_t Sums[2];

#include "i8_panels.h"

INLINE void fetch(const uint8_t *p, int bytes)
{
    UNROLL
    for (int line = 0; line < bytes; line += 64)
        __builtin_prefetch(p + line, 0, 2);
}

/* ---- four products to a lane ------------------------------------------------------ */

/* Sums of 4 weight rows, by halves of each four columns where there is no sdot. */
#ifdef __ARM_FEATURE_DOTPROD
typedef int32x4_t Sum4;
typedef int8x16_t Columns; /* 16 of a row of x */
INLINE Columns columns(const int8_t *q) { return vld1q_s8(q); }
INLINE Sum4 sum_zero(void) { return vdupq_n_s32(0); }
INLINE int32x4_t sum_rows(Sum4 s) { return s; }
/* Twice four columns of 4 rows, w[0] and w[2], times columns 4 * a ... and 4 * b ... of x. */
#define SUM_ADD(s, w, x, a, b) \
    (s = vdotq_laneq_s32(vdotq_laneq_s32(s, vld1q_s8(w), x, a), vld1q_s8((w) + 32), x, b))

/* The sum of 32 products, in 4 parts. */
INLINE int32x4_t dot32(int8x16x2_t w, int8x16_t x0, int8x16_t x1)
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.val[0], x0), w.val[1], x1);
}
#else
typedef struct {
    int32x4_t v[2];
} Sum4;
typedef const int8_t *Columns;
INLINE Columns columns(const int8_t *q) { return q; }
INLINE Sum4 sum_zero(void) { return (Sum4){ { vdupq_n_s32(0), vdupq_n_s32(0) } }; }
INLINE int32x4_t sum_rows(Sum4 s) { return vpaddq_s32(s.v[0], s.v[1]); }
INLINE Sum4 sum_add(Sum4 s, const int8_t *w, int8x16_t xa, int8x16_t xb)
{
    const int8x16_t wa = vld1q_s8(w), wb = vld1q_s8(w + 32);
    const int16x8_t low =
        vmlal_s8(vmull_s8(vget_low_s8(wa), vget_low_s8(xa)), vget_low_s8(wb), vget_low_s8(xb));
    const int16x8_t high = vmlal_high_s8(vmull_high_s8(wa, xa), wb, xb);
    s.v[0] = vpadalq_s16(s.v[0], low);
    s.v[1] = vpadalq_s16(s.v[1], high);
    return s;
}
INLINE int8x16_t four(const int8_t *q) { return vreinterpretq_s8_u32(vdupq_n_u32(u32_at(q))); }
#define SUM_ADD(s, w, x, a, b) (s = sum_add(s, w, four((x) + 4 * (a)), four((x) + 4 * (b))))

INLINE int32x4_t dot32(int8x16x2_t w, int8x16_t x0, int8x16_t x1)
{
    const int16x8_t a =
        vmlal_high_s8(vmull_s8(vget_low_s8(w.val[0]), vget_low_s8(x0)), w.val[0], x0);
    const int16x8_t b =
        vmlal_high_s8(vmull_s8(vget_low_s8(w.val[1]), vget_low_s8(x1)), w.val[1], x1);
    return vpadalq_s16(vpaddlq_s16(a), b);
}
#endif

INLINE Eight finish(const Format8 f, const Factors *by, const Sums s, const int16_t *sum,
                    float scale, Eight out)
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        float32x4_t t = vmulq_f32(vcvtq_f32_s32(s[h]), vld1q_f32(by->a + 4 * h));
        if (f.has_min) {
            int32x4_t msum = vmull_n_s16(vld1_s16(by->min[0] + 4 * h), sum[0]);
            msum = vmlal_n_s16(msum, vld1_s16(by->min[1] + 4 * h), sum[1]);
            t = vfmsq_f32(t, vcvtq_f32_s32(msum), vld1q_f32(by->m + 4 * h));
        }
        out.v[h] = vfmaq_n_f32(out.v[h], t, scale);
    }
    return out;
}

INLINE Eight load_upto(const float *p, int n)
{
    float all[I8_ROWS] = { 0 };
    if (n < I8_ROWS)
        memcpy(all, p, (size_t)n * sizeof *all);
    const float *from = n < I8_ROWS ? all : p;
    return (Eight){ { vld1q_f32(from), vld1q_f32(from + 4) } };
}

INLINE void store_upto(float *p, Eight v, int n)
{
    float all[I8_ROWS];
    float *to = n < I8_ROWS ? all : p;
    vst1q_f32(to, v.v[0]);
    vst1q_f32(to + 4, v.v[1]);
    if (n < I8_ROWS)
        memcpy(p, all, (size_t)n * sizeof *all);
}

INLINE Eight zeros(void) { return (Eight){ { vdupq_n_f32(0), vdupq_n_f32(0) } }; }

/* ---- one row of x -------------------------------------------------------------- */

/* The sums of 32 columns of 8 rows. */
INLINE void dot8(const Format8 f, Sums s, const Open8 *open, const Rows8 *w, int g, const int8_t *q)
{
    const int8x16_t x0 = vld1q_s8(q), x1 = vld1q_s8(q + 16);
    UNROLL
    for (int h = 0; h < 2; h++) {
        int32x4_t v[4];
        UNROLL
        for (int r = 0; r < 4; r++)
            v[r] = dot32(f.codes(open, row8(w, 4 * h + r), 4 * h + r, g), x0, x1);
        s[h] = vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
    }
}

/* The bytes I8_LEAD on are fetched early, at a row's end those of the next 8 rows. */
INLINE Eight gemv8(const Format8 f, const void *w, size_t ldw, int n_w, const void *x, int cols)
{
    const float *scale = act_scale(x, cols);
    const int16_t *sum = act_sum(x, cols);
    const int8_t *q = act_q(x);
    const size_t row = (size_t)(cols / f.len) * (size_t)f.bytes, lead = MIN(row, I8_LEAD);
    Rows8 rows = rows8(w, ldw, n_w);
    Eight out = zeros();
    Open8 open;

    for (size_t at = 0; at < row; at += (size_t)f.bytes, rows.p += f.bytes) {
        const size_t next = at + lead < row ? lead : lead - row + I8_ROWS * ldw;
        UNROLL
        for (int r = 0; r < I8_ROWS; r++)
            fetch(row8(&rows, r) + next, f.bytes);
        f.open(&open, &rows);
        for (int g = 0; g < f.len / ACT_BLOCK; g += f.unroll) {
            UNROLL
            for (int k = 0; k < f.unroll; k++, q += ACT_BLOCK, sum += 2, scale++) {
                Sums s;
                dot8(f, s, &open, &rows, g + k, q);
                out = finish(f, &open.of[g + k], s, sum, *scale, out);
            }
        }
    }
    return out;
}

/* ---- many rows of x ------------------------------------------------------------ */

/* Element i of vector k becomes element k of vector i. */
INLINE void transpose4(int32x4_t v[4])
{
    const int32x4_t a = vtrn1q_s32(v[0], v[1]), b = vtrn2q_s32(v[0], v[1]);
    const int32x4_t c = vtrn1q_s32(v[2], v[3]), d = vtrn2q_s32(v[2], v[3]);
#define BY_64(op, x, y) \
    vreinterpretq_s32_s64(op(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
    v[0] = BY_64(vtrn1q_s64, a, c);
    v[1] = BY_64(vtrn1q_s64, b, d);
    v[2] = BY_64(vtrn2q_s64, a, c);
    v[3] = BY_64(vtrn2q_s64, b, d);
#undef BY_64
}

/* 32 columns of 4 rows, from row 4 * h on. */
INLINE void expand4(const Format8 f, Block8 *to, const Open8 *open, const Rows8 *rows, int h, int g)
{
    int32x4_t v[2][4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        const int8x16x2_t c = f.codes(open, row8(rows, 4 * h + r), 4 * h + r, g);
        v[0][r] = vreinterpretq_s32_s8(c.val[0]);
        v[1][r] = vreinterpretq_s32_s8(c.val[1]);
    }
    UNROLL
    for (int k = 0; k < 8; k++) {
        if (k % 4 == 0)
            transpose4(v[k / 4]);
        vst1q_s8(to->code[k][h][0], vreinterpretq_s8_s32(v[k / 4][k % 4]));
    }
}

INLINE void expand8(const Format8 f, Block8 *to, Rows8 rows, size_t ahead, int n)
{
    Open8 open;
    for (; n > 0; n -= f.len / ACT_BLOCK, rows.p += f.bytes) {
        UNROLL
        for (int r = 0; r < I8_ROWS; r++)
            fetch(row8(&rows, r) + ahead, f.bytes);
        f.open(&open, &rows);
        for (int g = 0; g < f.len / ACT_BLOCK; g += f.unroll) {
            UNROLL
            for (int k = 0; k < f.unroll; k++, to++) {
                expand4(f, to, &open, &rows, 0, g + k);
                expand4(f, to, &open, &rows, 1, g + k);
                to->of = open.of[g + k];
            }
        }
    }
}

INLINE void multiply(const Format8 f, const int n_x, Sums s[I8_X], const Block8 *w,
                     const int8_t *const q[I8_X], const int16_t *const sums[I8_X], int b)
{
    const int at = b * ACT_BLOCK;
    (void)f, (void)sums; /* all codes are signed here */
    Sum4 sum[I8_X][2];
    UNROLL
    for (int k = 0; k < 8; k += 4) {
        Columns x[I8_X];
        UNROLL
        for (int i = 0; i < n_x; i++)
            x[i] = columns(q[i] + at + 4 * k);
        UNROLL
        for (int h = 0; h < 2; h++) {
            UNROLL
            for (int i = 0; i < n_x; i++) {
                if (k == 0)
                    sum[i][h] = sum_zero();
                SUM_ADD(sum[i][h], w->code[k][h][0], x[i], 0, 1);
            }
            UNROLL
            for (int i = 0; i < n_x; i++)
                SUM_ADD(sum[i][h], w->code[k + 2][h][0], x[i], 2, 3);
        }
    }
    UNROLL
    for (int i = 0; i < n_x; i++) {
        s[i][0] = sum_rows(sum[i][0]);
        s[i][1] = sum_rows(sum[i][1]);
    }
}

INLINE void tiles8(const Format8 f, const Place *p, const Block8 *w, int n_x)
{
    switch (n_x) {
    case 1: tile8(f, 1, p, w); break;
#ifdef __ARM_FEATURE_DOTPROD
    case 2: tile8(f, 2, p, w); break;
    case 3: tile8(f, 3, p, w); break;
#endif
    default: tile8(f, I8_X, p, w); break;
    }
}

#endif
