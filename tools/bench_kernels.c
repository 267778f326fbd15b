/* bench_kernels.c - what the microkernels reach of what this machine can do.
 *
 *   make build/bench_kernels && build/bench_kernels [ISA [THREADS [MIB]]]
 *
 * In one run it measures the read bandwidth, the F32 FMA rate, and then each
 * kernel: a matrix times one row as a part of the bandwidth, the same from
 * cache, with 4 rows from memory, and with 64 and 256 rows from cache as a part
 * of the FMA rate. What comes from memory is read in windows of 8 MiB of MIB
 * (default 512), so that a window has left the caches when its turn comes
 * again. The best of many short repetitions counts, since other programs may
 * want the cores too. */
#include "../src/backend/cpu/kernels.h"
#include "../src/base/pool.h"
#include "../src/quant/blocks.h"
#include <stdio.h>
#include <stdlib.h>

enum { COLS = 4096, MAX_X = 256, MAX_OUT = 1024, WINDOW = 8 << 20 };

typedef struct {
    const Kernels *k;
    int type, n_x, n_w, repeat; /* n_w rows a thread */
    unsigned char *w;
    float *x, *out;   /* [MAX_X][COLS]; [threads][MAX_X][MAX_OUT] */
    size_t bytes, at; /* of w; where this pass begins */
    size_t window;    /* WINDOW in whole blocks */
} Job;

/* ---- limits ---------------------------------------------------------------------- */

#ifdef __x86_64__
#define WIDE __attribute__((target("avx512f")))
#define LESS __attribute__((target("avx2,fma")))
#else
#define WIDE
#define LESS
#endif
typedef long long I8 __attribute__((vector_size(64), aligned(1)));
typedef long long I4 __attribute__((vector_size(32), aligned(1)));

static volatile double keep; /* so that no measured work is dropped */

/* Four pages at a time, as the kernels read four rows: one stream alone is slower. */
#define READ(name, target, type) \
    target static void name(void *arg, int ith, int nth) \
    { \
        enum { PAGE = 4096 / sizeof(type) }; \
        const Job *j = arg; \
        size_t part = WINDOW / (size_t)nth / 16384 * 16384; \
        const type *p = (const type *)(j->w + j->at + part * (size_t)ith); \
        const type *end = p + part / sizeof *p; \
        type s = { 0 }; \
        for (; p < end; p += 4 * PAGE) { \
            for (int i = 0; i < PAGE; i++) \
                s ^= p[i] ^ p[i + PAGE] ^ p[i + 2 * PAGE] ^ p[i + 3 * PAGE]; \
        } \
        keep = (double)s[0]; \
    }
READ(read_16, WIDE, I8)
READ(read_8, LESS, I4)

enum { FMA_STEPS = 100000, FMA_CHAINS = 12 };

#ifdef __x86_64__
#include <immintrin.h>
#define EACH(X)  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(i) s##i = a,
#define STEP(i)  __asm__ volatile("vfmadd213ps %1, %1, %0" : "+v"(s##i) : "v"(b));
#define FMA(name, target, type, set) \
    target static void name(void *arg, int ith, int nth) \
    { \
        const type a = set(0.999f), b = set(0.001f); \
        type EACH(START) end = a; \
        (void)arg, (void)ith, (void)nth; \
        for (int n = 0; n < FMA_STEPS; n++) { \
            EACH(STEP) \
        } \
        keep = (double)end[0]; \
    }
FMA(fma_16, WIDE, __m512, _mm512_set1_ps)
FMA(fma_8, LESS, __m256, _mm256_set1_ps)
#endif

/* ---- kernels ---------------------------------------------------------------------- */

/* A thread's rows, `repeat` times over. */
static void gemm_part(void *arg, int ith, int nth)
{
    const Job *j = arg;
    const QuantFormat *f = quant_format(j->type);
    size_t ldw = (size_t)(COLS / f->block_len) * (size_t)f->block_bytes;
    const unsigned char *w = j->w + j->at + (size_t)ith * (size_t)j->n_w * ldw;
    float *out = j->out + (size_t)ith * MAX_X * MAX_OUT;
    (void)nth;
    for (int r = 0; r < j->repeat; r++) {
        for (int i = 0; i < j->n_w; i += MAX_OUT)
            j->k->gemm[j->type](out, MAX_OUT, w + (size_t)i * ldw, ldw, MIN(MAX_OUT, j->n_w - i),
                                j->x, COLS, j->n_x, COLS);
    }
}

/* Seconds, the best of many in about 0.3 s. */
static double best(Pool *p, PoolFn fn, Job *j, bool from_memory)
{
    double least = 1e9;
    int64_t start = clock_ns();
    j->at = 0;
    for (int i = 0; i < 5 || clock_ns() - start < 300000000; i++) {
        int64_t t = clock_ns();
        pool_run(p, fn, j);
        least = MIN(least, 1e-9 * (double)(clock_ns() - t));
        if (from_memory)
            j->at = j->at + 2 * j->window > j->bytes ? 0 : j->at + j->window;
    }
    j->at = 0;
    return least;
}

/* Scales that are small numbers, so that no product is slow or infinite. */
static void fill(Job *j)
{
    static const struct {
        int type, at[2];
    } half[] = {
        { QUANT_F16, { 0, 0 } },  { QUANT_Q8_0, { 0, 0 } },    { QUANT_Q2_K, { 80, 82 } },
        { QUANT_Q4_K, { 0, 2 } }, { QUANT_IQ2_XXS, { 0, 0 } },
    };
    uint32_t s = 1;
    size_t size = (size_t)quant_format(j->type)->block_bytes;
    for (size_t i = 0; i < j->bytes; i++, s = s * 1664525 + 1013904223)
        j->w[i] = (unsigned char)(s >> 24);
    for (size_t at = 0; at + size <= j->bytes; at += size) {
        for (size_t t = 0; t < COUNT(half); t++) {
            if (half[t].type == j->type)
                j->w[at + (size_t)half[t].at[0] + 1] = j->w[at + (size_t)half[t].at[1] + 1] = 0x2c;
        }
        if (j->type == QUANT_F32 || j->type == QUANT_BF16)
            j->w[at + size - 1] = 0x3f;
        if (j->type == QUANT_MXFP4)
            j->w[at] = 120;
    }
}

static void bench_format(Pool *p, Job *j, double read, double fma)
{
    const QuantFormat *f = quant_format(j->type);
    const int nth = pool_threads(p), all = WINDOW / f->block_bytes;
    const int rows = all / (COLS / f->block_len) / nth;
    double weights = (double)rows * COLS * nth;
    fill(j);
    j->window = (size_t)rows * (size_t)nth * COLS / (size_t)f->block_len * (size_t)f->block_bytes;
    j->repeat = 1, j->n_w = rows, j->n_x = 1;
    double one = best(p, gemm_part, j, true), bytes = weights / f->block_len * f->block_bytes;
    j->repeat = 50, j->n_w = 16;
    double cached = best(p, gemm_part, j, false);
    double hot = (double)j->repeat * j->n_w * nth * COLS;
    printf("%-8s %7.1f %5.0f%% %9.1f %9.1f", f->name, 1e-9 * bytes / one, 100 * bytes / one / read,
           1e-9 * weights / one, 1e-9 * hot / cached);
    static const int n_x[] = { 4, 64, 256 };
    for (size_t i = 0; i < COUNT(n_x); i++) {
        j->n_x = n_x[i], j->n_w = i ? 64 : rows / 8, j->repeat = 1;
        double macs = (double)j->n_w * nth * COLS * j->n_x, t = best(p, gemm_part, j, i == 0);
        printf(" %9.1f %4.0f%%", 1e-9 * macs / t, 100 * macs / t / fma);
    }
    printf("\n");
    fflush(stdout);
}

/* ---- the others: a thread each on its own data, in cache ------------------------------ */

enum { VECTOR = 4096, ROWS = 128, HEADS = 64, DIM = 512, TIMES = 20 };

#define PART(name, call) \
    static void name(void *arg, int ith, int nth) \
    { \
        Job *j = arg; \
        float *o = j->out + (size_t)ith * MAX_X * MAX_OUT, *x = o + 65536, *y = x + 65536; \
        (void)nth, (void)y; \
        for (int r = 0; r < TIMES; r++) \
            call; \
    }
PART(mix_part, j->k->mix(o, DIM, y, ROWS, x, DIM, HEADS, ROWS, DIM))
PART(score_part, j->k->gemm[QUANT_F32](o, ROWS, x, DIM * 4, ROWS, y, DIM, HEADS, DIM))
PART(index_part, j->k->gemm[QUANT_F32](o, ROWS, x, DIM, ROWS, y, DIM / 4, HEADS, DIM / 4))
PART(sum_sq_part, o[0] = j->k->sum_sq(x, VECTOR))
PART(scale_part, j->k->scale(o, x, 0.5f, y, VECTOR))
PART(exp_part, o[0] = j->k->exp_sum(x, 0.1f, VECTOR))
PART(swiglu_part, j->k->swiglu(o, x, y, 10, 0.5f, VECTOR))
PART(axpy_part, j->k->axpy(o, 0.5f, x, VECTOR))

static void kv_part(void *arg, int ith, int nth)
{
    Job *j = arg;
    KvRowFormat f = kvrow_format(DIM, 64, true);
    float *o = j->out + (size_t)ith * MAX_X * MAX_OUT;
    (void)nth;
    for (int r = 0; r < TIMES; r++) {
        for (int i = 0; i < ROWS; i++)
            j->k->kv_unpack(&f, o + i * DIM, j->w + i * f.bytes);
    }
}

static void idx_part(void *arg, int ith, int nth)
{
    Job *j = arg;
    IdxRowFormat f = idxrow_format(128, true);
    float *o = j->out + (size_t)ith * MAX_X * MAX_OUT;
    (void)nth;
    for (int r = 0; r < TIMES; r++) {
        for (int i = 0; i < ROWS; i++)
            j->k->idx_unpack(&f, o + i * 128, j->w + i * f.bytes);
    }
}

static void bench_others(Pool *p, Job *j, double fma)
{
    static const struct {
        const char *name;
        PoolFn fn;
        double n;
        bool macs;
    } others[] = {
        { "mix 64 heads x 128 rows x 512", mix_part, (double)HEADS * ROWS * DIM, true },
        { "scores 64 x 128 x 512", score_part, (double)HEADS * ROWS * DIM, true },
        { "index scores 64 x 128 x 128", index_part, (double)HEADS * ROWS * DIM / 4, true },
        { "sum_sq 4096", sum_sq_part, VECTOR, false },
        { "scale 4096", scale_part, VECTOR, false },
        { "exp_sum 4096", exp_part, VECTOR, false },
        { "swiglu 4096", swiglu_part, VECTOR, false },
        { "axpy 4096", axpy_part, VECTOR, false },
        { "kv_unpack 128 rows of 512", kv_part, (double)ROWS * DIM, false },
        { "idx_unpack 128 rows of 128", idx_part, (double)ROWS * 128, false },
    };
    for (size_t i = 0; i < COUNT(others); i++) {
        for (int n = 0; n < pool_threads(p) * MAX_X * MAX_OUT; n++)
            j->out[n] = (float)(n * 7 % 13) * 0.01f;
        double rate = others[i].n * TIMES * pool_threads(p) / best(p, others[i].fn, j, false);
        printf("%-30s %8.2f G/s", others[i].name, 1e-9 * rate);
        if (others[i].macs)
            printf(" %4.0f%% of FMA", 100 * rate / fma);
        printf("\n");
    }
}

static bool bench(Pool *p, Job *j)
{
    static const int types[] = { QUANT_F32,  QUANT_F16,  QUANT_BF16,    QUANT_Q8_0,
                                 QUANT_Q2_K, QUANT_Q4_K, QUANT_IQ2_XXS, QUANT_MXFP4 };
    const bool wide = strcmp(j->k->name, "avx512") == 0;
    double read = (double)WINDOW / best(p, wide ? read_16 : read_8, j, true), fma = 0;
#ifdef __x86_64__
    fma = (wide ? 16.0 : 8.0) * FMA_CHAINS * FMA_STEPS * pool_threads(p) /
          best(p, wide ? fma_16 : fma_8, j, false);
#endif
    printf("%s, %d threads: read %.1f GB/s, FMA %.1f GMAC/s\n", j->k->name, pool_threads(p),
           1e-9 * read, 1e-9 * fma);
    printf("%-8s %7s %6s %9s %9s %15s %15s %15s\n", "1 row", "GB/s", "", "Gweight/s", "in cache",
           "4 rows GMAC/s", "64 rows GMAC/s", "256 rows GMAC/s");
    for (size_t t = 0; t < COUNT(types); t++) {
        j->type = types[t];
        if (j->k->gemm[j->type])
            bench_format(p, j, read, fma);
    }
    bench_others(p, j, fma);
    return true;
}

int main(int argc, char **argv)
{
    ds4_err err = { 0 };
    Job j = { .window = WINDOW,
              .bytes = (size_t)(argc > 3 ? MAX(1, atoi(argv[3]) / 8) : 64) * WINDOW };
    Pool *p = pool_new(argc > 2 ? atoi(argv[2]) : 0, &err);
    j.k = p ? kernels_find(argc > 1 ? argv[1] : NULL, &err) : NULL;
    if (j.k) {
        j.w = aligned_alloc(4096, j.bytes);
        j.x = aligned_alloc(64, sizeof(float) * MAX_X * COLS);
        j.out = aligned_alloc(64, sizeof(float) * MAX_X * MAX_OUT * (size_t)pool_threads(p));
    }
    bool ok = j.w && j.x && j.out;
    if (ok) {
        for (int i = 0; i < MAX_X * COLS; i++)
            j.x[i] = (float)(i * 7 % 13) - 6;
        memset(j.w, 1, j.bytes);
        bench(p, &j);
    } else {
        fprintf(stderr, "bench_kernels: %s\n", err.msg[0] ? err.msg : "out of memory");
    }
    free(j.w), free(j.x), free(j.out);
    pool_free(p);
    return !ok;
}
