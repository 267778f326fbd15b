/* tokenizer.c - vocabularies. Token strings stay in the form that byte-level
 * BPE files use, where each byte is one printable character. */
#include "tokenizer.h"
#include "../base/file.h"
#include "../json/json.h"
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum TokenKind { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5 };

typedef struct {
    Str text;
    int kind;
} Token;

/* ---- metadata ------------------------------------------------------------ */

static void put_packed_str(Bytes *b, Str s)
{
    bytes_u64(b, s.n);
    bytes_put(b, s.p, s.n);
}

/* kind 0: no token has this id. */
static void put_tokens(GgufWriter *w, const Token *t, int n)
{
    Bytes texts = { 0 }, kinds = { 0 };
    for (int i = 0; i < n; i++) {
        char unused[32];
        int k = snprintf(unused, sizeof unused, "<|unused_%d|>", i);
        put_packed_str(&texts, t[i].kind ? t[i].text : (Str){ unused, (size_t)k });
        bytes_u32(&kinds, (uint32_t)(t[i].kind ? t[i].kind : TOKEN_UNUSED));
    }
    w->kv.failed |= texts.failed || kinds.failed;
    gguf_put_str(w, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_str(w, "tokenizer.ggml.pre", STR("joyai-llm"));
    gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)n, texts.p, texts.n);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)n, kinds.p, kinds.n);
    bytes_release(&texts);
    bytes_release(&kinds);
}

void tokenizer_put_ids(GgufWriter *w, int bos, int eos, int pad)
{
    const struct {
        const char *key;
        int id;
    } all[] = {
        { "tokenizer.ggml.bos_token_id", bos },
        { "tokenizer.ggml.eos_token_id", eos },
        { "tokenizer.ggml.padding_token_id", pad },
    };
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i].id >= 0)
            gguf_put_int(w, all[i].key, GGUF_U32, all[i].id);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
}

/* ---- the plain vocabulary ------------------------------------------------ */

/* The control tokens that prompts use, with their published ids. */
static const struct {
    int id, kind;
    const char *text;
} controls[] = {
    { 0, TOKEN_CONTROL, "<｜begin▁of▁sentence｜>" },
    { 1, TOKEN_CONTROL, "<｜end▁of▁sentence｜>" },
    { 2, TOKEN_CONTROL, "<｜▁pad▁｜>" },
    { 128803, TOKEN_CONTROL, "<｜User｜>" },
    { 128804, TOKEN_CONTROL, "<｜Assistant｜>" },
    { 128821, TOKEN_USER, "<think>" },
    { 128822, TOKEN_USER, "</think>" },
    { 128825, TOKEN_USER, "｜DSML｜" },
    { 128828, TOKEN_CONTROL, "<｜latest_reminder｜>" },
    { 128829, TOKEN_CONTROL, "<｜action｜>" },
    { 128830, TOKEN_CONTROL, "<｜query｜>" },
    { 128831, TOKEN_CONTROL, "<｜authority｜>" },
    { 128832, TOKEN_CONTROL, "<｜domain｜>" },
    { 128836, TOKEN_CONTROL, "<｜title｜>" },
    { 128844, TOKEN_CONTROL, "<｜extracted_url｜>" },
    { 128845, TOKEN_CONTROL, "<｜read_url｜>" },
};

enum { N_HEAD = 3, N_CONTROLS = COUNT(controls), LAST_PUBLISHED = 128845 };

static int control_id(size_t i, int vocab)
{
    if (i < N_HEAD || vocab > LAST_PUBLISHED)
        return controls[i].id < vocab ? controls[i].id : -1;
    return vocab >= 256 + N_CONTROLS ? vocab - N_CONTROLS + (int)i : -1;
}

int tokenizer_default_id(int vocab, Str text)
{
    for (size_t i = 0; i < N_CONTROLS; i++)
        if (str_eq(text, str_of(controls[i].text)))
            return control_id(i, vocab);
    return -1;
}

/* The printable stand-in of a byte: itself, or U+0100 and up for the 68 that
 * cannot be printed. */
static Str byte_symbol(int byte, char out[2])
{
    int code = byte;
    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174))
        code = byte <= 32 ? 256 + byte : byte <= 160 ? 256 + 33 + byte - 127 : 256 + 67;
    if (code < 128) {
        out[0] = (char)code;
        return (Str){ out, 1 };
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return (Str){ out, 2 };
}

bool tokenizer_put_default(GgufWriter *w, int vocab, ds4_err *err)
{
    Token *t = calloc((size_t)vocab, sizeof *t);
    char symbols[256][2];
    if (!t)
        return fail(err, DS4_ENOMEM, "no memory for %d tokens", vocab);
    for (int b = 0; b < 256 && N_HEAD + b < vocab; b++)
        t[N_HEAD + b] = (Token){ byte_symbol(b, symbols[b]), TOKEN_NORMAL };
    for (size_t i = 0; i < N_CONTROLS; i++) {
        int id = control_id(i, vocab);
        if (id >= 0)
            t[id] = (Token){ str_of(controls[i].text), controls[i].kind };
    }
    put_tokens(w, t, vocab);
    gguf_put_array(w, "tokenizer.ggml.merges", GGUF_STRING, 0, NULL, 0);
    free(t);
    return true;
}

/* ---- tokenizer.json -------------------------------------------------------- */

#define JSON_NAME "tokenizer.json"

static bool starts(Str s, Str with) { return s.n >= with.n && memcmp(s.p, with.p, with.n) == 0; }

static bool ends(Str s, Str with)
{
    return s.n >= with.n && memcmp(s.p + s.n - with.n, with.p, with.n) == 0;
}

/* Published files call an added token "control" when it says so or looks like
 * one, and "user-defined" otherwise (<think>, the tool-call mark). */
static int added_kind(struct json_object *o, Str text)
{
    bool bars = (starts(text, STR("<|")) && ends(text, STR("|>"))) ||
                (starts(text, STR("<｜")) && ends(text, STR("｜>")));
    return bars || json_object_get_boolean(json_member(o, "special")) ? TOKEN_CONTROL : TOKEN_USER;
}

static bool place_token(Token *t, int vocab, uint64_t id, Str text, int kind, ds4_err *err)
{
    if (id >= (uint64_t)vocab)
        return fail(err, DS4_EFORMAT, "%s: token id %llu, and the model has %d tokens", JSON_NAME,
                    (unsigned long long)id, vocab);
    if (t[id].kind && !str_eq(t[id].text, text))
        return fail(err, DS4_EFORMAT, "%s: two tokens have the id %llu", JSON_NAME,
                    (unsigned long long)id);
    t[id] = (Token){ text, kind };
    return true;
}

static bool read_vocab(Token *t, int vocab, struct json_object *model, ds4_err *err)
{
    struct json_object *o = json_member(model, "vocab");
    if (!str_eq(json_text(json_member(model, "type")), STR("BPE")) ||
        !json_object_is_type(o, json_type_object))
        return fail(err, DS4_EFORMAT, "%s: its model is no BPE with a vocab", JSON_NAME);
    struct json_object_iterator it = json_object_iter_begin(o), end = json_object_iter_end(o);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        uint64_t id;
        if (!json_whole(json_object_iter_peek_value(&it), INT_MAX, &id))
            return fail(err, DS4_EFORMAT, "%s: token %.60s has no id", JSON_NAME,
                        json_object_iter_peek_name(&it));
        if (!place_token(t, vocab, id, str_of(json_object_iter_peek_name(&it)), TOKEN_NORMAL, err))
            return false;
    }
    return true;
}

static bool read_added(Token *t, int vocab, struct json_object *root, ds4_err *err)
{
    struct json_object *a = json_member(root, "added_tokens");
    size_t n = json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(a, i);
        Str text = json_text(json_member(o, "content"));
        uint64_t id;
        if (!text.n || !json_whole(json_member(o, "id"), INT_MAX, &id))
            return fail(err, DS4_EFORMAT, "%s: added token %zu has no id or no content", JSON_NAME,
                        i);
        if (!place_token(t, vocab, id, text, added_kind(o, text), err))
            return false;
    }
    return true;
}

/* Old files write a merge as "left right", new ones as ["left", "right"]. */
static bool put_merges(GgufWriter *w, struct json_object *model, ds4_err *err)
{
    struct json_object *a = json_member(model, "merges");
    size_t n = json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
    Bytes packed = { 0 };
    for (size_t i = 0; i < n; i++) {
        struct json_object *m = json_object_array_get_idx(a, i);
        Str whole = json_text(m), left = { 0 }, right = { 0 };
        if (json_object_is_type(m, json_type_array) && json_object_array_length(m) == 2) {
            left = json_text(json_object_array_get_idx(m, 0));
            right = json_text(json_object_array_get_idx(m, 1));
        }
        if (!whole.n && !(left.n && right.n)) {
            bytes_release(&packed);
            return fail(err, DS4_EFORMAT, "%s: merge %zu is no pair", JSON_NAME, i);
        }
        if (whole.n) {
            put_packed_str(&packed, whole);
        } else {
            bytes_u64(&packed, left.n + 1 + right.n);
            bytes_put(&packed, left.p, left.n);
            bytes_byte(&packed, ' ');
            bytes_put(&packed, right.p, right.n);
        }
    }
    w->kv.failed |= packed.failed;
    gguf_put_array(w, "tokenizer.ggml.merges", GGUF_STRING, n, packed.p, packed.n);
    bytes_release(&packed);
    return true;
}

bool tokenizer_put_json(GgufWriter *w, Str json, int vocab, ds4_err *err)
{
    Token *t = calloc((size_t)vocab, sizeof *t);
    if (!t)
        return fail(err, DS4_ENOMEM, "no memory for %d tokens", vocab);
    struct json_object *root = json_parse(json, 32, JSON_NAME, err);
    struct json_object *model = json_member(root, "model");
    bool ok = root && read_vocab(t, vocab, model, err) && read_added(t, vocab, root, err);
    if (ok) {
        put_tokens(w, t, vocab);
        ok = put_merges(w, model, err);
    }
    free(t);
    json_free(root);
    return ok;
}

bool tokenizer_put_file(GgufWriter *w, const char *path, int vocab, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = file_read(&text, path, 64 << 20, err) &&
              tokenizer_put_json(w, bytes_view(&text), vocab, err);
    bytes_release(&text);
    return ok;
}
