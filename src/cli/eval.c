/* eval.c - ds4 eval: a small examination with fixed graders.
 *
 * Each question is a conversation of its own. A question's random numbers follow
 * from --seed and its place, so an examination that goes on from its file ends
 * as one that was never stopped. */
#include "../base/file.h"
#include "../text/stream.h"
#include "eval_result.h"
#include "eval_view.h"
#include <stdio.h>

static const char about[] =
    "Asks questions of our own and grades the answers: arithmetic, strings, tool calls (right\n"
    "tool, arguments within the schema, right arguments), instructions, and one fact in documents\n"
    "of 1K tokens and up to what --ctx leaves room for, at five depths. Numbers, words and "
    "documents\n"
    "follow from --set. Small models get low scores.";

typedef struct {
    const char *state;
    uint64_t set;
    bool list, json;
    ValueList only;
    AnswerOptions answer;
    ModelOptions model;
} EvalOptions;

typedef struct {
    const EvalOptions *o;
    ds4_engine *engine;
    ds4_session *session;
    Sheet sheet;
    EvalView view;
    bool live;    /* a view is drawn */
    size_t now;   /* the question */
    int n_prompt; /* its tokens */
} Eval;

/* ---- prompts --------------------------------------------------------------------------- */

static size_t tokens_of(void *engine, Str text)
{
    return ds4_encode(ds4_engine_vocab(engine), text.p, text.n, false, NULL, 0);
}

static bool make_prompt(const Eval *v, const ExamQuestion *q, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    ChatMessage m[2];
    size_t n = 0;
    bool ok = question_text(q, tokens_of, v->engine, &text, err);
    if (q->tools)
        m[n++] = (ChatMessage){ .role = CHAT_SYSTEM,
                                .content = STR("Use a tool where one helps."),
                                .tools = q->key.tools,
                                .n_tools = q->key.n_tools };
    m[n++] = (ChatMessage){ .role = CHAT_USER, .content = bytes_view(&text) };
    ok = ok && answer_prompt(v->engine, m, n, answer_thinking(&v->o->answer), out, err);
    bytes_release(&text);
    return ok;
}

/* ---- answers --------------------------------------------------------------------------- */

/* What was said, taken apart. Calls beyond the most are counted only. */
typedef struct {
    Bytes text, name[MOST_CALLS + 1], arguments[MOST_CALLS + 1];
    size_t n_calls;
} Said;

static bool every_tool(void *user, Str tool)
{
    (void)user;
    (void)tool;
    return true;
}

static void take_event(void *user, const StreamEvent *e)
{
    Said *s = user;
    size_t i = MIN((size_t)e->call, (size_t)MOST_CALLS);
    if (e->kind == STREAM_TEXT)
        bytes_put(&s->text, e->bytes.p, e->bytes.n);
    else if (e->kind == STREAM_CALL_BEGIN)
        bytes_put(&s->name[i], e->bytes.p, e->bytes.n);
    else if (e->kind == STREAM_CALL_ARGS)
        bytes_put(&s->arguments[i], e->bytes.p, e->bytes.n);
    else if (e->kind == STREAM_CALL_END)
        s->n_calls = MIN((size_t)e->call, (size_t)MOST_CALLS) + 1;
}

static bool take_apart(Str content, bool tools, Said *out, ds4_err *err)
{
    const StreamOptions opt = { .tools = { .declared = tools ? every_tool : NULL },
                                .max_bytes = content.n + 1 };
    Stream *s = stream_new(NULL, &opt, take_event, out);
    if (!s)
        return fail(err, DS4_ENOMEM, "no memory for an answer");
    stream_text(s, content);
    stream_finish(s);
    bool failed = stream_failed(s) || out->text.failed;
    for (size_t i = 0; i <= MOST_CALLS; i++)
        failed |= out->name[i].failed || out->arguments[i].failed;
    stream_free(s);
    return !failed || fail(err, DS4_ENOMEM, "no memory for an answer of %zu bytes", content.n);
}

static void said_release(Said *s)
{
    bytes_release(&s->text);
    for (size_t i = 0; i <= MOST_CALLS; i++) {
        bytes_release(&s->name[i]);
        bytes_release(&s->arguments[i]);
    }
}

static bool enter(Eval *v, const Answer *a, ds4_err *err)
{
    const ExamQuestion *q = &v->sheet.exam.question[v->now];
    Said said = { 0 };
    GradeCall calls[MOST_CALLS + 1];
    char why[GRADE_WHY];
    bool ok = take_apart(bytes_view(&a->content), q->tools, &said, err);
    for (size_t i = 0; i < said.n_calls; i++)
        calls[i] = (GradeCall){ bytes_view(&said.name[i]), bytes_view(&said.arguments[i]) };
    const Given given = { bytes_view(&said.text), calls, said.n_calls };
    bool right = ok && grade(&q->key, &given, why);
    if (ok && !right && !a->content.n && strcmp(a->finish, "stop") != 0)
        snprintf(why, sizeof why, "no answer within %d tokens", a->tokens);
    if (ok)
        sheet_enter(&v->sheet, v->now, a, &given, right, why);
    said_release(&said);
    return ok;
}

/* ---- the run ---------------------------------------------------------------------------- */

static bool show(void *user, bool reasoning, Str text, ds4_err *err)
{
    Eval *v = user;
    (void)reasoning;
    (void)text;
    (void)err;
    if (v->live)
        eval_view_draw(&v->view, &v->sheet, v->now, ds4_session_length(v->session) - v->n_prompt,
                       false);
    return true;
}

static bool print_line(const Eval *v, size_t i, ds4_err *err)
{
    Bytes b = { 0 };
    sheet_put_line(&v->sheet, i, &b);
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for a line") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

/* The answer counts from here on: it is in the file, and said. */
static bool tell(Eval *v, ds4_err *err)
{
    if (v->o->state && !sheet_save(&v->sheet, v->o->state, err))
        return false;
    eval_view_answered(&v->view, &v->sheet, v->now);
    return v->live || v->o->json || print_line(v, v->now, err);
}

static bool ask(Eval *v, size_t i, ds4_err *err)
{
    uint64_t rng = v->o->answer.seed + (uint64_t)i * 0x9e3779b97f4a7c15u;
    Tokens prompt = { 0 };
    Answer answer = { 0 };
    v->now = i;
    bool ok = make_prompt(v, &v->sheet.exam.question[i], &prompt, err);
    v->n_prompt = (int)prompt.n;
    if (ok && v->live)
        eval_view_draw(&v->view, &v->sheet, i, 0, true);
    Question q = { .engine = v->engine,
                   .session = v->session,
                   .prompt = &prompt,
                   .how = &v->o->answer,
                   .rng = &rng,
                   .reasoning = answer_thinking(&v->o->answer) != CHAT_THINK_OFF,
                   .show = show,
                   .user = v };
    ok = ok && answer_make(&q, &answer, err);
    if (ok && strcmp(answer.finish, "interrupted") == 0)
        ok = fail(err, DS4_ECANCELED, "interrupted");
    ok = ok && enter(v, &answer, err) && tell(v, err);
    answer_release(&answer);
    tokens_release(&prompt);
    return ok;
}

static bool ask_all(Eval *v, ds4_err *err)
{
    bool ok = true;
    for (size_t i = 0; i < v->sheet.exam.n && ok; i++) {
        if (v->sheet.asked[i] && !v->sheet.result[i].done)
            ok = ask(v, i, err);
    }
    if (v->live)
        eval_view_end(&v->view);
    cli_progress_end();
    return ok;
}

/* ---- results ------------------------------------------------------------------------------ */

/* What has not been printed as it came. */
static bool report(const Eval *v, ds4_err *err)
{
    Bytes b = { 0 };
    for (size_t i = 0; i < v->sheet.exam.n && v->live && !v->o->json; i++) {
        if (v->sheet.asked[i] && v->sheet.result[i].done)
            sheet_put_line(&v->sheet, i, &b);
    }
    if (v->o->json) {
        sheet_put_json(&v->sheet, &b);
    } else {
        bytes_byte(&b, '\n');
        sheet_put_summary(&v->sheet, &b);
    }
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory for the report") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

/* What answers depend on: not which GPU, nor which file is played. */
static Str device_kind(const char *device)
{
    return device ? (Str){ device, strcspn(device, ":") } : STR("");
}

static bool put_header(Eval *v, ds4_err *err)
{
    static const char *const thinking[] = {
        [CHAT_THINK_OFF] = "off", [CHAT_THINK_HIGH] = "on", [CHAT_THINK_MAX] = "max"
    };
    const AnswerOptions *a = &v->o->answer;
    const ds4_options *m = &v->o->model.engine;
    uint8_t print[32];
    Bytes *b = &v->sheet.header;
    if (!ds4_engine_fingerprint(v->engine, print, err))
        return false;
    bytes_str(b, "{\"ds4_eval\":1,\"model\":");
    cli_json_str(b, str_of(ds4_engine_info(v->engine).name));
    bytes_str(b, ",\"fingerprint\":\"");
    for (size_t i = 0; i < sizeof print; i++)
        bytes_printf(b, "%02x", print[i]);
    bytes_str(b, "\",\"device\":");
    cli_json_str(b, device_kind(m->device));
    bytes_printf(b, ",\"exact\":%s,\"rounding\":%s,\"set\":%llu,\"think\":\"%s\",\"seed\":%llu",
                 m->exact ? "true" : "false", m->unrounded ? "false" : "true",
                 (unsigned long long)v->o->set, thinking[answer_thinking(a)],
                 (unsigned long long)a->seed);
    bytes_printf(b,
                 ",\"temperature\":%g,\"top_p\":%g,\"min_p\":%g,\"top_k\":%d,\"most_tokens\":%d}",
                 (double)a->temp, (double)a->top_p, (double)a->min_p, a->top_k, a->tokens);
    return !b->failed || fail(err, DS4_ENOMEM, "no memory for a header");
}

static int most_tokens(const EvalOptions *o, int context) { return context - o->answer.tokens; }

/* Documents go up to 128K tokens: who asks for fewer should know of it. */
static void note_recall(const Sheet *s, bool all)
{
    int longest = 0, asked = 0;
    for (size_t i = 0; i < s->exam.n; i++) {
        const ExamQuestion *q = &s->exam.question[i];
        longest = q->suite == SUITE_RECALL ? MAX(longest, q->tokens) : longest;
        asked += q->suite == SUITE_RECALL && s->asked[i];
    }
    if (longest < RECALL_MOST && (all || asked))
        cli_warn("recall is asked up to %dK tokens of %dK: --ctx less -n has room for no more",
                 longest / 1024, RECALL_MOST / 1024);
}

static bool run(EvalOptions *o, ds4_err *err)
{
    Eval v = { .o = o, .live = eval_view_wanted() };
    bool ok = (!o->state || file_try(o->state, err)) &&
              (v.engine = cli_open_engine(&o->model, err)) != NULL &&
              sheet_init(&v.sheet, o->set, most_tokens(o, ds4_engine_info(v.engine).context),
                         &o->only, err) &&
              put_header(&v, err) && (!o->state || sheet_load(&v.sheet, o->state, err)) &&
              (v.session = ds4_session_open(v.engine, err)) != NULL;
    if (ok && !o->json && !v.live)
        fprintf(stderr, "ds4: %s\n", ds4_engine_describe(v.engine));
    if (ok && !o->json)
        note_recall(&v.sheet, o->only.n == 0);
    ok = ok && ask_all(&v, err) && report(&v, err);
    ds4_engine_close(v.engine); /* and its session */
    sheet_release(&v.sheet);
    return ok;
}

/* A question a line: id, suite, and what is asked. No model is read. */
static bool list(const EvalOptions *o, ds4_err *err)
{
    Sheet s;
    Bytes b = { 0 };
    int context = o->model.engine.context ? o->model.engine.context : 8192;
    bool ok = sheet_init(&s, o->set, most_tokens(o, context), &o->only, err);
    for (size_t i = 0; ok && i < s.exam.n; i++) {
        const ExamQuestion *q = &s.exam.question[i];
        if (s.asked[i])
            bytes_printf(&b, "%s\t%s\t%.*s\n", q->id, suite_names[q->suite], (int)q->prompt.n,
                         q->prompt.p);
    }
    ok =
        ok && (b.failed ? fail(err, DS4_ENOMEM, "no memory for the list") : cli_out(b.p, b.n, err));
    bytes_release(&b);
    sheet_release(&s);
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* As others have them, but that the same answers come out every time. */
static const Option *sampling_options(AnswerOptions *o, Option table[12])
{
    *o = (AnswerOptions){ .temp = 0, .top_p = 1, .min_p = 0.05f, .tokens = 2048, .seed = 1 };
    const Option options[] = {
        { OPT_TITLE, "Answer", NULL, NULL, NULL, 0, 0 },
        { OPT_FLAG, "--think", NULL, &o->think, "think before answering (the default)", 0, 0 },
        { OPT_FLAG, "--nothink", NULL, &o->nothink, "answer at once", 0, 0 },
        { OPT_FLAG, "--think-max", NULL, &o->think_max, "think with the greatest effort", 0, 0 },
        { OPT_INT, "-n, --tokens", "N", &o->tokens,
          "at most N tokens an answer, for which documents leave room; default 2048", 1, 1 << 24 },
        { OPT_FLOAT, "--temp", "T", &o->temp, "temperature; 0, the default, takes the likeliest", 0,
          100 },
        { OPT_INT, "--top-k", "N", &o->top_k, "only the N likeliest; 0: off, the default", 0,
          1 << 24 },
        { OPT_FLOAT, "--top-p", "P", &o->top_p,
          "only the likeliest that sum to P; 1: off, the default", 0, 1 },
        { OPT_FLOAT, "--min-p", "P", &o->min_p,
          "only those at least P times as likely as the likeliest; default 0.05", 0, 1 },
        { OPT_U64, "--seed", "N", &o->seed, "of sampling; default 1", 0, 0 },
        { 0 },
    };
    _Static_assert(sizeof options <= 12 * sizeof(Option), "the table's size");
    memcpy(table, options, sizeof options);
    return table;
}

int cmd_eval(int argc, char **argv)
{
    EvalOptions o = { .set = FIRST_SET };
    Option sampling[12];
    const Option options[] = {
        { OPT_TITLE, "Examination", NULL, NULL, NULL, 0, 0 },
        { OPT_LIST, "--only", "NAME", &o.only,
          "a suite or a question, or those that begin with it (recall-4K); again and again", 0, 0 },
        { OPT_U64, "--set", "N", &o.set, "which questions; default 1", 0, 0 },
        { OPT_STR, "--state", "FILE", &o.state,
          "keep answers here, and go on with those that are there", 0, 0 },
        { OPT_FLAG, "--list", NULL, &o.list, "only print the questions", 0, 0 },
        { OPT_FLAG, "--json", NULL, &o.json, "one JSON object", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 eval [options]",
                          .about = about,
                          .tables = { options, sampling_options(&o.answer, sampling),
                                      cli_model_options(&o.model) } };
    int status = cli_parse(&usage, argc, argv, NULL, NULL);
    if (status < 0)
        status = answer_check(&o.answer);
    if (status >= 0)
        return status;
    ds4_err err = { 0 };
    cli_catch_cancel();
    return (o.list ? list(&o, &err) : run(&o, &err)) ? 0 : cli_fail(&err);
}
