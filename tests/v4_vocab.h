/* v4_vocab.h - V4's vocabulary for tests: V3's words and merges, as fetched by
 * tools/fetch_tokenizer, with V4's control tokens. */
#ifndef V4_VOCAB_H
#define V4_VOCAB_H
#include "vocab_file.h"
#include "../src/base/file.h"
#include "../src/json/json.h"
#include <json-c/json.h>

#define V4_WORDS "tests/.cache/deepseek_v3_tokenizer.json"
#define V4_ADDED "tests/data/tokenizer/added_tokens.tsv"

typedef struct {
    int32_t id;
    int type;
    Str text;
} V4Added;

/* Lines "id <tab> text <tab> type" after a heading; texts are views of f. */
static inline size_t v4_read_added(const Bytes *f, V4Added *out, size_t cap)
{
    size_t n = 0, at = 0;
    while (at < f->n) {
        const char *line = f->p + at, *end = memchr(line, '\n', f->n - at);
        at = end ? (size_t)(end - f->p) + 1 : f->n;
        const char *tab = end ? memchr(line, '\t', (size_t)(end - line)) : NULL;
        const char *last = tab ? memchr(tab + 1, '\t', (size_t)(end - tab - 1)) : NULL;
        if (!last || line[0] < '0' || line[0] > '9' || n == cap)
            continue;
        out[n++] = (V4Added){ atoi(line), atoi(last + 1), { tab + 1, (size_t)(last - tab - 1) } };
    }
    return n;
}

static inline void v4_put_words(VocabFile *f, struct json_object *root, const V4Added *added,
                                size_t n_added)
{
    struct json_object *model = json_object_object_get(root, "model"), *merges;
    enum { WORDS = 128000, ALL = 129280 };
    Str *word = calloc(ALL, sizeof *word);
    int *type = calloc(ALL, sizeof *type);
    json_object_object_foreach(json_object_object_get(model, "vocab"), key, id)
    {
        word[json_object_get_int(id)] = str_of(key);
        type[json_object_get_int(id)] = NORMAL;
    }
    for (size_t i = 0; i < n_added; i++) {
        word[added[i].id] = added[i].text;
        type[added[i].id] = added[i].type;
    }
    for (int i = 0; i < ALL; i++)
        vf_token(f, word[i], type[i]);
    merges = json_object_object_get(model, "merges");
    for (size_t i = 0; i < json_object_array_length(merges); i++)
        vf_merge(f, json_text(json_object_array_get_idx(merges, i)));
    free(word);
    free(type);
}

/* NULL where the words have not been fetched: the caller says so and skips. */
static inline ds4_vocab *v4_vocab(double *seconds, ds4_err *err)
{
    Bytes text = { 0 }, table = { 0 };
    VocabFile f = { 0 };
    V4Added added[1300];
    ds4_vocab *v = NULL;
    struct json_object *root = NULL;
    if (file_read(&text, V4_WORDS, 16 << 20, err) && file_read(&table, V4_ADDED, 1 << 20, err)) {
        bytes_byte(&text, 0);
        root = json_tokener_parse(text.p);
        v4_put_words(&f, root, added, v4_read_added(&table, added, COUNT(added)));
        v = vf_load(&f, seconds, err);
    }
    json_object_put(root);
    vf_release(&f);
    bytes_release(&text);
    bytes_release(&table);
    return v;
}

#endif
