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

float search_weights(float *w, const float *importance, const float *x, int n, float variance)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        w[i] = (importance ? importance[i] : 1) * sqrtf(variance + x[i] * x[i]);
        sum += w[i];
    }
    if (importance && !(sum > 0))
        search_weights(w, NULL, x, n, variance);
    return sum;
}

/* ---- scale and min ------------------------------------------------------------- */

typedef struct {
    float scale, low; /* x ~ scale * code + low, low <= 0 */
    float error;
} Fit;

static float error_of(const Fit *f, const float *x, const float *w, int n, const int *codes)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float d = f->scale * (float)codes[i] + f->low - x[i];
        sum += w[i] * d * d;
    }
    return sum;
}

/* The best scale and low for given codes; false when they do not determine it. */
static bool solve(Fit *f, const float *x, const float *w, int n, const int *codes)
{
    float sw = 0, sc = 0, scc = 0, sx = 0, sxc = 0;
    for (int i = 0; i < n; i++) {
        float c = (float)codes[i];
        sw += w[i];
        sc += w[i] * c;
        scc += w[i] * c * c;
        sx += w[i] * x[i];
        sxc += w[i] * x[i] * c;
    }
    float det = sw * scc - sc * sc;
    if (!(det > 0))
        return false;
    f->scale = (sw * sxc - sx * sc) / det;
    f->low = (scc * sx - sc * sxc) / det;
    if (f->low > 0) {
        f->low = 0;
        f->scale = sxc / scc;
    }
    return true;
}

float search_affine(const float *x, const float *w, int n, int top, float *min)
{
    int codes[SEARCH_MAX];
    float low = MIN(0, x[0]), high = x[0];
    assert(n > 0 && n <= SEARCH_MAX);
    for (int i = 1; i < n; i++) {
        low = MIN(low, x[i]);
        high = MAX(high, x[i]);
    }
    *min = -low;
    float inverse = (float)top / (high - low);
    if (!(high > low) || !isfinite(inverse))
        return 0;

    /* First as the range says, then with 0.9 fewer to 0.9 more codes over it. */
    Fit best = { .scale = 1 / inverse, .low = low };
    for (int t = -1; t <= 36; t++) {
        if (t >= 0)
            inverse = ((float)top - 0.9f + 0.05f * (float)t) / (high - low);
        for (int i = 0; i < n; i++)
            codes[i] = search_code(inverse * (x[i] - low), top);
        Fit f = best;
        if (t >= 0 && !solve(&f, x, w, n, codes))
            continue;
        f.error = error_of(&f, x, w, n, codes);
        if (t < 0 || f.error < best.error)
            best = f;
    }
    *min = -best.low;
    return best.scale;
}

/* The error with the nearest codes. */
static float coded_error(const float *x, const float *w, int n, int top, float scale, float min)
{
    float sum = 0, inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < n; i++) {
        float d = scale * (float)search_code((x[i] + min) * inverse, top) - min - x[i];
        sum += w[i] * d * d;
    }
    return sum;
}

void search_neighbours(const float *x, const float *w, int n, int top, float scale_unit,
                       float min_unit, int most, uint8_t *scale, uint8_t *min)
{
    int s0 = *scale, m0 = *min;
    float best = coded_error(x, w, n, top, scale_unit * (float)s0, min_unit * (float)m0);
    for (int s = MAX(0, s0 - 1); s <= MIN(most, s0 + 1); s++) {
        for (int m = MAX(0, m0 - 3); m <= MIN(most, m0 + 3); m++) {
            float e = coded_error(x, w, n, top, scale_unit * (float)s, min_unit * (float)m);
            if (e < best) {
                best = e;
                *scale = (uint8_t)s;
                *min = (uint8_t)m;
            }
        }
    }
}

/* ---- scale alone ----------------------------------------------------------------- */

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
        float error = coded_error(x, w, n, top, high / code, 0);
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
