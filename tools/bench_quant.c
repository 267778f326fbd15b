/* bench_quant.c - how fast the encoders are on one core, and how well they do.
 *
 *   make build/bench_quant && build/bench_quant [FORMAT]
 *
 * Rows of 4096 bell-shaped values, also with importance, by each instruction set. The best of many
 * short repetitions counts. Errors are the root of the squares relative to the values': plain;
 * weighted as the searches do, by the root of the mean square and the value's own; and by importance. */
#include "../src/base/rng.h"
#include "../src/quant/lanes.h"
#include "../src/quant/quant.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { COLS = 4096, ROWS = 16, N = COLS * ROWS };

static float x[N], y[N], importance[COLS];
static unsigned char blocks[N * 4];

static void make_values(void)
{
    uint64_t rng = 7;
    for (int i = 0; i < N; i++) {
        double radius = sqrt(-2 * log(1e-300 + rng_unit(&rng)));
        x[i] = (float)(0.02 * radius * cos(6.283185307179586 * rng_unit(&rng)));
    }
    for (int i = 0; i < COLS; i++)
        importance[i] = (float)exp(2 * (rng_unit(&rng) + rng_unit(&rng) - 1));
}

enum Weighing { PLAIN, SEARCHED, IMPORTANT };

static double relative(enum Weighing how)
{
    double error = 0, size = 0, mean = 0;
    for (int i = 0; i < N; i++)
        mean += (double)x[i] * (double)x[i] / N;
    for (int i = 0; i < N; i++) {
        double w = how == IMPORTANT  ? (double)importance[i % COLS]
                   : how == SEARCHED ? sqrt(mean + (double)x[i] * (double)x[i])
                                     : 1;
        double d = (double)y[i] - (double)x[i];
        error += w * d * d;
        size += w * (double)x[i] * (double)x[i];
    }
    return sqrt(error / size);
}

/* n blocks or values of the format, by one instruction set or, where there is one way only, by it. */
static void encode(const QuantFormat *f, const Lanes *l, unsigned char *out, const float *from,
                   const float *weight)
{
    const size_t n = COLS / QK;
    if (strcmp(f->name, "Q2_K") == 0)
        l->q2_k((BlockQ2_K *)out, from, n, weight);
    else if (strcmp(f->name, "Q4_K") == 0)
        l->q4_k((BlockQ4_K *)out, from, n, weight);
    else if (strcmp(f->name, "IQ2_XXS") == 0)
        l->iq2_xxs((BlockIQ2_XXS *)out, from, n, weight);
    else
        f->encode(out, from, COLS, weight);
}

/* Millions of weights a second; what was encoded is decoded to y. */
static double speed(const QuantFormat *f, const Lanes *l, const float *weight)
{
    const size_t row_bytes = (size_t)(COLS / f->block_len * f->block_bytes);
    double best = 0;
    const int64_t end = clock_ns() + 700000000;
    while (clock_ns() < end) {
        for (int r = 0; r < ROWS; r++) {
            int64_t began = clock_ns();
            encode(f, l, blocks + (size_t)r * row_bytes, x + r * COLS, weight);
            best = fmax(best, COLS * 1e3 / (double)(clock_ns() - began));
        }
    }
    f->decode(y, blocks, N);
    return best;
}

static bool is_searched(const QuantFormat *f)
{
    return strcmp(f->name, "Q2_K") == 0 || strcmp(f->name, "Q4_K") == 0 ||
           strcmp(f->name, "IQ2_XXS") == 0;
}

int main(int argc, char **argv)
{
    make_values();
    printf("%-8s %-7s %8s %13s %8s %9s %10s\n", "format", "set", "M/s", "M/s weighted", "plain",
           "searched", "important");
    for (int type = 0; type < QUANT_END; type++) {
        const QuantFormat *f = quant_format(type);
        if (!f || !f->encode || f->block_len == 1 || (argc > 1 && strcmp(argv[1], f->name) != 0))
            continue;
        for (size_t i = 0; lanes_at(i) && (i == 0 || is_searched(f)); i++) {
            const Lanes *l = lanes_at(i);
            double plain = speed(f, l, NULL), rms = relative(PLAIN), searched = relative(SEARCHED);
            double with = speed(f, l, importance);
            printf("%-8s %-7s %8.1f %13.1f %8.4f %9.4f %10.4f\n", f->name,
                   is_searched(f) ? l->name : "-", plain, with, rms, searched, relative(IMPORTANT));
        }
    }
    return 0;
}
