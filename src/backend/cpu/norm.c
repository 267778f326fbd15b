/* norm.c - root mean square norms. */
#include "cpu_internal.h"

float cpu_rms(const Cpu *c, float sum_sq, int n)
{
    return (float)(1 / sqrt((double)sum_sq / n + (double)c->be.shape->norm_eps));
}

void cpu_norm(const Cpu *c, float *y, const float *x, const float *w, int n)
{
    c->k->scale(y, x, cpu_rms(c, c->k->sum_sq(x, n), n), w, n);
}
