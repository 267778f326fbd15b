/* bench.c - ds4 bench: speed at growing contexts.
 *
 * One row a context: prefill goes on from the row before, then a few tokens
 * are decoded greedily and taken back. So a walk to N tokens reads N tokens
 * once, and every row's speed is that of its own stretch. */
#include "cli.h"
#include "../base/file.h"
#include "../base/rng.h"
#include "../text/bpe.h"
#include "bench_fill.h"
#include "bench_plot.h"
#include <stdio.h>
#include <stdlib.h>

static const char about[] =
    "Walks a text to growing contexts and prints a CSV row at each:\n"
    "  ctx_tokens     tokens in the context, of each session\n"
    "  prefill_tokens tokens read since the row before, by all sessions together\n"
    "  prefill_tps    their number a second\n"
    "  gen_tokens     tokens decoded from there, by all sessions together\n"
    "  gen_tps        their number a second\n"
    "  kvcache_bytes  KV state of that context, of all sessions\n"
    "  first_token_ms from an empty session to the first token: all prefill so far, one sample\n"
    "  sessions       that decode together";

static const char header[] = "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,"
                             "kvcache_bytes,first_token_ms,sessions\n";

typedef struct {
    const char *prompt_file, *csv, *plot;
    int start, max, gen, sessions;
    int step, factor; /* from one context to the next: one of them is 0 */
    int fill;         /* tokens of each context that are read; 0: all */
    bool ops;
    ModelOptions model;
} BenchOptions;

typedef struct {
    const BenchOptions *o;
    ds4_engine *engine;
    ds4_session **session;
    ds4_work *work; /* [sessions], of a step */
    int32_t *next;  /* [sessions], the tokens of a step */
    int n;          /* sessions that take part */
    Tokens text;
    Bytes *csv;
    Bytes points;     /* PlotPoint, a row each */
    double prefill_s; /* since the sessions were empty */
    BenchSeed seed;   /* --fill */
} Bench;

/* ---- the text ----------------------------------------------------------------------- */

/* Ordinary tokens in an order that says nothing; the same for everyone. */
static void invent(const ds4_vocab *v, size_t n, Tokens *out)
{
    uint64_t rng = 4;
    uint64_t size = (uint64_t)vocab_size(v);
    while (out->n < n && !out->failed) {
        int32_t id = (int32_t)(rng_next(&rng) % size);
        if (!vocab_is_special(v, id) && vocab_bytes(v, id).n)
            tokens_put(out, id);
    }
}

/* n tokens of the file, over and over where it is shorter. */
static bool read_text(const char *path, const ds4_vocab *v, size_t n, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = cli_read_text(&text, path, err) && bpe_encode(v, bytes_view(&text), false, out, err);
    if (ok && out->n == 0)
        ok = fail(err, DS4_EINVAL, "%s has no text", path);
    if (ok && out->n < n)
        cli_warn("%s has %zu tokens: it is repeated up to %zu", path, out->n, n);
    for (size_t i = 0; ok && out->n < n && !out->failed; i++)
        tokens_put(out, out->id[i]);
    bytes_release(&text);
    return ok;
}

static bool make_text(Bench *b, ds4_err *err)
{
    const ds4_vocab *v = ds4_engine_vocab(b->engine);
    size_t n = (size_t)b->o->max;
    if (!b->o->prompt_file)
        invent(v, n, &b->text);
    else if (!read_text(b->o->prompt_file, v, n, &b->text, err))
        return false;
    return !b->text.failed || fail(err, DS4_ENOMEM, "no memory for %zu tokens", n);
}

/* ---- one row ------------------------------------------------------------------------ */

typedef struct {
    int ctx, prefill, gen;
    double prefill_s, first_s, gen_s;
} Row;

static double since(int64_t start) { return (double)(clock_ns() - start) * 1e-9; }

static bool not_interrupted(ds4_err *err)
{
    return !cli_interrupted() || fail(err, DS4_ECANCELED, "interrupted");
}

/* With --fill: made-up states up to where reading begins. Untimed. */
static bool fill(Bench *b, int ctx, ds4_err *err)
{
    const int n = MAX(0, ctx - b->o->fill) / DS4_STATE_UNIT * DS4_STATE_UNIT;
    b->prefill_s = 0;
    for (int i = 0; i < b->n; i++) {
        if (!not_interrupted(err) ||
            !bench_fill(&b->seed, b->engine, b->session[i], b->text.id, n, err))
            return false;
    }
    cli_progress_end();
    return true;
}

/* Every session reads on up to ctx tokens. */
static bool prefill(Bench *b, int ctx, Row *r, ds4_err *err)
{
    for (int i = 0; i < b->n; i++) {
        int have = ds4_session_length(b->session[i]);
        int64_t start = clock_ns();
        if (!not_interrupted(err) ||
            !ds4_session_feed(b->session[i], b->text.id + have, ctx - have, err))
            return false;
        r->prefill_s += since(start);
        r->prefill += ctx - have;
    }
    cli_progress_end();
    b->prefill_s += r->prefill_s;
    return true;
}

/* All sessions decode together, the likeliest token each. */
static bool decode(Bench *b, Row *r, ds4_err *err)
{
    int64_t start = clock_ns();
    for (int t = 0; t < b->o->gen; t++) {
        for (int i = 0; i < b->n; i++) {
            b->next[i] = ds4_sample(b->session[i], &(ds4_sampling){ 0 });
            b->work[i] = (ds4_work){ b->session[i], &b->next[i], 1, 1 };
        }
        if (t == 0)
            r->first_s = b->prefill_s / b->n + since(start);
        if (!not_interrupted(err) || !ds4_step(b->engine, b->work, b->n, err))
            return false;
    }
    r->gen_s = since(start);
    r->gen = b->o->gen * b->n;
    return true;
}

/* Back to ctx tokens, and their logits; what rewinding took too much of is
 * read again, untimed. */
static bool take_back(Bench *b, int ctx, ds4_err *err)
{
    for (int i = 0; i < b->n; i++) {
        if (!ds4_session_sync(b->session[i], b->text.id, ctx, NULL, err))
            return false;
    }
    return true;
}

static bool print_row(Bench *b, const Row *r, ds4_err *err)
{
    ds4_plan plan;
    ds4_options opt = b->o->model.engine;
    opt.context = r->ctx;
    if (!ds4_plan_make(&plan, &opt, err))
        return false;
    const PlotPoint rates = { r->ctx, b->n, r->prefill_s > 0 ? r->prefill / r->prefill_s : 0,
                              r->gen_s > 0 ? r->gen / r->gen_s : 0 };
    size_t from = b->csv->n;
    bytes_printf(b->csv, "%d,%d,%.2f,%d,%.2f,%llu,%.1f,%d\n", r->ctx, r->prefill, rates.prefill_tps,
                 r->gen, rates.gen_tps,
                 (unsigned long long)plan.kv_session * (unsigned long long)b->n, r->first_s * 1e3,
                 b->n);
    bytes_put(&b->points, &rates, sizeof rates);
    if (b->csv->failed || b->points.failed)
        return fail(err, DS4_ENOMEM, "no memory for the table");
    return cli_out(b->csv->p + from, b->csv->n - from, err);
}

/* ---- --ops -------------------------------------------------------------------------- */

/* As comments between the rows, so that the CSV stays one. */
static bool print_ops(Bench *b, const char *what, int tokens, ds4_err *err)
{
    int n = 0;
    uint64_t total = 0;
    Bytes text = { 0 };
    const ds4_op_time *op = ds4_engine_ops(b->engine, &n);
    for (int i = 0; i < n; i++)
        total += op[i].ns;
    bytes_printf(&text, "# %s, %d tokens: %.1f ms\n# %-14s %8s %10s %7s %12s %8s %12s %8s\n", what,
                 tokens, (double)total * 1e-6, "op", "calls", "ms", "share", "MB", "GB/s", "MMAC",
                 "GMAC/s");
    for (int i = 0; i < n; i++) {
        const double ns = (double)MAX(op[i].ns, 1), bytes = (double)op[i].bytes;
        const double macs = (double)op[i].macs;
        if (op[i].calls)
            bytes_printf(&text, "# %-14s %8llu %10.2f %6.1f%% %12.3f %8.2f %12.3f %8.2f\n",
                         op[i].op, (unsigned long long)op[i].calls, ns * 1e-6,
                         total ? 100.0 * ns / (double)total : 0, bytes * 1e-6, bytes / ns,
                         macs * 1e-6, macs / ns);
    }
    bool ok = text.failed ? fail(err, DS4_ENOMEM, "no memory for the table of ops")
                          : cli_out(text.p, text.n, err);
    bytes_release(&text);
    ds4_engine_ops_reset(b->engine);
    return ok;
}

/* ---- the walk ----------------------------------------------------------------------- */

static bool measure(Bench *b, int ctx, ds4_err *err)
{
    Row r = { .ctx = ctx };
    bool ops = b->o->ops;
    if (b->o->fill && !fill(b, ctx, err))
        return false;
    if (ops)
        ds4_engine_ops_reset(b->engine);
    if (!prefill(b, ctx, &r, err) || (ops && !print_ops(b, "prefill", r.prefill, err)) ||
        !decode(b, &r, err) || (ops && !print_ops(b, "decode", r.gen, err)))
        return false;
    return print_row(b, &r, err) && (b->o->fill || take_back(b, ctx, err));
}

/* A context is 2^23 at most. */
static int next_context(const BenchOptions *o, int ctx)
{
    return o->factor ? ctx * o->factor : ctx + o->step;
}

/* From empty sessions up to --ctx-max, n sessions side by side. */
static bool walk(Bench *b, int n, ds4_err *err)
{
    const BenchOptions *o = b->o;
    b->n = n;
    b->prefill_s = 0;
    for (int i = 0; i < n; i++)
        ds4_session_rewind(b->session[i], 0);
    for (int ctx = o->start; ctx <= o->max; ctx = next_context(o, ctx)) {
        if (!measure(b, ctx, err))
            return false;
    }
    return true;
}

static bool walk_all(Bench *b, ds4_err *err)
{
    bytes_str(b->csv, header);
    if (b->o->fill)
        bytes_printf(b->csv, "# read: the last %d tokens of each context; made up: the rest\n",
                     b->o->fill);
    if (b->csv->failed)
        return fail(err, DS4_ENOMEM, "no memory for the table");
    if (!cli_out(b->csv->p, b->csv->n, err) || !walk(b, 1, err))
        return false;
    return b->o->sessions < 2 || walk(b, b->o->sessions, err);
}

/* A Ctrl-C ends even a long prefill, at the next layer. */
static bool walk_at_work(Bench *b, ds4_err *err)
{
    cli_at_work(b->engine);
    bool ok = walk_all(b, err);
    cli_at_work(NULL);
    return ok;
}

static bool open_sessions(Bench *b, ds4_err *err)
{
    size_t n = (size_t)b->o->sessions;
    b->session = calloc(n, sizeof(ds4_session *));
    b->work = calloc(n, sizeof *b->work);
    b->next = calloc(n, sizeof *b->next);
    if (!b->session || !b->work || !b->next)
        return fail(err, DS4_ENOMEM, "no memory for %d sessions", b->o->sessions);
    for (int i = 0; i < b->o->sessions; i++) {
        if (!(b->session[i] = ds4_session_open(b->engine, err)))
            return false;
    }
    return true;
}

static bool write_file(const char *path, const Bytes *text, ds4_err *err)
{
    File f = { 0 };
    bool ok =
        file_create(&f, path, err) && file_write(&f, text->p, text->n, err) && file_commit(&f, err);
    file_release(&f);
    return ok;
}

static bool draw(const Bench *b, ds4_err *err)
{
    Bytes svg = { 0 };
    bench_plot(&svg, str_of(ds4_engine_info(b->engine).name),
               str_of(ds4_engine_describe(b->engine)), (const PlotPoint *)(const void *)b->points.p,
               b->points.n / sizeof(PlotPoint));
    bool ok = svg.failed ? fail(err, DS4_ENOMEM, "no memory for a picture")
                         : write_file(b->o->plot, &svg, err);
    bytes_release(&svg);
    return ok;
}

static bool bench(BenchOptions *o, ds4_err *err)
{
    Bytes csv = { 0 };
    Bench b = { .o = o, .csv = &csv };
    bool ok = (!o->csv || file_try(o->csv, err)) && (!o->plot || file_try(o->plot, err)) &&
              (b.engine = cli_open_engine(&o->model, err)) != NULL &&
              cli_is_other(o->csv, o->model.engine.model, err) &&
              cli_is_other(o->plot, o->model.engine.model, err);
    if (ok)
        fprintf(stderr, "ds4: %s\n", ds4_engine_describe(b.engine));
    ok = ok && make_text(&b, err) && open_sessions(&b, err) && walk_at_work(&b, err) &&
         (!o->csv || write_file(o->csv, &csv, err)) && (!o->plot || draw(&b, err));
    cli_progress_end();
    ds4_engine_close(b.engine); /* and its sessions */
    free((void *)b.session);
    free(b.work);
    free(b.next);
    bench_seed_release(&b.seed);
    tokens_release(&b.text);
    bytes_release(&b.points);
    bytes_release(&csv);
    return ok;
}

/* ---- the command -------------------------------------------------------------------- */

static int settle(BenchOptions *o)
{
    ds4_options *e = &o->model.engine;
    if (o->step && o->factor)
        return cli_usage_error("--step-incr and --step-mul contradict each other");
    if (!o->step && !o->factor)
        o->step = 512;
    if (o->start > o->max)
        return cli_usage_error("--ctx-start %d is more than --ctx-max %d", o->start, o->max);
    if (e->context && e->context < o->max + o->gen)
        return cli_usage_error("--ctx %d is less than --ctx-max %d and --gen-tokens %d", e->context,
                               o->max, o->gen);
    if (!e->context)
        e->context = o->max + o->gen;
    if (o->ops && e->device && strncmp(e->device, "timed:", 6) != 0)
        return cli_usage_error("--ops times --device timed:NAME, not %s", e->device);
    if (o->ops && !e->device && !(o->model.cpu && o->model.cuda)) {
        e->device = o->model.cuda ? "timed:cuda" : o->model.cpu ? "timed:cpu" : "timed:";
        o->model.cpu = o->model.cuda = false;
    }
    e->sessions = o->sessions;
    return -1;
}

int cmd_bench(int argc, char **argv)
{
    BenchOptions o = { .start = 512, .max = 2048, .gen = 32, .sessions = 1 };
    const Option options[] = {
        { OPT_TITLE, "Bench", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--prompt-file", "FILE", &o.prompt_file,
          "the text; default: ordinary tokens in a fixed random order", 0, 0 },
        { OPT_INT, "--ctx-start", "N", &o.start, "the first context; default 512", 1, 1 << 23 },
        { OPT_INT, "--ctx-max", "N", &o.max, "the last one; default 2048", 1, 1 << 23 },
        { OPT_INT, "--step-incr", "N", &o.step, "from one to the next; default 512", 1, 1 << 23 },
        { OPT_INT, "--step-mul", "N", &o.factor, "or: each is N times the one before", 2, 128 },
        { OPT_INT, "--fill", "N", &o.fill,
          "read only about the last N tokens of each context. The state before them is made up of "
          "the rows of 512 tokens, again and again: speed does not depend on what rows hold, so "
          "long contexts are measured in seconds. first_token_ms counts what was read only",
          1, 1 << 23 },
        { OPT_INT, "--gen-tokens", "N", &o.gen, "tokens decoded at each; default 32", 1, 65536 },
        { OPT_INT, "--sessions", "N", &o.sessions,
          "then the same again with N sessions that decode together", 1, 4096 },
        { OPT_FLAG, "--ops", NULL, &o.ops,
          "time, bytes and products of each op, as comments between the rows", 0, 0 },
        { OPT_STR, "--csv", "FILE", &o.csv, "write the rows to a file, too", 0, 0 },
        { OPT_STR, "--plot", "FILE", &o.plot, "draw them: an SVG of speed against context", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 bench [options]",
                          .about = about,
                          .tables = { options, cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status < 0)
        status = settle(&o);
    if (status >= 0)
        return status;
    ds4_err err = { 0 };
    cli_catch_cancel();
    return bench(&o, &err) ? 0 : cli_fail(&err);
}
