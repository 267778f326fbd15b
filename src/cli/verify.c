/* verify.c - ds4 verify: the loaded model beside reference vectors.
 *
 * Each case is read as the reference wrote it (its tokens are fed, whatever this
 * model would have said), and at each of them both are asked for the next one. */
#include "cases.h"
#include "../eval/walk.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char about[] =
    "Compares the model with reference vectors (docs/ACCURACY.md; antirez/ds4's official.vec, "
    "too):\n"
    "  top1   positions where the likeliest token is the reference's likeliest (where it names\n"
    "         no others, the one it gave)\n"
    "  KL     of the reference from the model, in nats: over the tokens that it names, and all "
    "others\n"
    "         as one. Positions where it names none with a probability are left out (-)\n"
    "  NLL    of the reference's tokens under the model; ref: under the reference, where it says "
    "so\n"
    "  delta  the largest difference of the log-probability of a token that the reference names\n"
    "A limit that is exceeded gives exit status 1.";

/* A logprob below this says only that nothing is said: official.vec has -9999. */
static const double UNSAID = -1000;

typedef struct {
    const char *vectors;
    float max_kl, min_top1, max_delta; /* negative: none */
    bool json, any_model;
    ModelOptions model;
} VerifyOptions;

typedef struct {
    uint64_t tokens, same, named, with_kl, with_ref;
    double nll, ref, kl, delta;
} Sums;

typedef struct {
    const VerifyOptions *o;
    ds4_engine *engine;
    ds4_session *session;
    int vocab;
    TokenNames names;
    Bytes json;

    /* of the case that is read */
    const VectorCase *c;
    const CaseTokens *t;
    Likely *named; /* of a position */
    Sums sums;
} Verify;

/* ---- one position --------------------------------------------------------------------- */

/* The tokens that the reference names with a probability, each once. */
static bool name_tokens(Verify *v, const VectorStep *s, size_t *n, ds4_err *err)
{
    *n = 0;
    for (size_t i = 0; i < s->n_top; i++) {
        int32_t id;
        bool known = false;
        if (s->top[i].logprob < UNSAID)
            continue;
        if (!case_token(v->c, &s->top[i], &v->names, &id, err))
            return false;
        for (size_t k = 0; k < *n; k++)
            known |= v->named[k].id == id;
        if (!known)
            v->named[(*n)++] = (Likely){ id, MIN(s->top[i].logprob, 0.0) };
    }
    return true;
}

/* One token that is certain says which one it was, and nothing of the others. */
static bool is_distribution(const Likely *named, size_t n)
{
    return n > 1 || (n == 1 && named[0].logprob < 0);
}

static int32_t reference_best(const Likely *named, size_t n, int32_t given)
{
    const Likely *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!best || named[i].logprob > best->logprob)
            best = &named[i];
    }
    return best ? best->id : given;
}

static void compare(Verify *v, const float *logits, int32_t given, double ref, size_t n)
{
    Sums *s = &v->sums;
    double norm = measure_norm(logits, v->vocab);
    s->tokens++;
    s->nll -= (double)logits[given] - norm;
    s->same += measure_best(logits, v->vocab) == reference_best(v->named, n, given);
    s->named += n;
    for (size_t i = 0; i < n; i++) {
        double delta = fabs((double)logits[v->named[i].id] - norm - v->named[i].logprob);
        s->delta = MAX(s->delta, delta);
    }
    if (isfinite(ref) && ref >= UNSAID && (n != 1 || is_distribution(v->named, n))) {
        s->ref -= ref;
        s->with_ref++;
    }
    if (is_distribution(v->named, n)) {
        s->kl += measure_kl(logits, v->vocab, v->named, n);
        s->with_kl++;
    }
}

static bool verify_row(void *user, int at, const float *logits, ds4_err *err)
{
    Verify *v = user;
    int32_t given = v->t->token.id[at];
    size_t i = (size_t)(at - v->t->n_prompt), n = 0;
    double ref = NAN;
    if (v->c->n_steps) {
        if (!name_tokens(v, &v->c->step[i], &n, err))
            return false;
        ref = v->c->step[i].token.logprob;
    }
    if (!isfinite(measure_norm(logits, v->vocab)))
        return fail(err, DS4_EDEVICE, "case %.*s: the logits of token %zu are not finite",
                    STR_ARG(v->c->id), i);
    compare(v, logits, given, ref, n);
    return true;
}

/* ---- results -------------------------------------------------------------------------- */

static double mean(double sum, uint64_t n) { return n ? sum / (double)n : NAN; }

/* Of no token that is named there is none. */
static double largest_delta(const Sums *s) { return s->named ? s->delta : NAN; }

static void put_number(Bytes *b, double x, int width, int digits)
{
    if (isfinite(x))
        bytes_printf(b, "  %*.*f", width, digits, x);
    else
        bytes_printf(b, "  %*s", width, "-");
}

static void put_line(Bytes *b, const Sums *s, Str name)
{
    bytes_printf(b, "%8llu", (unsigned long long)s->tokens);
    put_number(b, 100 * mean((double)s->same, s->tokens), 6, 2);
    put_number(b, mean(s->kl, s->with_kl), 9, 6);
    put_number(b, mean(s->nll, s->tokens), 8, 5);
    put_number(b, mean(s->ref, s->with_ref), 8, 5);
    put_number(b, largest_delta(s), 7, 4);
    bytes_str(b, "  ");
    put_name(b, name);
    bytes_byte(b, '\n');
}

static void put_json_sums(Bytes *b, const Sums *s)
{
    bytes_printf(b, "\"tokens\":%llu,\"top1\":", (unsigned long long)s->tokens);
    cli_json_num(b, mean((double)s->same, s->tokens));
    bytes_str(b, ",\"kl\":");
    cli_json_num(b, mean(s->kl, s->with_kl));
    bytes_str(b, ",\"nll\":");
    cli_json_num(b, mean(s->nll, s->tokens));
    bytes_str(b, ",\"ref_nll\":");
    cli_json_num(b, mean(s->ref, s->with_ref));
    bytes_str(b, ",\"delta\":");
    cli_json_num(b, largest_delta(s));
}

static bool say(const Verify *v, const Sums *s, Str name, bool first, ds4_err *err)
{
    Bytes b = { 0 };
    if (first)
        bytes_str(&b, "  tokens  top1 %         KL       NLL       ref    delta  case\n");
    put_line(&b, s, name);
    bool ok = v->o->json || cli_out(b.p, b.n, err);
    if (b.failed)
        ok = fail(err, DS4_ENOMEM, "no memory for a line");
    bytes_release(&b);
    return ok;
}

static bool verify_case(Verify *v, const VectorCase *c, bool first, ds4_err *err)
{
    CaseTokens t;
    if (!case_tokens(c, v->engine, &v->names, v->o->vectors, &t, err))
        return false;
    v->c = c;
    v->t = &t;
    v->sums = (Sums){ 0 };
    bool ok =
        walk(v->engine, v->session, t.token.id, (int)t.token.n, t.n_prompt, verify_row, v, err) &&
        say(v, &v->sums, c->id, first, err);
    case_tokens_release(&t);
    bytes_str(&v->json, first ? "{\"id\":" : ",{\"id\":");
    cli_json_str(&v->json, c->id);
    bytes_byte(&v->json, ',');
    put_json_sums(&v->json, &v->sums);
    bytes_byte(&v->json, '}');
    return ok;
}

static void add(Sums *to, const Sums *s)
{
    to->tokens += s->tokens;
    to->same += s->same;
    to->named += s->named;
    to->with_kl += s->with_kl;
    to->with_ref += s->with_ref;
    to->nll += s->nll;
    to->ref += s->ref;
    to->kl += s->kl;
    to->delta = MAX(to->delta, s->delta);
}

/* The first limit that the whole exceeds. */
static bool within(const VerifyOptions *o, const Sums *s, ds4_err *err)
{
    double kl = mean(s->kl, s->with_kl), top1 = mean((double)s->same, s->tokens);
    if (o->max_kl >= 0 && !s->with_kl)
        return fail(err, DS4_EINVAL, "--max-kl, and the vectors have no probabilities");
    if (o->max_kl >= 0 && !(kl <= (double)o->max_kl))
        return fail(err, DS4_EINVAL, "KL is %.6g, more than --max-kl %.6g", kl, (double)o->max_kl);
    if (o->min_top1 >= 0 && !(top1 >= (double)o->min_top1))
        return fail(err, DS4_EINVAL, "top1 is %.6g, less than --min-top1 %.6g", top1,
                    (double)o->min_top1);
    if (o->max_delta >= 0 && !s->named)
        return fail(err, DS4_EINVAL, "--max-delta, and the vectors have no probabilities");
    return o->max_delta < 0 || s->delta <= (double)o->max_delta ||
           fail(err, DS4_EINVAL, "delta is %.6g, more than --max-delta %.6g", s->delta,
                (double)o->max_delta);
}

/* ---- the command ------------------------------------------------------------------------ */

static bool take_memory(Verify *v, const Vectors *vectors, ds4_err *err)
{
    size_t most = 1;
    for (size_t i = 0; i < vectors->n; i++) {
        for (size_t k = 0; k < vectors->cases[i].n_steps; k++)
            most = MAX(most, vectors->cases[i].step[k].n_top);
    }
    v->named = calloc(most, sizeof *v->named);
    return v->named || fail(err, DS4_ENOMEM, "no memory for %zu tokens", most);
}

static bool is_its_own(const Verify *v, const Vectors *vectors, ds4_err *err)
{
    const char *name = ds4_engine_info(v->engine).name;
    return v->o->any_model || vectors_same_model(vectors->model, str_of(name)) ||
           fail(err, DS4_EINVAL, "the vectors are of %.*s, and the model is %.60s (--any-model)",
                STR_ARG(vectors->model), name);
}

static bool verify_all(Verify *v, const Vectors *vectors, Sums *total, ds4_err *err)
{
    bytes_str(&v->json, "{\"model\":");
    cli_json_str(&v->json, str_of(ds4_engine_info(v->engine).name));
    bytes_str(&v->json, ",\"reference\":");
    cli_json_str(&v->json, vectors->model);
    bytes_str(&v->json, ",\"cases\":[");
    for (size_t i = 0; i < vectors->n; i++) {
        cli_progress(NULL, "cases", i, vectors->n);
        if (!verify_case(v, &vectors->cases[i], i == 0, err))
            return false;
        add(total, &v->sums);
    }
    cli_progress_end();
    bytes_str(&v->json, "],\"total\":{");
    put_json_sums(&v->json, total);
    bytes_str(&v->json, "}}\n");
    if (v->json.failed)
        return fail(err, DS4_ENOMEM, "no memory for the result");
    return v->o->json ? cli_out(v->json.p, v->json.n, err) : say(v, total, STR("all"), false, err);
}

static bool verify_engine(Verify *v, const Vectors *vectors, ds4_err *err)
{
    Sums total = { 0 };
    v->vocab = ds4_engine_info(v->engine).vocab;
    if (!is_its_own(v, vectors, err) || !take_memory(v, vectors, err) ||
        !token_names_init(&v->names, ds4_engine_vocab(v->engine), err) ||
        !(v->session = ds4_session_open(v->engine, err)))
        return false;
    cli_at_work(v->engine);
    bool ok = verify_all(v, vectors, &total, err);
    cli_at_work(NULL);
    return ok && within(v->o, &total, err);
}

static bool verify(VerifyOptions *o, ds4_err *err)
{
    Verify v = { .o = o };
    Vectors vectors;
    bool ok = cases_read(o->vectors, &vectors, err) &&
              (v.engine = cases_open_engine(&o->model, err)) != NULL &&
              verify_engine(&v, &vectors, err);
    cli_progress_end();
    ds4_engine_close(v.engine); /* and its session */
    vectors_release(&vectors);
    token_names_release(&v.names);
    bytes_release(&v.json);
    free(v.named);
    return ok;
}

int cmd_verify(int argc, char **argv)
{
    VerifyOptions o = { .max_kl = -1, .min_top1 = -1, .max_delta = -1 };
    const Option options[] = {
        { OPT_TITLE, "Verify", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "--vectors", "FILE", &o.vectors, "the reference; -: stdin", 0, 0 },
        { OPT_FLOAT, "--max-kl", "X", &o.max_kl, "the most that KL may be, of all positions", 0,
          1e6 },
        { OPT_FLOAT, "--min-top1", "X", &o.min_top1, "the least that top1 may be, from 0 to 1", 0,
          1 },
        { OPT_FLOAT, "--max-delta", "X", &o.max_delta,
          "the most that delta may be; antirez/ds4 allows 4", 0, 1e6 },
        { OPT_FLAG, "--any-model", NULL, &o.any_model,
          "also where the vectors name another model than this file does", 0, 0 },
        { OPT_FLAG, "--json", NULL, &o.json, "one JSON object", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 verify --vectors FILE [options]",
                          .about = about,
                          .tables = { options, cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status >= 0)
        return status;
    if (!o.vectors)
        return cli_usage_error("verify needs --vectors FILE");
    ds4_err err = { 0 };
    cli_catch_cancel();
    return verify(&o, &err) ? 0 : cli_fail(&err);
}
