/* questions.h - a small examination: questions and the keys that answers are graded by.
 *
 * All of it is our own. Numbers, words and documents follow from a set's number, so there are as
 * many examinations as one likes; calls and forms are the same in each. */
#ifndef QUESTIONS_H
#define QUESTIONS_H
#include "../base/arena.h"
#include "../base/bytes.h"
#include "grade.h"

enum Suite {
    SUITE_ARITHMETIC,
    SUITE_STRINGS,
    SUITE_TOOLS,
    SUITE_INSTRUCTIONS,
    SUITE_RECALL,
    N_SUITES
};
extern const char *const suite_names[N_SUITES];

enum { FIRST_SET = 1, QUESTION_ID = 24 };
enum { RECALL_LEAST = 1024, RECALL_MOST = 131072 }; /* tokens of a prompt, doubled each time */

typedef struct {
    char id[QUESTION_ID];
    enum Suite suite;
    Str prompt;       /* of recall: what is asked after the document */
    const char *form; /* the prompt of every set, with %d and %s; NULL: it is the same in each */
    bool tools;       /* are offered */
    Key key;
    int tokens, depth; /* of recall: the prompt's, and where the fact stands, in percent */
    Str fact;          /* of recall */
    uint64_t seed;     /* of the document */
} ExamQuestion;

typedef struct {
    ExamQuestion *question;
    size_t n;
    Arena arena;
} Exam;

/* The examination of a set; recall up to so many tokens. */
bool questions_make(Exam *q, uint64_t set, int most_tokens, ds4_err *err);
void questions_release(Exam *q);

/* The functions that questions of tools offer, a JSON object each, in the form of json.h. */
const Str *questions_tools(size_t *n);

/* The user's message. tokens_of counts those of a text; a document has `tokens` of them with the
 * question, less what one sentence has. */
typedef size_t (*TokensOf)(void *user, Str text);
bool question_text(const ExamQuestion *q, TokensOf tokens_of, void *user, Bytes *out, ds4_err *err);

/* The name of a question that is in this text, its words in their order; "": none is. Of the first
 * set all are looked for; of other sets those whose words are not everybody's ("What is 2 + 3?"). */
bool questions_find(Str text, char id[QUESTION_ID], ds4_err *err);

#endif
