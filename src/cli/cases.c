/* cases.c - texts and cases as tokens. */
#include "cases.h"
#include "answer.h"
#include <stdio.h>
#include <unistd.h>

enum { CHUNK = 128, MOST_PATH = 2048 }; /* CHUNK: rows a step, so many rows of logits are kept */

bool cases_read(const char *path, Vectors *out, ds4_err *err)
{
    Bytes text = { 0 };
    *out = (Vectors){ 0 };
    bool ok = cli_read_text(&text, path, err) && vectors_read(out, bytes_view(&text), path, err);
    bytes_release(&text);
    return ok;
}

/* ---- prompts ------------------------------------------------------------------------- */

static bool is_there(const char *path, int length)
{
    return length > 0 && length < MOST_PATH && access(path, R_OK) == 0;
}

/* Where the name says, else in prompts/ beside the vectors, else beside them. */
static bool find_prompt(const char *file, Str name, char out[MOST_PATH], ds4_err *err)
{
    const char *slash = strrchr(file, '/');
    int folder = slash ? (int)(slash - file) + 1 : 0, whole = (int)MIN(name.n, 1024);
    int base = whole;
    while (base && name.p[base - 1] != '/')
        base--;
    const char *last = name.p + base;
    if (is_there(out, snprintf(out, MOST_PATH, "%.*s", whole, name.p)) ||
        is_there(out,
                 snprintf(out, MOST_PATH, "%.*sprompts/%.*s", folder, file, whole - base, last)) ||
        is_there(out, snprintf(out, MOST_PATH, "%.*s%.*s", folder, file, whole - base, last)))
        return true;
    return fail(err, DS4_EIO, "the prompt %.*s is not there, nor in prompts/ beside %s", whole,
                name.p, file);
}

static bool message_tokens(const ds4_engine *e, Str text, Tokens *out, ds4_err *err)
{
    const ChatMessage m = { .role = CHAT_USER, .content = text };
    return answer_prompt(e, &m, 1, CHAT_THINK_OFF, out, err);
}

static bool file_tokens(const VectorCase *c, const ds4_engine *e, const char *file, Tokens *out,
                        ds4_err *err)
{
    char path[MOST_PATH];
    Bytes text = { 0 };
    bool ok = find_prompt(file, c->prompt_file, path, err) && cli_read_text(&text, path, err) &&
              message_tokens(e, bytes_view(&text), out, err);
    bytes_release(&text);
    return ok;
}

static bool id_tokens(const VectorCase *c, const ds4_vocab *v, Tokens *out, ds4_err *err)
{
    for (size_t i = 0; i < c->n_ids; i++) {
        if (c->ids[i] >= vocab_size(v))
            return fail(err, DS4_EINVAL, "case %.*s: token %d of %d", STR_ARG(c->id), c->ids[i],
                        vocab_size(v));
        tokens_put(out, c->ids[i]);
    }
    return true;
}

static bool prompt_tokens(const VectorCase *c, const ds4_engine *e, const char *file, Tokens *out,
                          ds4_err *err)
{
    if (c->n_ids)
        return id_tokens(c, ds4_engine_vocab(e), out, err);
    if (c->n_messages)
        return answer_prompt(e, c->messages, c->n_messages,
                             c->think ? CHAT_THINK_HIGH : CHAT_THINK_OFF, out, err);
    if (c->prompt_file.n)
        return file_tokens(c, e, file, out, err);
    return answer_raw_prompt(e, c->prompt, out, err);
}

/* ---- what follows --------------------------------------------------------------------- */

bool case_token(const VectorCase *c, const VectorToken *t, const TokenNames *names, int32_t *out,
                ds4_err *err)
{
    char hex[65] = "";
    *out = t->bytes.n ? token_named(names, t->bytes) : t->id;
    if (*out >= 0 && *out < vocab_size(names->vocab))
        return true;
    for (size_t i = 0; i < t->bytes.n && i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)t->bytes.p[i]);
    if (!t->bytes.n)
        return fail(err, DS4_EINVAL, "case %.*s: token %d of %d", STR_ARG(c->id), t->id,
                    vocab_size(names->vocab));
    return fail(err, DS4_EINVAL,
                "case %.*s: no token of this model is the bytes %s: are these vectors its own?",
                STR_ARG(c->id), hex);
}

static bool step_tokens(const VectorCase *c, const TokenNames *names, Tokens *out, ds4_err *err)
{
    for (size_t i = 0; i < c->n_steps; i++) {
        int32_t id;
        if (!case_token(c, &c->step[i].token, names, &id, err))
            return false;
        tokens_put(out, id);
    }
    return true;
}

bool case_tokens(const VectorCase *c, const ds4_engine *e, const TokenNames *names,
                 const char *file, CaseTokens *out, ds4_err *err)
{
    int context = ds4_engine_info(e).context;
    *out = (CaseTokens){ 0 };
    bool ok = prompt_tokens(c, e, file, &out->token, err);
    out->n_prompt = (int)out->token.n;
    ok = ok && (c->n_steps ? step_tokens(c, names, &out->token, err)
                           : bpe_encode(names->vocab, c->continuation, false, &out->token, err));
    if (ok && out->token.failed)
        ok = fail(err, DS4_ENOMEM, "no memory for the tokens of case %.*s", STR_ARG(c->id));
    /* The last token is never fed. */
    if (ok && out->token.n > (size_t)context + 1)
        ok = fail(err, DS4_ECONTEXT, "case %.*s has %zu tokens, and the context holds %d (--ctx)",
                  STR_ARG(c->id), out->token.n, context);
    if (ok && out->n_prompt == 0)
        ok = fail(err, DS4_EINVAL, "case %.*s: the prompt is empty", STR_ARG(c->id));
    if (!ok)
        case_tokens_release(out);
    return ok;
}

void case_tokens_release(CaseTokens *t)
{
    tokens_release(&t->token);
    *t = (CaseTokens){ 0 };
}

void put_name(Bytes *b, Str name)
{
    for (size_t i = 0; i < MIN(name.n, 1024); i++)
        bytes_byte(b,
                   (unsigned char)name.p[i] < 0x20 || name.p[i] == 0x7f ? '?' : (uint8_t)name.p[i]);
}

/* ---- texts --------------------------------------------------------------------------- */

bool text_tokens(const char *path, const ds4_engine *e, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = cli_read_text(&text, path, err) &&
              bpe_encode(ds4_engine_vocab(e), bytes_view(&text), false, out, err);
    if (ok && out->failed)
        ok = fail(err, DS4_ENOMEM, "no memory for the tokens of %s", path);
    if (ok && !out->n)
        ok = fail(err, DS4_EINVAL, "%s has no text", strcmp(path, "-") ? path : "stdin");
    bytes_release(&text);
    return ok;
}

ds4_engine *cases_open_engine(ModelOptions *m, ds4_err *err)
{
    ds4_options *o = &m->engine;
    o->max_rows = o->max_rows ? o->max_rows : CHUNK;
    o->max_logits = o->max_rows;
    return cli_open_engine(m, err);
}
