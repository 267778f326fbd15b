/* turn.h - the hub: one canonical request and the events of its answer.
 *
 * The three APIs are dialects of this. A dialect turns a JSON body into a
 * Turn and Events into bytes; nothing else in the server knows which API a
 * client speaks. All text of a Turn lives in its arena or its JSON. */
#ifndef TURN_H
#define TURN_H
#include "../base/arena.h"
#include "../base/bytes.h"
#include "../text/chat.h"

struct json_object;

enum Api { API_CHAT, API_COMPLETIONS, API_MESSAGES, API_RESPONSES, N_APIS };

/* What a client may be told to call. Tools of a namespace are known to the
 * model as ns__name; the dialect gives both parts back. */
enum ToolKind { TOOL_FUNCTION, TOOL_CUSTOM };
typedef struct {
    enum ToolKind kind;
    Str name;                       /* as the model sees it */
    Str wire_name, space;           /* as the client sees it; space empty: no namespace */
    Str description;                /* empty: none */
    Str function;                   /* the schema line of the prompt, canonical JSON */
    struct json_object *parameters; /* JSON schema; NULL: any object */
    Str grammar, syntax;            /* custom: "lark", "regex", or empty for free text */
    bool deferred;                  /* known, but not in the tools block */
    bool barred;                    /* in the tools block, but not to be called (allowed_tools) */
    bool strict;                    /* all of its schema must be kept to, or it is refused */
} Tool;

enum ToolChoice { CHOOSE_AUTO, CHOOSE_NONE, CHOOSE_REQUIRED, CHOOSE_NAMED };

enum FormatKind { FORMAT_TEXT, FORMAT_JSON_OBJECT, FORMAT_JSON_SCHEMA, FORMAT_REGEX, FORMAT_LARK };

typedef struct {
    int32_t token;
    float bias;
} LogitBias;

typedef struct {
    enum Api api;
    struct json_object *json; /* the body: owned */
    Arena arena;
    char request_id[40]; /* "req_" + 24 hex */
    Str model;           /* the name the client used: echoed */

    /* the prompt: messages, or a raw one (completions) */
    ChatMessage *messages;
    size_t n_messages;
    /* [n_messages]: what came with a message's reasoning (signature,
     * encrypted_content); empty: nothing. */
    Str *handles;
    uint64_t said[2]; /* all messages as a digest: recall_apply's */
    bool heard;       /* that is known */
    bool raw;
    Str raw_text;
    const int32_t *raw_ids;
    size_t n_raw_ids;

    Tool *tools;
    size_t n_tools;
    enum ToolChoice choice;
    Str choice_name;
    bool parallel; /* more than one call a turn is allowed */

    int think;         /* enum ChatThink */
    int think_budget;  /* tokens; 0: none */
    bool think_hidden; /* generate it, but do not show its text */
    enum FormatKind format;
    struct json_object *schema; /* json_schema */
    Str format_text;            /* regex, lark */

    float temperature, top_p, min_p; /* NAN: the server's default */
    int top_k;                       /* -1: default */
    float presence_penalty, frequency_penalty;
    uint64_t seed;
    bool has_seed;
    int max_tokens; /* 0: as many as fit */
    Str *stop;
    size_t n_stop;
    LogitBias *bias;
    size_t n_bias;
    bool logprobs;
    int top_logprobs;

    bool stream, include_usage, return_progress;
    bool store;        /* responses */
    bool context_stop; /* messages: knows model_context_window_exceeded */
    bool show_reasoning_summary, include_encrypted; /* responses */
    bool waits;                 /* for others to be answered, when the answer's stream starts */
    bool echo;                  /* completions */
    Str session, agent, parent; /* keys the client sends; may be empty */
    bool session_is_shared;     /* it is a user's or a cache's name, not a conversation's */
} Turn;

void turn_init(Turn *t, enum Api api);
void turn_release(Turn *t);

/* ---- the answer ---------------------------------------------------------------- */

enum EventKind {
    EV_REASONING,
    EV_TEXT,       /* bytes: whole UTF-8 characters */
    EV_TOOL_BEGIN, /* tool, call */
    EV_TOOL_ARGS,  /* bytes: a piece of the arguments' JSON, or of a custom input */
    EV_TOOL_END,
    EV_PROGRESS, /* usage.cached, prompt; done: prompt tokens in the model */
    EV_FINISH,   /* finish, usage; the last */
    EV_ERROR     /* error; the last */
};

enum Finish {
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_TOOL_CALLS,
    FINISH_STOP_SEQUENCE,
    FINISH_CONTEXT,
    FINISH_LOOP /* a repetition was ended: told as stop, with a reason */
};

typedef struct {
    int prompt, cached, completion, reasoning;
    double prompt_ms, completion_ms;
} Usage;

/* An error before or within an answer. status: HTTP's; type and code as OpenAI
 * names them, the dialects translate. retry_after in seconds, 0: none. */
typedef struct {
    int status;
    const char *type, *code, *param;
    char message[512];
    int retry_after;
    int n_prompt, n_context; /* of a prompt that is too long */
} ApiError;

/* Always false. type follows from status; code and param must outlive *e. */
bool api_fail(ApiError *e, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

typedef struct {
    Str token;
    float logprob;
} TokenLogprob;

typedef struct {
    enum EventKind kind;
    Str bytes;
    int index;        /* of the call, from 0 */
    const Tool *tool; /* EV_TOOL_BEGIN; NULL: a name nobody declared, in `name` */
    Str name;
    const char *call_id; /* EV_TOOL_*: the dialect's prefix is part of it */
    /* Opaque handle of the state: of EV_REASONING's last, whose bytes may be
     * empty, and of EV_FINISH; NULL: none. */
    const char *handle;
    enum Finish finish;
    Str stop_sequence;
    Usage usage;
    int done;
    const ApiError *error;
    /* Of EV_TEXT, or NULL: [n_logprobs][logprob_width], for each token in bytes
     * itself first; logprob_width is 1 + top_logprobs. */
    const TokenLogprob *logprobs;
    size_t n_logprobs, logprob_width;
} Event;

#endif
