/* bench_plot.h - prefill and decode speed against context, as a picture. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H
#include "../base/bytes.h"

typedef struct {
    int ctx, sessions;
    double prefill_tps, gen_tps;
} PlotPoint;

/* Appends an SVG: two panels over one logarithmic axis of contexts, and in each a line
 * for each number of sessions. Points of a line follow one another. title and about are
 * bytes of any kind. */
void bench_plot(Bytes *out, Str title, Str about, const PlotPoint *p, size_t n);

#endif
