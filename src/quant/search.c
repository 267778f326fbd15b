/* search.c - weighted least squares over a few trial scales. */
#include "search.h"
#include "../base/base.h"
#include "float.h"
#include <assert.h>
#include <math.h>

int search_code(float v, int top)
{
    float limit = (float)top;
    v = v > 0 ? v : 0;
    v = v < limit ? v : limit;
    /* Rounds to an integer, ties to even, for what is below 2^22. */
    return (int)((v + 0x1.8p23f) - 0x1.8p23f);
}

float search_half(uint8_t *half, float v)
{
    u16_put(half, f16_from_f32(MIN(v, 65504)));
    return f16_at(half);
}

float search_mean_sq(const float *x, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum / (float)n;
}

/* The error with the nearest codes. */
static float coded_error(const float *x, const float *w, int n, int top, float scale)
{
    float sum = 0, inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < n; i++) {
        float d = scale * (float)search_code(x[i] * inverse, top) - x[i];
        sum += w[i] * d * d;
    }
    return sum;
}

/* Sums that give the best scale, xc / cc, and its gain, xc^2 / cc. */
typedef struct {
    float xc, cc;
} Sums;

/* Change one code at a time where that raises the gain. */
static bool improve(Sums *s, const float *x, const float *w, int n, int top, uint8_t *codes)
{
    bool changed = false;
    for (int i = 0; i < n; i++) {
        float c = (float)codes[i];
        Sums r = { s->xc - w[i] * x[i] * c, s->cc - w[i] * c * c };
        if (!(r.xc > 0 && r.cc > 0))
            continue;
        int code = search_code(x[i] * r.cc / r.xc, top);
        c = (float)code;
        r.xc += w[i] * x[i] * c;
        r.cc += w[i] * c * c;
        if (code != codes[i] && r.xc * r.xc * s->cc > s->xc * s->xc * r.cc) {
            codes[i] = (uint8_t)code;
            *s = r;
            changed = true;
        }
    }
    return changed;
}

/* 1 / scale: the largest value gets about the top code, or exactly a lower one
 * down to the half, so that what has such a scale already keeps it. */
static float best_inverse(const float *x, const float *w, int n, int top, float high)
{
    float best = INFINITY, inverse = (float)top / high;
    for (int t = -4; t <= 4 + top / 2; t++) {
        float code = (float)top + (t <= 4 ? 0.1f * (float)t : (float)(4 - t));
        float error = coded_error(x, w, n, top, high / code);
        if (error < best) {
            best = error;
            inverse = code / high;
        }
    }
    return inverse;
}

float search_positive(const float *x, const float *w, int n, int top, uint8_t *codes)
{
    float high = 0;
    assert(n > 0 && n <= SEARCH_MAX);
    for (int i = 0; i < n; i++)
        high = MAX(high, x[i]);
    memset(codes, 0, (size_t)n);
    if (!(high >= 1e-15f) || !isfinite(high))
        return 0;

    float inverse = best_inverse(x, w, n, top, high);
    Sums s = { 0 };
    for (int i = 0; i < n; i++) {
        codes[i] = (uint8_t)search_code(inverse * x[i], top);
        s.xc += w[i] * x[i] * (float)codes[i];
        s.cc += w[i] * (float)codes[i] * (float)codes[i];
    }
    for (int pass = 0; pass < 5 && improve(&s, x, w, n, top, codes); pass++)
        continue;
    return s.cc > 0 ? s.xc / s.cc : 1 / inverse;
}
