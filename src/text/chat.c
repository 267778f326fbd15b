/* chat.c - messages to prompt, in the official encoder's form.
 *
 * The stages are the reference's: merge (consecutive users become one turn),
 * drop what thinking leaves behind, render each turn, and after it whatever
 * leads over to the next. A generation prompt is no case of its own: it is
 * what follows a user's turn that comes last. */
#include "chat.h"
#include "literals.h"
#include <assert.h>

/* Messages that share one pair of markers. */
typedef struct {
    const ChatMessage *const *part;
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
    size_t cap;           /* of out->run */
    ds4_err *err;
} Render;

static bool check_effort(const ChatOptions *opt, ds4_err *err);
static bool merge_messages(Render *r, const ChatMessage *m, size_t n);
static void drop_thinking(Render *r);
static bool render_start(Render *r);
static bool render_turn(Render *r, size_t i);
static bool render_transition(Render *r, size_t i);

bool chat_render(ChatPrompt *out, const ds4_vocab *v, const ChatMessage *m, size_t n,
                 const ChatOptions *opt, ds4_err *err)
{
    *out = (ChatPrompt){ 0 };
    Render r = { .v = v, .opt = opt, .out = out, .err = err };
    bool ok = check_effort(opt, err) && merge_messages(&r, m, n);
    if (ok) {
        drop_thinking(&r);
        ok = render_start(&r);
    }
    for (size_t i = 0; i < r.n_turns && ok; i++)
        ok = r.turn[i].context || (render_turn(&r, i) && render_transition(&r, i));
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
        Str s = p->run[i].control < 0 ? p->run[i].text : vocab_bytes(v, p->run[i].control);
        bytes_put(out, s.p, s.n);
    }
    return !out->failed;
}

/* Neighbouring texts are tokenized as one: words merge across their seams. */
bool chat_tokens(const ChatPrompt *p, const ds4_vocab *v, Tokens *out, ds4_err *err)
{
    Bytes text = { 0 };
    bool ok = true;
    for (size_t i = 0; i <= p->n && ok; i++) {
        if (i < p->n && p->run[i].control < 0) {
            bytes_put(&text, p->run[i].text.p, p->run[i].text.n);
            continue;
        }
        ok = text.failed ? fail(err, DS4_ENOMEM, "no memory for the prompt's text")
                         : bpe_encode(v, bytes_view(&text), false, out, err);
        bytes_clear(&text);
        if (i < p->n)
            tokens_put(out, p->run[i].control);
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
 * task or is in the model already. Like the reference, the turn keeps the task
 * of its first message only. */
static bool joins(const Turn *before, const ChatMessage *m, bool context)
{
    return m->role == CHAT_USER && before && before->role == CHAT_USER &&
           before->task == CHAT_NO_TASK && before->context == context;
}

static bool merge_messages(Render *r, const ChatMessage *m, size_t n)
{
    const ChatMessage **part = arena_array(&r->out->arena, n, sizeof *part);
    r->turn = arena_array(&r->out->arena, n, sizeof *r->turn);
    /* The start makes at most two runs, a message with what follows it eight. */
    r->cap = 2 + 8 * n;
    r->out->run =
        n > SIZE_MAX / 16 ? NULL : arena_array(&r->out->arena, r->cap, sizeof *r->out->run);
    if (!part || !r->turn || !r->out->run)
        return fail(r->err, DS4_ENOMEM, "no memory for %zu messages", n);
    for (size_t i = 0; i < n; i++) {
        bool context = i < r->opt->context;
        part[i] = &m[i];
        if (m[i].role < 0 || m[i].role >= (int)COUNT(role_names))
            return fail(r->err, DS4_EINVAL, "message %zu has the unknown role %d", i, m[i].role);
        if (m[i].task < 0 || m[i].task >= (int)COUNT(tasks))
            return fail(r->err, DS4_EINVAL, "message %zu has the unknown task %d", i, m[i].task);
        Turn *before = r->n_turns ? &r->turn[r->n_turns - 1] : NULL;
        if (joins(before, &m[i], context))
            before->n_parts++;
        else
            r->turn[r->n_turns++] = (Turn){ &part[i], 1, m[i].role, m[i].task, context };
    }
    return true;
}

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
    if (r->opt->think == CHAT_THINK_OFF || r->opt->keep_reasoning)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < r->n_turns; i++)
        if (r->turn[i].role != CHAT_DEVELOPER || (ptrdiff_t)i >= r->last_input)
            r->turn[kept++] = r->turn[i];
    r->n_turns = kept;
    find_last_input(r);
}

/* ---- rendering ------------------------------------------------------------------ */

static void put_run(Render *r, ChatRun run)
{
    assert(r->out->n < r->cap);
    r->out->run[r->out->n++] = run;
}

static void put_text(Render *r, Str s)
{
    if (s.n)
        put_run(r, (ChatRun){ .control = -1, .text = s });
}

static bool put_control(Render *r, int32_t id, const char *name)
{
    if (id < 0)
        return fail(r->err, DS4_EINVAL, "the vocabulary has no token %s", name);
    put_run(r, (ChatRun){ .control = id });
    return true;
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

static void render_parts(Render *r, const Turn *t)
{
    for (size_t k = 0; k < t->n_parts; k++) {
        if (k > 0)
            put_text(r, STR("\n\n"));
        put_text(r, t->part[k]->content);
    }
}

/* What may follow the text of a system or developer turn. */
static void render_attachments(Render *r, const ChatMessage *m)
{
    if (m->response_format.n) {
        put_text(r, STR("\n\n"));
        put_text(r, response_format_prefix);
        put_text(r, m->response_format);
    }
}

/* Is the model shown, or asked for, the reasoning that follows turn i? */
static bool thinks_after(const Render *r, ptrdiff_t i)
{
    return r->opt->think != CHAT_THINK_OFF && (r->opt->keep_reasoning || i >= r->last_input);
}

static bool render_assistant(Render *r, size_t i)
{
    const Controls *c = vocab_controls(r->v);
    const ChatMessage *m = r->turn[i].part[0];
    bool after_task = i > 0 && r->turn[i - 1].task != CHAT_NO_TASK;
    if (!after_task && thinks_after(r, (ptrdiff_t)i - 1)) {
        put_text(r, m->reasoning);
        if (!put_control(r, c->think_end, "</think>"))
            return false;
    }
    put_text(r, m->content);
    return m->unfinished || put_control(r, c->eos, "<｜end▁of▁sentence｜>");
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
    if (t->role == CHAT_SYSTEM || t->role == CHAT_DEVELOPER)
        render_attachments(r, t->part[0]);
    return true;
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
