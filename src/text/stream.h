/* stream.h - sampled tokens to events, as they come.
 *
 * Control tokens are recognized by id, everything else by bytes. Events never
 * split a UTF-8 character, and joined together they do not depend on how the
 * bytes were cut into tokens. Held back: incomplete characters, text that may
 * be the start of a stop string or of a tool block, two line breaks before one.
 * What is not UTF-8 becomes U+FFFD, byte by byte; a character that is incomplete
 * where the answer ends is dropped. Spec: encoding 9.2, 9.4. */
#ifndef STREAM_H
#define STREAM_H
#include "../base/bytes.h"
#include "vocab.h"

enum StreamKind {
    STREAM_REASONING,
    STREAM_TEXT,
    STREAM_CALL_BEGIN, /* bytes: the tool's name */
    STREAM_CALL_ARGS,  /* a piece of the arguments' JSON object; of a custom tool's input */
    STREAM_CALL_END    /* a call that never ends was cut off, and is none */
};
typedef struct {
    enum StreamKind kind;
    int call; /* from 0, in the order of their beginnings */
    Str bytes;
} StreamEvent;
typedef void (*StreamFn)(void *user, const StreamEvent *e);

/* Where the parser is: what the sampler and the budget rules ask. */
enum StreamState {
    STREAM_IN_THINK,
    STREAM_IN_TEXT,
    STREAM_IN_MARKUP,
    STREAM_IN_VALUE,
    STREAM_DONE
};

/* What is known of the tools; any but declared may be NULL. Decides recovery
 * and the type of values. */
typedef struct {
    bool (*declared)(void *user, Str tool); /* NULL: no tools, and no markup */
    /* Is the parameter's schema a string? 1 yes, 0 no, -1: there is none. */
    int (*is_string)(void *user, Str tool, Str parameter);
    /* Its one parameter is an input of free form: no JSON, just the bytes. */
    bool (*is_custom)(void *user, Str tool);
    void *user;
} StreamTools;

typedef struct {
    bool thinking;   /* the prompt ended in <think> */
    const Str *stop; /* strings that end the text; not in thinking or calls */
    size_t n_stop;
    StreamTools tools;
    size_t max_bytes; /* of one answer; 0: 64 MiB */
} StreamOptions;

typedef struct Stream Stream;

/* Copies the options; v stays borrowed (NULL: only text will come). The StreamFn is called from within the
 * calls below. NULL: no memory. */
Stream *stream_new(const ds4_vocab *v, const StreamOptions *opt, StreamFn fn, void *user);
void stream_free(Stream *s);
bool stream_token(Stream *s, int32_t id); /* false: the answer is over */
/* Text of which control tokens are spelled out: for parse and tests. */
bool stream_text(Stream *s, Str bytes);
void stream_finish(Stream *s); /* no more will come: flush, close */
enum StreamState stream_state(const Stream *s);
int stream_calls(const Stream *s); /* complete calls so far */
/* What ended it, {NULL, 0}: not a stop string. */
Str stream_stopped_by(const Stream *s);
/* Ended by the lack of memory. */
bool stream_failed(const Stream *s);
/* Counts of what was repaired and of the calls that were dropped. */
typedef struct {
    int recovered, dropped;
} StreamRepairs;
StreamRepairs stream_repairs(const Stream *s);

#endif
