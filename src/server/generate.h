/* generate.h - one answer, token by token: what is sampled, and what is told.
 *
 * The engine's thread asks for the next token when the logits are there, feeds
 * it, and asks again. Sampling, constraints, the thinking budget, the loop
 * breaker and the ends of an answer are here; sessions and steps are not. */
#ifndef GENERATE_H
#define GENERATE_H
#include "job.h"

typedef struct {
    const ds4_vocab *vocab;
    Recall *recall;
    Metrics *metrics;
    int context;
    bool loop_guard;
} GenerateEnv;

typedef struct Generation Generation;

/* j and env stay borrowed. NULL: no memory, and *e says so. */
Generation *generation_new(Job *j, const GenerateEnv *env, ApiError *e);
void generation_free(Generation *g);

/* By what an answer is known when it is sent back: its handle and the ids of its calls, of
 * which the last ones count. */
enum { ANSWER_NAMES = 9 };
typedef struct {
    char name[ANSWER_NAMES][64];
    size_t n; /* that were given */
} AnswerNames;
AnswerNames generation_names(const Generation *g);
bool answer_has_name(const AnswerNames *names, Str name);

/* The prompt has been read: so many of its tokens were reused, the rest took so long. */
void generation_begin(Generation *g, int cached, double prompt_ms);

/* The next token, from s's logits. False: the answer is over, and its last
 * event told. */
bool generation_next(Generation *g, ds4_session *s, int32_t *token);

/* How it ended, for the log: "stop", "length", ... or the error's code. */
const char *generation_ending(const Generation *g);
Usage generation_usage(const Generation *g);
/* A loop that was ended, said in words; "" where there was none. */
const char *generation_loop(const Generation *g);

#endif
