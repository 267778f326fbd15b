/* eval_result.c - results of an examination: sums, lines, JSON, and the file. */
#include "eval_result.h"
#include "../base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_FILE = 64 << 20 };

/* ---- which questions ------------------------------------------------------------------ */

/* "tools" is a suite, "recall-4K" and "arith-3" begin ids. */
static bool is_wanted(const ExamQuestion *q, const ValueList *only)
{
    bool wanted = only->n == 0;
    for (size_t i = 0; i < only->n && !wanted; i++) {
        const char *word = only->value[i];
        wanted = strcmp(suite_names[q->suite], word) == 0 || strcmp(q->id, word) == 0 ||
                 (strncmp(q->id, word, strlen(word)) == 0 && q->id[strlen(word)] == '-');
    }
    return wanted;
}

static bool choose(Sheet *s, const ValueList *only, ds4_err *err)
{
    for (size_t k = 0; k < only->n; k++) {
        bool some = false;
        const ValueList one = { .value = { only->value[k] }, .n = 1 };
        for (size_t i = 0; i < s->exam.n; i++)
            some |= is_wanted(&s->exam.question[i], &one);
        if (!some)
            return fail(err, DS4_EINVAL, "--only %.40s: no question is called so (--list)",
                        only->value[k]);
    }
    for (size_t i = 0; i < s->exam.n; i++)
        s->asked[i] = is_wanted(&s->exam.question[i], only);
    return true;
}

bool sheet_init(Sheet *s, uint64_t set, int most_tokens, const ValueList *only, ds4_err *err)
{
    *s = (Sheet){ 0 };
    if (!questions_make(&s->exam, set, most_tokens, err))
        return false;
    s->asked = calloc(s->exam.n, sizeof *s->asked);
    s->result = calloc(s->exam.n, sizeof *s->result);
    if (!s->asked || !s->result)
        return fail(err, DS4_ENOMEM, "no memory for %zu results", s->exam.n);
    return choose(s, only, err);
}

void sheet_release(Sheet *s)
{
    for (size_t i = 0; s->result && i < s->exam.n; i++)
        bytes_release(&s->result[i].line);
    free(s->asked);
    free(s->result);
    bytes_release(&s->header);
    questions_release(&s->exam);
    *s = (Sheet){ 0 };
}

/* ---- one result ------------------------------------------------------------------------ */

static void put_member(Bytes *b, const char *name, Str text)
{
    bytes_printf(b, ",\"%s\":", name);
    cli_json_str(b, text);
}

static void put_calls(Bytes *b, const Given *given)
{
    bytes_str(b, ",\"calls\":[");
    for (size_t i = 0; i < given->n_calls; i++) {
        bytes_str(b, i ? ",{\"name\":" : "{\"name\":");
        cli_json_str(b, given->calls[i].name);
        put_member(b, "arguments", given->calls[i].arguments);
        bytes_byte(b, '}');
    }
    bytes_byte(b, ']');
}

void sheet_enter(Sheet *s, size_t i, const Answer *answer, const Given *given, bool right,
                 const char *why)
{
    const ExamQuestion *q = &s->exam.question[i];
    EvalResult *r = &s->result[i];
    Bytes *b = &r->line;
    r->done = true;
    r->right = right;
    snprintf(r->why, sizeof r->why, "%s", why);
    r->tokens = answer->tokens;
    r->seconds = answer->prefill_s + answer->decode_s;
    bytes_clear(b);
    bytes_str(b, "{\"id\":");
    cli_json_str(b, str_of(q->id));
    put_member(b, "suite", str_of(suite_names[q->suite]));
    if (q->suite == SUITE_RECALL)
        bytes_printf(b, ",\"size\":%d,\"depth\":%d", q->tokens, q->depth);
    bytes_printf(b, ",\"right\":%s", right ? "true" : "false");
    put_member(b, "why", str_of(r->why));
    put_member(b, "finish", str_of(answer->finish));
    bytes_printf(b, ",\"prompt_tokens\":%d,\"tokens\":%d,\"seconds\":%.3f", answer->prompt,
                 answer->tokens, r->seconds);
    put_member(b, "answer", given->text);
    put_calls(b, given);
    bytes_byte(b, '}');
}

/* ---- the file -------------------------------------------------------------------------- */

/* The first thing that another header says otherwise. */
static bool tell_difference(const Sheet *s, Str line, const char *path, ds4_err *err)
{
    static const char *const keys[] = { "ds4_eval", "model",      "fingerprint", "device",
                                        "exact",    "rounding",   "set",         "think",
                                        "seed",     "top_p",      "min_p",       "temperature",
                                        "top_k",    "most_tokens" };
    Json *theirs = json_parse(line, 8, "the header", NULL);
    Json *ours = json_parse(bytes_view(&s->header), 8, "the header", NULL);
    Bytes a = { 0 }, b = { 0 };
    const char *key = NULL;
    for (size_t i = 0; i < COUNT(keys) && !key; i++) {
        bytes_clear(&a);
        bytes_clear(&b);
        json_write(&a, json_member(theirs, keys[i]));
        json_write(&b, json_member(ours, keys[i]));
        key = str_eq(bytes_view(&a), bytes_view(&b)) ? NULL : keys[i];
    }
    if (!json_member(theirs, "ds4_eval") || !key)
        fail(err, DS4_EINVAL, "%s is no state of ds4 eval: another --state, or none", path);
    else
        fail(err, DS4_EINVAL, "%s has %s %.*s, and this run %.*s: another --state, or none", path,
             key, (int)MIN(a.n, 40), a.p, (int)MIN(b.n, 40), b.p);
    bytes_release(&a);
    bytes_release(&b);
    json_free(theirs);
    json_free(ours);
    return false;
}

/* What is not asked with these options is passed over. */
static bool take_line(Sheet *s, const Json *o, Str line, ds4_err *err)
{
    const Json *right = json_member(o, "right");
    const Str id = json_text(json_member(o, "id"));
    uint64_t tokens;
    double seconds;
    if (!id.n || (!json_is_bool(right, true) && !json_is_bool(right, false)) ||
        !json_whole(json_member(o, "tokens"), INT32_MAX, &tokens) ||
        !json_number(json_member(o, "seconds"), &seconds))
        return fail(err, DS4_EFORMAT, "an answer has an id, right, tokens and seconds");
    for (size_t i = 0; i < s->exam.n; i++) {
        EvalResult *r = &s->result[i];
        if (!str_eq(id, str_of(s->exam.question[i].id)))
            continue;
        if (r->done)
            return fail(err, DS4_EFORMAT, "%.*s is answered twice", STR_ARG(id));
        Str why = json_text(json_member(o, "why"));
        r->done = true;
        r->right = json_is_bool(right, true);
        snprintf(r->why, sizeof r->why, "%.*s", (int)MIN(why.n, sizeof r->why - 1), why.p);
        r->tokens = (int)tokens;
        r->seconds = seconds;
        bytes_put(&r->line, line.p, line.n);
        return !r->line.failed || fail(err, DS4_ENOMEM, "no memory for an answer");
    }
    return true;
}

static bool take_lines(Sheet *s, Str text, const char *path, ds4_err *err)
{
    for (int number = 1; text.n; number++) {
        const char *end = memchr(text.p, '\n', text.n);
        Str line = { text.p, end ? (size_t)(end - text.p) : text.n };
        text = (Str){ line.p + line.n + (end != NULL), text.n - line.n - (end != NULL) };
        if (number == 1 && !str_eq(line, bytes_view(&s->header)))
            return tell_difference(s, line, path, err);
        if (number == 1)
            continue;
        ds4_err why = { 0 };
        Json *o = json_parse(line, 8, "the answer", &why);
        bool ok = o && take_line(s, o, line, &why);
        json_free(o);
        if (!ok)
            return fail(err, why.code, "%s, line %d: %s", path, number, why.msg);
    }
    return true;
}

bool sheet_load(Sheet *s, const char *path, ds4_err *err)
{
    Bytes text = { 0 };
    if (access(path, F_OK) != 0)
        return true;
    bool ok = file_read(&text, path, MAX_FILE, err) && take_lines(s, bytes_view(&text), path, err);
    bytes_release(&text);
    return ok;
}

bool sheet_save(const Sheet *s, const char *path, ds4_err *err)
{
    Bytes b = { 0 };
    File f = { 0 };
    bytes_put(&b, s->header.p, s->header.n);
    bytes_byte(&b, '\n');
    for (size_t i = 0; i < s->exam.n; i++) {
        if (!s->result[i].done)
            continue;
        bytes_put(&b, s->result[i].line.p, s->result[i].line.n);
        bytes_byte(&b, '\n');
        b.failed |= s->result[i].line.failed;
    }
    bool ok = !b.failed || fail(err, DS4_ENOMEM, "no memory for %s", path);
    ok = ok && file_create(&f, path, err) && file_write(&f, b.p, b.n, err) && file_commit(&f, err);
    file_release(&f);
    bytes_release(&b);
    return ok;
}

/* ---- sums --------------------------------------------------------------------------------- */

Tally sheet_tally(const Sheet *s, int suite)
{
    Tally t = { 0 };
    for (size_t i = 0; i < s->exam.n; i++) {
        if (!s->asked[i] || (suite != N_SUITES && (int)s->exam.question[i].suite != suite))
            continue;
        t.asked++;
        t.done += s->result[i].done;
        t.right += s->result[i].done && s->result[i].right;
    }
    return t;
}

void sheet_put_line(const Sheet *s, size_t i, Bytes *out)
{
    const EvalResult *r = &s->result[i];
    bytes_printf(out, "%s  %-14s %6d tokens %8.1f s%s%s\n", r->right ? "right" : "wrong",
                 s->exam.question[i].id, r->tokens, r->seconds, *r->why ? "  " : "", r->why);
}

/* Rows of sizes, columns of depths. */
static void put_recall(const Sheet *s, Bytes *out)
{
    int size = 0;
    for (size_t i = 0; i < s->exam.n; i++) {
        const ExamQuestion *q = &s->exam.question[i];
        const EvalResult *r = &s->result[i];
        if (q->suite != SUITE_RECALL || !s->asked[i])
            continue;
        if (q->tokens != size)
            bytes_printf(out, "%s  recall %4dK", size ? "\n" : "", q->tokens / 1024);
        size = q->tokens;
        bytes_printf(out, "  %d%%:%s", q->depth, !r->done ? "-" : r->right ? "right" : "wrong");
    }
    bytes_str(out, size ? "\n" : "");
}

void sheet_put_summary(const Sheet *s, Bytes *out)
{
    for (int suite = 0; suite <= N_SUITES; suite++) {
        Tally t = sheet_tally(s, suite);
        if (!t.asked)
            continue;
        bytes_printf(out, "%-13s %3d of %3d", suite == N_SUITES ? "all" : suite_names[suite],
                     t.right, t.done);
        if (t.done)
            bytes_printf(out, "  %5.1f %%", 100.0 * t.right / t.done);
        if (t.done < t.asked)
            bytes_printf(out, "  (%d not asked yet)", t.asked - t.done);
        bytes_byte(out, '\n');
        if (suite == SUITE_RECALL)
            put_recall(s, out);
    }
}

static void put_json_tally(Bytes *out, Tally t)
{
    bytes_printf(out, "{\"right\":%d,\"of\":%d,\"asked\":%d}", t.right, t.done, t.asked);
}

void sheet_put_json(const Sheet *s, Bytes *out)
{
    bytes_put(out, s->header.p, s->header.n - 1); /* it goes on */
    bytes_str(out, ",\"suites\":{");
    bool first = true;
    for (int suite = 0; suite < N_SUITES; suite++) {
        Tally t = sheet_tally(s, suite);
        if (!t.asked)
            continue;
        bytes_printf(out, "%s\"%s\":", first ? "" : ",", suite_names[suite]);
        put_json_tally(out, t);
        first = false;
    }
    bytes_str(out, "},\"all\":");
    put_json_tally(out, sheet_tally(s, N_SUITES));
    bytes_str(out, ",\"questions\":[");
    first = true;
    for (size_t i = 0; i < s->exam.n; i++) {
        if (!s->asked[i] || !s->result[i].done)
            continue;
        bytes_str(out, first ? "\n" : ",\n");
        bytes_put(out, s->result[i].line.p, s->result[i].line.n);
        first = false;
    }
    bytes_str(out, "]}\n");
}
