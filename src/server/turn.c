/* turn.c - an empty request, its end, and errors with their types. */
#include "turn.h"
#include "../json/json.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

void turn_init(Turn *t, enum Api api)
{
    *t = (Turn){ .api = api,
                 .parallel = true,
                 .think = CHAT_THINK_HIGH,
                 .temperature = NAN,
                 .top_p = NAN,
                 .min_p = NAN,
                 .top_k = -1 };
}

void turn_release(Turn *t)
{
    json_free(t->json);
    arena_release(&t->arena);
    *t = (Turn){ 0 };
}

static const char *error_type(int status)
{
    if (status == 429)
        return "rate_limit_exceeded";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

bool api_fail(ApiError *e, int status, const char *code, const char *param, const char *fmt, ...)
{
    if (!e)
        return false;
    *e = (ApiError){ .status = status, .type = error_type(status), .code = code, .param = param };
    e->retry_after = status == 429 || status == 503 || status == 529;
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, args);
    va_end(args);
    return false;
}
