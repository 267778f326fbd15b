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

enum { COLS = 512, N_W = 16, MAX_X = 16, HEADS = 8, ROWS = 16, IDX_DIM = 128 };

static unsigned char w[N_W * COLS * 4];
static _Alignas(ACT_ALIGN) unsigned char acts[MAX_X * COLS * 2];
static float x[MAX_X * COLS], out[MAX_X * COLS];
static KvRowFormat kv;
static IdxRowFormat idx;

static int type, n_x; /* of a product */

static void product(const Kernels *k)
{
    const QuantFormat *f = quant_format(type);
    const size_t ldw = (size_t)(COLS / f->block_len) * (size_t)f->block_bytes;
    k->gemm[type](out, N_W, w, ldw, N_W, x, COLS, n_x, COLS);
}

static void product_i8(const Kernels *k)
{
    const QuantFormat *f = quant_format(type);
    const size_t ldw = (size_t)(COLS / f->block_len) * (size_t)f->block_bytes;
    k->gemm_i8[type](out, N_W, w, ldw, N_W, acts, act_bytes(COLS), n_x, COLS);
}

#define CALL(name, call) \
    static void name(const Kernels *k) { call; }
CALL(act_pack, k->act_pack(acts, x, COLS))
CALL(mix, k->mix(out, COLS, x, ROWS, x, COLS, HEADS, ROWS, COLS))
CALL(sum_sq, out[0] = k->sum_sq(x, COLS))
CALL(scale, k->scale(out, x, 0.5f, x, COLS))
CALL(exp_sum, out[0] = k->exp_sum(x, 0.1f, COLS))
CALL(swiglu, k->swiglu(out, x, x, 10, 0.5f, COLS))
CALL(axpy, k->axpy(out, 0.5f, x, COLS))
CALL(kv_unpack, k->kv_unpack(&kv, out, w))
CALL(idx_unpack, k->idx_unpack(&idx, out, w))

static const struct {
    const char *name;
    void (*call)(const Kernels *k);
    int values;
} others[] = {
    { "act_pack", act_pack, COLS },
    { "mix", mix, HEADS *ROWS *COLS },
    { "sum_sq", sum_sq, COLS },
    { "scale", scale, COLS },
    { "exp_sum", exp_sum, COLS },
    { "swiglu", swiglu, COLS },
    { "axpy", axpy, COLS },
    { "kv_unpack", kv_unpack, COLS },
    { "idx_unpack", idx_unpack, IDX_DIM },
};

int main(int argc, char **argv)
{
    const Kernels *k = argc == 5 ? kernels_find(argv[1], NULL) : NULL;
    if (!k)
        return fputs("count SET KERNEL N_X TIMES\n", stderr), 2;
    const char *name = argv[2];
    const bool i8 = strstr(name, "/i8") != NULL;
    const int times = atoi(argv[4]);
    type = quant_type((Str){ name, strlen(name) - (i8 ? 3 : 0) });
    n_x = atoi(argv[3]);
    void (*call)(const Kernels *) = i8 ? product_i8 : product;
    int values = N_W * COLS * n_x;
    for (size_t i = 0; i < COUNT(others) && type < 0; i++) {
        if (strcmp(others[i].name, name) == 0)
            call = others[i].call, values = others[i].values;
    }
    memset(w, 37, sizeof w);
    memset(x, 0x3d, sizeof x);
    kv = kvrow_format(COLS, 64, true);
    idx = idxrow_format(IDX_DIM, true);
    for (int i = 0; i < n_x; i++)
        k->act_pack(acts + (size_t)i * act_bytes(COLS), x, COLS);
    for (int i = 0; i <= times; i++)
        call(k);
    return printf("%d\n", values) < 0;
}
