/* request.h - a request's JSON to the messages and options of a prompt. */
#ifndef REQUEST_H
#define REQUEST_H
#include "../text/chat.h"

struct json_object;

/* Texts are views of the JSON or of the arena. */
typedef struct {
    struct json_object *json;
    Arena arena;
    ChatMessage *m;
    size_t n;
    ChatOptions opt;
} Request;

/* An OpenAI chat completion. System texts that come after the first user are
 * kept in place, as a reminder in the user's turn. */
bool request_chat(Request *r, Str json, bool preview, ds4_err *err);

/* The official encoder's own arguments, by its own strict rules: messages,
 * thinking_mode, context, and params with drop_thinking,
 * add_default_bos_token, reasoning_effort, context. */
bool request_native(Request *r, Str json, bool preview, ds4_err *err);

void request_release(Request *r);

#endif
