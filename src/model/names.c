/* names.c - one table of all tensors, spec 8.3. llama.cpp's own files use the
 * same names and dimensions, with other types (8.7). */
#include "names.h"
#include <stdio.h>

enum Dim {
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
    N_DIMS
};

#define VEC(where, name, type, field, ...) \
    { \
        name, where, ROLE_VECTOR, offsetof(type, field), { __VA_ARGS__ } \
    }
#define MAT(where, name, type, field, ...) \
    { \
        name, where, ROLE_MATRIX, offsetof(type, field), { __VA_ARGS__ } \
    }

const TensorName tensor_names[] = {
    { "token_embd.weight",
      IN_MODEL,
      ROLE_EMBEDDING,
      offsetof(Model, embedding),
      { D_DIM, D_VOCAB } },
    MAT(IN_MODEL, "output.weight", Model, head, D_DIM, D_VOCAB),
    VEC(IN_MODEL, "output_norm.weight", Model, out_norm, D_DIM),
    MAT(IN_MODEL, "output_hc_fn.weight", Model, hc_out.proj, D_FLAT, D_STREAMS),
    VEC(IN_MODEL, "output_hc_scale.weight", Model, hc_out.scale, D_ONE),
    VEC(IN_MODEL, "output_hc_base.weight", Model, hc_out.base, D_STREAMS),

    MAT(IN_LAYER, "hc_attn_fn.weight", Layer, hc_attn.proj, D_FLAT, D_MIX),
    VEC(IN_LAYER, "hc_attn_scale.weight", Layer, hc_attn.scale, D_THREE),
    VEC(IN_LAYER, "hc_attn_base.weight", Layer, hc_attn.base, D_MIX),
    MAT(IN_LAYER, "hc_ffn_fn.weight", Layer, hc_ffn.proj, D_FLAT, D_MIX),
    VEC(IN_LAYER, "hc_ffn_scale.weight", Layer, hc_ffn.scale, D_THREE),
    VEC(IN_LAYER, "hc_ffn_base.weight", Layer, hc_ffn.base, D_MIX),
    VEC(IN_LAYER, "attn_norm.weight", Layer, attn_norm, D_DIM),
    VEC(IN_LAYER, "ffn_norm.weight", Layer, ffn_norm, D_DIM),

    MAT(IN_LAYER, "attn_q_a.weight", Layer, q_a, D_DIM, D_Q_RANK),
    VEC(IN_LAYER, "attn_q_a_norm.weight", Layer, q_norm, D_Q_RANK),
    MAT(IN_LAYER, "attn_q_b.weight", Layer, q_b, D_Q_RANK, D_QUERY),
    MAT(IN_LAYER, "attn_kv.weight", Layer, kv, D_DIM, D_HEAD),
    VEC(IN_LAYER, "attn_kv_a_norm.weight", Layer, kv_norm, D_HEAD),
    VEC(IN_LAYER, "attn_sinks.weight", Layer, sinks, D_HEADS),
    MAT(IN_LAYER, "attn_output_a.weight", Layer, o_a, D_GROUP, D_LOW),
    MAT(IN_LAYER, "attn_output_b.weight", Layer, o_b, D_LOW, D_DIM),

    MAT(IN_POOLED, "attn_compressor_kv.weight", Layer, comp.kv, D_DIM, D_COMP),
    MAT(IN_POOLED, "attn_compressor_gate.weight", Layer, comp.gate, D_DIM, D_COMP),
    VEC(IN_POOLED, "attn_compressor_ape.weight", Layer, comp.ape, D_COMP, D_RATIO),
    VEC(IN_POOLED, "attn_compressor_norm.weight", Layer, comp.norm, D_HEAD),

    MAT(IN_INDEXED, "indexer.attn_q_b.weight", Layer, idx_q, D_Q_RANK, D_IDX_QUERY),
    MAT(IN_INDEXED, "indexer.proj.weight", Layer, idx_w, D_DIM, D_IDX_HEADS),
    MAT(IN_INDEXED, "indexer_compressor_kv.weight", Layer, idx_comp.kv, D_DIM, D_IDX_COMP),
    MAT(IN_INDEXED, "indexer_compressor_gate.weight", Layer, idx_comp.gate, D_DIM, D_IDX_COMP),
    VEC(IN_INDEXED, "indexer_compressor_ape.weight", Layer, idx_comp.ape, D_IDX_COMP, D_RATIO),
    VEC(IN_INDEXED, "indexer_compressor_norm.weight", Layer, idx_comp.norm, D_IDX),

    MAT(IN_LAYER, "ffn_gate_inp.weight", Layer, router, D_DIM, D_EXPERTS),
    VEC(IN_SCORED, "exp_probs_b.bias", Layer, route_bias, D_EXPERTS),
    { "ffn_gate_tid2eid.weight",
      IN_HASHED,
      ROLE_HASH,
      offsetof(Layer, route_hash),
      { D_ACTIVE, D_VOCAB } },
    { "ffn_gate_exps.weight",
      IN_LAYER,
      ROLE_EXPERTS,
      offsetof(Layer, gate),
      { D_DIM, D_EXPERT, D_EXPERTS } },
    { "ffn_up_exps.weight",
      IN_LAYER,
      ROLE_EXPERTS,
      offsetof(Layer, up),
      { D_DIM, D_EXPERT, D_EXPERTS } },
    { "ffn_down_exps.weight",
      IN_LAYER,
      ROLE_EXPERTS,
      offsetof(Layer, down),
      { D_EXPERT, D_DIM, D_EXPERTS } },
    MAT(IN_LAYER, "ffn_gate_shexp.weight", Layer, sh_gate, D_DIM, D_SHARED),
    MAT(IN_LAYER, "ffn_up_shexp.weight", Layer, sh_up, D_DIM, D_SHARED),
    MAT(IN_LAYER, "ffn_down_shexp.weight", Layer, sh_down, D_SHARED, D_DIM),
};

const size_t n_tensor_names = COUNT(tensor_names);

bool names_apply(const TensorName *t, const Shape *s, int layer)
{
    if (layer < 0 || t->where == IN_MODEL)
        return layer < 0 && t->where == IN_MODEL;
    switch (t->where) {
    case IN_POOLED: return s->ratio[layer] != 0;
    case IN_INDEXED: return shape_overlaps(s->ratio[layer]);
    case IN_HASHED: return s->hashed[layer];
    case IN_SCORED: return !s->hashed[layer];
    default: return true;
    }
}

void names_full(char out[NAME_BYTES], const TensorName *t, int layer)
{
    if (layer < 0)
        snprintf(out, NAME_BYTES, "%s", t->name);
    else
        snprintf(out, NAME_BYTES, "blk.%d.%s", layer, t->name);
}

void names_dims(uint64_t out[3], const TensorName *t, const Shape *s, int layer)
{
    const int ratio = layer < 0 ? 0 : s->ratio[layer];
    const int value[N_DIMS] = {
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

    for (int i = 0; i < 3; i++)
        out[i] = (uint64_t)value[t->dims[i]];
}
