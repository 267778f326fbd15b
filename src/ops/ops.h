/* ops.h - what a device must be able to do.
 *
 * An op is a contract, not a kernel: it states inputs, outputs and a formula.
 * How many kernels run behind it, in what precision the intermediate values
 * live, and where they are kept, is the backend's own business; scratch that
 * does not appear in a signature is private to the backend.
 *
 * Every op handles all rows of the step. A row is one token of one session;
 * there is no notion of prefill or decode here. Kernels find a row's session
 * and position in the Step, which lives in device memory, so a recorded step
 * can be replayed with new contents. What a row computes must not depend on
 * which other rows are in the step: chunking and company change no logit on
 * the scalar kernels, bit for bit.
 *
 * Ops return nothing. The first failure sticks to the backend and is reported
 * by end(). Section numbers below are those of docs/MODEL.md's source, the
 * model specification; notation: [rows] = step->n_rows, F32 unless said. */
#ifndef OPS_H
#define OPS_H

#include "../base/base.h"
#include "../quant/kvrow.h"
#include "../quant/quant.h"
#include "shape.h"

/* A place in device memory. A value: slice it by adding to off. base NULL: none. */
typedef struct {
    void *base;
    size_t off;
} Buf;

static inline Buf buf_at(Buf b, size_t bytes)
{
    b.off += bytes;
    return b;
}

/* A weight matrix as the backend prepared it: [count][rows][cols], cols
 * contiguous; y = W x has `rows` values. */
typedef struct {
    Buf data;
    int type;              /* enum Quant */
    int rows, cols, count; /* count > 1: experts */
} Weight;

/* A run of consecutive positions of one session: step rows row .. row+n-1 are
 * positions pos .. pos+n-1 of slot. */
typedef struct {
    int slot, pos, n, row;
} Span;

typedef struct {
    int n_rows, n_spans, n_out;
    const Span *span;
    const int32_t *token; /* [rows] */
    const int32_t *out;   /* [n_out] rows whose logits are wanted, ascending */
} Step;

/* Whether a step is within what a backend was opened for; err says what is not. */
bool step_fits(const Step *step, int max_rows, int max_out, int max_context, ds4_err *err);

/* KV storage of one layer, for all slots. A pooled row is stored at its index
 * j; a window row at pos % ring_rows. ring_rows >= window - 1 + the largest
 * step, so the rows of a whole chunk can be written before any is read. */
typedef struct {
    Buf ring;                /* [slot][ring_rows] KvRowFormat */
    Buf comp;                /* [slot][comp_rows] KvRowFormat; none for ratio 0 */
    Buf comp_kv, comp_score; /* [slot][state_rows][comp_width(head_dim)] F32, score with ape */
    Buf idx;                 /* [slot][comp_rows] IdxRowFormat; ratio 4 only */
    Buf idx_kv, idx_score;   /* [slot][state_rows][comp_width(idx_dim)] */
    int ratio, ring_rows, comp_rows, n_slots;
    KvRowFormat row;
    IdxRowFormat idx_row;
} KvLayer;

/* A hyper-connection: proj [N_MIX or N_STREAMS][N_STREAMS * dim]; F32 vectors. */
typedef struct {
    Weight proj;
    Buf scale, base;
} HcWeights;
/* A compressor: kv, gate [comp_width][dim]; ape [ratio][comp_width] F32; norm [dim] F32. */
typedef struct {
    Weight kv, gate;
    Buf ape, norm;
} CompWeights;

/* Vectors (Buf) are F32 whatever the file holds, route_hash is I32. */
typedef struct {
    int index;
    HcWeights hc_attn, hc_ffn;
    Buf attn_norm, ffn_norm, q_norm, kv_norm, sinks;
    Weight q_a, q_b, kv, o_a, o_b;
    CompWeights comp, idx_comp;
    Weight idx_q, idx_w;
    Weight router, gate, up, down, sh_gate, sh_up, sh_down;
    Buf route_bias; /* [n_experts]; none in hashed layers */
    Buf route_hash; /* [vocab][n_active] I32; hashed layers only */
} Layer;

typedef struct Backend Backend;

/* One line an op: OP(name, (parameters), (arguments)); every op also takes the
 * backend and the step first. The list makes the table below, the decorating
 * backends (trace, timed, check) and the op tests. */
/* clang-format off */
#define OPS(OP) \
    /* 2.1  streams [rows][N_STREAMS][dim]: all four = table[token] */ \
    OP(embed,    (Buf streams, const Weight *table), (streams, table)) \
    /* 2.2  m = proj . rms(streams flat); (pre, post, comb) from sinkhorn(m*scale + base); \
            x [rows][dim] = rms(sum_k pre_k streams_k) * norm; \
            mix [rows][N_STREAMS + N_STREAMS^2] = post, comb (row = old stream) */ \
    OP(hc_pre,   (Buf x, Buf mix, Buf streams, const HcWeights *hc, Buf norm), \
                 (x, mix, streams, hc, norm)) \
    /* 2.3  streams_k = post_k * y + sum_j comb[j][k] * streams_j */ \
    OP(hc_post,  (Buf streams, Buf y, Buf mix), (streams, y, mix)) \
    /* 3.1  qr [rows][q_rank] = rms(q_a . x) * q_norm; \
            q [rows][n_heads][head_dim] = rope(rms_head(q_b . qr)) */ \
    OP(query,    (Buf q, Buf qr, Buf x, const Layer *l), (q, qr, x, l)) \
    /* 3.2  ring[pos] = pack(rope(rms(kv . x) * kv_norm)) */ \
    OP(kv_row,   (KvLayer *kv, Buf x, const Layer *l), (kv, x, l)) \
    /* 3.6  pool every `ratio` positions into one row of kv->comp */ \
    OP(compress, (KvLayer *kv, Buf x, const Layer *l), (kv, x, l)) \
    /* 3.6, 3.7  the same into kv->idx: rope, Hadamard, FP4 */ \
    OP(idx_row,  (KvLayer *kv, Buf x, const Layer *l), (kv, x, l)) \
    /* 3.7  score_t = sum_h w_h * relu(q_h . idx_t); pick [rows][idx_topk] I32 = the best \
            visible rows in ascending order, ties to the lower index, padded with -1; \
            all visible rows when there are no more than idx_topk */ \
    OP(select,   (Buf pick, KvLayer *kv, Buf qr, Buf x, const Layer *l), \
                 (pick, kv, qr, x, l)) \
    /* 3.9  o [rows][n_heads][head_dim]: softmax over window rows in order of position, \
            then picked (pick.base NULL: all visible) pooled rows in ascending order, and \
            the head's sink; values are the keys; rope undone on the result */ \
    OP(attend,   (Buf o, Buf q, KvLayer *kv, Buf pick, const Layer *l), \
                 (o, q, kv, pick, l)) \
    /* 3.10 y [rows][dim] = o_b . concat_g(o_a[g] . o[g]) */ \
    OP(project,  (Buf y, Buf o, const Layer *l), (y, o, l)) \
    /* 4.1  ids, gates [rows][n_active]: sqrt(softplus(router . x)), best by score + bias \
            (ties to the lower id, best first) or by token id; gates normalized, * route_scale */ \
    OP(route,    (Buf ids, Buf gates, Buf x, const Layer *l), (ids, gates, x, l)) \
    /* 4.2  y = sum over the row's experts, in ascending id, of \
            gate_k * down_k . swiglu(gate_k . x, up_k . x) */ \
    OP(experts,  (Buf y, Buf x, Buf ids, Buf gates, const Layer *l), \
                 (y, x, ids, gates, l)) \
    /* 4.2  y += sh_down . swiglu(sh_gate . x, sh_up . x) */ \
    OP(shared,   (Buf y, Buf x, const Layer *l), (y, x, l)) \
    /* 5    out [n_out][vocab]: head . rms(sum_k w_k streams_k) * norm, rows of step->out */ \
    OP(logits,   (Buf out, Buf streams, const HcWeights *hc, Buf norm, \
                  const Weight *head), (out, streams, hc, norm, head))

#define LIST(...) __VA_ARGS__

struct Ops {
    /* memory; alloc's base NULL: full. Fresh memory reads as zero. */
    Buf   (*alloc)(Backend *, size_t bytes);
    void  (*free)(Backend *, Buf);
    void  (*write)(Backend *, Buf dst, const void *src, size_t bytes);
    void  (*read)(Backend *, void *dst, Buf src, size_t bytes);
    void  (*copy)(Backend *, Buf dst, Buf src, size_t bytes);
    /* What the last step's logits op left in `out`, where the host can read it until the next
     * begin: no copy where one can do without. */
    float *(*seen)(Backend *, Buf out);
    /* Make host bytes (which stay mapped as long as the backend is open) usable as w->data;
     * type, rows, cols, count are filled in. */
    bool  (*bind)(Backend *, Weight *w, const void *host, ds4_err *err);

    /* A slot's state came from elsewhere, by copies: these are its tokens. NULL: the device
     * does not go by tokens. */
    void  (*told)(Backend *, int slot, const int32_t *token, int n);

    /* One step: if (begin()) encode the ops; end(). begin() says false when
     * it holds a recording for this shape of step, and end() replays it. */
    bool  (*begin)(Backend *, const Step *);
    bool  (*end)(Backend *, ds4_err *err);
    void  (*close)(Backend *);

#define OP(name, params, args) \
    void (*name)(Backend *be, const Step *step, LIST params);
    OPS(OP)
#undef OP
};
/* clang-format on */

struct Backend {
    const struct Ops *op;
    const char *name; /* "cpu (avx512, 8 threads)" */
    const Shape *shape;
    float rounding; /* relative L2 error of ops whose inputs the device rounds in this
                       step, set by bind() or begin(); 0: none */

    /* Of a device that gives_hidden, and hidden.base set by who wraps it: experts also writes
     * gate_k * swiglu(...) there, what down is multiplied with: [rows][n_active][expert_dim], in
     * the order of ids. Such a device keeps it in F32: it is opened as exact. */
    bool gives_hidden;
    Buf hidden;
};

typedef struct {
    const char *isa;        /* CPU: NULL for the best; else scalar avx2 avx512 neon dotprod */
    int threads;            /* CPU: 0 for one a physical core, and one for tiny steps */
    bool exact;             /* CPU: F32 activations also where kernels multiply int8 */
    int max_rows, max_out;  /* of a step: up to 65,535, what a CUDA grid has in y */
    int max_context;        /* of a session: bounds the scratch of select and attend */
    bool eager;             /* encode every step: somebody looks at each op, so none is replayed */
    const ds4_vocab *vocab; /* play: what tokens mean; borrowed */
} BackendOptions;

/* device: "cpu", "cuda" or "cuda:N" (GPU N, from 0), "null", "play:FILE" (scripted
 * answers), or a decorator before one: "timed:cpu", "trace:cpu", "check:cuda" (every op
 * also on the scalar CPU kernels, results compared), "collect:cpu" (importance of experts'
 * inputs added up).
 * NULL: "cpu"; who opens a model chooses by memory, engine/plan.c. shape stays borrowed. */
Backend *backend_open(const char *device, const Shape *shape, const BackendOptions *opt,
                      ds4_err *err);
void backend_close(Backend *be); /* NULL is fine */
/* Bytes of device scratch that backend_open would allocate. */
uint64_t backend_scratch(const char *device, const Shape *shape, const BackendOptions *opt);
/* Where a device's buffers and weights lie. *mapped: in the host's memory, and weights are
 * read where the file is mapped; then *free_bytes is 0. Else in the device's own, of which
 * *free_bytes are free, and weights are copied there. False: there is no such device. */
bool backend_memory(const char *device, uint64_t *free_bytes, bool *mapped, ds4_err *err);
/* A name of a device with memory of its own that is the same in every program, for locks
 * between them. False: the host's, which programs share, or one that is not there. */
bool backend_identity(const char *device, char out[40]);

#endif
