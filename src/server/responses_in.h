/* responses_in.h - OpenAI's /v1/responses: body to Turn, and what outlives an
 * answer. */
#ifndef RESPONSES_IN_H
#define RESPONSES_IN_H
#include "dialect.h"
#include "responses_store.h"

bool responses_parse(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                     ApiError *e);

/* The id that the client knows an answer of dialect_responses by. */
const char *responses_id(const Answer *a);
/* Keeps an answer that has ended with EV_FINISH, unless its request says not to.
 * What cannot be kept is forgotten: the client has it. */
void responses_done(Answer *a, ResponseStore *s);

#endif
