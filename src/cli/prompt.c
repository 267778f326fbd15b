/* prompt.c - a request in any of the forms that there are to its prompt. */
#include "prompt.h"
#include "native.h"
#include "../server/prepare.h"

/* The official encoder's arguments, by its own rules. */
static bool native(const ds4_vocab *v, Str json, bool preview, ChatPrompt *p, Native *n,
                   ds4_err *err)
{
    return native_read(n, json, preview, err) && chat_render(p, v, n->m, n->n, &n->opt, err);
}

/* What a client would send, as the server reads it: with no limit of the context. */
static bool request(const ds4_vocab *v, const Dialect *d, Str json, bool preview, ChatPrompt *p,
                    Turn *t, ds4_err *err)
{
    static const ServerInfo info = { .model = "deepseek-v4-flash",
                                     .context = INT32_MAX,
                                     .max_output = INT32_MAX,
                                     .default_think = CHAT_THINK_HIGH };
    ApiError e = { 0 };
    if (!prepare_read(t, d, json, NULL, &info, &e))
        return fail(err, DS4_EINVAL, "%s", e.message);
    return prepare_prompt(t, v, preview, p, err);
}

static const struct {
    const char *name;
    const Dialect *dialect; /* NULL: native */
    enum Api api;
} apis[] = { { "chat", &dialect_chat, API_CHAT },
             { "messages", &dialect_messages, API_MESSAGES },
             { "responses", &dialect_responses, API_RESPONSES },
             { "native", NULL, API_CHAT } };

bool prompt_of(const char *api, Str json, const ds4_vocab *v, bool preview, PromptFn fn, void *user,
               ds4_err *err)
{
    size_t i = 0;
    Native n = { 0 };
    Turn t;
    ChatPrompt p = { 0 };
    while (i + 1 < COUNT(apis) && strcmp(api, apis[i].name) != 0)
        i++;
    turn_init(&t, apis[i].api);
    const Dialect *d = apis[i].dialect;
    bool ok = d ? request(v, d, json, preview, &p, &t, err) : native(v, json, preview, &p, &n, err);
    ok = ok && fn(user, v, &p, err);
    chat_prompt_release(&p);
    native_release(&n);
    turn_release(&t);
    return ok;
}
