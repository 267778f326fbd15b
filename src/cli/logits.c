/* logits.c - ds4 logits: raw numbers, for comparison with other engines. */
#include "cli.h"
#include "../base/file.h"
#include "../text/bpe.h"
#include <stdio.h>

static const char about[] =
    "Evaluates given token ids and writes the logits as raw little-endian F32, [rows][vocab].";

typedef struct {
    const char *tokens, *out;
    int last, chunk, incremental;
    ModelOptions model;
} LogitsOptions;

/* ---- the ids ------------------------------------------------------------------------ */

static void skip_space(Str *s)
{
    while (s->n && strchr(" \t\r\n", s->p[0]))
        *s = (Str){ s->p + 1, s->n - 1 };
}

static bool take_char(Str *s, char c)
{
    skip_space(s);
    if (!s->n || s->p[0] != c)
        return false;
    *s = (Str){ s->p + 1, s->n - 1 };
    return true;
}

static bool take_id(Str *s, int32_t *id)
{
    int64_t v = 0;
    size_t digits = 0;
    skip_space(s);
    while (digits < s->n && s->p[digits] >= '0' && s->p[digits] <= '9' && v <= INT32_MAX)
        v = 10 * v + (s->p[digits++] - '0');
    *s = (Str){ s->p + digits, s->n - digits };
    *id = (int32_t)v;
    return digits > 0 && v <= INT32_MAX;
}

/* A JSON array of whole numbers, and nothing after it. */
static bool parse_ids(Str text, Tokens *out)
{
    int32_t id;
    if (!take_char(&text, '['))
        return false;
    if (!take_char(&text, ']')) {
        do {
            if (!take_id(&text, &id))
                return false;
            tokens_put(out, id);
        } while (take_char(&text, ','));
        if (!take_char(&text, ']'))
            return false;
    }
    skip_space(&text);
    return text.n == 0 && !out->failed;
}

static bool read_ids(const char *path, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = cli_read_text(&text, path, err);
    if (ok && !parse_ids(bytes_view(&text), out))
        ok = fail(err, DS4_EFORMAT, "%s is no JSON array of token ids", path);
    if (ok && (out->n == 0 || out->n > INT32_MAX))
        ok = fail(err, DS4_EINVAL, "%s holds %zu ids", path, out->n);
    bytes_release(&text);
    return ok;
}

/* ---- evaluation --------------------------------------------------------------------- */

/* Tokens [from, from + n) in one step; the rows from `first` on are written. */
static bool step(ds4_engine *e, ds4_session *s, const Tokens *t, int from, int n, int first,
                 File *out, ds4_err *err)
{
    int rows = MIN(MAX(from + n - first, 0), n);
    size_t row = (size_t)ds4_engine_info(e).vocab * sizeof(float);
    const ds4_work work = { s, t->id + from, n, rows };
    if (cli_interrupted())
        return fail(err, DS4_ECANCELED, "interrupted");
    if (!ds4_step(e, &work, 1, err))
        return false;
    for (int i = 0; i < rows; i++) {
        if (!file_write(out, ds4_step_logits(e, 0, i), row, err))
            return false;
    }
    cli_progress(NULL, "prefill", (uint64_t)from + (uint64_t)n, t->n);
    return true;
}

static bool evaluate(const LogitsOptions *o, ds4_engine *e, const Tokens *t, File *out,
                     ds4_err *err)
{
    int n = (int)t->n, chunk = ds4_engine_info(e).max_rows;
    int first = o->last ? n - o->last : 0, alone = o->incremental ? o->incremental : n;
    ds4_session *s = ds4_session_open(e, err);
    bool ok = s != NULL;
    cli_at_work(e);
    for (int at = 0; ok && at < n;) {
        int rows = at < alone ? MIN(chunk, alone - at) : 1;
        ok = step(e, s, t, at, rows, first, out, err);
        at += rows;
    }
    cli_at_work(NULL);
    cli_progress_end();
    ds4_session_close(s);
    return ok;
}

static bool run(LogitsOptions *o, ds4_err *err)
{
    Tokens t = { 0 };
    File out = { 0 };
    ds4_engine *e = NULL;
    ds4_options *opt = &o->model.engine;
    bool ok = read_ids(o->tokens, &t, err);
    if (ok && (size_t)o->last > t.n)
        ok = fail(err, DS4_EINVAL, "--last %d of %zu tokens", o->last, t.n);
    if (ok && (size_t)o->incremental > t.n)
        ok = fail(err, DS4_EINVAL, "--incremental %d of %zu tokens", o->incremental, t.n);
    if (ok) {
        int n = (int)t.n, wanted = o->last ? o->last : n;
        opt->context = MAX(opt->context, n);
        opt->max_rows = MIN(o->chunk ? o->chunk : opt->max_rows ? opt->max_rows : 128, n);
        opt->max_logits = MIN(opt->max_rows, wanted);
        ok = cli_is_other(o->out, o->tokens, err) && file_create(&out, o->out, err) &&
             (e = cli_open_engine(&o->model, err)) && cli_is_other(o->out, opt->model, err) &&
             evaluate(o, e, &t, &out, err) && file_commit(&out, err);
        if (ok)
            fprintf(stderr, "ds4: %d rows of %d logits\n", wanted, ds4_engine_info(e).vocab);
    }
    file_release(&out);
    ds4_engine_close(e);
    tokens_release(&t);
    return ok;
}

int cmd_logits(int argc, char **argv)
{
    LogitsOptions o = { 0 };
    const Option options[] = {
        { OPT_TITLE, "Logits", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--tokens", "FILE", &o.tokens, "a JSON array of ids; -: stdin", 0, 0 },
        { OPT_STR, "-o, --out", "FILE", &o.out, "the file to write", 0, 0 },
        { OPT_INT, "--last", "N", &o.last, "only the last N rows", 1, 1 << 24 },
        { OPT_INT, "--chunk", "N", &o.chunk, "rows a step; default 128", 1, 65535 },
        { OPT_INT, "--incremental", "K", &o.incremental,
          "K tokens in chunks, then one by one; default: all in chunks", 1, 1 << 24 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 logits --tokens FILE --out FILE [options]",
                          .about = about,
                          .tables = { options, cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;
    if (!o.tokens || !o.out)
        return cli_usage_error("logits needs --tokens FILE and --out FILE");
    ds4_err err = { 0 };
    cli_catch_cancel();
    return run(&o, &err) ? 0 : cli_fail(&err);
}
