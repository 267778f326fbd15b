/* dialect.h - an API as a table of functions: no socket, no model in them.
 *
 * For a streaming answer the server calls start, then event for each Event,
 * heartbeat when nothing was sent for a while, and sends what they append.
 * For a plain answer it calls event with out NULL, and reply at the end. An
 * EV_ERROR for which event appends nothing is told by resetting the connection:
 * that is how a client learns that it should try again. */
#ifndef DIALECT_H
#define DIALECT_H
#include "turn.h"

/* What dialects may say about the server. */
typedef struct {
    const char *model; /* the loaded model's id */
    int context, max_output;
    int default_think;
    bool strict_model, strict_media, strict_anthropic, client_sampling, usage_plain;
    bool schema_in_prompt;           /* the form of an answer is also said in words */
    int64_t created;                 /* of the model object, seconds */
    struct ResponseStore *responses; /* that a request may go on from, or NULL */
} ServerInfo;

/* Request headers by lower-case name; NULL: absent. */
typedef const char *(*HeaderFn)(void *user, const char *name);
typedef struct {
    HeaderFn get;
    void *user;
} Headers;

/* The state of one answer in one API's form. */
typedef struct Answer Answer;

typedef struct {
    const char *name;
    /* Fills *t, which was made by turn_init, from body (which it takes over,
     * also on failure) and headers. The caller releases *t in any case. */
    bool (*parse)(Turn *t, struct json_object *body, const Headers *h, const ServerInfo *s,
                  ApiError *e);
    Answer *(*answer_new)(const Turn *t, const ServerInfo *s);
    void (*answer_free)(Answer *a);
    void (*start)(Answer *a, Bytes *out);
    void (*event)(Answer *a, const Event *e, Bytes *out);
    void (*heartbeat)(Answer *a, Bytes *out);
    /* The whole answer's JSON after EV_FINISH, when nothing was streamed: the
     * same Answer is fed by event() with out NULL. */
    void (*reply)(Answer *a, Bytes *out);
    /* An error's body, before anything of the answer was sent, and the HTTP
     * status that goes with it. */
    void (*error)(const ApiError *e, const char *request_id, Bytes *out);
    int (*status)(const ApiError *e);
} Dialect;

extern const Dialect dialect_chat, dialect_completions, dialect_messages, dialect_responses;

/* Random identifiers: prefix + 32 hex of a CSPRNG. buf holds 64. */
const char *new_id(char buf[64], const char *prefix);

#endif
