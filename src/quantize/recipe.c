/* recipe.c - the published files' formats, and plainer ones. */
#include "recipe.h"

/* In every file: small vectors F32, hash tables I32. */
static const RecipeRule vectors[] = {
    { "*tid2eid.weight", QUANT_I32, false },
    { "*_norm.weight", QUANT_F32, false },
    { "*hc_*scale.weight", QUANT_F32, false },
    { "*hc_*base.weight", QUANT_F32, false },
    { "*attn_sinks.weight", QUANT_F32, false },
    { "*exp_probs_b.bias", QUANT_F32, false },
    { NULL, 0, false },
};

/* In the published files: what is small or delicate F16. */
static const RecipeRule dense[] = {
    { "token_embd.weight", QUANT_F16, false },    { "*hc_*fn.weight", QUANT_F16, false },
    { "*compressor_*", QUANT_F16, false },        { "*indexer.*", QUANT_F16, false },
    { "*ffn_gate_inp.weight", QUANT_F16, false }, { NULL, 0, false },
};

static const RecipeRule none[] = { { NULL, 0, false } };
static const RecipeRule q4[] = { { "*_exps.weight", QUANT_Q4_K, false }, { NULL, 0, false } };
static const RecipeRule q2[] = {
    { "*ffn_down_exps.weight", QUANT_Q2_K, false },
    { "*_exps.weight", QUANT_IQ2_XXS, false },
    { NULL, 0, false },
};
static const RecipeRule q2_q4[] = {
    { "*_exps.weight", QUANT_Q4_K, true },
    { "*ffn_down_exps.weight", QUANT_Q2_K, false },
    { "*_exps.weight", QUANT_IQ2_XXS, false },
    { NULL, 0, false },
};
static const RecipeRule mxfp4[] = { { "*_exps.weight", QUANT_MXFP4, false }, { NULL, 0, false } };

static const Recipe recipes[] = {
    { "f32", 0, { vectors, none, none }, QUANT_F32 },
    { "bf16", 32, { vectors, none, none }, QUANT_BF16 },
    { "q8", 7, { vectors, none, dense }, QUANT_Q8_0 },
    { "q4", 15, { vectors, q4, dense }, QUANT_Q8_0 },
    { "q2-q4", 19, { vectors, q2_q4, dense }, QUANT_Q8_0 },
    { "q2", 19, { vectors, q2, dense }, QUANT_Q8_0 },
    { "mxfp4", 38, { vectors, mxfp4, dense }, QUANT_Q8_0 },
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

int recipe_fitting(int type, uint64_t row)
{
    static const int fallbacks[] = { QUANT_Q8_0, QUANT_F16 };
    const QuantFormat *f = quant_format(type);
    for (size_t i = 0; f && row % (uint64_t)f->block_len && i < COUNT(fallbacks); i++) {
        type = fallbacks[i];
        f = quant_format(type);
    }
    return type;
}

static const RecipeRule *find_rule(const RecipeRule *rules, const TensorSpec *t, int n_layers)
{
    for (; rules->pattern; rules++)
        if (matches(rules->pattern, t->name) && (!rules->late || is_late(t->layer, n_layers)))
            return rules;
    return NULL;
}

int recipe_type(const Recipe *r, const TensorSpec *t, int n_layers, int *wanted)
{
    int type = r->rest;
    for (size_t i = COUNT(r->rules); i-- > 0;) {
        const RecipeRule *rule = find_rule(r->rules[i], t, n_layers);
        type = rule ? rule->type : type;
    }
    if (wanted)
        *wanted = type;
    return recipe_fitting(type, t->dims[0]);
}

bool type_rules_add(TypeRules *t, const char *text, ds4_err *err)
{
    const char *mark = strrchr(text, '=');
    const size_t n = mark ? (size_t)(mark - text) : 0;
    if (t->n == MAX_TYPE_RULES)
        return fail(err, DS4_EINVAL, "more than %d types of tensors", MAX_TYPE_RULES);
    if (n < 1 || n >= sizeof t->rule[0].pattern)
        return fail(err, DS4_EINVAL, "%.80s is not PATTERN=TYPE", text);
    int type = quant_type(str_of(mark + 1));
    if (type < 0 || !quant_format(type)->encode)
        return fail(err, DS4_EINVAL,
                    "no type %.40s: it is one of f32 f16 bf16 q8_0 q4_k q2_k iq2_xxs mxfp4",
                    mark + 1);
    memcpy(t->rule[t->n].pattern, text, n);
    t->rule[t->n].pattern[n] = '\0';
    t->rule[t->n++].type = type;
    return true;
}

int type_rules_find(const TypeRules *t, const TensorSpec *spec)
{
    if (spec->n_dims < 2 || spec->kind == KIND_ROUTE_HASH)
        return -1;
    for (size_t i = 0; i < t->n; i++)
        if (matches(t->rule[i].pattern, spec->name))
            return (int)i;
    return -1;
}
