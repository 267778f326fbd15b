/* count.c - one kernel of one set, called once and then N times more, for
 * tools/count_neon, which counts what an emulated CPU executes.
 *
 *   count SET KERNEL N_X TIMES      KERNEL: a format, the same with "/i8", or a member's name
 *
 * Prints how many weights (or values) one call has, times N_X. */
#include "../../src/backend/cpu/acts.h"
#include "../../src/backend/cpu/kernels.h"
#include "../../src/quant/blocks.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLS = 512, N_W = 16, MAX_X = 16, HEADS = 8, ROWS = 16 };

static unsigned char w[N_W * COLS * 4];
static _Alignas(ACT_ALIGN) unsigned char acts[MAX_X * COLS * 2];
static float x[MAX_X * COLS], out[MAX_X * COLS];

/* A product of `name`; false: it is none. */
static bool product(const Kernels *k, const char *name, int n_x)
{
    const bool i8 = strstr(name, "/i8") != NULL;
    const int type = quant_type((Str){ name, strlen(name) - (i8 ? 3 : 0) });
    const QuantFormat *f = type < 0 ? NULL : quant_format(type);
    if (!f)
        return false;
    const size_t ldw = (size_t)(COLS / f->block_len) * (size_t)f->block_bytes;
    if (i8)
        k->gemm_i8[type](out, N_W, w, ldw, N_W, acts, act_bytes(COLS), n_x, COLS);
    else
        k->gemm[type](out, N_W, w, ldw, N_W, x, COLS, n_x, COLS);
    return true;
}

/* Values of one call; 0: no such kernel. */
static int other(const Kernels *k, const char *name)
{
    const KvRowFormat kv = kvrow_format(COLS, 64, true);
    const IdxRowFormat idx = idxrow_format(128, true);
    if (strcmp(name, "mix") == 0) {
        k->mix(out, COLS, x, ROWS, x, COLS, HEADS, ROWS, COLS);
        return HEADS * ROWS * COLS;
    }
    if (strcmp(name, "act_pack") == 0)
        k->act_pack(acts, x, COLS);
    else if (strcmp(name, "sum_sq") == 0)
        out[0] = k->sum_sq(x, COLS);
    else if (strcmp(name, "scale") == 0)
        k->scale(out, x, 0.5f, x, COLS);
    else if (strcmp(name, "exp_sum") == 0)
        memcpy(out, x, COLS * sizeof *x), k->exp_sum(out, 0.1f, COLS);
    else if (strcmp(name, "swiglu") == 0)
        k->swiglu(out, x, x, 10, 0.5f, COLS);
    else if (strcmp(name, "axpy") == 0)
        k->axpy(out, 0.5f, x, COLS);
    else if (strcmp(name, "kv_unpack") == 0)
        k->kv_unpack(&kv, out, w);
    else if (strcmp(name, "idx_unpack") == 0)
        return k->idx_unpack(&idx, out, w), 128;
    else
        return 0;
    return COLS;
}

int main(int argc, char **argv)
{
    const Kernels *k = argc == 5 ? kernels_find(argv[1], NULL) : NULL;
    if (!k)
        return fputs("count SET KERNEL N_X TIMES\n", stderr), 2;
    const int n_x = atoi(argv[3]), times = atoi(argv[4]);
    int values = 0;
    memset(w, 37, sizeof w);
    memset(x, 0x3d, sizeof x);
    for (int i = 0; i < n_x; i++)
        k->act_pack(acts + (size_t)i * act_bytes(COLS), x, COLS);
    for (int i = 0; i <= times; i++)
        values = product(k, argv[2], n_x) ? N_W * COLS * n_x : other(k, argv[2]);
    return printf("%d\n", values) < 0 || values == 0;
}
