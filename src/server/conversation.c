/* conversation.c - messages, one after the other. */
#include "conversation.h"
#include "tools_in.h"

static bool grow(Conversation *c)
{
    Turn *t = c->r->t;
    if (c->n < c->cap)
        return true;
    size_t cap = c->cap ? 2 * c->cap : 16;
    ChatMessage *m = arena_array(&t->arena, cap, sizeof *m);
    Str *handles = arena_array(&t->arena, cap, sizeof *handles);
    if (!m || !handles)
        return request_no_memory(c->r);
    if (c->cap) {
        memcpy(m, t->messages, c->n * sizeof *m);
        memcpy(handles, t->handles, c->n * sizeof *handles);
    } else {
        c->n = 1;
    }
    c->cap = cap;
    t->messages = m;
    t->handles = handles;
    return true;
}

static bool add(Conversation *c, ChatMessage m, Str handle)
{
    if (!grow(c))
        return false;
    c->r->t->messages[c->n] = m;
    c->r->t->handles[c->n++] = handle;
    return true;
}

static bool add_reminder(Conversation *c, Str text)
{
    Bytes b = { 0 };
    Str s;
    bytes_str(&b, "<system-reminder>\n");
    bytes_put(&b, text.p, text.n);
    bytes_str(&b, "\n</system-reminder>");
    return request_keep(c->r, &b, &s) && conversation_user(c, s);
}

bool conversation_system(Conversation *c, Str text)
{
    if (!text.n)
        return true;
    if (c->n > 1)
        return add_reminder(c, text);
    if (c->system.n)
        bytes_str(&c->system, "\n\n");
    bytes_put(&c->system, text.p, text.n);
    return true;
}

bool conversation_user(Conversation *c, Str text)
{
    return add(c, (ChatMessage){ .role = CHAT_USER, .content = text }, (Str){ 0 });
}

bool conversation_result(Conversation *c, Str call_id, Str text)
{
    return add(c, (ChatMessage){ .role = CHAT_TOOL, .content = text, .tool_call_id = call_id },
               (Str){ 0 });
}

bool conversation_assistant(Conversation *c, const Said *said)
{
    return add(c,
               (ChatMessage){ .role = CHAT_ASSISTANT,
                              .content = said->content,
                              .reasoning = said->reasoning,
                              .calls = said->calls,
                              .n_calls = said->n_calls },
               said->handle);
}

/* The form of the answer in words, where the server is to say it: one JSON for
 * all APIs, in the place that the official encoder has for it. */
static bool format_line(Request *r, Str *out)
{
    const Turn *t = r->t;
    Bytes b = { 0 };
    if (!r->info->schema_in_prompt)
        return true;
    if (t->format == FORMAT_JSON_OBJECT)
        bytes_str(&b, "{\"type\": \"json_object\"}");
    if (t->format == FORMAT_JSON_SCHEMA) {
        bytes_str(&b, "{\"type\": \"json_schema\", \"json_schema\": {\"schema\": ");
        json_write(&b, t->schema);
        bytes_str(&b, "}}");
    }
    return request_keep(r, &b, out);
}

bool conversation_end(Conversation *c)
{
    Turn *t = c->r->t;
    ChatMessage system = { .role = CHAT_SYSTEM };
    /* Without a user's turn the model would not be asked for anything. */
    if (c->n <= 1 && !conversation_user(c, (Str){ 0 }))
        return false;
    if (!request_keep(c->r, &c->system, &system.content) ||
        !tools_lines(c->r, &system.tools, &system.n_tools) ||
        !format_line(c->r, &system.response_format))
        return false;
    ChatMessage *last = &t->messages[c->n - 1];
    last->unfinished = last->role == CHAT_ASSISTANT;
    size_t skip = !system.content.n && !system.n_tools && !system.response_format.n;
    t->messages[0] = system;
    t->messages += skip;
    t->handles += skip;
    t->n_messages = c->n - skip;
    return true;
}

void conversation_release(Conversation *c) { bytes_release(&c->system); }
