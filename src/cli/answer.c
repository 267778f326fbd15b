/* answer.c - the decode loop, and how its text reaches people.
 *
 * Tokens are bytes: a character may arrive in parts. Text leaves here only in
 * whole characters, and what can no longer become one leaves as U+FFFD. */
#include "answer.h"
#include "characters.h"
#include <stdio.h>
#include <unistd.h>

/* ---- options ------------------------------------------------------------------ */

const Option *answer_options(AnswerOptions *o)
{
    *o = (AnswerOptions){ .temp = 1, .top_p = 1, .min_p = 0.05f };
    o->seed = (uint64_t)clock_ns() ^ (uint64_t)getpid() << 32;
    const Option table[] = {
        { OPT_TITLE, "Answer", NULL, NULL, NULL, 0, 0 },
        { OPT_STR, "-sys, --system", "TEXT", &o->system, "the system message", 0, 0 },
        { OPT_FLAG, "--think", NULL, &o->think, "think before answering (the default)", 0, 0 },
        { OPT_FLAG, "--nothink", NULL, &o->nothink, "answer at once", 0, 0 },
        { OPT_FLAG, "--think-max", NULL, &o->think_max, "think with the greatest effort", 0, 0 },
        { OPT_INT, "-n, --tokens", "N", &o->tokens,
          "at most N tokens; default: until the context is full", 1, 1 << 24 },
        { OPT_FLOAT, "--temp", "T", &o->temp, "temperature; 0 takes the likeliest; default 1", 0,
          100 },
        { OPT_INT, "--top-k", "N", &o->top_k, "only the N likeliest; 0: off, the default", 0,
          1 << 24 },
        { OPT_FLOAT, "--top-p", "P", &o->top_p,
          "only the likeliest that sum to P; 1: off, the default", 0, 1 },
        { OPT_FLOAT, "--min-p", "P", &o->min_p,
          "only those at least P times as likely as the likeliest; default 0.05", 0, 1 },
        { OPT_U64, "--seed", "N", &o->seed, "the same seed, the same answer; default: the clock", 0,
          0 },
        { 0 },
    };
    _Static_assert(sizeof table <= sizeof o->table, "AnswerOptions.table");
    memcpy(o->table, table, sizeof table);
    return o->table;
}

int answer_check(const AnswerOptions *o)
{
    if (o->think + o->nothink + o->think_max > 1)
        return cli_usage_error("--think, --nothink and --think-max exclude each other");
    return -1;
}

int answer_thinking(const AnswerOptions *o)
{
    return o->nothink ? CHAT_THINK_OFF : o->think_max ? CHAT_THINK_MAX : CHAT_THINK_HIGH;
}

/* ---- prompts ------------------------------------------------------------------ */

/* The 0731 release moved the effort texts by one level. Files of the preview
 * carry no mark, so it is what is assumed. */
static void set_release(ChatOptions *opt, const ds4_engine *e, int think)
{
    const char *name = ds4_engine_info(e).name;
    opt->preview = !name || !strstr(name, "0731");
    opt->think = think == CHAT_THINK_HIGH && !opt->preview ? CHAT_THINK_LOW : think;
}

bool answer_prompt(const ds4_engine *e, const ChatMessage *m, size_t n, int think, Tokens *out,
                   ds4_err *err)
{
    const ds4_vocab *v = ds4_engine_vocab(e);
    ChatPrompt prompt = { 0 };
    ChatOptions opt = { 0 };
    set_release(&opt, e, think);
    bool ok = chat_render(&prompt, v, m, n, &opt, err) && chat_tokens(&prompt, v, out, err);
    chat_prompt_release(&prompt);
    return ok;
}

bool answer_raw_prompt(const ds4_engine *e, Str text, Tokens *out, ds4_err *err)
{
    const ds4_vocab *v = ds4_engine_vocab(e);
    int32_t bos = vocab_controls(v)->bos;
    Str mark = vocab_bytes(v, bos);
    bool has_bos = bos < 0 || (text.n >= mark.n && memcmp(text.p, mark.p, mark.n) == 0);
    if (!has_bos)
        tokens_put(out, bos);
    if (!bpe_encode(v, text, true, out, err))
        return false;
    return !out->failed || fail(err, DS4_ENOMEM, "no memory for the tokens of %zu bytes", text.n);
}

/* ---- the loop ------------------------------------------------------------------- */

static bool emit(const Question *q, Answer *a, Characters *h, bool reasoning, Str text, bool end,
                 ds4_err *err)
{
    Bytes *to = reasoning ? &a->reasoning : &a->content;
    size_t from = to->n;
    characters_put(h, text, end, to);
    if (to->failed)
        return fail(err, DS4_ENOMEM, "no memory for an answer of %d tokens", a->tokens);
    if (to->n == from || !q->show)
        return true;
    return q->show(q->user, reasoning, (Str){ to->p + from, to->n - from }, err);
}

static bool ends_answer(const Question *q, int32_t token)
{
    const Controls *c = vocab_controls(ds4_engine_vocab(q->engine));
    return token == c->eos || (!q->raw && (token == c->user || token == c->bos));
}

/* Was the failure Ctrl-C's doing? */
static bool was_interrupted(const ds4_err *err)
{
    return err->code == DS4_ECANCELED && cli_interrupted();
}

static double since(int64_t start) { return (double)(clock_ns() - start) * 1e-9; }

/* False when the answer ended, or on an error: then *failed. */
static bool take_token(const Question *q, Answer *a, Characters *h, bool *reasoning, bool *failed,
                       ds4_err *err)
{
    const ds4_vocab *v = ds4_engine_vocab(q->engine);
    const ds4_sampling how = { .temperature = q->how->temp,
                               .top_p = q->how->top_p,
                               .min_p = q->how->min_p,
                               .top_k = q->how->top_k,
                               .rng = q->rng };
    int32_t token = ds4_sample(q->session, &how);
    if (ends_answer(q, token)) {
        a->finish = "stop";
        return false;
    }
    a->tokens++;
    if (*reasoning && token == vocab_controls(v)->think_end) {
        *failed = !emit(q, a, h, true, (Str){ 0 }, true, err);
        *reasoning = false;
    } else {
        *failed = !emit(q, a, h, *reasoning, vocab_bytes(v, token), false, err);
    }
    if (*failed)
        return false;
    if (q->how->tokens && a->tokens >= q->how->tokens)
        a->finish = "length";
    else if (ds4_session_length(q->session) >= ds4_engine_info(q->engine).context)
        a->finish = "context";
    else if (ds4_session_feed(q->session, &token, 1, err))
        a->steps++;
    else if (was_interrupted(err))
        a->finish = "interrupted";
    else
        *failed = true;
    return !a->finish && !*failed;
}

static bool decode(const Question *q, Answer *a, ds4_err *err)
{
    Characters h = { 0 };
    bool reasoning = q->reasoning, failed = false, more = true;
    while (more) {
        if (cli_interrupted()) {
            a->finish = "interrupted";
            break;
        }
        more = take_token(q, a, &h, &reasoning, &failed, err);
    }
    return !failed && emit(q, a, &h, reasoning, (Str){ 0 }, true, err);
}

/* A Ctrl-C that came as the answer before was ending cancels the first step
 * of this one; then it is tried again. */
static bool prefill(const Question *q, Answer *a, ds4_err *err)
{
    ds4_err first = { 0 };
    int n = (int)q->prompt->n;
    if (ds4_session_sync(q->session, q->prompt->id, n, &a->reused, &first))
        return true;
    if (first.code == DS4_ECANCELED && !cli_interrupted())
        return ds4_session_sync(q->session, q->prompt->id, n, &a->reused, err);
    return fail(err, first.code, "%s", first.msg);
}

static bool fits(const Question *q, ds4_err *err)
{
    int context = ds4_engine_info(q->engine).context;
    if (q->prompt->n == 0)
        return fail(err, DS4_EINVAL, "the prompt is empty");
    return q->prompt->n < (size_t)context ||
           fail(err, DS4_ECONTEXT, "the prompt has %zu tokens, and the context holds %d",
                q->prompt->n, context);
}

bool answer_make(const Question *q, Answer *out, ds4_err *err)
{
    *out = (Answer){ .prompt = (int)q->prompt->n };
    if (!fits(q, err))
        return false;
    int64_t start = clock_ns();
    ds4_err inner = { 0 };
    cli_at_work(q->engine);
    /* A Ctrl-C before that line canceled nothing. */
    bool ok =
        !cli_interrupted() ? prefill(q, out, &inner) : fail(&inner, DS4_ECANCELED, "interrupted");
    cli_progress_end();
    out->prefill_s = out->first_s = since(start);
    if (ok) {
        ok = decode(q, out, &inner);
        out->decode_s = since(start) - out->prefill_s;
    } else if (was_interrupted(&inner)) {
        out->finish = "interrupted";
        ok = true;
    }
    cli_at_work(NULL);
    return ok || fail(err, inner.code, "%s", inner.msg);
}

void answer_release(Answer *a)
{
    bytes_release(&a->reasoning);
    bytes_release(&a->content);
}

static double rate(int n, double seconds) { return seconds > 0 ? n / seconds : 0; }

void answer_speeds(const Answer *a, char *buf, size_t n)
{
    snprintf(buf, n, "%d prompt tokens (%d reused) %.1f/s, %d tokens %.1f/s", a->prompt, a->reused,
             rate(a->prompt - a->reused, a->prefill_s), a->tokens, rate(a->steps, a->decode_s));
}

/* ---- printing ------------------------------------------------------------------- */

void printer_init(Printer *p)
{
    *p = (Printer){ .terminal = isatty(STDOUT_FILENO) != 0, .at_line_start = true };
    p->color = cli_color(STDOUT_FILENO);
}

/* A model's text may hold anything; escape sequences are not for the terminal. */
static void put_tame(Bytes *b, Str text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool wild = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
        if (wild)
            bytes_str(b, "\xef\xbf\xbd");
        else
            bytes_byte(b, c);
    }
}

static const char *change_of_mode(const Printer *p, bool reasoning)
{
    if (p->in_reasoning == reasoning)
        return "";
    if (reasoning)
        return p->color ? "\033[2m" : "<think>\n";
    return p->color ? "\033[0m\n\n" : "\n</think>\n\n";
}

bool printer_show(void *printer, bool reasoning, Str text, ds4_err *err)
{
    Printer *p = printer;
    Bytes b = { 0 };
    if (reasoning && !p->terminal)
        return true;
    /* Blank lines that the model puts before its answer are for its own prompt. */
    while (!p->began && p->terminal && !reasoning && text.n && text.p[0] == '\n')
        text = (Str){ text.p + 1, text.n - 1 };
    if (!text.n)
        return true;
    bytes_str(&b, change_of_mode(p, reasoning));
    if (p->terminal)
        put_tame(&b, text);
    else
        bytes_put(&b, text.p, text.n);
    p->in_reasoning = reasoning;
    p->began = p->began || !reasoning;
    p->at_line_start = text.p[text.n - 1] == '\n';
    bool ok = b.failed ? fail(err, DS4_ENOMEM, "no memory to print") : cli_out(b.p, b.n, err);
    bytes_release(&b);
    return ok;
}

bool printer_end(Printer *p, ds4_err *err)
{
    const char *end = p->in_reasoning && p->color ? "\033[0m\n" : p->at_line_start ? "" : "\n";
    p->in_reasoning = false;
    p->at_line_start = true;
    return cli_out(end, strlen(end), err);
}
