/* messages_in.h - Anthropic's /v1/messages and count_tokens: body to Turn. */
#ifndef MESSAGES_IN_H
#define MESSAGES_IN_H
#include "dialect.h"

bool messages_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                    ApiError *e);

#endif
