/* responses_input.c - items to messages.
 *
 * What an assistant's turn consists of comes as items of its own: reasoning,
 * then messages, then calls. Neighbours become one message again, as the model
 * said them. Items that this server has no use for (searches that others made,
 * compactions that only their makers can read) are passed over: clients keep
 * them in their history, and it is no reason to end a session. */
#include "responses_input.h"
#include "content.h"
#include "conversation.h"
#include "responses_store.h"
#include "responses_tools.h"
#include "tools_in.h"
#include <json-c/json.h>
#include <stdlib.h>

/* Pointers to items are short: all of a request's together may not stand for
 * more than a body could hold. */
#define MOST_REFERRED ((size_t)64 << 20)

typedef struct {
    Request *r;
    Conversation c;
    bool speaking, spoke; /* there is an assistant's message; it has text or calls */
    Bytes reasoning, content;
    Str handle;
    ChatCall *calls;
    size_t n_calls, cap_calls;
    Str *known; /* ids of all calls, sorted */
    size_t n_known;
} Reading;

static bool expand(Request *r, size_t *n_before);
static bool know_calls(Reading *g, const Json *items);
static bool take_item(Reading *g, const Json *item);
static bool flush(Reading *g);

static bool take_items(Reading *g, size_t n_before)
{
    Request *r = g->r;
    const Json *items = json_member(r->body, "input");
    Str instructions = { 0 };
    if (!request_text(r, "instructions", &instructions) ||
        !conversation_system(&g->c, instructions) || !know_calls(g, items))
        return false;
    for (size_t i = 0; i < json_length(items); i++) {
        r->list = i < n_before ? "previous_response_id" : "input";
        r->at = i < n_before ? i : i - n_before;
        if (!take_item(g, json_at(items, i)))
            return false;
    }
    return flush(g) && conversation_end(&g->c);
}

bool responses_take_input(Request *r)
{
    Reading g = { .r = r, .c = { .r = r } };
    size_t n_before = 0;
    bool ok = expand(r, &n_before) && take_items(&g, n_before);
    bytes_release(&g.reasoning);
    bytes_release(&g.content);
    conversation_release(&g.c);
    return ok;
}

/* ---- the list of all items ------------------------------------------------------------ */

static bool is(const Json *item, const char *type)
{
    return json_is(json_member(item, "type"), type);
}

/* Its type may be left out: an id and nothing that it could be instead. */
static bool is_reference(const Json *item)
{
    return is(item, "item_reference") ||
           (!json_member(item, "type") && !json_member(item, "role") && json_member(item, "id"));
}

/* Takes item over, also on failure. */
static bool push(Request *r, Json *list, Json *item)
{
    if (item && json_object_array_add(list, item) == 0)
        return true;
    json_free(item);
    return request_no_memory(r);
}

static bool push_referred(Request *r, Json *list, const Json *item, size_t *referred)
{
    Str id = json_text(json_member(item, "id"));
    Bytes text = { 0 };
    bool known = r->info->responses && responses_item(r->info->responses, id, &text);
    *referred += text.n;
    Json *found = known && !text.failed && *referred <= MOST_REFERRED
                      ? json_read(bytes_view(&text), NULL)
                      : NULL;
    bytes_release(&text);
    if (!known)
        return request_wrong(r, "input", "input[%zu]: no stored item has the id '%.*s'", r->at,
                             STR_ARG(id));
    if (*referred > MOST_REFERRED)
        return request_wrong(r, "input", "input[%zu]: items referred to hold more than %zu bytes",
                             r->at, MOST_REFERRED);
    return push(r, list, found);
}

/* input as a string is what a user says. */
static bool push_text(Request *r, Json *list, const Json *text)
{
    Bytes b = { 0 };
    bytes_str(&b, "{\"type\": \"message\", \"role\": \"user\", \"content\": ");
    json_write(&b, text);
    bytes_byte(&b, '}');
    Json *item = b.failed ? NULL : json_read(bytes_view(&b), NULL);
    bytes_release(&b);
    return push(r, list, item);
}

static bool push_input(Request *r, Json *list, const Json *input)
{
    size_t referred = 0;
    if (json_is_text(input))
        return push_text(r, list, input);
    for (r->at = 0; r->at < json_length(input); r->at++) {
        Json *item = json_at(input, r->at);
        if (!json_is_object(item))
            return request_wrong(r, "input", "input[%zu] is no object", r->at);
        if (is_reference(item) ? !push_referred(r, list, item, &referred)
                               : !push(r, list, json_object_get(item)))
            return false;
    }
    return true;
}

/* The items of the response that this one goes on from: the caller's. */
static Json *previous_items(Request *r)
{
    Str id = { 0 };
    if (!request_text(r, "previous_response_id", &id))
        return NULL;
    Json *list = !id.n                ? json_object_new_array()
                 : r->info->responses ? responses_find(r->info->responses, id)
                                      : NULL;
    if (!list && id.n)
        api_fail(r->e, 400, "previous_response_not_found", "previous_response_id",
                 "Previous response with id '%.*s' not found.", STR_ARG(id));
    else if (!list)
        request_no_memory(r);
    return list;
}

static bool expand(Request *r, size_t *n_before)
{
    const Json *input = json_member(r->body, "input");
    if (input && !json_is_text(input) && !json_is_array(input))
        return request_wrong(r, "input", "input is neither a string nor a list");
    if (!json_is_text(input) && !json_length(input))
        return request_wrong(r, "input", "input: at least one item is required");
    Json *list = previous_items(r);
    if (!list)
        return false;
    *n_before = json_length(list);
    bool ok = push_input(r, list, input);
    if (ok && json_object_object_add(r->t->json, "input", list) == 0)
        return true;
    json_free(list);
    return ok ? request_no_memory(r) : false;
}

/* ---- what an assistant says ----------------------------------------------------------- */

static void put_paragraph(Bytes *b, Str s)
{
    if (b->n && s.n)
        bytes_str(b, "\n\n");
    bytes_put(b, s.p, s.n);
}

/* Ends the assistant's message, if there is one. */
static bool flush(Reading *g)
{
    Said said = { .handle = g->handle, .calls = g->calls, .n_calls = g->n_calls };
    if (!g->speaking)
        return true;
    if (!request_keep(g->r, &g->reasoning, &said.reasoning) ||
        !request_keep(g->r, &g->content, &said.content))
        return false;
    g->speaking = g->spoke = false;
    g->handle = (Str){ 0 };
    g->calls = NULL;
    g->n_calls = g->cap_calls = 0;
    return conversation_assistant(&g->c, &said);
}

/* What was thought first begins a message. */
static bool take_reasoning(Reading *g, const Json *item)
{
    Str text, handle = json_text(json_member(item, "encrypted_content"));
    if ((g->spoke && !flush(g)) ||
        !content_text(g->r, json_member(item, "content"), CONTENT_OF_OTHERS, &text) ||
        (!text.n && !content_text(g->r, json_member(item, "summary"), CONTENT_OF_OTHERS, &text)))
        return false;
    g->speaking = true;
    put_paragraph(&g->reasoning, text);
    if (handle.n)
        g->handle = handle;
    return true;
}

/* ---- calls ------------------------------------------------------------------------------ */

static bool grow_calls(Reading *g)
{
    if (g->n_calls < g->cap_calls)
        return true;
    size_t cap = g->cap_calls ? 2 * g->cap_calls : 4;
    ChatCall *calls = arena_array(&g->r->t->arena, cap, sizeof *calls);
    if (!calls)
        return request_no_memory(g->r);
    if (g->n_calls)
        memcpy(calls, g->calls, g->n_calls * sizeof *calls);
    g->calls = calls;
    g->cap_calls = cap;
    return true;
}

static bool add_call(Reading *g, Str id, Str name, Str arguments)
{
    if (!id.n || !name.n)
        return request_wrong(g->r, "input", "%s[%zu]: a call needs a call_id and a name",
                             g->r->list, g->r->at);
    if (!grow_calls(g))
        return false;
    g->speaking = g->spoke = true;
    g->calls[g->n_calls++] = (ChatCall){ id, name, arguments };
    return true;
}

/* The call that an item is, or answers. The shell's have an id only. */
static Str call_id(const Json *item)
{
    Str id = json_text(json_member(item, "call_id"));
    bool shell = is(item, "local_shell_call") || is(item, "local_shell_call_output");
    return id.n || !shell ? id : json_text(json_member(item, "id"));
}

static bool take_arguments(Request *r, const Json *arguments, Str *out)
{
    if (json_is_object(arguments))
        return request_json(r, arguments, out);
    if (arguments && !json_is_text(arguments))
        return request_wrong(r, "input", "%s[%zu]: the arguments are no string", r->list, r->at);
    return request_clean(r, json_text(arguments), out);
}

static bool take_function_call(Reading *g, const Json *item)
{
    Str name, arguments;
    return tools_full_name(g->r, json_text(json_member(item, "namespace")),
                           json_text(json_member(item, "name")), &name) &&
           take_arguments(g->r, json_member(item, "arguments"), &arguments) &&
           add_call(g, call_id(item), name, arguments);
}

/* The model was shown a function of one text. */
static bool take_custom_call(Reading *g, const Json *item)
{
    Bytes b = { 0 };
    Str name, arguments;
    tools_custom_arguments(json_text(json_member(item, "input")), &b);
    return request_keep(g->r, &b, &arguments) &&
           tools_full_name(g->r, json_text(json_member(item, "namespace")),
                           json_text(json_member(item, "name")), &name) &&
           add_call(g, call_id(item), name, arguments);
}

/* Without an id it was a server that searched. */
static bool take_search_call(Reading *g, const Json *item)
{
    Str arguments;
    return !call_id(item).n || (take_arguments(g->r, json_member(item, "arguments"), &arguments) &&
                                add_call(g, call_id(item), STR(TOOL_SEARCH), arguments));
}

/* What the model said, of what the API makes of it: nothing that is empty. */
static void write_action(Bytes *b, const Json *action)
{
    const char *comma = "";
    bytes_byte(b, '{');
    json_object_object_foreach(action, key, value)
    {
        if (strcmp(key, "type") == 0 || !value ||
            (json_is_object(value) && !json_object_object_length(value)))
            continue;
        bytes_str(b, comma);
        json_write_str(b, str_of(key));
        bytes_str(b, ": ");
        json_write(b, value);
        comma = ", ";
    }
    bytes_byte(b, '}');
}

static bool take_shell_call(Reading *g, const Json *item)
{
    const Json *action = json_member(item, "action");
    Bytes b = { 0 };
    Str arguments;
    if (!json_is_object(action))
        return request_wrong(g->r, "input", "%s[%zu]: the action is no object", g->r->list,
                             g->r->at);
    write_action(&b, action);
    return request_keep(g->r, &b, &arguments) &&
           add_call(g, call_id(item), STR(LOCAL_SHELL), arguments);
}

/* ---- results ------------------------------------------------------------------------------ */

static int compare_ids(const void *a, const void *b)
{
    const Str *x = a, *y = b;
    size_t n = MIN(x->n, y->n);
    int order = n ? memcmp(x->p, y->p, n) : 0;
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static bool add_result(Reading *g, Str id, Str text)
{
    if (!bsearch(&id, g->known, g->n_known, sizeof id, compare_ids))
        return api_fail(g->r->e, 400, "unknown_call_id", "input",
                        "%s[%zu]: unknown call_id '%.*s': the conversation has no such call",
                        g->r->list, g->r->at, STR_ARG(id));
    return conversation_result(&g->c, id, text);
}

static bool take_result(Reading *g, const Json *item)
{
    Str text;
    return flush(g) && content_text(g->r, json_member(item, "output"), CONTENT_OF_OTHERS, &text) &&
           add_result(g, call_id(item), text);
}

/* What was found answers a call, or was put there by somebody else. */
static bool take_tools(Reading *g, const Json *item)
{
    Str text, id = call_id(item);
    return flush(g) && responses_found_tools(g->r, json_member(item, "tools"), &text) &&
           (id.n ? add_result(g, id, text) : conversation_system(&g->c, text));
}

/* ---- items --------------------------------------------------------------------------------- */

static bool take_message(Reading *g, const Json *item)
{
    const Json *role = json_member(item, "role");
    Str text;
    bool assistant = json_is(role, "assistant");
    if ((!assistant && !flush(g)) ||
        !content_text(g->r, json_member(item, "content"), CONTENT_OF_OTHERS, &text))
        return false;
    if (json_is(role, "user"))
        return conversation_user(&g->c, text);
    if (json_is(role, "system") || json_is(role, "developer"))
        return conversation_system(&g->c, text);
    if (!assistant)
        return request_wrong(g->r, "input",
                             "%s[%zu]: the role '%.*s' is none of user, assistant, system, "
                             "developer",
                             g->r->list, g->r->at, STR_ARG(json_text(role)));
    g->speaking = g->spoke = true;
    put_paragraph(&g->content, text);
    return true;
}

/* It asks for an item that only the makers of others could read. */
static bool refuse(Reading *g, const Json *item)
{
    return request_wrong(g->r, "input", "%s[%zu]: '%.*s' is not supported", g->r->list, g->r->at,
                         STR_ARG(json_text(json_member(item, "type"))));
}

typedef struct {
    const char *type;
    bool (*take)(Reading *g, const Json *item);
    bool call;
} Kind;

static const Kind kinds[] = {
    { "message", take_message, false },
    { "reasoning", take_reasoning, false },
    { "function_call", take_function_call, true },
    { "function_call_output", take_result, false },
    { "custom_tool_call", take_custom_call, true },
    { "custom_tool_call_output", take_result, false },
    { "local_shell_call", take_shell_call, true },
    { "local_shell_call_output", take_result, false },
    { "tool_search_call", take_search_call, true },
    { "tool_search_output", take_tools, false },
    { "additional_tools", take_tools, false },
    { "compaction_trigger", refuse, false },
};

/* NULL: one that is passed over. */
static const Kind *kind_of(const Json *item)
{
    const Json *type = json_member(item, "type");
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (json_is(type, kinds[i].type))
            return &kinds[i];
    return type ? NULL : &kinds[0];
}

static bool take_item(Reading *g, const Json *item)
{
    const Kind *kind = kind_of(item);
    return !kind || kind->take(g, item);
}

/* A result of the shell names its call by either id. */
static bool know_calls(Reading *g, const Json *items)
{
    g->known = arena_array(&g->r->t->arena, 2 * json_length(items), sizeof *g->known);
    if (!g->known)
        return request_no_memory(g->r);
    for (size_t i = 0; i < json_length(items); i++) {
        const Json *item = json_at(items, i);
        const Kind *kind = kind_of(item);
        Str id = call_id(item), own = json_text(json_member(item, "id"));
        if (kind && kind->call && id.n)
            g->known[g->n_known++] = id;
        if (is(item, "local_shell_call") && own.n)
            g->known[g->n_known++] = own;
    }
    qsort(g->known, g->n_known, sizeof *g->known, compare_ids);
    return true;
}
