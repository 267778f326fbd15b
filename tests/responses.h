/* responses.h - bodies, items and events of Responses, for tests. */
#ifndef RESPONSES_TEST_H
#define RESPONSES_TEST_H
#include "requests.h"
#include "../src/server/responses_in.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- bodies ----------------------------------------------------------------------- */

static Arena bodies; /* released by main */

/* {MEMBERS "input": [ITEMS]}; the items up to NULL. */
static inline const char *body_of(const char *members, const char *const *items)
{
    Bytes b = { 0 };
    bytes_printf(&b, "{%s\"input\": [", members);
    for (size_t i = 0; items[i]; i++)
        bytes_printf(&b, "%s%s", i ? ", " : "", items[i]);
    bytes_str(&b, "]}");
    const char *kept = arena_str(&bodies, bytes_view(&b));
    assert_non_null(kept);
    bytes_release(&b);
    return kept;
}

#define BODY(members, ...) body_of(members, (const char *const[]){ __VA_ARGS__, NULL })
#define ASKED              "\"input\": \"hi\"}"
#define SAYS(text)         "{\"role\": \"user\", \"content\": \"" text "\"}"
#define REASONING(id, text) \
    "{\"type\": \"reasoning\", \"id\": \"" id "\", \"summary\": [{\"type\": \"summary_text\", " \
    "\"text\": \"" text "\"}], \"content\": null, \"encrypted_content\": \"h-" id "\"}"
#define SAID(text) \
    "{\"type\": \"message\", \"role\": \"assistant\", \"status\": \"completed\", \"content\": " \
    "[{\"type\": \"output_text\", \"text\": \"" text "\", \"annotations\": []}]}"
#define CALL(id, name) \
    "{\"type\": \"function_call\", \"call_id\": \"" id "\", \"name\": \"" name \
    "\", \"arguments\": \"{\\\"a\\\": 1}\"}"
#define OUTPUT(id, text) \
    "{\"type\": \"function_call_output\", \"call_id\": \"" id "\", \"output\": \"" text "\"}"

static inline bool parse_with(const ServerInfo *s, const char *text, Turn *t, ApiError *e)
{
    ds4_err err;
    *e = (ApiError){ 0 };
    Json *body = json_read(str_of(text), &err);
    if (!body)
        fail_msg("%s: %s", err.msg, text);
    turn_init(t, API_RESPONSES);
    snprintf(t->request_id, sizeof t->request_id, "req_0123456789abcdef01234567");
    bool ok = dialect_responses.parse(t, body, NULL, s, e);
    assert_int_equal(ok, e->status == 0);
    if (!ok)
        turn_release(t);
    return ok;
}

static inline void parse_at(const ServerInfo *s, const char *text, Turn *t)
{
    ApiError e;
    if (!parse_with(s, text, t, &e))
        fail_msg("%s: %s", text, e.message);
}

static inline void parse(const char *text, Turn *t) { parse_at(&test_server, text, t); }

static inline void str_is(Str got, const char *want)
{
    if (!str_eq(got, str_of(want)))
        fail_msg("\"%.*s\", not \"%s\"", STR_ARG(got), want);
}

/* ---- events ------------------------------------------------------------------------ */

#define ID(n) "0000000000000000000000000000000" #n

static inline Event text(const char *s) { return (Event){ .kind = EV_TEXT, .bytes = str_of(s) }; }

static inline Event thought(const char *s, const char *handle)
{
    return (Event){ .kind = EV_REASONING, .bytes = str_of(s), .handle = handle };
}

static inline Event call(const Tool *tool, const char *name, const char *id)
{
    return (Event){ .kind = EV_TOOL_BEGIN, .tool = tool, .name = str_of(name), .call_id = id };
}

static inline Event arguments(const char *s)
{
    return (Event){ .kind = EV_TOOL_ARGS, .bytes = str_of(s) };
}

static const Event call_end = { .kind = EV_TOOL_END };

static inline Event finish(enum Finish how)
{
    return (Event){ .kind = EV_FINISH,
                    .finish = how,
                    .usage = { .prompt = 20, .cached = 12, .completion = 5, .reasoning = 2 } };
}

#endif
