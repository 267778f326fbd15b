/* native.h - the official encoder's own arguments to the messages and options of
 * a prompt. What the APIs' clients send is read by the server's dialects. */
#ifndef NATIVE_H
#define NATIVE_H
#include "../text/chat.h"

struct json_object;

/* Texts are views of the JSON or of the arena. */
typedef struct {
    struct json_object *json;
    Arena arena;
    ChatMessage *m;
    size_t n;
    ChatOptions opt;
} Native;

/* The official encoder's own arguments, by its own strict rules: messages,
 * thinking_mode, context, and params with drop_thinking,
 * add_default_bos_token, reasoning_effort, context. */
bool native_read(Native *r, Str json, bool preview, ds4_err *err);

void native_release(Native *r);

#endif
