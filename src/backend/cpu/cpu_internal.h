/* cpu_internal.h - what the op files of the CPU backend share.
 *
 * An op is one pool_run: every thread walks the same phases, takes its part of
 * each, and meets the others at a barrier where a phase reads what another
 * thread wrote. A part is a range of a matrix's output rows, or of step rows,
 * so no sum is ever split and the number of threads changes no bit. */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H
#include "cpu.h"
#include "acts.h"
#include "kernels.h"
#include "../../base/pool.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>

/* Weight rows and step rows of one gemm call; KV or index rows unpacked at a
 * time; dimensions pooled at a time. */
enum { W_TILE = 32, X_TILE = 32, KV_TILE = 64, POOL_CHUNK = 128 };
/* Floats of what an expert's rows give before they are added up. */
enum { EXPERT_TILE = 8192 };
/* Threads' parts are multiples of the widest vector, so that no element is in
 * a vector's tail for one number of threads only. */
enum { SLICE = 16 };

/* n rows of floats, `ld` apart. */
typedef struct {
    float *p;
    size_t ld;
    int n;
} Rows;

/* Rows as a matrix multiplies them: as they are, or packed (acts.h). */
typedef struct {
    Rows rows;
    char *acts; /* NULL: not packed */
    size_t ld;  /* bytes */
} Input;

/* Scratch of the ops that need several things. */
typedef struct {
    float *kv, *score; /* [rows][width] */
    float *row;        /* [thread][row_len]: a pooled row and its rotation */
    size_t row_len;
} PoolScratch;
/* The best of each thread's part of one row's scores. */
typedef struct {
    int32_t *at; /* [threads][idx_topk] */
    float *key;  /* [threads][idx_topk] */
    int *n;      /* [threads] */
} Candidates;
typedef struct {
    float *q, *w;    /* [rows][idx_heads][idx_dim], [rows][idx_heads] */
    IdxBlock *block; /* [rows][idx_heads][idx_dim / IDX_BLOCK] */
    Candidates of;
    float *score;      /* [select_rows][select_cap] */
    float *tile, *dot; /* [thread][KV_TILE][idx_dim], [thread][idx_heads][KV_TILE] */
    int *need;         /* [rows] those with more visible rows than idx_topk */
} SelectScratch;
typedef struct {
    float *tile, *score; /* [thread][KV_TILE][head_dim], [thread][n_heads][KV_TILE] */
    float *max;          /* [thread][n_heads] */
    double *sum;         /* [thread][n_heads] */
} AttendScratch;
typedef struct {
    float *x, *h; /* [pairs][dim], [pairs][max(expert_dim, shared_dim)]; or packed rows */
    float *tile;  /* [thread][2][EXPERT_TILE] */
    float *gate;  /* [pairs] */
    int *row;     /* [pairs] */
    int *first;   /* [n_experts + 1] */
} ExpertScratch;
/* Packed rows: those of the step, or one for each thread. */
typedef struct {
    char *rows;   /* [max(rows, threads)][bytes] */
    size_t bytes; /* the longest row */
} ActScratch;

typedef struct {
    int slot, pos;
} RowAt;

typedef struct {
    Backend be; /* first: a Backend * is a Cpu * */
    const Kernels *k;
    Pool *pool;
    int threads, max_rows, max_out, max_context;
    int select_rows, select_cap;
    int lone_rows; /* a step of so many is too small to be shared */
    bool exact;    /* F32 activations throughout */

    RowAt *at;      /* [max_rows] of the step */
    float *freq[2]; /* [rope_dim / 2], plain and for compressed layers */
    float *turn[2]; /* [max_rows][rope_dim / 2] cos, sin of the step's positions */

    /* the ops' scratch, all in one place: no two ops run at once */
    float *mixes;  /* hc_pre: [rows][N_MIX + 1] */
    float *raw_kv; /* kv_row: [rows][head_dim] */
    float *low;    /* project: [rows][o_groups * o_rank] */
    float *scores; /* route: [rows][n_experts] */
    float *head_x; /* logits: [out][dim] */
    PoolScratch pooling;
    SelectScratch select;
    AttendScratch attend;
    ExpertScratch experts;
    ActScratch acts;

    void *memory;          /* all of the above */
    ds4_err err;           /* the first failure, told by end */
    atomic_int bad_expert; /* an expert id that the model does not have, or -1 */
    char name[48];
} Cpu;

static inline Cpu *cpu_of(Backend *be) { return (Cpu *)(void *)be; }
static inline void *bytes_of(Buf b) { return (char *)b.base + b.off; }
static inline float *floats(Buf b) { return bytes_of(b); }
static inline int32_t *ints(Buf b) { return bytes_of(b); }
static inline Rows rows_of(Buf b, int ld, int n) { return (Rows){ floats(b), (size_t)ld, n }; }
static inline float *row_at(Rows r, int i) { return r.p + (size_t)i * r.ld; }

/* Memory handed out front to back; with base NULL it only counts. */
typedef struct {
    char *base;
    uint64_t used;
    bool overflow;
} Layout;
void *layout_take(Layout *l, uint64_t count, uint64_t unit, uint64_t size);

/* matmul.c: out_i[j] = row j of matrix `which` of w . x_i, j in [first, last). cpu_matmul
 * takes F32 activations whatever the weights are: what routes, pools and mixes. */
void cpu_matmul(const Cpu *c, Rows out, const Weight *w, int which, Rows x, int first, int last);
void cpu_multiply(const Cpu *c, Rows out, const Weight *w, int which, Input x, int first, int last);
const void *weight_at(const Weight *w, int which, int row);
size_t weight_row_bytes(const Weight *w);
/* The part of n output rows for a thread. */
static inline void cpu_part(int n, int ith, int nth, int *first, int *last)
{
    pool_part(n, n >= SLICE * nth ? SLICE : 1, ith, nth, first, last);
}

/* inputs.c: rows of x as w multiplies them. of: all threads pack together and meet at a
 * barrier, or each packs the only row for itself. own: this thread alone, one row. pieces: a
 * row is that many side by side, one after the other in `acts`, too. pack and packed: row i,
 * and later, past a barrier, all of them. */
bool input_is_packed(const Cpu *c, const Weight *w);
Input input_of(const Cpu *c, Rows x, const Weight *w, int ith, int nth);
Input input_own(const Cpu *c, Rows x, const Weight *w, int ith);
Input input_pieces(const Cpu *c, Rows x, const Weight *w, int pieces, int ith, int nth);
void input_pack(const Cpu *c, Rows x, const Weight *w, int i);
Input input_packed(const Cpu *c, Rows x, const Weight *w);

/* norm.c: 1 / sqrt(mean of squares + eps), from the sum; y = x * that * w. */
float cpu_rms(const Cpu *c, float sum_sq, int n);
void cpu_norm(const Cpu *c, float *y, const float *x, const float *w, int n);

/* rope.c: rotation of the last 2 * pairs values. */
void rope_tables(Cpu *c);
void rope_angles(float *turn, const float *freq, int pairs, int pos);
void rope_turn(float *tail, const float *turn, int pairs, bool back);
static inline int rope_kind(const Shape *s, int layer) { return s->ratio[layer] != 0; }
static inline const float *rope_row(const Cpu *c, int kind, int row)
{
    return c->turn[kind] + (size_t)row * (size_t)c->be.shape->rope_dim;
}

/* hc.c */
void hc_head(const Cpu *c, float *x, const float *streams, const HcWeights *hc, const float *norm);

#define OP(name, params, args) void cpu_##name(Backend *be, const Step *step, LIST params);
OPS(OP)
#undef OP

#endif
