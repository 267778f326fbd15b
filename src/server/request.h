/* request.h - what the dialects' readers share: a body being turned into a Turn.
 *
 * Unknown members are ignored. A member that is known and says what cannot be
 * done, or is of the wrong type, is refused and named. null is as absent. */
#ifndef REQUEST_H
#define REQUEST_H
#include "dialect.h"
#include "../json/json.h"

typedef struct {
    Turn *t;
    const Json *body;
    const Headers *headers;
    const ServerInfo *info;
    ApiError *e;
    /* For messages of errors: the list being read ("messages") and the place
     * in it. */
    const char *list;
    size_t at;
    size_t expanded; /* bytes that references to tools were replaced by */
} Request;

/* The first step of every parse: takes the body over, reads model, stream, and
 * the keys of session, agent and parent. */
bool request_begin(Request *r, Turn *t, Json *body, const Headers *h, const ServerInfo *s,
                   ApiError *e);

/* Is it a name that the loaded model answers to, also where models are told apart? */
bool request_knows_model(Str name, const ServerInfo *s);

/* return request_wrong(r, "top_k", "...", ...): 400 that names the parameter. */
bool request_wrong(Request *r, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool request_no_memory(Request *r);

const char *request_header(const Request *r, const char *name); /* "" where absent */

/* ---- texts ------------------------------------------------------------------------ */

/* s as the prompt has it, without NULs: a view where there are none. */
bool request_clean(Request *r, Str s, Str *out);
/* What was written into b, kept with the turn; b is released. */
bool request_keep(Request *r, Bytes *b, Str *out);
/* The same as a line of JSON in the form of json.h. */
bool request_json(Request *r, const Json *o, Str *out);
/* The text of a member: false where it is something else. Absent: *out stays. */
bool request_text(Request *r, const char *key, Str *out);
/* The text or the switch of a member of o, the r->at-th of a list. Absent: *out stays. */
bool request_text_of(Request *r, const char *list, const Json *o, const char *key, Str *out);
bool request_bool_of(Request *r, const char *list, const Json *o, const char *key, bool *out);

/* ---- numbers and switches: absent leaves *out as it is ------------------------------ */

bool request_bool(Request *r, const char *key, bool *out);
bool request_real(Request *r, const char *key, double min, double max, float *out);
bool request_int(Request *r, const char *key, int min, int max, int *out);
/* At least 1; what is too large is as much as fits. */
bool request_max_tokens(Request *r, const char *key);
/* stream_options.include_usage. */
bool request_stream_options(Request *r);
/* Only one answer may be asked for. */
bool request_one_answer(Request *r, const char *key);

/* temperature, top_p, top_k, min_p, seed and the penalties. While the model
 * thinks they are read but not followed, unless the server says so: after
 * thinking is settled. */
bool request_sampling(Request *r);
bool request_stop(Request *r, const char *key, size_t most);
bool request_logit_bias(Request *r);

/* ---- the form of the answer ---------------------------------------------------------- */

/* A json_schema of which this is the schema. */
bool request_schema(Request *r, Json *schema, const char *param);
/* grammar and regex, extensions of the OpenAI APIs. */
bool request_grammar(Request *r);

#endif
