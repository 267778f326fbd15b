/* thinking.c - names of efforts, and which of several wishes counts. */
#include "thinking.h"

/* DeepSeek's own table. */
bool thinking_effort(Request *r, const Json *name, const char *param, ThinkWish *w)
{
    static const struct {
        const char *name;
        int think;
    } efforts[] = {
        { "none", CHAT_THINK_OFF },    { "minimal", CHAT_THINK_LOW }, { "low", CHAT_THINK_LOW },
        { "medium", CHAT_THINK_HIGH }, { "high", CHAT_THINK_HIGH },   { "xhigh", CHAT_THINK_HIGH },
        { "max", CHAT_THINK_MAX },     { "ultra", CHAT_THINK_MAX },
    };
    if (!name)
        return true;
    for (size_t i = 0; i < COUNT(efforts); i++)
        if (json_is(name, efforts[i].name)) {
            w->effort = efforts[i].think;
            w->off |= efforts[i].think == CHAT_THINK_OFF;
            return true;
        }
    return request_wrong(r, param,
                         "%s: '%.*s' is no effort; known are none, minimal, low, medium, "
                         "high, xhigh, max, ultra",
                         param, STR_ARG(json_text(name)));
}

static bool take_budget(Request *r, const Json *budget)
{
    uint64_t tokens = 0;
    if (budget && !json_whole(budget, UINT64_MAX, &tokens))
        return request_wrong(r, "thinking", "thinking.budget_tokens is no whole number");
    r->t->think_budget = (int)MIN(tokens, (uint64_t)INT32_MAX);
    return true;
}

bool thinking_object(Request *r, ThinkWish *w)
{
    const Json *m = json_member(r->body, "thinking"), *type = json_member(m, "type");
    if (!m)
        return true;
    if (!json_is_object(m))
        return request_wrong(r, "thinking", "thinking is no object");
    if (json_is(type, "disabled"))
        w->off = true;
    else if (json_is(type, "enabled") || json_is(type, "adaptive"))
        w->on = true;
    else
        return request_wrong(r, "thinking",
                             "thinking.type is '%.*s', not enabled, adaptive or disabled",
                             STR_ARG(json_text(type)));
    r->t->think_hidden = json_is(json_member(m, "display"), "omitted");
    return take_budget(r, json_member(m, "budget_tokens"));
}

static int unless_off(int think) { return think == CHAT_THINK_OFF ? CHAT_THINK_HIGH : think; }

void thinking_settle(Request *r, const ThinkWish *w)
{
    int fallback = r->info->default_think, think = fallback;
    if (w->off)
        think = CHAT_THINK_OFF;
    else if (w->effort != CHAT_THINK_OFF)
        think = w->effort;
    else if (w->on || str_eq(r->t->model, STR("deepseek-reasoner")))
        think = unless_off(fallback);
    else if (str_eq(r->t->model, STR("deepseek-chat")))
        think = CHAT_THINK_OFF;
    if (think == CHAT_THINK_MAX && r->info->context < CONTEXT_OF_MAX)
        think = CHAT_THINK_HIGH;
    r->t->think = think;
    if (think == CHAT_THINK_OFF)
        r->t->think_budget = 0;
}
