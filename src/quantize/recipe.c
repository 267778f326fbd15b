/* recipe.c - the published files' formats, and plainer ones. */
#include "recipe.h"

/* What all files have in common: small vectors F32, hash tables I32. */
#define VECTORS \
    { "*tid2eid.weight", QUANT_I32, false }, { "*_norm.weight", QUANT_F32, false }, \
        { "*hc_*scale.weight", QUANT_F32, false }, { "*hc_*base.weight", QUANT_F32, false }, \
        { "*attn_sinks.weight", QUANT_F32, false }, \
    { \
        "*exp_probs_b.bias", QUANT_F32, false \
    }

/* The dense part of the published files: what is small or delicate in F16,
 * the attention, the shared expert and the head in Q8_0. */
#define DENSE \
    VECTORS, { "token_embd.weight", QUANT_F16, false }, { "*hc_*fn.weight", QUANT_F16, false }, \
        { "*compressor_*", QUANT_F16, false }, { "*indexer.*", QUANT_F16, false }, \
    { \
        "*ffn_gate_inp.weight", QUANT_F16, false \
    }

#define REST(type) \
    { "*", type, false }, { NULL, 0, false }

static const RecipeRule f32_rules[] = { VECTORS, REST(QUANT_F32) };
static const RecipeRule bf16_rules[] = { VECTORS, REST(QUANT_BF16) };
static const RecipeRule q8_rules[] = { DENSE, REST(QUANT_Q8_0) };
static const RecipeRule q4_rules[] = { DENSE,
                                       { "*_exps.weight", QUANT_Q4_K, false },
                                       REST(QUANT_Q8_0) };
static const RecipeRule q2_q4_rules[] = { DENSE,
                                          { "*_exps.weight", QUANT_Q4_K, true },
                                          { "*ffn_down_exps.weight", QUANT_Q2_K, false },
                                          { "*_exps.weight", QUANT_IQ2_XXS, false },
                                          REST(QUANT_Q8_0) };
static const RecipeRule q2_rules[] = { DENSE,
                                       { "*ffn_down_exps.weight", QUANT_Q2_K, false },
                                       { "*_exps.weight", QUANT_IQ2_XXS, false },
                                       REST(QUANT_Q8_0) };
static const RecipeRule mxfp4_rules[] = { DENSE,
                                          { "*_exps.weight", QUANT_MXFP4, false },
                                          REST(QUANT_Q8_0) };

static const Recipe recipes[] = {
    { "f32", "every weight F32", 0, f32_rules },
    { "bf16", "matrices BF16, vectors F32", 32, bf16_rules },
    { "q8", "matrices Q8_0; embedding, router, compressors F16", 7, q8_rules },
    { "q4", "routed experts Q4_K, the rest as q8", 15, q4_rules },
    { "q2-q4", "as q2, but the last 6 of 43 layers as q4", 19, q2_q4_rules },
    { "q2", "routed experts IQ2_XXS and Q2_K, the rest as q8", 19, q2_rules },
    { "mxfp4", "routed experts MXFP4, the rest as q8", 38, mxfp4_rules },
};

const Recipe *recipe_at(size_t i) { return i < COUNT(recipes) ? &recipes[i] : NULL; }

const Recipe *recipe_find(const char *name, ds4_err *err)
{
    for (size_t i = 0; i < COUNT(recipes); i++)
        if (strcmp(recipes[i].name, name) == 0)
            return &recipes[i];
    fail(err, DS4_EINVAL, "no recipe %.40s: it is one of f32 bf16 q8 q4 q2-q4 q2 mxfp4", name);
    return NULL;
}

/* '*' matches any run of characters; everything else itself. */
static bool matches(const char *pattern, const char *s)
{
    const char *star = NULL, *back = s;
    while (*s) {
        if (*pattern == '*') {
            star = pattern++;
            back = s;
        } else if (*pattern == *s) {
            pattern++;
            s++;
        } else if (star) {
            pattern = star + 1;
            s = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool is_late(int layer, int n_layers) { return layer >= n_layers * 37 / 43; }

static int fitting(int type, uint64_t row)
{
    static const int fallbacks[] = { QUANT_Q8_0, QUANT_F16 };
    const QuantFormat *f = quant_format(type);
    for (size_t i = 0; f && row % (uint64_t)f->block_len && i < COUNT(fallbacks); i++) {
        type = fallbacks[i];
        f = quant_format(type);
    }
    return type;
}

int recipe_type(const Recipe *r, const TensorSpec *t, int n_layers, int *wanted)
{
    const RecipeRule *rule = r->rules;
    while (!matches(rule->pattern, t->name) || (rule->late && !is_late(t->layer, n_layers)))
        rule++;
    if (wanted)
        *wanted = rule->type;
    return fitting(rule->type, t->dims[0]);
}
