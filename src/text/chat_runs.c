/* chat_runs.c - the list of runs, in an arena. */
#include "chat_runs.h"

static void put(ChatPrompt *p, ChatRun run)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 32;
        ChatRun *grown = p->failed ? NULL : arena_array(&p->arena, cap, sizeof *grown);
        if (!grown) {
            p->failed = true;
            return;
        }
        if (p->n)
            memcpy(grown, p->run, p->n * sizeof *grown);
        p->run = grown;
        p->cap = cap;
    }
    p->run[p->n++] = run;
}

void runs_text(ChatPrompt *p, Str s)
{
    if (s.n)
        put(p, (ChatRun){ .control = -1, .text = s });
}

void runs_ids(ChatPrompt *p, const int32_t *ids, size_t n)
{
    if (n)
        put(p, (ChatRun){ .control = -1, .ids = ids, .n_ids = n });
}

bool runs_control(ChatPrompt *p, int32_t id, const char *name, ds4_err *err)
{
    if (id < 0)
        return fail(err, DS4_EINVAL, "the vocabulary has no token %s", name);
    put(p, (ChatRun){ .control = id });
    return true;
}

bool runs_literal(ChatPrompt *p, const ds4_vocab *v, Str s, ds4_err *err)
{
    const Controls *c = vocab_controls(v);
    const struct {
        const char *text;
        int32_t id;
    } marks[] = { { "｜DSML｜", c->dsml }, { "<think>", c->think }, { "</think>", c->think_end } };
    size_t from = 0;
    for (size_t at = 0; at < s.n;) {
        size_t k = 0, n = 0;
        for (; k < COUNT(marks); k++) {
            n = strlen(marks[k].text);
            if (s.n - at >= n && memcmp(s.p + at, marks[k].text, n) == 0)
                break;
        }
        if (k == COUNT(marks)) {
            at++;
            continue;
        }
        runs_text(p, (Str){ s.p + from, at - from });
        if (!runs_control(p, marks[k].id, marks[k].text, err))
            return false;
        from = at += n;
    }
    runs_text(p, (Str){ s.p + from, s.n - from });
    return true;
}

Str runs_keep(ChatPrompt *p, Str s)
{
    char *copy = arena_str(&p->arena, s);
    if (!copy)
        p->failed = true;
    return (Str){ copy, copy ? s.n : 0 };
}
