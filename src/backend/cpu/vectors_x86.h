/* vectors_x86.h - the kernels of the x86 sets that are not matrix products. */
#ifndef VECTORS_X86_H
#define VECTORS_X86_H
#include "kernels.h"
#include "simd_x86.h"

enum { MIX_H = LANES == 16 ? 6 : 3, MIX_D = 4 }; /* heads and vectors: 24 or 12 registers */

/* n_h <= MIX_H heads, n_d vectors of columns; last: values in the last of them. */
static ALWAYS_INLINE void mix_tile(const int n_h, const int n_d, const int last, float *o,
                                   size_t ldo, const float *p, size_t ldp, const float *rows,
                                   size_t ldr, int n_rows)
{
    Vec a[MIX_H][MIX_D];
    const bool whole = last == LANES;
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int d = 0; d < n_d; d++) {
            const float *at = o + (size_t)h * ldo + d * LANES;
            a[h][d] = whole ? v_load(at) : v_load_n(at, last);
        }
    }
    for (int i = 0; i < n_rows; i++, rows += ldr) {
        Vec row[MIX_D];
        UNROLL
        for (int d = 0; d < n_d; d++)
            row[d] = whole ? v_load(rows + d * LANES) : v_load_n(rows + d * LANES, last);
        UNROLL
        for (int h = 0; h < n_h; h++) {
            Vec weight = v_set(p[(size_t)h * ldp + (size_t)i]);
            UNROLL
            for (int d = 0; d < n_d; d++)
                a[h][d] = v_fma(weight, row[d], a[h][d]);
        }
    }
    UNROLL
    for (int h = 0; h < n_h; h++) {
        UNROLL
        for (int d = 0; d < n_d; d++) {
            float *at = o + (size_t)h * ldo + d * LANES;
            if (whole)
                v_store(at, a[h][d]);
            else
                v_store_n(at, a[h][d], last);
        }
    }
}

/* All columns for n_h heads. */
static ALWAYS_INLINE void mix_heads(const int n_h, float *o, size_t ldo, const float *p, size_t ldp,
                                    const float *rows, size_t ldr, int n_rows, int dim)
{
    int d = 0;
    for (; d + MIX_D * LANES <= dim; d += MIX_D * LANES)
        mix_tile(n_h, MIX_D, LANES, o + d, ldo, p, ldp, rows + d, ldr, n_rows);
    for (; d + LANES <= dim; d += LANES)
        mix_tile(n_h, 1, LANES, o + d, ldo, p, ldp, rows + d, ldr, n_rows);
    if (d < dim)
        mix_tile(n_h, 1, dim - d, o + d, ldo, p, ldp, rows + d, ldr, n_rows);
}

static void mix(float *o, size_t ldo, const float *p, size_t ldp, const float *rows, size_t ldr,
                int n_h, int n_rows, int dim)
{
    int h = 0;
    for (; h + MIX_H <= n_h; h += MIX_H)
        mix_heads(MIX_H, o + (size_t)h * ldo, ldo, p + (size_t)h * ldp, ldp, rows, ldr, n_rows,
                  dim);
    for (; h < n_h; h++)
        mix_heads(1, o + (size_t)h * ldo, ldo, p + (size_t)h * ldp, ldp, rows, ldr, n_rows, dim);
}

/* Four sums by turns, since one would wait for itself. */
static float sum_sq(const float *x, int n)
{
    Vec s[4] = { v_zero(), v_zero(), v_zero(), v_zero() };
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        UNROLL
        for (int k = 0; k < 4; k++) {
            Vec v = v_load(x + i + k * LANES);
            s[k] = v_fma(v, v, s[k]);
        }
    }
    for (; i < n; i += LANES) {
        Vec v = v_load_upto(x + i, n - i);
        s[0] = v_fma(v, v, s[0]);
    }
    return v_sum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

static void scale(float *y, const float *x, float s, const float *w, int n)
{
    const Vec all = v_set(s);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        Vec v = v_mul(v_load(x + i), all);
        v_store(y + i, w ? v_mul(v, v_load(w + i)) : v);
    }
    if (i < n) {
        Vec v = v_mul(v_load_n(x + i, n - i), all);
        v_store_n(y + i, w ? v_mul(v, v_load_n(w + i, n - i)) : v, n - i);
    }
}

static void axpy(float *y, float a, const float *x, int n)
{
    const Vec all = v_set(a);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(y + i, v_fma(all, v_load(x + i), v_load(y + i)));
    if (i < n)
        v_store_n(y + i, v_fma(all, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

static float exp_sum(float *x, float m, int n)
{
    const Vec less = v_set(-m);
    Vec s = v_zero();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        Vec e = v_exp(v_add(v_load(x + i), less));
        v_store(x + i, e);
        s = v_add(s, e);
    }
    if (i < n) {
        v_store_n(x + i, v_exp(v_add(v_load_n(x + i, n - i), less)), n - i);
        s = v_add(s, v_load_n(x + i, n - i)); /* without the lanes behind the end */
    }
    return v_sum(s);
}

/* NaN stays NaN: v_min and v_max give their second operand then. */
static ALWAYS_INLINE Vec swiglu_of(Vec g, Vec u, Vec limit, Vec minus_limit, Vec s)
{
    g = v_min(limit, g);
    u = v_max(minus_limit, v_min(limit, u));
    Vec minus_g = v_mul(g, v_set(-1));
    return v_mul(v_mul(v_div(g, v_add(v_set(1), v_exp(minus_g))), u), s);
}

static void swiglu(float *h, const float *g, const float *u, float limit, float s, int n)
{
    const Vec lim = v_set(limit), minus = v_set(-limit), all = v_set(s);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(h + i, swiglu_of(v_load(g + i), v_load(u + i), lim, minus, all));
    if (i < n) {
        Vec gate = v_load_n(g + i, n - i), up = v_load_n(u + i, n - i);
        v_store_n(h + i, swiglu_of(gate, up, lim, minus, all), n - i);
    }
}
#endif
