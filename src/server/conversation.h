/* conversation.h - messages in the order and form in which the prompt has them.
 *
 * Systems in front make up the one system message, which also holds the tools.
 * A later one is never moved to the front, which would change every token after
 * it, and the model's own form for it is none to rely on: it becomes a reminder
 * in the user's turn where it stands. */
#ifndef CONVERSATION_H
#define CONVERSATION_H
#include "request.h"

typedef struct {
    Request *r;
    Bytes system;
    size_t n, cap; /* of messages; the first place is kept for the system's */
} Conversation;

typedef struct {
    Str reasoning, content;
    Str handle; /* opaque, came with the reasoning */
    const ChatCall *calls;
    size_t n_calls;
} Said;

bool conversation_system(Conversation *c, Str text);
bool conversation_user(Conversation *c, Str text);
bool conversation_result(Conversation *c, Str call_id, Str text);
bool conversation_assistant(Conversation *c, const Said *said);
/* Hands the messages and the tools to the turn. An assistant's message at the
 * end is one to go on with. */
bool conversation_end(Conversation *c);
void conversation_release(Conversation *c);

#endif
