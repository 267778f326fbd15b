/* shape.h - the dimensions and constants of a model. Data, not #defines: the
 * tests run the same code on a toy of a few kilobytes. */
#ifndef SHAPE_H
#define SHAPE_H
#include <stdbool.h>
#include <stdint.h>

enum { MAX_LAYERS = 128, N_STREAMS = 4, N_MIX = 2 * N_STREAMS + N_STREAMS * N_STREAMS };
/* Positions below it are exact as F32, which angles are made of, and no count of a timeline's
 * rows overflows an int. */
enum { MAX_CONTEXT = 1 << 24 };

typedef struct {
    int n_layers, dim, vocab, context; /* context: the longest trained for, MAX_CONTEXT at most */
    int n_heads, head_dim, rope_dim;   /* one shared KV head; rotated: the last rope_dim */
    int q_rank, o_rank, o_groups;
    int window;                       /* raw rows a query can see, itself included */
    int idx_heads, idx_dim, idx_topk; /* rotated: the last rope_dim of idx_dim */
    int n_experts, n_active, expert_dim, shared_dim;
    int sinkhorn_iters;
    float norm_eps, hc_eps, route_scale;
    float rope_theta;                                              /* layers without compression */
    float comp_theta, yarn_factor, yarn_beta_fast, yarn_beta_slow; /* layers with */
    int yarn_context;                                              /* original context */
    bool rounding;                  /* FP8 KV rows, FP4 index rows and queries */
    float swiglu_limit[MAX_LAYERS]; /* clamp of the experts, shared one included */
    uint8_t ratio[MAX_LAYERS];      /* tokens a pooled row: 0 (none), 4 (overlapping,
                                                with indexer), or more (all rows seen) */
    uint8_t hashed[MAX_LAYERS];     /* routed by token id */
} Shape;

/* A ratio-4 row pools two groups, the previous one included. */
static inline bool shape_overlaps(int ratio) { return ratio == 4; }
/* Pooling inputs a token: two halves where groups overlap. */
static inline int shape_comp_width(int ratio, int dim)
{
    return shape_overlaps(ratio) ? 2 * dim : dim;
}
/* Tokens whose pooling inputs are still needed: the state is a ring of these,
 * the token at position p in row p % state_rows. */
static inline int shape_state_rows(int ratio) { return shape_overlaps(ratio) ? 2 * ratio : ratio; }
/* Pooled rows visible to the query at pos: the row it completes included. */
static inline int shape_visible(int ratio, int pos) { return ratio ? (pos + 1) / ratio : 0; }

#endif
