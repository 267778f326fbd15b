/* requests.h - bodies and recorded requests into Turns, for tests. */
#ifndef REQUESTS_H
#define REQUESTS_H
#include "../src/base/file.h"
#include "../src/json/json.h"
#include "../src/server/dialect.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define RECORDED "tests/data/client_requests/"

/* Random identifiers would make no golden. */
static unsigned ids_given;

const char *new_id(char buf[64], const char *prefix)
{
    snprintf(buf, 64, "%s%032x", prefix, ++ids_given);
    return buf;
}

static const ServerInfo test_server = { .model = "deepseek-v4-flash",
                                        .context = 131072,
                                        .max_output = 65536,
                                        .default_think = CHAT_THINK_HIGH };

/* A recorded request's [[name, value], ...]. */
static inline const char *recorded_header(void *user, const char *name)
{
    const Json *list = user;
    for (size_t i = 0; i < json_length(list); i++) {
        const char *have = json_text(json_at(json_at(list, i), 0)).p;
        size_t k = 0;
        while (have[k] && name[k] && tolower((unsigned char)have[k]) == name[k])
            k++;
        if (!have[k] && !name[k])
            return json_text(json_at(json_at(list, i), 1)).p;
    }
    return NULL;
}

/* The dialect that a recorded request is for; NULL: none of ours. */
static inline const Dialect *recorded_dialect(const Json *request)
{
    static const struct {
        Str path;
        const Dialect *dialect;
    } paths[] = {
        { { "/v1/messages", 12 }, &dialect_messages },
        { { "/v1/chat/completions", 20 }, &dialect_chat },
        { { "/v1/responses", 13 }, &dialect_responses },
    };
    Str url = json_text(json_member(request, "url"));
    if (!json_is(json_member(request, "method"), "POST"))
        return NULL;
    for (size_t i = 0; i < COUNT(paths); i++)
        if (url.n >= paths[i].path.n && memcmp(url.p, paths[i].path.p, paths[i].path.n) == 0)
            return paths[i].dialect;
    return NULL;
}

static inline enum Api dialect_api(const Dialect *d)
{
    return d == &dialect_messages    ? API_MESSAGES
           : d == &dialect_responses ? API_RESPONSES
           : d == &dialect_chat      ? API_CHAT
                                     : API_COMPLETIONS;
}

#endif
