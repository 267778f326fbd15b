/* chat.c - messages to prompt, in the official encoder's form.
 *
 * The stages are the reference's: merge (consecutive users, and what tools gave,
 * become one turn), sort results in the order of their calls, drop what thinking
 * leaves behind, render each turn, and after it whatever leads over to the next.
 * A generation prompt is no case of its own: it is what follows a user's turn
 * that comes last. */
#include "chat.h"
#include "chat_runs.h"
#include "dsml.h"
#include "literals.h"
#include <stdlib.h>

/* Messages that share one pair of markers. */
typedef struct {
    const ChatMessage **part;
    size_t n_parts;
    int role, task;
    bool context; /* in the model already */
} Turn;

typedef struct {
    const ds4_vocab *v;
    const ChatOptions *opt;
    ChatPrompt *out;
    Turn *turn;
    size_t n_turns;
    ptrdiff_t last_input; /* the last turn of a user or developer, -1: none */
    bool keep_reasoning;
    ds4_err *err;
} Render;

static bool check_effort(const ChatOptions *opt, ds4_err *err);
static bool merge_messages(Render *r, const ChatMessage *m, size_t n);
static bool sort_results(Render *r);
static void drop_thinking(Render *r);
static bool render_start(Render *r);
static bool render_turn(Render *r, size_t i);
static bool render_transition(Render *r, size_t i);

bool chat_render(ChatPrompt *out, const ds4_vocab *v, const ChatMessage *m, size_t n,
                 const ChatOptions *opt, ds4_err *err)
{
    *out = (ChatPrompt){ 0 };
    Render r = { .v = v, .opt = opt, .out = out, .err = err };
    bool ok = check_effort(opt, err) && merge_messages(&r, m, n) && sort_results(&r);
    if (ok) {
        drop_thinking(&r);
        ok = render_start(&r);
    }
    for (size_t i = 0; i < r.n_turns && ok; i++)
        ok = r.turn[i].context || (render_turn(&r, i) && render_transition(&r, i));
    if (ok && out->failed)
        ok = fail(err, DS4_ENOMEM, "no memory for a prompt of %zu messages", n);
    if (!ok)
        chat_prompt_release(out);
    return ok;
}

void chat_prompt_release(ChatPrompt *p)
{
    arena_release(&p->arena);
    *p = (ChatPrompt){ 0 };
}

bool chat_text(const ChatPrompt *p, const ds4_vocab *v, Bytes *out)
{
    for (size_t i = 0; i < p->n; i++) {
        const ChatRun *run = &p->run[i];
        Str s = run->control < 0 ? run->text : vocab_bytes(v, run->control);
        bytes_put(out, s.p, s.n);
        for (size_t k = 0; k < run->n_ids; k++)
            bytes_put(out, vocab_bytes(v, run->ids[k]).p, vocab_bytes(v, run->ids[k]).n);
    }
    return !out->failed;
}

static bool is_text(const ChatRun *run) { return run->control < 0 && !run->n_ids; }

/* Neighbouring texts are tokenized as one: words merge across their seams. */
bool chat_tokens(const ChatPrompt *p, const ds4_vocab *v, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = true;
    for (size_t i = 0; i <= p->n && ok; i++) {
        const ChatRun *run = i < p->n ? &p->run[i] : NULL;
        if (run && is_text(run)) {
            bytes_put(&text, run->text.p, run->text.n);
            continue;
        }
        ok = text.failed ? fail(err, DS4_ENOMEM, "no memory for the prompt's text")
                         : bpe_encode(v, bytes_view(&text), false, out, err);
        bytes_clear(&text);
        if (run && run->control >= 0)
            tokens_put(out, run->control);
        for (size_t k = 0; run && k < run->n_ids; k++)
            tokens_put(out, run->ids[k]);
    }
    bytes_release(&text);
    if (ok && out->failed)
        return fail(err, DS4_ENOMEM, "no memory for %zu tokens", out->n);
    return ok;
}

/* ---- names --------------------------------------------------------------------- */

static const Str role_names[] = {
    [CHAT_SYSTEM] = { "system", 6 },
    [CHAT_USER] = { "user", 4 },
    [CHAT_ASSISTANT] = { "assistant", 9 },
    [CHAT_DEVELOPER] = { "developer", 9 },
    [CHAT_REMINDER] = { "latest_reminder", 15 },
    [CHAT_TOOL] = { "tool", 4 },
};

static const struct {
    const char *name, *token;
} tasks[] = {
    [CHAT_NO_TASK] = { "", "" },
    [CHAT_ACTION] = { "action", "<｜action｜>" },
    [CHAT_QUERY] = { "query", "<｜query｜>" },
    [CHAT_AUTHORITY] = { "authority", "<｜authority｜>" },
    [CHAT_DOMAIN] = { "domain", "<｜domain｜>" },
    [CHAT_TITLE] = { "title", "<｜title｜>" },
    [CHAT_READ_URL] = { "read_url", "<｜read_url｜>" },
};

int chat_role(Str name)
{
    for (size_t i = 0; i < COUNT(role_names); i++)
        if (str_eq(name, role_names[i]))
            return (int)i;
    return -1;
}

int chat_task(Str name)
{
    for (size_t i = CHAT_ACTION; i < COUNT(tasks); i++)
        if (str_eq(name, str_of(tasks[i].name)))
            return (int)i;
    return -1;
}

/* ---- stages before rendering ---------------------------------------------------- */

static bool check_effort(const ChatOptions *opt, ds4_err *err)
{
    if (opt->think < CHAT_THINK_OFF || opt->think > CHAT_THINK_MAX)
        return fail(err, DS4_EINVAL, "thinking effort %d is none of 0 to %d", opt->think,
                    CHAT_THINK_MAX);
    if (opt->preview && opt->think == CHAT_THINK_LOW)
        return fail(err, DS4_EINVAL, "the preview release has no effort \"low\": use high or max");
    return true;
}

/* A user's message joins the user's turn before it, unless that one carries a
 * task or is in the model already; a tool's result joins it in spite of a task.
 * Like the reference, the turn keeps the task of its first message only. */
static bool joins(const Turn *before, const ChatMessage *m, bool context)
{
    return before && before->role == CHAT_USER && before->context == context &&
           (m->role == CHAT_TOOL || (m->role == CHAT_USER && before->task == CHAT_NO_TASK));
}

static Turn turn_of(const ChatMessage **m, bool context)
{
    bool result = (*m)->role == CHAT_TOOL;
    return (Turn){ m, 1, result ? CHAT_USER : (*m)->role, result ? CHAT_NO_TASK : (*m)->task,
                   context };
}

static bool check_message(const Render *r, const ChatMessage *m, size_t i)
{
    if (m->role < 0 || m->role >= (int)COUNT(role_names))
        return fail(r->err, DS4_EINVAL, "message %zu has the unknown role %d", i, m->role);
    if (m->task < 0 || m->task >= (int)COUNT(tasks))
        return fail(r->err, DS4_EINVAL, "message %zu has the unknown task %d", i, m->task);
    for (size_t k = 0; k < m->n_ids; k++)
        if (m->ids[k] < 0 || m->ids[k] >= vocab_size(r->v))
            return fail(r->err, DS4_EINVAL, "message %zu holds token %d, of %d", i, m->ids[k],
                        vocab_size(r->v));
    return true;
}

static bool merge_messages(Render *r, const ChatMessage *m, size_t n)
{
    const ChatMessage **part = arena_array(&r->out->arena, n, sizeof *part);
    r->turn = arena_array(&r->out->arena, n, sizeof *r->turn);
    if (!part || !r->turn)
        return fail(r->err, DS4_ENOMEM, "no memory for %zu messages", n);
    r->keep_reasoning = r->opt->keep_reasoning;
    for (size_t i = 0; i < n; i++) {
        bool context = i < r->opt->context;
        part[i] = &m[i];
        if (!check_message(r, &m[i], i))
            return false;
        Turn *before = r->n_turns ? &r->turn[r->n_turns - 1] : NULL;
        if (joins(before, &m[i], context))
            before->n_parts++;
        else
            r->turn[r->n_turns++] = turn_of(&part[i], context);
        if (m[i].role == CHAT_SYSTEM || m[i].role == CHAT_DEVELOPER)
            r->keep_reasoning |= m[i].n_tools > 0;
    }
    return true;
}

/* ---- results in the order of their calls ------------------------------------------ */

/* Of calls with one id the last counts. An unknown id is of rank 0, which is
 * also the first call's: the reference says so. */
static size_t rank_of(Str id, const ChatMessage *caller)
{
    for (size_t i = caller->n_calls; i > 0; i--)
        if (id.n && str_eq(caller->calls[i - 1].id, id))
            return i - 1;
    return 0;
}

typedef struct {
    const ChatMessage *m;
    size_t rank, at;
} Result;

static int compare_results(const void *a, const void *b)
{
    const Result *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Texts among the results keep their places. */
static void sort_turn(Turn *t, const ChatMessage *caller, Result *result)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_parts; i++)
        if (t->part[i]->role == CHAT_TOOL) {
            result[n] = (Result){ t->part[i], rank_of(t->part[i]->tool_call_id, caller), n };
            n++;
        }
    if (n > 1)
        qsort(result, n, sizeof *result, compare_results);
    n = 0;
    for (size_t i = 0; i < t->n_parts; i++)
        if (t->part[i]->role == CHAT_TOOL)
            t->part[i] = result[n++].m;
}

/* With no id among the calls every rank is 0, and the order stays. */
static bool sort_results(Render *r)
{
    const ChatMessage *caller = NULL;
    size_t most = 0;
    for (size_t i = 0; i < r->n_turns; i++)
        most = MAX(most, r->turn[i].n_parts);
    Result *result = arena_array(&r->out->arena, most, sizeof *result);
    if (!result)
        return fail(r->err, DS4_ENOMEM, "no memory for %zu results", most);
    for (size_t i = 0; i < r->n_turns; i++) {
        if (r->turn[i].role == CHAT_ASSISTANT && r->turn[i].part[0]->n_calls)
            caller = r->turn[i].part[0];
        else if (caller && r->turn[i].n_parts > 1)
            sort_turn(&r->turn[i], caller, result);
    }
    return true;
}

/* ---- what thinking leaves behind --------------------------------------------------- */

static void find_last_input(Render *r)
{
    r->last_input = -1;
    for (size_t i = 0; i < r->n_turns; i++)
        if (r->turn[i].role == CHAT_USER || r->turn[i].role == CHAT_DEVELOPER)
            r->last_input = (ptrdiff_t)i;
}

/* In thinking mode what a developer said before the last input goes; the
 * reasoning before it is left out by keeps_reasoning. */
static void drop_thinking(Render *r)
{
    find_last_input(r);
    if (r->opt->think == CHAT_THINK_OFF || r->keep_reasoning)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < r->n_turns; i++)
        if (r->turn[i].role != CHAT_DEVELOPER || (ptrdiff_t)i >= r->last_input)
            r->turn[kept++] = r->turn[i];
    r->n_turns = kept;
    find_last_input(r);
}

/* ---- rendering ------------------------------------------------------------------ */

static void put_text(Render *r, Str s) { runs_text(r->out, s); }

static bool put_control(Render *r, int32_t id, const char *name)
{
    return runs_control(r->out, id, name, r->err);
}

static bool put_literal(Render *r, const char *name)
{
    return put_control(r, vocab_special(r->v, str_of(name)), name);
}

static bool render_start(Render *r)
{
    static const Str none = { 0 };
    /* [preview][effort] */
    static const Str *const efforts[2][4] = {
        { &none, &none, &effort_absolute, &effort_beyond },
        { &none, &none, &none, &effort_absolute },
    };
    if (r->opt->context > 0)
        return true;
    if (!r->opt->no_bos && !put_control(r, vocab_controls(r->v)->bos, "<｜begin▁of▁sentence｜>"))
        return false;
    if (r->n_turns)
        put_text(r, *efforts[r->opt->preview][r->opt->think]);
    return true;
}

/* The end mark in what a tool gave, written so that it ends nothing. */
static Str escaped(Render *r, Str s)
{
    static const Str mark = { "</tool_result>", 14 };
    Bytes b = { 0 };
    size_t from = 0;
    for (size_t i = 0; s.n >= mark.n && i <= s.n - mark.n; i++)
        if (memcmp(s.p + i, mark.p, mark.n) == 0) {
            bytes_put(&b, s.p + from, i - from);
            bytes_str(&b, "&lt;");
            from = i + 1;
        }
    if (from) {
        bytes_put(&b, s.p + from, s.n - from);
        r->out->failed |= b.failed;
        s = runs_keep(r->out, bytes_view(&b));
    }
    bytes_release(&b);
    return s;
}

static void render_parts(Render *r, const Turn *t)
{
    for (size_t k = 0; k < t->n_parts; k++) {
        const ChatMessage *m = t->part[k];
        bool result = m->role == CHAT_TOOL;
        if (k > 0)
            put_text(r, STR("\n\n"));
        if (result)
            put_text(r, STR("<tool_result>"));
        put_text(r, result && r->opt->escape_results ? escaped(r, m->content) : m->content);
        if (result)
            put_text(r, STR("</tool_result>"));
    }
}

/* What may follow the text of a system or developer turn. */
static bool render_attachments(Render *r, const ChatMessage *m)
{
    if (m->n_tools) {
        put_text(r, STR("\n\n"));
        if (!runs_literal(r->out, r->v, tools_prefix, r->err))
            return false;
        for (size_t i = 0; i < m->n_tools; i++) {
            put_text(r, i ? STR("\n") : STR(""));
            put_text(r, m->tools[i]);
        }
        put_text(r, tools_suffix);
    }
    if (m->response_format.n) {
        put_text(r, STR("\n\n"));
        put_text(r, response_format_prefix);
        put_text(r, m->response_format);
    }
    return true;
}

/* Is the model shown, or asked for, the reasoning that follows turn i? */
static bool thinks_after(const Render *r, ptrdiff_t i)
{
    return r->opt->think != CHAT_THINK_OFF && (r->keep_reasoning || i >= r->last_input);
}

/* What was sampled, less a final end-of-sentence. The head of the turn said
 * <think> if thinks, else </think>: the ids are made to go on from there. */
static bool render_sampled(Render *r, const ChatMessage *m, bool thinks)
{
    const Controls *c = vocab_controls(r->v);
    size_t n = m->n_ids - (m->ids[m->n_ids - 1] == c->eos), close = 0;
    while (close < n && m->ids[close] != c->think_end)
        close++;
    bool closed = close < n,
         only_thought = !closed && m->reasoning.n && !m->content.n && !m->n_calls;
    if (!thinks) {
        size_t skip = closed ? close + 1 : only_thought ? n : 0;
        runs_ids(r->out, m->ids + skip, n - skip);
        return true;
    }
    if (only_thought)
        runs_ids(r->out, m->ids, n);
    if (!closed && !put_control(r, c->think_end, "</think>"))
        return false;
    if (!only_thought)
        runs_ids(r->out, m->ids, n);
    return true;
}

static bool render_said(Render *r, const ChatMessage *m, bool thinks)
{
    if (thinks) {
        put_text(r, m->reasoning);
        if (!put_control(r, vocab_controls(r->v)->think_end, "</think>"))
            return false;
    }
    put_text(r, m->content);
    return !m->n_calls || dsml_render(r->out, r->v, m->calls, m->n_calls, r->err);
}

static bool render_assistant(Render *r, size_t i)
{
    const ChatMessage *m = r->turn[i].part[0];
    bool after_task = i > 0 && r->turn[i - 1].task != CHAT_NO_TASK;
    bool thinks = !after_task && thinks_after(r, (ptrdiff_t)i - 1);
    if (!(m->n_ids ? render_sampled : render_said)(r, m, thinks))
        return false;
    return m->unfinished || put_control(r, vocab_controls(r->v)->eos, "<｜end▁of▁sentence｜>");
}

static bool render_turn(Render *r, size_t i)
{
    const Controls *c = vocab_controls(r->v);
    const Turn *t = &r->turn[i];
    switch (t->role) {
    case CHAT_ASSISTANT: return render_assistant(r, i);
    case CHAT_DEVELOPER:
        if (t->part[0]->content.n == 0)
            return fail(r->err, DS4_EINVAL, "a developer's message is empty");
        /* fall through */
    case CHAT_USER:
        if (!put_control(r, c->user, "<｜User｜>"))
            return false;
        break;
    case CHAT_REMINDER:
        if (!put_control(r, c->reminder, "<｜latest_reminder｜>"))
            return false;
        break;
    }
    render_parts(r, t);
    return (t->role != CHAT_SYSTEM && t->role != CHAT_DEVELOPER) ||
           render_attachments(r, t->part[0]);
}

/* The head of an assistant's turn, with its thinking part open or closed. */
static bool put_assistant(Render *r, bool think)
{
    const Controls *c = vocab_controls(r->v);
    return put_control(r, c->assistant, "<｜Assistant｜>") &&
           (think ? put_control(r, c->think, "<think>") : put_control(r, c->think_end, "</think>"));
}

static bool render_transition(Render *r, size_t i)
{
    const Turn *t = &r->turn[i];
    if (i + 1 < r->n_turns && t[1].role != CHAT_ASSISTANT && t[1].role != CHAT_REMINDER)
        return true;
    if (t->task == CHAT_ACTION)
        return put_assistant(r, r->opt->think != CHAT_THINK_OFF) &&
               put_literal(r, tasks[t->task].token);
    if (t->task != CHAT_NO_TASK)
        return put_literal(r, tasks[t->task].token);
    if (t->role == CHAT_USER || t->role == CHAT_DEVELOPER)
        return put_assistant(r, thinks_after(r, (ptrdiff_t)i));
    return true;
}
