/* answer.h - one answer of the model: prompt in, text out as it comes. Shared
 * by run and chat. */
#ifndef ANSWER_H
#define ANSWER_H
#include "cli.h"
#include "../text/chat.h"

/* The options of sampling and thinking, as a table over *o. */
typedef struct {
    float temp, top_p, min_p;
    int top_k, tokens; /* tokens 0: until the context is full */
    uint64_t seed;
    bool think, nothink, think_max;
    const char *system;
    Option table[14];
} AnswerOptions;
const Option *answer_options(AnswerOptions *o); /* fills in the defaults, seed by the clock */
/* -1, or 2 after a message: two modes of thinking at once. */
int answer_check(const AnswerOptions *o);
int answer_thinking(const AnswerOptions *o); /* CHAT_THINK_OFF, _HIGH or _MAX */

/* Messages to tokens, for the release of the model that the engine holds.
 * think: CHAT_THINK_OFF, CHAT_THINK_HIGH (no effort asked for) or CHAT_THINK_MAX. */
bool answer_prompt(const ds4_engine *e, const ChatMessage *m, size_t n, int think, Tokens *out,
                   ds4_err *err);
/* Text as the whole prompt: control tokens in it are recognised, and the
 * begin-of-sentence token is put before it where it is missing. */
bool answer_raw_prompt(const ds4_engine *e, Str text, Tokens *out, ds4_err *err);

/* What comes out, in whole UTF-8 characters. */
typedef bool (*AnswerShow)(void *user, bool reasoning, Str text, ds4_err *err);

typedef struct {
    ds4_engine *engine;
    ds4_session *session;
    const Tokens *prompt;
    const AnswerOptions *how;
    uint64_t *rng;
    bool reasoning; /* the prompt ends inside <think> */
    bool raw;       /* only the end-of-sentence token ends it */
    AnswerShow show;
    void *user;
} Question;

typedef struct {
    Bytes reasoning, content;
    const char *finish;                  /* "stop", "length", "context", "interrupted" */
    int prompt, reused, tokens, steps;   /* steps: tokens that were fed back */
    double prefill_s, first_s, decode_s; /* first_s: from the start to the first token */
} Answer;

/* Ctrl-C ends the answer: no error, finish says so. */
bool answer_make(const Question *q, Answer *out, ds4_err *err);
void answer_release(Answer *a);
/* "812 prompt tokens 95.1/s, 120 tokens 31.0/s" */
void answer_speeds(const Answer *a, char *buf, size_t n);

/* An AnswerShow for stdout. On a terminal reasoning is shown dim before the
 * answer; elsewhere only the answer. Zero, then printer_init. */
typedef struct {
    bool terminal, color, in_reasoning, began, at_line_start;
} Printer;
void printer_init(Printer *p);
bool printer_show(void *printer, bool reasoning, Str text, ds4_err *err);
bool printer_end(Printer *p, ds4_err *err); /* closes the line */

#endif
