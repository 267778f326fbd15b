/* score.c - ds4 score: how likely the model holds texts and continuations.
 *
 * A text that is longer than the context is read in windows. Each begins with
 * the begin-of-sentence token and the last --overlap tokens of the window
 * before, which are read again as context and not counted again; so every token
 * counts once, and all but those of the first window have at least so much
 * context. */
#include "cases.h"
#include "../base/file.h"
#include "../eval/walk.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char about[] =
    "Negative log-likelihood of texts, in nats a token: of files, or of stdin. With --manifest, "
    "of\n"
    "continuations: JSON Lines with a prompt and what should follow (docs/ACCURACY.md). perplexity "
    "is\n"
    "exp of the mean. A text longer than the context is read in windows, each of which begins "
    "with\n"
    "the last --overlap tokens of the one before as context that is not counted again.";

enum { MOST_FILES = 256 };

typedef struct {
    const char *manifest, *vectors;
    const char *file[MOST_FILES];
    int n_files, overlap, top;
    bool tsv, json;
    ModelOptions model;
} ScoreOptions;

/* Sums over tokens. */
typedef struct {
    uint64_t tokens, bytes, best;
    double nll;
    bool first; /* of a case: the first token was the likeliest */
    int greedy; /* of a case: so many tokens in front were */
} Sums;

typedef struct {
    const ScoreOptions *o;
    ds4_engine *engine;
    ds4_session *session;
    int vocab;
    TokenNames names;
    Bytes json, vectors;
    Likely *top;
    uint64_t done, total; /* tokens, of all texts; total 0: cases are counted instead */

    /* of the text that is read */
    Str name;
    const int32_t *token;
    int offset; /* a window's token i is the text's token offset + i */
    Sums sums;
} Score;

/* ---- one token ------------------------------------------------------------------------ */

static void put_tsv_text(Bytes *b, Str text)
{
    Bytes quoted = { 0 };
    cli_json_str(&quoted, text);
    bytes_put(b, quoted.p, quoted.n);
    b->failed |= quoted.failed;
    bytes_release(&quoted);
}

static bool print_token(Score *s, int at, int32_t id, double logprob, int rank, ds4_err *err)
{
    Bytes b = { 0 };
    put_name(&b, s->name);
    bytes_printf(&b, "\t%d\t%d\t%.6f\t%d\t", at, id, -logprob, rank);
    put_tsv_text(&b, vocab_bytes(s->names.vocab, id));
    bytes_byte(&b, '\n');
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for a line") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

static int by_logprob(const void *a, const void *b)
{
    const Likely *x = a, *y = b;
    return x->logprob != y->logprob ? (x->logprob < y->logprob ? 1 : -1)
                                    : (x->id > y->id) - (x->id < y->id);
}

/* The --top likeliest, best first: a list kept in order, since it is short. */
static size_t likeliest(const Score *s, const float *logits, double norm)
{
    size_t n = 0, most = (size_t)s->o->top;
    for (int i = 0; i < s->vocab; i++) {
        Likely l = { i, (double)logits[i] - norm };
        if (n == most && by_logprob(&l, &s->top[n - 1]) >= 0)
            continue;
        size_t at = n < most ? n++ : n - 1;
        for (; at > 0 && by_logprob(&l, &s->top[at - 1]) < 0; at--)
            s->top[at] = s->top[at - 1];
        s->top[at] = l;
    }
    return n;
}

static bool score_row(void *user, int at, const float *logits, ds4_err *err)
{
    Score *s = user;
    int32_t id = s->token[at];
    double norm = measure_norm(logits, s->vocab), logprob = (double)logits[id] - norm;
    int rank = measure_rank(logits, s->vocab, id);
    if (!isfinite(logprob))
        return fail(err, DS4_EDEVICE, "%.*s: the logits of token %d are not finite",
                    STR_ARG(s->name), s->offset + at);
    s->sums.first |= s->sums.tokens == 0 && rank == 0;
    s->sums.greedy += s->sums.greedy == (int)s->sums.tokens && rank == 0;
    s->sums.tokens++;
    s->sums.bytes += vocab_bytes(s->names.vocab, id).n;
    s->sums.best += rank == 0;
    s->sums.nll -= logprob;
    if (s->total)
        cli_progress(NULL, "tokens", ++s->done, s->total);
    if (s->o->vectors)
        vectors_put_step(&s->vectors, s->sums.tokens == 1, id, logprob, s->top,
                         likeliest(s, logits, norm));
    return !s->o->tsv || print_token(s, s->offset + at, id, logprob, rank, err);
}

/* Tokens [first, n) of a list of its own. */
static bool score_tokens(Score *s, const int32_t *token, int n, int first, int offset, ds4_err *err)
{
    s->token = token;
    s->offset = offset;
    if (s->o->vectors)
        vectors_begin_case(&s->vectors, s->name, token, (size_t)first);
    if (!walk(s->engine, s->session, token, n, first, score_row, s, err))
        return false;
    if (s->o->vectors)
        vectors_end_case(&s->vectors);
    return !s->vectors.failed || fail(err, DS4_ENOMEM, "no memory for the vectors");
}

/* ---- texts ----------------------------------------------------------------------------- */

static void add(Sums *to, const Sums *s)
{
    to->tokens += s->tokens;
    to->bytes += s->bytes;
    to->best += s->best;
    to->nll += s->nll;
    to->first = s->first;
    to->greedy = s->greedy;
}

/* One window: the text's tokens [from, to), of which those below `fresh` are context. */
static bool score_window(Score *s, const Tokens *text, size_t from, size_t fresh, size_t to,
                         ds4_err *err)
{
    int32_t bos = vocab_controls(s->names.vocab)->bos;
    Tokens t = { 0 };
    if (bos >= 0)
        tokens_put(&t, bos);
    int mark = (int)t.n;
    for (size_t i = from; i < to; i++)
        tokens_put(&t, text->id[i]);
    s->sums = (Sums){ 0 };
    bool ok = !t.failed || fail(err, DS4_ENOMEM, "no memory for a window of %zu tokens", to - from);
    ok = ok &&
         score_tokens(s, t.id, (int)t.n, MAX((int)(fresh - from) + mark, 1), (int)from - mark, err);
    tokens_release(&t);
    return ok;
}

static bool score_text(Score *s, const Tokens *text, Sums *sums, ds4_err *err)
{
    /* The last token of a window is never fed, so the mark of the beginning costs nothing. */
    size_t most = (size_t)ds4_engine_info(s->engine).context, overlap = (size_t)s->o->overlap;
    for (size_t from = 0, fresh = 0; fresh < text->n;) {
        size_t to = MIN(from + most, text->n);
        if (!score_window(s, text, from, fresh, to, err))
            return false;
        add(sums, &s->sums);
        fresh = to;
        from = to - MIN(overlap, to);
    }
    return true;
}

static double mean(double sum, uint64_t n) { return n ? sum / (double)n : NAN; }

static double bits_a_byte(const Sums *s) { return mean(s->nll / log(2), s->bytes); }

static void put_json_sums(Bytes *b, const Sums *s)
{
    bytes_printf(b, "\"tokens\":%llu,\"bytes\":%llu,\"nll\":", (unsigned long long)s->tokens,
                 (unsigned long long)s->bytes);
    cli_json_num(b, mean(s->nll, s->tokens));
    bytes_str(b, ",\"perplexity\":");
    cli_json_num(b, exp(mean(s->nll, s->tokens)));
    bytes_str(b, ",\"bits_per_byte\":");
    cli_json_num(b, bits_a_byte(s));
    bytes_str(b, ",\"top1\":");
    cli_json_num(b, mean((double)s->best, s->tokens));
}

static void put_line(Bytes *b, const Sums *s, Str name)
{
    double nll = mean(s->nll, s->tokens);
    bytes_printf(b, "%8llu  %8.5f  %10.3f  %9.5f  %5.1f%%  ", (unsigned long long)s->tokens, nll,
                 exp(nll), bits_a_byte(s), 100 * mean((double)s->best, s->tokens));
    put_name(b, name);
    bytes_byte(b, '\n');
}

/* A part of the table; beside --tsv and --json there is none. */
static bool print_part(Score *s, const Bytes *b, ds4_err *err)
{
    if (b->failed)
        return fail(err, DS4_ENOMEM, "no memory for the result");
    return s->o->tsv || s->o->json || cli_out(b->p, b->n, err);
}

static bool say_text(Score *s, Str name, const Sums *sums, bool first, ds4_err *err)
{
    Bytes b = { 0 };
    if (first)
        bytes_str(&b, "  tokens       nll  perplexity  bits/byte    top1  text\n");
    put_line(&b, sums, name);
    bool ok = print_part(s, &b, err);
    bytes_release(&b);
    bytes_str(&s->json, first ? "\"texts\":[{\"name\":" : ",{\"name\":");
    cli_json_str(&s->json, name);
    bytes_byte(&s->json, ',');
    put_json_sums(&s->json, sums);
    bytes_byte(&s->json, '}');
    return ok;
}

static bool say_total(Score *s, const Sums *total, ds4_err *err)
{
    Bytes b = { 0 };
    put_line(&b, total, STR("all"));
    bool ok = print_part(s, &b, err);
    bytes_release(&b);
    return ok;
}

static bool score_texts(Score *s, const Tokens *text, int n, Sums *total, ds4_err *err)
{
    for (int i = 0; i < n; i++) {
        Sums sums = { 0 };
        s->name = str_of(s->o->n_files ? s->o->file[i] : "stdin");
        if (!score_text(s, &text[i], &sums, err) || !say_text(s, s->name, &sums, i == 0, err))
            return false;
        add(total, &sums);
    }
    bytes_str(&s->json, "],\"total\":{");
    put_json_sums(&s->json, total);
    bytes_byte(&s->json, '}');
    return n < 2 || say_total(s, total, err);
}

/* ---- continuations --------------------------------------------------------------------- */

typedef struct {
    Sums sums;
    uint64_t cases, first, greedy;
} CaseSums;

static bool say_case(Score *s, const VectorCase *c, bool first, ds4_err *err)
{
    const Sums *k = &s->sums;
    Bytes b = { 0 };
    if (first)
        bytes_str(&b, "  tokens       nll  first  greedy  case\n");
    bytes_printf(&b, "%8llu  %8.5f  %5s  %6d  ", (unsigned long long)k->tokens,
                 mean(k->nll, k->tokens), k->first ? "yes" : "no", k->greedy);
    put_name(&b, c->id);
    bytes_byte(&b, '\n');
    bool ok = print_part(s, &b, err);
    bytes_release(&b);
    bytes_str(&s->json, first ? "\"cases\":[{\"id\":" : ",{\"id\":");
    cli_json_str(&s->json, c->id);
    bytes_byte(&s->json, ',');
    put_json_sums(&s->json, k);
    bytes_printf(&s->json, ",\"first\":%s,\"greedy\":%d}", k->first ? "true" : "false", k->greedy);
    return ok;
}

static bool score_case(Score *s, const VectorCase *c, bool first, ds4_err *err)
{
    CaseTokens t;
    if (!case_tokens(c, s->engine, &s->names, s->o->manifest, &t, err))
        return false;
    s->name = c->id;
    s->sums = (Sums){ 0 };
    bool ok = score_tokens(s, t.token.id, (int)t.token.n, t.n_prompt, -t.n_prompt, err) &&
              say_case(s, c, first, err);
    case_tokens_release(&t);
    return ok;
}

static bool say_cases(Score *s, const CaseSums *k, ds4_err *err)
{
    Bytes b = { 0 };
    double greedy = mean((double)k->greedy, k->cases);
    bytes_printf(&b,
                 "%8llu  %8.5f  all: the first token is the likeliest in %llu of %llu cases, and\n"
                 "%20s%.2f tokens in front of a case are\n",
                 (unsigned long long)k->sums.tokens, mean(k->sums.nll, k->sums.tokens),
                 (unsigned long long)k->first, (unsigned long long)k->cases, "", greedy);
    bool ok = print_part(s, &b, err);
    bytes_release(&b);
    bytes_str(&s->json, "],\"total\":{");
    put_json_sums(&s->json, &k->sums);
    bytes_printf(&s->json, ",\"cases\":%llu,\"first\":%llu,\"greedy\":%.6g}",
                 (unsigned long long)k->cases, (unsigned long long)k->first, greedy);
    return ok;
}

static bool score_cases(Score *s, const Vectors *v, ds4_err *err)
{
    CaseSums k = { .cases = v->n };
    for (size_t i = 0; i < v->n; i++) {
        cli_progress(NULL, "cases", i, v->n);
        if (!score_case(s, &v->cases[i], i == 0, err))
            return false;
        add(&k.sums, &s->sums);
        k.first += s->sums.first;
        k.greedy += (uint64_t)s->sums.greedy;
    }
    return say_cases(s, &k, err);
}

/* ---- the command ------------------------------------------------------------------------- */

static bool read_texts(Score *s, Tokens *text, int n, ds4_err *err)
{
    for (int i = 0; i < n; i++) {
        const char *path = s->o->n_files ? s->o->file[i] : "-";
        if (!text_tokens(path, s->engine, &text[i], err))
            return false;
        s->total += text[i].n;
    }
    return true;
}

static bool score_all_texts(Score *s, ds4_err *err)
{
    int n = MAX(s->o->n_files, 1);
    Tokens *text = calloc((size_t)n, sizeof *text);
    Sums total = { 0 };
    if (!text)
        return fail(err, DS4_ENOMEM, "no memory for %d texts", n);
    bool ok = read_texts(s, text, n, err) && score_texts(s, text, n, &total, err);
    for (int i = 0; i < n; i++)
        tokens_release(&text[i]);
    free(text);
    return ok;
}

static bool score_manifest(Score *s, ds4_err *err)
{
    Vectors v;
    bool ok = cases_read(s->o->manifest, &v, err) && score_cases(s, &v, err);
    vectors_release(&v);
    return ok;
}

static bool write_vectors(const Score *s, ds4_err *err)
{
    File f = { 0 };
    bool ok = file_create(&f, s->o->vectors, err) &&
              file_write(&f, s->vectors.p, s->vectors.n, err) && file_commit(&f, err);
    file_release(&f);
    return ok;
}

static bool take_memory(Score *s, ds4_err *err)
{
    s->vocab = ds4_engine_info(s->engine).vocab;
    s->top = calloc((size_t)s->o->top + 1, sizeof *s->top);
    return s->top || fail(err, DS4_ENOMEM, "no memory for %d tokens", s->o->top);
}

static bool work(Score *s, ds4_err *err)
{
    static const char columns[] = "text\tposition\tid\tnll\trank\ttoken\n";
    const char *name = ds4_engine_info(s->engine).name;
    vectors_put_header(&s->vectors, str_of(name));
    bytes_str(&s->json, "{\"model\":");
    cli_json_str(&s->json, str_of(name));
    bytes_byte(&s->json, ',');
    if (s->o->tsv && !cli_out(columns, sizeof columns - 1, err))
        return false;
    cli_at_work(s->engine);
    bool ok = s->o->manifest ? score_manifest(s, err) : score_all_texts(s, err);
    cli_at_work(NULL);
    cli_progress_end();
    bytes_str(&s->json, "}\n");
    if (ok && s->json.failed)
        ok = fail(err, DS4_ENOMEM, "no memory for the result");
    if (ok && s->o->json)
        ok = cli_out(s->json.p, s->json.n, err);
    return ok && (!s->o->vectors || write_vectors(s, err));
}

static bool is_apart(const ScoreOptions *o, ds4_err *err)
{
    bool ok = cli_is_other(o->vectors, o->manifest, err);
    for (int i = 0; i < o->n_files && ok; i++)
        ok = cli_is_other(o->vectors, o->file[i], err);
    return ok && (!o->vectors || file_try(o->vectors, err));
}

static bool score(ScoreOptions *o, ds4_err *err)
{
    Score s = { .o = o };
    bool ok = is_apart(o, err) && (s.engine = cases_open_engine(&o->model, err)) != NULL &&
              cli_is_other(o->vectors, o->model.engine.model, err);
    if (ok && o->overlap >= ds4_engine_info(s.engine).context)
        ok = fail(err, DS4_EINVAL, "--overlap %d leaves no room in a context of %d", o->overlap,
                  ds4_engine_info(s.engine).context);
    if (ok && o->overlap < 0)
        o->overlap = ds4_engine_info(s.engine).context / 2;
    ok = ok && take_memory(&s, err) &&
         token_names_init(&s.names, ds4_engine_vocab(s.engine), err) &&
         (s.session = ds4_session_open(s.engine, err)) != NULL && work(&s, err);
    ds4_engine_close(s.engine); /* and its session */
    token_names_release(&s.names);
    bytes_release(&s.json);
    bytes_release(&s.vectors);
    free(s.top);
    return ok;
}

int cmd_score(int argc, char **argv)
{
    ScoreOptions o = { .overlap = -1 };
    const Option options[] = {
        { OPT_TITLE, "Score", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--manifest", "FILE", &o.manifest,
          "continuations instead of texts: a case a line; -: stdin", 0, 0 },
        { OPT_INT, "--overlap", "N", &o.overlap,
          "tokens of context that a window begins with; default: half of --ctx", 0, 1 << 24 },
        { OPT_FLAG, "--tsv", NULL, &o.tsv,
          "a line a token: text, position, id, nll, rank (0: the likeliest), token", 0, 0 },
        { OPT_FLAG, "--json", NULL, &o.json, "one JSON object", 0, 0 },
        { OPT_STR, "--vectors", "FILE", &o.vectors,
          "write what this model holds likely, for ds4 verify of others", 0, 0 },
        { OPT_INT, "--top", "K", &o.top, "tokens a position in it; default 20", 1, 4096 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 score [options] [FILE ...]",
                          .about = about,
                          .tables = { options, cli_model_options(&o.model) },
                          .max_args = MOST_FILES };
    int status = cli_parse(&usage, argc, argv, o.file, &o.n_files);
    if (status >= 0)
        return status;
    if (o.manifest && o.n_files)
        return cli_usage_error("--manifest and texts exclude each other");
    if (o.manifest && o.overlap >= 0)
        return cli_usage_error("--overlap is of texts, and --manifest has none");
    if (o.top && !o.vectors)
        return cli_usage_error("--top is of --vectors, and there is no such file");
    o.top = o.top ? o.top : 20;
    if (o.tsv && o.json)
        return cli_usage_error("--tsv and --json exclude each other");
    ds4_err err = { 0 };
    cli_catch_cancel();
    return score(&o, &err) ? 0 : cli_fail(&err);
}
