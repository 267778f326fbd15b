/* search.c - weighted least squares over a few trial scales. */
#include "search.h"
#include "float.h"
#include "../base/base.h"
#include <assert.h>
#include <math.h>

/* Adding 2^23 + 2^22 rounds to an integer, ties to even, below 2^22. */
int search_code(float v, int top)
{
    if (!(v > 0))
        return 0;
    if (v >= (float)top)
        return top;
    return (int)((v + 0x1.8p23f) - 0x1.8p23f);
}

float search_mean_sq(const float *x, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum / (float)n;
}

void search_weights(float *w, const float *importance, const float *x, int n, float variance)
{
    for (int i = 0; i < n; i++)
        w[i] = (importance ? importance[i] : 1) * sqrtf(variance + x[i] * x[i]);
}

/* ---- scale and min ------------------------------------------------------------- */

typedef struct {
    float scale, low; /* x ~ scale * code + low, low <= 0 */
    float error;
} Fit;

static float error_of(const Fit *f, const float *x, const float *w, int n, const int *codes,
                      bool absolute)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float d = f->scale * (float)codes[i] + f->low - x[i];
        sum += w[i] * (absolute ? fabsf(d) : d * d);
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

float search_affine(const float *x, const float *w, int n, int top, const AffineSearch *how,
                    float *min)
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

    Fit best = { .scale = 1 / inverse, .low = low };
    for (int t = -1; t <= how->steps; t++) {
        if (t >= 0)
            inverse = (how->first + how->step * (float)t + (float)top) / (high - low);
        for (int i = 0; i < n; i++)
            codes[i] = search_code(inverse * (x[i] - low), top);
        Fit f = best;
        if (t >= 0 && !solve(&f, x, w, n, codes))
            continue;
        f.error = error_of(&f, x, w, n, codes, how->absolute);
        if (t < 0 || f.error < best.error)
            best = f;
    }
    *min = -best.low;
    return best.scale;
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

float search_positive(const float *x, const float *w, int n, int top, uint8_t *codes)
{
    float high = 0, best = -1, inverse = 0;
    for (int i = 0; i < n; i++)
        high = MAX(high, x[i]);
    assert(n > 0 && n <= SEARCH_MAX);
    memset(codes, 0, (size_t)n);
    if (!(high >= 1e-15f) || !isfinite(high))
        return 0;

    for (int t = -4; t <= 4; t++) {
        float trial = ((float)top + 0.1f * (float)t) / high, step = 1 / trial, error = 0;
        for (int i = 0; i < n; i++) {
            float d = x[i] - step * (float)search_code(trial * x[i], top);
            error += w[i] * d * d;
        }
        if (best < 0 || error < best) {
            best = error;
            inverse = trial;
        }
    }
    Sums s = { 0 };
    for (int i = 0; i < n; i++) {
        codes[i] = (uint8_t)search_code(inverse * x[i], top);
        s.xc += w[i] * x[i] * (float)codes[i];
        s.cc += w[i] * (float)codes[i] * (float)codes[i];
    }
    for (int pass = 0; pass < 5 && improve(&s, x, w, n, top, codes); pass++)
        continue;
    return s.cc > 0 ? s.xc / s.cc : 0;
}

float search_scales(const float *v, const float *w, int n, int top, uint8_t *codes)
{
    if (w)
        return search_positive(v, w, n, top, codes);
    float max = 0;
    for (int i = 0; i < n; i++)
        max = MAX(max, v[i]);
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(max > 0 ? search_code((float)top * v[i] / max, top) : 0);
    return max / (float)top;
}

float search_half(uint8_t *half, float v)
{
    u16_put(half, f16_from_f32(MIN(v, 65504)));
    return f16_at(half);
}
