/* prompt.h - a request in any of the forms that there are to its prompt. */
#ifndef PROMPT_H
#define PROMPT_H
#include "../text/chat.h"

/* Texts of the prompt live as long as the call. */
typedef bool (*PromptFn)(void *user, const ds4_vocab *v, const ChatPrompt *p, ds4_err *err);

/* api: chat, messages, responses as the server reads them, or native: the official
 * encoder's arguments, by its own rules. */
bool prompt_of(const char *api, Str json, const ds4_vocab *v, bool preview, PromptFn fn, void *user,
               ds4_err *err);

#endif
