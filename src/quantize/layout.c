/* layout.c - the table of tensors, and its expansion for one shape. */
#include "layout.h"
#include <assert.h>
#include <stdio.h>

/* Dimensions by name; their values differ by model and, for the pooled ones,
 * by layer. */
enum Dim {
    D_NONE,
    D_ONE,
    D_THREE,
    D_STREAMS,
    D_MIX,
    D_DIM,
    D_FLAT,
    D_VOCAB,
    D_Q_RANK,
    D_HEADS,
    D_QUERY,
    D_HEAD,
    D_GROUP,
    D_LOW,
    D_RATIO,
    D_COMP,
    D_IDX_QUERY,
    D_IDX_HEADS,
    D_IDX_COMP,
    D_IDX,
    D_EXPERTS,
    D_ACTIVE,
    D_EXPERT,
    D_SHARED,
    D_COUNT
};

enum Where { GLOBAL, EVERY, POOLED, INDEXED, HASHED, SCORED };

typedef struct {
    const char *name, *official;
    enum Where where;
    enum TensorKind kind;
    enum Dim dims[3];
} Row;

static const Row rows[] = {
    { "token_embd.weight", "embed.weight", GLOBAL, KIND_EMBED, { D_DIM, D_VOCAB } },
    { "output_hc_base.weight", "hc_head_base", GLOBAL, KIND_HC_BASE, { D_STREAMS } },
    { "output_hc_fn.weight", "hc_head_fn", GLOBAL, KIND_MATRIX, { D_FLAT, D_STREAMS } },
    { "output_hc_scale.weight", "hc_head_scale", GLOBAL, KIND_HC_SCALE, { D_ONE } },
    { "output_norm.weight", "norm.weight", GLOBAL, KIND_NORM, { D_DIM } },
    { "output.weight", "head.weight", GLOBAL, KIND_MATRIX, { D_DIM, D_VOCAB } },

    { "hc_attn_fn.weight", "hc_attn_fn", EVERY, KIND_MATRIX, { D_FLAT, D_MIX } },
    { "hc_attn_scale.weight", "hc_attn_scale", EVERY, KIND_HC_SCALE, { D_THREE } },
    { "hc_attn_base.weight", "hc_attn_base", EVERY, KIND_HC_BASE, { D_MIX } },
    { "attn_norm.weight", "attn_norm.weight", EVERY, KIND_NORM, { D_DIM } },
    { "hc_ffn_fn.weight", "hc_ffn_fn", EVERY, KIND_MATRIX, { D_FLAT, D_MIX } },
    { "hc_ffn_scale.weight", "hc_ffn_scale", EVERY, KIND_HC_SCALE, { D_THREE } },
    { "hc_ffn_base.weight", "hc_ffn_base", EVERY, KIND_HC_BASE, { D_MIX } },
    { "ffn_norm.weight", "ffn_norm.weight", EVERY, KIND_NORM, { D_DIM } },

    { "attn_q_a.weight", "attn.wq_a.weight", EVERY, KIND_MATRIX, { D_DIM, D_Q_RANK } },
    { "attn_q_a_norm.weight", "attn.q_norm.weight", EVERY, KIND_NORM, { D_Q_RANK } },
    { "attn_q_b.weight", "attn.wq_b.weight", EVERY, KIND_MATRIX, { D_Q_RANK, D_QUERY } },
    { "attn_kv.weight", "attn.wkv.weight", EVERY, KIND_MATRIX, { D_DIM, D_HEAD } },
    { "attn_kv_a_norm.weight", "attn.kv_norm.weight", EVERY, KIND_NORM, { D_HEAD } },
    { "attn_sinks.weight", "attn.attn_sink", EVERY, KIND_SINKS, { D_HEADS } },
    { "attn_output_a.weight", "attn.wo_a.weight", EVERY, KIND_MATRIX, { D_GROUP, D_LOW } },
    { "attn_output_b.weight", "attn.wo_b.weight", EVERY, KIND_MATRIX, { D_LOW, D_DIM } },

    { "attn_compressor_ape.weight", "attn.compressor.ape", POOLED, KIND_APE, { D_COMP, D_RATIO } },
    { "attn_compressor_kv.weight",
      "attn.compressor.wkv.weight",
      POOLED,
      KIND_MATRIX,
      { D_DIM, D_COMP } },
    { "attn_compressor_gate.weight",
      "attn.compressor.wgate.weight",
      POOLED,
      KIND_MATRIX,
      { D_DIM, D_COMP } },
    { "attn_compressor_norm.weight", "attn.compressor.norm.weight", POOLED, KIND_NORM, { D_HEAD } },

    { "indexer.attn_q_b.weight",
      "attn.indexer.wq_b.weight",
      INDEXED,
      KIND_MATRIX,
      { D_Q_RANK, D_IDX_QUERY } },
    { "indexer.proj.weight",
      "attn.indexer.weights_proj.weight",
      INDEXED,
      KIND_MATRIX,
      { D_DIM, D_IDX_HEADS } },
    { "indexer_compressor_ape.weight",
      "attn.indexer.compressor.ape",
      INDEXED,
      KIND_APE,
      { D_IDX_COMP, D_RATIO } },
    { "indexer_compressor_kv.weight",
      "attn.indexer.compressor.wkv.weight",
      INDEXED,
      KIND_MATRIX,
      { D_DIM, D_IDX_COMP } },
    { "indexer_compressor_gate.weight",
      "attn.indexer.compressor.wgate.weight",
      INDEXED,
      KIND_MATRIX,
      { D_DIM, D_IDX_COMP } },
    { "indexer_compressor_norm.weight",
      "attn.indexer.compressor.norm.weight",
      INDEXED,
      KIND_NORM,
      { D_IDX } },

    { "ffn_gate_inp.weight", "ffn.gate.weight", EVERY, KIND_MATRIX, { D_DIM, D_EXPERTS } },
    { "ffn_gate_tid2eid.weight",
      "ffn.gate.tid2eid",
      HASHED,
      KIND_ROUTE_HASH,
      { D_ACTIVE, D_VOCAB } },
    { "exp_probs_b.bias", "ffn.gate.bias", SCORED, KIND_ROUTE_BIAS, { D_EXPERTS } },
    { "ffn_gate_exps.weight",
      "ffn.experts.%d.w1.weight",
      EVERY,
      KIND_EXPERTS,
      { D_DIM, D_EXPERT, D_EXPERTS } },
    { "ffn_up_exps.weight",
      "ffn.experts.%d.w3.weight",
      EVERY,
      KIND_EXPERTS,
      { D_DIM, D_EXPERT, D_EXPERTS } },
    { "ffn_down_exps.weight",
      "ffn.experts.%d.w2.weight",
      EVERY,
      KIND_EXPERTS,
      { D_EXPERT, D_DIM, D_EXPERTS } },
    { "ffn_gate_shexp.weight",
      "ffn.shared_experts.w1.weight",
      EVERY,
      KIND_MATRIX,
      { D_DIM, D_SHARED } },
    { "ffn_up_shexp.weight",
      "ffn.shared_experts.w3.weight",
      EVERY,
      KIND_MATRIX,
      { D_DIM, D_SHARED } },
    { "ffn_down_shexp.weight",
      "ffn.shared_experts.w2.weight",
      EVERY,
      KIND_MATRIX,
      { D_SHARED, D_DIM } },
};

static void dim_values(int v[D_COUNT], const Shape *s, int layer)
{
    const int ratio = layer < 0 ? 0 : s->ratio[layer];
    const int all[D_COUNT] = {
        [D_ONE] = 1,
        [D_THREE] = 3,
        [D_STREAMS] = N_STREAMS,
        [D_MIX] = N_MIX,
        [D_DIM] = s->dim,
        [D_FLAT] = N_STREAMS * s->dim,
        [D_VOCAB] = s->vocab,
        [D_Q_RANK] = s->q_rank,
        [D_HEADS] = s->n_heads,
        [D_QUERY] = s->n_heads * s->head_dim,
        [D_HEAD] = s->head_dim,
        [D_GROUP] = s->n_heads * s->head_dim / s->o_groups,
        [D_LOW] = s->o_groups * s->o_rank,
        [D_RATIO] = ratio,
        [D_COMP] = shape_comp_width(ratio, s->head_dim),
        [D_IDX_QUERY] = s->idx_heads * s->idx_dim,
        [D_IDX_HEADS] = s->idx_heads,
        [D_IDX_COMP] = shape_comp_width(ratio, s->idx_dim),
        [D_IDX] = s->idx_dim,
        [D_EXPERTS] = s->n_experts,
        [D_ACTIVE] = s->n_active,
        [D_EXPERT] = s->expert_dim,
        [D_SHARED] = s->shared_dim,
    };
    memcpy(v, all, sizeof all);
}

static bool applies(const Row *r, const Shape *s, int layer)
{
    switch (r->where) {
    case GLOBAL: return layer < 0;
    case EVERY: return layer >= 0;
    case POOLED: return layer >= 0 && s->ratio[layer];
    case INDEXED: return layer >= 0 && shape_overlaps(s->ratio[layer]);
    case HASHED: return layer >= 0 && s->hashed[layer];
    case SCORED: return layer >= 0 && !s->hashed[layer];
    }
    return false;
}

static void fill_spec(TensorSpec *t, const Row *r, int layer, const int dims[D_COUNT])
{
    *t = (TensorSpec){ .kind = (int)r->kind, .layer = layer, .dims = { 1, 1, 1 } };
    if (layer < 0) {
        snprintf(t->name, sizeof t->name, "%s", r->name);
        snprintf(t->official, sizeof t->official, "%s", r->official);
    } else {
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, r->name);
        snprintf(t->official, sizeof t->official, "layers.%d.%s", layer, r->official);
    }
    while (t->n_dims < 3 && r->dims[t->n_dims] != D_NONE) {
        t->dims[t->n_dims] = (uint64_t)dims[r->dims[t->n_dims]];
        t->n_dims++;
    }
}

bool layout_make(Layout *l, const Shape *s, Arena *a, ds4_err *err)
{
    assert(s->n_layers > 0 && s->n_layers <= MAX_LAYERS && s->o_groups > 0);
    *l = (Layout){ .spec = arena_array(a, ((size_t)s->n_layers + 1) * COUNT(rows),
                                       sizeof(TensorSpec)) };
    if (!l->spec)
        return fail(err, DS4_ENOMEM, "no memory for the tensor list of %d layers", s->n_layers);

    for (int layer = -1; layer < s->n_layers; layer++) {
        int dims[D_COUNT];
        dim_values(dims, s, layer);
        for (size_t i = 0; i < COUNT(rows); i++)
            if (applies(&rows[i], s, layer))
                fill_spec(&l->spec[l->n++], &rows[i], layer, dims);
    }
    return true;
}
