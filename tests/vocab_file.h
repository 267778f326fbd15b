/* vocab_file.h - a vocabulary for tests, written as GGUF metadata in memory. */
#ifndef VOCAB_FILE_H
#define VOCAB_FILE_H
#include "../src/text/vocab.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };

typedef struct {
    Bytes tokens, types, merges;
    uint64_t n_tokens, n_merges;
    const char *model, *pre; /* NULL: what is expected */
} VocabFile;

static inline void vf_string(Bytes *b, Str s)
{
    bytes_u64(b, s.n);
    bytes_put(b, s.p, s.n);
}

static inline void vf_token(VocabFile *f, Str text, int type)
{
    vf_string(&f->tokens, text);
    bytes_u32(&f->types, (uint32_t)type);
    f->n_tokens++;
}

static inline void vf_merge(VocabFile *f, Str text)
{
    vf_string(&f->merges, text);
    f->n_merges++;
}

/* A byte's character in GPT-2's alphabet. */
static inline Str vf_alphabet(int byte, char out[2])
{
    int c = byte;
    if (byte < 33)
        c = 256 + byte;
    else if (byte == 127)
        c = 289;
    else if (byte >= 128 && byte <= 160)
        c = 290 + byte - 128;
    else if (byte == 173)
        c = 323;
    out[0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return (Str){ out, c < 128 ? 1 : 2 };
}

static inline void vf_bytes(VocabFile *f)
{
    char out[2];
    for (int b = 0; b < 256; b++)
        vf_token(f, vf_alphabet(b, out), NORMAL);
}

/* The finished GGUF header. */
static inline bool vf_write(const VocabFile *f, Bytes *out, ds4_err *err)
{
    GgufWriter w = { 0 };
    gguf_put_str(&w, "tokenizer.ggml.model", str_of(f->model ? f->model : "gpt2"));
    gguf_put_str(&w, "tokenizer.ggml.pre", str_of(f->pre ? f->pre : "joyai-llm"));
    gguf_put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, f->n_tokens, f->tokens.p, f->tokens.n);
    gguf_put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, f->n_tokens, f->types.p, f->types.n);
    if (f->n_merges)
        gguf_put_array(&w, "tokenizer.ggml.merges", GGUF_STRING, f->n_merges, f->merges.p,
                       f->merges.n);
    bool ok = gguf_header(&w, out, err);
    gguf_writer_release(&w);
    return ok;
}

static inline void vf_release(VocabFile *f)
{
    bytes_release(&f->tokens);
    bytes_release(&f->types);
    bytes_release(&f->merges);
}

/* Load it; *seconds (may be NULL) is the CPU time of vocab_load alone. */
static inline ds4_vocab *vf_load(const VocabFile *f, double *seconds, ds4_err *err)
{
    Bytes file = { 0 };
    Gguf g = { 0 };
    ds4_vocab *v = NULL;
    if (vf_write(f, &file, err) && gguf_parse(&g, file.p, file.n, err)) {
        clock_t start = clock();
        v = vocab_load(&g, err);
        if (seconds)
            *seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    }
    gguf_release(&g);
    bytes_release(&file);
    return v;
}

/* Begin, end, pad, the bytes at 3.., a few English merges from 259, and the
 * control tokens of the prompt language at the end. */
static inline void vf_small(VocabFile *f)
{
    static const char *const merges[] = {
        "Ġ t",     "h e", "i n",   "a a",    "Ġt he", "e r", "o u",   "in g",
        "aa aa",   "l l", "he ll", "hell o", "Ġ w",   "o r", "Ġw or", "l d",
        "Ġwor ld", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ",    "< /",   "Ã ©", "ä ¸",   "ä¸ Ń",
    };
    static const char *const controls[] = {
        "<｜User｜>",      "<｜Assistant｜>",       "<think>",      "</think>",
        "｜DSML｜",        "<｜latest_reminder｜>", "<｜action｜>", "<｜query｜>",
        "<｜authority｜>", "<｜domain｜>",          "<｜title｜>",  "<｜read_url｜>",
    };
    vf_token(f, STR("<｜begin▁of▁sentence｜>"), CONTROL);
    vf_token(f, STR("<｜end▁of▁sentence｜>"), CONTROL);
    vf_token(f, STR("<｜▁pad▁｜>"), CONTROL);
    vf_bytes(f);
    for (size_t i = 0; i < COUNT(merges); i++) {
        const char *space = strchr(merges[i], ' ');
        char joined[32];
        int n = snprintf(joined, sizeof joined, "%.*s%s", (int)(space - merges[i]), merges[i],
                         space + 1);
        vf_token(f, (Str){ joined, (size_t)n }, NORMAL);
        vf_merge(f, str_of(merges[i]));
    }
    for (size_t i = 0; i < COUNT(controls); i++)
        vf_token(f, str_of(controls[i]),
                 strstr(controls[i], "｜") && i != 4 ? CONTROL : USER_DEFINED);
}

static inline ds4_vocab *vf_small_vocab(ds4_err *err)
{
    VocabFile f = { 0 };
    vf_small(&f);
    ds4_vocab *v = vf_load(&f, NULL, err);
    vf_release(&f);
    return v;
}

#endif
