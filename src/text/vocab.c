/* vocab.c - the tokens of a model, from its GGUF metadata.
 *
 * A normal token's string is written in GPT-2's byte alphabet: each byte is
 * one printable character. All others are literal text. Nothing in the file is
 * believed: lengths come from the parser, every merge must name tokens that
 * exist, and no two tokens may stand for the same bytes. */
#include "vocab.h"
#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* The longest token of V4 has 128 bytes; a bound keeps the search for special
 * tokens linear whatever the file says. */
#define MAX_TOKEN_BYTES 1024
#define MAX_TOKENS      (1 << 24)

struct ds4_vocab {
    int n, n_special;
    char *bytes;      /* of all tokens, one after the other */
    uint32_t *at;     /* [n + 1] where each begins */
    bool *is_special; /* [n] */
    int32_t *special; /* [n_special] ids in the order of their bytes */
    int first[257];   /* special tokens whose first byte is >= c begin here */
    int32_t byte[256];
    Merges merges;
    Controls controls;
    Splitter *splitter;
};

/* What loading needs and the finished vocabulary does not. */
typedef struct {
    ds4_vocab *v;
    int16_t byte_of[512]; /* of a character of the byte alphabet, -1: none */
    int32_t *slot;        /* normal tokens by their bytes; open addressing, -1: empty */
    uint32_t mask;
} Loader;

static bool check_kind(const Gguf *g, ds4_err *err);
static bool load_tokens(Loader *l, const Gguf *g, ds4_err *err);
static bool load_merges(Loader *l, const Gguf *g, ds4_err *err);
static bool sort_specials(ds4_vocab *v, ds4_err *err);
static void find_controls(ds4_vocab *v);
static void init_alphabet(int16_t byte_of[512]);

ds4_vocab *vocab_load(const Gguf *g, ds4_err *err)
{
    Loader l = { .v = calloc(1, sizeof *l.v) };
    if (!l.v) {
        fail(err, DS4_ENOMEM, "vocabulary: no memory");
        return NULL;
    }
    init_alphabet(l.byte_of);
    bool ok = check_kind(g, err) && load_tokens(&l, g, err) && load_merges(&l, g, err) &&
              sort_specials(l.v, err) && (l.v->splitter = split_new(err)) != NULL;
    free(l.slot);
    if (!ok) {
        vocab_free(l.v);
        return NULL;
    }
    find_controls(l.v);
    return l.v;
}

void vocab_free(ds4_vocab *v)
{
    if (!v)
        return;
    free(v->bytes);
    free(v->at);
    free(v->is_special);
    free(v->special);
    merges_release(&v->merges);
    split_free(v->splitter);
    free(v);
}

int vocab_size(const ds4_vocab *v) { return v->n; }
const Controls *vocab_controls(const ds4_vocab *v) { return &v->controls; }
const Merges *vocab_merges(const ds4_vocab *v) { return &v->merges; }
const Splitter *vocab_splitter(const ds4_vocab *v) { return v->splitter; }
int32_t vocab_byte(const ds4_vocab *v, unsigned char c) { return v->byte[c]; }

Str vocab_bytes(const ds4_vocab *v, int32_t id)
{
    if (id < 0 || id >= v->n)
        return (Str){ 0 };
    return (Str){ v->bytes + v->at[id], v->at[id + 1] - v->at[id] };
}

bool vocab_is_special(const ds4_vocab *v, int32_t id)
{
    return id >= 0 && id < v->n && v->is_special[id];
}

int32_t vocab_special(const ds4_vocab *v, Str text)
{
    int32_t id = text.n ? vocab_special_at(v, text, 0) : -1;
    return id >= 0 && vocab_bytes(v, id).n == text.n ? id : -1;
}

/* ---- special tokens ---------------------------------------------------------
 *
 * Sorted by their bytes, those that share their first k bytes with the text
 * are neighbours: one more byte of text narrows the range, and a token that
 * ends there is the first of it. */

static int special_byte(const ds4_vocab *v, int i, size_t k)
{
    Str s = vocab_bytes(v, v->special[i]);
    return k < s.n ? (unsigned char)s.p[k] : -1;
}

/* The first of [lo, hi) whose byte k is at least c. */
static int special_bound(const ds4_vocab *v, int lo, int hi, size_t k, int c)
{
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (special_byte(v, mid, k) < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int32_t vocab_special_at(const ds4_vocab *v, Str text, size_t at)
{
    int c = (unsigned char)text.p[at], lo = v->first[c], hi = v->first[c + 1];
    int32_t found = -1;
    for (size_t k = 1; lo < hi; k++) {
        if (special_byte(v, lo, k) < 0)
            found = v->special[lo++];
        if (at + k >= text.n)
            break;
        c = (unsigned char)text.p[at + k];
        lo = special_bound(v, lo, hi, k, c);
        hi = special_bound(v, lo, hi, k, c + 1);
    }
    return found;
}

typedef struct {
    Str text;
    int32_t id;
} Special;

static int compare_specials(const void *a, const void *b)
{
    Str x = ((const Special *)a)->text, y = ((const Special *)b)->text;
    int order = memcmp(x.p, y.p, MIN(x.n, y.n));
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

static bool sort_specials(ds4_vocab *v, ds4_err *err)
{
    size_t n = 0;
    for (int i = 0; i < v->n; i++)
        n += v->is_special[i];
    Special *list = malloc((n + 1) * sizeof *list);
    v->special = malloc((n + 1) * sizeof *v->special);
    if (!list || !v->special) {
        free(list);
        return fail(err, DS4_ENOMEM, "vocabulary: no memory for %zu control tokens", n);
    }
    n = 0;
    for (int32_t i = 0; i < v->n; i++)
        if (v->is_special[i])
            list[n++] = (Special){ vocab_bytes(v, i), i };
    qsort(list, n, sizeof *list, compare_specials);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        v->special[i] = list[i].id;
        if (i > 0 && str_eq(list[i].text, list[i - 1].text))
            ok = fail(err, DS4_EFORMAT, "vocabulary: tokens %d and %d are both \"%.*s\"",
                      list[i - 1].id, list[i].id, STR_ARG(list[i].text));
    }
    free(list);
    v->n_special = (int)n;
    for (int c = 0; c <= 256; c++)
        v->first[c] = special_bound(v, 0, v->n_special, 0, c);
    return ok;
}

static void find_controls(ds4_vocab *v)
{
    v->controls = (Controls){
        .bos = vocab_special(v, STR("<｜begin▁of▁sentence｜>")),
        .eos = vocab_special(v, STR("<｜end▁of▁sentence｜>")),
        .user = vocab_special(v, STR("<｜User｜>")),
        .assistant = vocab_special(v, STR("<｜Assistant｜>")),
        .think = vocab_special(v, STR("<think>")),
        .think_end = vocab_special(v, STR("</think>")),
        .dsml = vocab_special(v, STR("｜DSML｜")),
        .reminder = vocab_special(v, STR("<｜latest_reminder｜>")),
    };
}

/* ---- loading ------------------------------------------------------------------ */

static bool check_kind(const Gguf *g, ds4_err *err)
{
    Str model = { 0 }, pre = { 0 };
    if (!gguf_str(gguf_kv(g, "tokenizer.ggml.model"), &model))
        return fail(err, DS4_EFORMAT,
                    "tokenizer.ggml.model is missing: the file has no vocabulary");
    if (!str_eq(model, STR("gpt2")))
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.model is \"%.*s\", expected \"gpt2\"",
                    STR_ARG(model));
    if (!gguf_str(gguf_kv(g, "tokenizer.ggml.pre"), &pre))
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.pre is missing");
    if (!str_eq(pre, STR("joyai-llm")) && !str_eq(pre, STR("deepseek-v3")))
        return fail(err, DS4_EFORMAT,
                    "tokenizer.ggml.pre is \"%.*s\", expected \"joyai-llm\" or \"deepseek-v3\"",
                    STR_ARG(pre));
    return true;
}

/* 33..126, 161..172 and 174..255 stand for themselves, the other 68 bytes in
 * increasing order are U+0100, U+0101, ... */
static void init_alphabet(int16_t byte_of[512])
{
    for (int i = 0; i < 512; i++)
        byte_of[i] = -1;
    int next = 256;
    for (int b = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        byte_of[plain ? b : next++] = (int16_t)b;
    }
}

/* Decode a string of the byte alphabet to out, which has room for s.n bytes;
 * -1 when it has other characters. */
static int64_t decode_bytes(const Loader *l, Str s, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned c = (unsigned char)s.p[i];
        if (c >= 0x80) {
            if (c < 0xc2 || c > 0xc7 || i + 1 == s.n || ((unsigned char)s.p[i + 1] & 0xc0) != 0x80)
                return -1;
            c = (c & 0x1f) << 6 | ((unsigned char)s.p[++i] & 0x3f);
        }
        if (l->byte_of[c] < 0)
            return -1;
        out[n++] = (char)l->byte_of[c];
    }
    return (int64_t)n;
}

/* The slot of a normal token, or the empty one where it would go. */
static int32_t *find_normal(const Loader *l, Str s)
{
    uint32_t i = (uint32_t)XXH3_64bits(s.p, s.n) & l->mask;
    while (l->slot[i] >= 0 && !str_eq(vocab_bytes(l->v, l->slot[i]), s))
        i = (i + 1) & l->mask;
    return &l->slot[i];
}

static bool alloc_tokens(Loader *l, uint64_t count, size_t bytes, ds4_err *err)
{
    ds4_vocab *v = l->v;
    if (count == 0 || count > MAX_TOKENS || bytes > UINT32_MAX)
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.tokens: %llu tokens in %zu bytes",
                    (unsigned long long)count, bytes);
    uint32_t slots = 2;
    while (slots < 2 * count)
        slots *= 2;
    v->n = (int)count;
    v->bytes = malloc(bytes + 1);
    v->at = calloc(count + 1, sizeof *v->at);
    v->is_special = calloc(count, sizeof *v->is_special);
    l->slot = malloc(slots * sizeof *l->slot);
    if (!v->bytes || !v->at || !v->is_special || !l->slot)
        return fail(err, DS4_ENOMEM, "vocabulary: no memory for %d tokens", v->n);
    memset(l->slot, 0xff, slots * sizeof *l->slot);
    l->mask = slots - 1;
    for (int c = 0; c < 256; c++)
        v->byte[c] = -1;
    return true;
}

static bool add_normal(Loader *l, int32_t id, Str text, ds4_err *err)
{
    ds4_vocab *v = l->v;
    int64_t n = decode_bytes(l, text, v->bytes + v->at[id]);
    if (n < 0)
        return fail(err, DS4_EFORMAT, "token %d (\"%.*s\") is not written in the byte alphabet", id,
                    STR_ARG(text));
    v->at[id + 1] = v->at[id] + (uint32_t)n;
    Str s = { v->bytes + v->at[id], (size_t)n };
    int32_t *slot = find_normal(l, s);
    if (*slot >= 0)
        return fail(err, DS4_EFORMAT, "tokens %d and %d are both \"%.*s\"", *slot, id,
                    STR_ARG(text));
    *slot = id;
    if (s.n == 1)
        v->byte[(unsigned char)s.p[0]] = id;
    return true;
}

static void add_literal(ds4_vocab *v, int32_t id, Str text, bool special)
{
    if (text.n)
        memcpy(v->bytes + v->at[id], text.p, text.n);
    v->at[id + 1] = v->at[id] + (uint32_t)text.n;
    v->is_special[id] = special;
}

static bool load_tokens(Loader *l, const Gguf *g, ds4_err *err)
{
    const GgufKv *tokens = gguf_kv(g, "tokenizer.ggml.tokens");
    const GgufKv *types = gguf_kv(g, "tokenizer.ggml.token_type");
    if (!tokens || tokens->type != GGUF_ARRAY || tokens->elem != GGUF_STRING)
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.tokens is no array of strings");
    if (!types || types->type != GGUF_ARRAY || types->count != tokens->count)
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.token_type has %llu entries, expected %llu",
                    (unsigned long long)(types ? types->count : 0),
                    (unsigned long long)tokens->count);
    if (!alloc_tokens(l, tokens->count, tokens->value.n, err))
        return false;
    assert(l->v->bytes);
    size_t at = 0;
    for (int32_t id = 0; id < l->v->n; id++) {
        Str text;
        int64_t type;
        if (!gguf_next_str(tokens, &at, &text) || !gguf_int_at(types, (uint64_t)id, &type))
            return fail(err, DS4_EFORMAT, "token %d cannot be read", id);
        if (type < TYPE_NORMAL || type > TYPE_BYTE)
            return fail(err, DS4_EFORMAT, "token %d has the unknown type %lld", id,
                        (long long)type);
        bool special = type == TYPE_CONTROL || type == TYPE_USER_DEFINED;
        if (text.n > MAX_TOKEN_BYTES || (text.n == 0 && (special || type == TYPE_NORMAL)))
            return fail(err, DS4_EFORMAT, "token %d has %zu bytes, expected 1 to %d", id, text.n,
                        MAX_TOKEN_BYTES);
        if (type != TYPE_NORMAL)
            add_literal(l->v, id, text, special);
        else if (!add_normal(l, id, text, err))
            return false;
    }
    return true;
}

/* "left right": both, and the two joined, must be tokens. */
static bool read_merge(const Loader *l, Str text, int32_t rank, Merge *m)
{
    const char *space = memchr(text.p, ' ', text.n);
    char joined[2 * MAX_TOKEN_BYTES];
    if (!space || text.n > sizeof joined)
        return false;
    Str left = { text.p, (size_t)(space - text.p) };
    Str right = { space + 1, text.n - left.n - 1 };
    int64_t a = decode_bytes(l, left, joined);
    int64_t b = a > 0 ? decode_bytes(l, right, joined + a) : -1;
    if (b <= 0)
        return false;
    *m = (Merge){ .left = *find_normal(l, (Str){ joined, (size_t)a }),
                  .right = *find_normal(l, (Str){ joined + a, (size_t)b }),
                  .rank = rank,
                  .result = *find_normal(l, (Str){ joined, (size_t)(a + b) }) };
    return m->left >= 0 && m->right >= 0 && m->result >= 0;
}

static bool load_merges(Loader *l, const Gguf *g, ds4_err *err)
{
    const GgufKv *merges = gguf_kv(g, "tokenizer.ggml.merges");
    if (!merges)
        return merges_init(&l->v->merges, 0, err);
    if (merges->type != GGUF_ARRAY || merges->elem != GGUF_STRING)
        return fail(err, DS4_EFORMAT, "tokenizer.ggml.merges is no array of strings");
    if (!merges_init(&l->v->merges, merges->count, err))
        return false;
    size_t at = 0;
    for (uint64_t i = 0; i < merges->count; i++) {
        Str text;
        Merge m;
        if (!gguf_next_str(merges, &at, &text))
            return fail(err, DS4_EFORMAT, "merge %d cannot be read", (int)i);
        if (!read_merge(l, text, (int32_t)i, &m))
            return fail(err, DS4_EFORMAT, "merge %d (\"%.*s\") does not join two tokens to a third",
                        (int)i, STR_ARG(text));
        if (!merges_add(&l->v->merges, m))
            return fail(err, DS4_EFORMAT, "merge %d (\"%.*s\") is there twice", (int)i,
                        STR_ARG(text));
    }
    return true;
}
