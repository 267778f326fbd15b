/* imatrix.c - ds4 imatrix: how much each input column of the experts matters.
 *
 * Texts go through the model in chunks, each of which begins with the
 * begin-of-sentence token; a backend of the engine adds up the squares of what
 * goes into the experts' matrices. The sums of what was read and of files that
 * are merged are written together, so a run that was stopped goes on from its
 * own file. */
#include "cases.h"
#include "../base/file.h"
#include "../eval/questions.h"
#include "../quantize/imatrix.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

static const char about[] =
    "Collects how much each input column of the routed experts' matrices matters, from texts: the\n"
    "sum of its squares, for ds4 quantize --imatrix. Texts that hold questions of ds4 eval are\n"
    "refused. On the CPU. Ctrl-C ends after the chunk and writes what there is; --resume goes on\n"
    "from there. With --merge files of several runs become one.";

enum { MOST_FILES = 256 };

typedef struct {
    const char *out;
    const char *file[MOST_FILES];
    int n_files, chunk, save_every, most;
    bool resume, special;
    ValueList merge;
    ModelOptions model;
} ImatrixOptions;

typedef struct {
    const ImatrixOptions *o;
    ds4_engine *engine;
    ds4_session *session;
    Tokens text[MOST_FILES];
    Imatrix before; /* what files brought */
    uint64_t done;  /* chunks, those of the file that it goes on from included */
    uint64_t total;
    uint64_t source; /* Imatrix.source */
} Collect;

/* ---- texts ---------------------------------------------------------------------------- */

static bool read_text(Collect *c, const char *path, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = cli_read_text(&text, path, err);
    char question[QUESTION_ID];
    ok = ok && questions_find(bytes_view(&text), question, err);
    if (ok && question[0])
        ok = fail(err, DS4_EINVAL,
                  "%s holds ds4 eval's question %s: what was collected from it "
                  "would be judged by it",
                  path, question);
    ok = ok && bpe_encode(ds4_engine_vocab(c->engine), bytes_view(&text), c->o->special, out, err);
    if (ok && (out->failed || !out->n))
        ok = out->failed ? fail(err, DS4_ENOMEM, "no memory for the tokens of %s", path)
                         : fail(err, DS4_EINVAL, "%s has no text", path);
    bytes_release(&text);
    return ok;
}

static uint64_t chunks_of(const Collect *c, const Tokens *t)
{
    return (t->n + (size_t)c->o->chunk - 1) / (size_t)c->o->chunk;
}

static bool read_texts(Collect *c, ds4_err *err)
{
    for (int i = 0; i < c->o->n_files; i++) {
        if (!read_text(c, c->o->file[i], &c->text[i], err))
            return false;
        c->total += chunks_of(c, &c->text[i]);
    }
    if (c->o->most)
        c->total = MIN(c->total, (uint64_t)c->o->most);
    return true;
}

/* Another where the model, its rounding, a token or a chunk is. */
static bool identify(Collect *c, ds4_err *err)
{
    uint8_t print[32];
    if (!ds4_engine_fingerprint(c->engine, print, err))
        return false;
    uint64_t h = XXH3_64bits_withSeed(print, sizeof print, (uint64_t)c->o->chunk);
    h += c->o->model.engine.unrounded;
    for (int i = 0; i < c->o->n_files; i++)
        h = XXH3_64bits_withSeed(c->text[i].id, c->text[i].n * sizeof *c->text[i].id, h);
    c->source = (h & INT64_MAX) | 1; /* what a GGUF's whole numbers hold, and not 0 */
    return true;
}

/* ---- the file -------------------------------------------------------------------------- */

typedef struct {
    const char *name; /* of the tensor, behind blk.N. */
    bool down;
} Matrix;

static const Matrix matrices[] = {
    { "ffn_gate_exps.weight", false },
    { "ffn_up_exps.weight", false },
    { "ffn_down_exps.weight", true },
};

static bool put_matrix(Imatrix *m, const ds4_importance *s, int layer, const Matrix *k,
                       ds4_err *err)
{
    char name[IMATRIX_NAME];
    int n = k->down ? s->hidden : s->dim;
    size_t first = (size_t)layer * (size_t)s->experts, values = (size_t)s->experts * (size_t)n;
    const double *sums = (k->down ? s->h : s->x) + first * (size_t)n;

    snprintf(name, sizeof name, "blk.%d.%s", layer, k->name);
    ImatrixEntry *e = imatrix_add(m, str_of(name), s->experts, n, err);
    if (!e)
        return false;
    for (size_t i = 0; i < values; i++)
        e->sums[i] = (float)sums[i];
    for (int i = 0; i < s->experts; i++)
        e->counts[i] = (float)s->count[first + (size_t)i];
    return true;
}

static bool put_names(const Collect *c, Imatrix *m, ds4_err *err)
{
    for (int i = 0; i < c->o->n_files; i++) {
        if (!imatrix_add_dataset(m, str_of(c->o->file[i]), err))
            return false;
    }
    return true;
}

/* What was collected in this run, and what was before. */
static bool save(Collect *c, ds4_err *err)
{
    ds4_importance s;
    Imatrix m = { 0 };
    bool ok = ds4_engine_importance(c->engine, &s) ||
              fail(err, DS4_EINVAL, "%s collects nothing", ds4_engine_describe(c->engine));
    for (int l = 0; ok && l < s.layers; l++) {
        for (size_t i = 0; ok && i < COUNT(matrices); i++)
            ok = put_matrix(&m, &s, l, &matrices[i], err);
    }
    ok = ok && imatrix_merge(&m, &c->before, err);
    free(m.dataset); /* names are those of this run, once */
    m.dataset = NULL;
    m.chunks = c->done;
    m.chunk_size = (uint64_t)c->o->chunk;
    m.source = c->source;
    ok = ok && put_names(c, &m, err) && imatrix_write(&m, c->o->out, err);
    imatrix_release(&m);
    return ok;
}

/* ---- the walk ------------------------------------------------------------------------------ */

static bool read_chunk(Collect *c, const Tokens *text, size_t from, ds4_err *err)
{
    int32_t bos = vocab_controls(ds4_engine_vocab(c->engine))->bos;
    size_t n = MIN((size_t)c->o->chunk, text->n - from);
    ds4_session_rewind(c->session, 0);
    return (bos < 0 || ds4_session_feed(c->session, &bos, 1, err)) &&
           ds4_session_feed(c->session, text->id + from, (int)n, err);
}

static bool is_time_to_save(const Collect *c)
{
    return c->o->save_every && c->done % (uint64_t)c->o->save_every == 0 && c->done < c->total;
}

static bool read_all(Collect *c, ds4_err *err)
{
    uint64_t chunk = 0;
    for (int i = 0; i < c->o->n_files; i++) {
        const Tokens *t = &c->text[i];
        for (size_t at = 0; at < t->n; at += (size_t)c->o->chunk, chunk++) {
            if (chunk < c->done || chunk >= c->total || cli_interrupted())
                continue;
            cli_progress(NULL, "chunks", chunk, c->total);
            if (!read_chunk(c, t, at, err))
                return false;
            c->done++;
            if (is_time_to_save(c) && !save(c, err))
                return false;
        }
    }
    return true;
}

/* Ctrl-C lets the chunk end, so that a run that goes on has the sums of one that was never
 * stopped. */
static bool collect(Collect *c, ds4_err *err)
{
    bool ok = read_all(c, err);
    cli_progress_end();
    if (!ok || !save(c, err))
        return false;
    fprintf(stderr, "ds4: %llu of %llu chunks are in %s\n", (unsigned long long)c->done,
            (unsigned long long)c->total, c->o->out);
    return c->done == c->total || fail(err, DS4_ECANCELED, "interrupted");
}

static bool same_texts(const Collect *c, ds4_err *err)
{
    Imatrix m = { 0 };
    bool ok = put_names(c, &m, err);
    if (ok && (!str_eq(str_of(m.dataset), str_of(c->before.dataset)) ||
               c->before.chunk_size != (uint64_t)c->o->chunk || c->before.chunks > c->total ||
               (c->before.source && c->before.source != c->source)))
        ok = fail(err, DS4_EINVAL,
                  "%s was collected from other texts, by another model or in other chunks: --merge "
                  "adds files",
                  c->o->out);
    imatrix_release(&m);
    return ok;
}

static bool go_on(Collect *c, ds4_err *err)
{
    if (!c->o->resume || access(c->o->out, F_OK) != 0)
        return true;
    if (!imatrix_read(&c->before, c->o->out, err) || !same_texts(c, err))
        return false;
    c->done = c->before.chunks;
    return true;
}

static bool is_apart(const ImatrixOptions *o, ds4_err *err)
{
    for (int i = 0; i < o->n_files; i++)
        if (!cli_is_other(o->out, o->file[i], err))
            return false;
    return file_try(o->out, err);
}

static bool run(ImatrixOptions *o, ds4_err *err)
{
    Collect c = { .o = o };
    ds4_options *e = &o->model.engine;
    e->context = MAX(e->context, o->chunk + 1);
    bool ok = is_apart(o, err) && (c.engine = cli_open_engine(&o->model, err)) != NULL &&
              cli_is_other(o->out, e->model, err) && read_texts(&c, err) && identify(&c, err) &&
              go_on(&c, err) && (c.session = ds4_session_open(c.engine, err)) != NULL &&
              collect(&c, err);
    ds4_engine_close(c.engine); /* and its session */
    for (int i = 0; i < o->n_files; i++)
        tokens_release(&c.text[i]);
    imatrix_release(&c.before);
    return ok;
}

static bool merge(const ImatrixOptions *o, ds4_err *err)
{
    Imatrix all = { 0 };
    bool ok = true;
    for (size_t i = 0; ok && i < o->merge.n; i++) {
        Imatrix one = { 0 };
        ok = imatrix_read(&one, o->merge.value[i], err) && imatrix_merge(&all, &one, err);
        imatrix_release(&one);
    }
    ok = ok && imatrix_write(&all, o->out, err);
    imatrix_release(&all);
    return ok;
}

/* ---- the command ---------------------------------------------------------------------------- */

static bool asks_for_model(const ModelOptions *m)
{
    const ds4_options *e = &m->engine;
    return e->model || e->device || e->isa || m->rounding || m->cpu || m->cuda || e->exact ||
           e->share_device || e->context || e->threads || e->max_rows;
}

static int settle(ImatrixOptions *o)
{
    ds4_options *e = &o->model.engine;
    if (!o->out)
        return cli_usage_error("imatrix needs --out FILE");
    if (!o->n_files == !o->merge.n)
        return cli_usage_error("imatrix needs texts, or --merge FILE, and not both");
    if (o->merge.n && (o->chunk || o->most || o->save_every || o->resume || o->special))
        return cli_usage_error("--merge reads no texts, so it takes --out only");
    if (o->merge.n && asks_for_model(&o->model))
        return cli_usage_error("--merge opens no model, so it takes --out only");
    o->chunk = o->chunk ? o->chunk : 512;
    if (e->context && e->context <= o->chunk)
        return cli_usage_error("a chunk of %d tokens and its beginning need --ctx %d, and it is %d",
                               o->chunk, o->chunk + 1, e->context);
    size_t n = strlen(o->out);
    if (o->resume && n > 4 && strcmp(o->out + n - 4, ".dat") == 0)
        return cli_usage_error("--resume needs the GGUF form: %s does not tell of its chunks",
                               o->out);
    if (o->model.cuda || (e->device && strcmp(e->device, "cpu") != 0))
        return cli_usage_error("imatrix collects on the CPU, not on %s",
                               o->model.cuda ? "cuda" : e->device);
    e->device = "collect:cpu";
    o->model.cpu = false;
    return -1;
}

int cmd_imatrix(int argc, char **argv)
{
    ImatrixOptions o = { 0 };
    const Option options[] = {
        { OPT_TITLE, "Importance", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "-o, --out", "FILE", &o.out,
          "the file to write: the legacy form where it ends with .dat, else GGUF", 0, 0 },
        { OPT_INT, "--chunk", "N", &o.chunk, "tokens a chunk of text; default 512", 1, 1 << 20 },
        { OPT_INT, "--chunks", "N", &o.most, "at most N chunks; default: all", 1, 1 << 30 },
        { OPT_INT, "--save-every", "N", &o.save_every, "write the file every N chunks, too", 1,
          1 << 30 },
        { OPT_FLAG, "--resume", NULL, &o.resume,
          "go on from --out, if it is there and of the same texts", 0, 0 },
        { OPT_FLAG, "--special", NULL, &o.special,
          "control tokens in the texts count as such: for rendered prompts", 0, 0 },
        { OPT_LIST, "--merge", "FILE", &o.merge, "add up files instead; again and again", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 imatrix --out FILE [options] TEXT ...",
                          .about = about,
                          .tables = { options, cli_model_options(&o.model) },
                          .max_args = MOST_FILES };
    int status = cli_parse(&usage, argc, argv, o.file, &o.n_files);
    if (status < 0)
        status = settle(&o);
    if (status >= 0)
        return status;
    ds4_err err = { 0 };
    cli_catch_interrupt(NULL);
    bool ok = o.merge.n ? merge(&o, &err) : run(&o, &err);
    return ok ? 0 : cli_fail(&err);
}
