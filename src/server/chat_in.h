/* chat_in.h - OpenAI's /v1/chat/completions: body to Turn. */
#ifndef CHAT_IN_H
#define CHAT_IN_H
#include "dialect.h"

bool chat_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                ApiError *e);

#endif
