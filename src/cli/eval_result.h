/* eval_result.h - what came out of an examination, question by question, and the
 * file that it goes on from. */
#ifndef EVAL_RESULT_H
#define EVAL_RESULT_H
#include "../eval/questions.h"
#include "answer.h"

typedef struct {
    bool done, right;
    char why[GRADE_WHY]; /* it is wrong */
    int tokens;          /* of the answer */
    double seconds;
    Bytes line; /* all of it as a JSON object */
} EvalResult;

typedef struct {
    Exam exam;
    bool *asked;        /* [exam.n] */
    EvalResult *result; /* [exam.n] */
    Bytes header;       /* of the file: by whom, and how, the questions were answered */
} Sheet;

bool sheet_init(Sheet *s, uint64_t set, int most_tokens, const ValueList *only, ds4_err *err);
void sheet_release(Sheet *s);

/* answer: as it was sampled; given: as it was graded. */
void sheet_enter(Sheet *s, size_t i, const Answer *answer, const Given *given, bool right,
                 const char *why);

/* The file is JSON Lines: the header, then a line a question. */
bool sheet_load(Sheet *s, const char *path, ds4_err *err); /* none: nothing is done yet */
bool sheet_save(const Sheet *s, const char *path, ds4_err *err);

/* For people. */
void sheet_put_line(const Sheet *s, size_t i, Bytes *out);
void sheet_put_summary(const Sheet *s, Bytes *out);
/* One object: header, sums, lines. */
void sheet_put_json(const Sheet *s, Bytes *out);

typedef struct {
    int right, done, asked;
} Tally;
/* suite N_SUITES: all. */
Tally sheet_tally(const Sheet *s, int suite);

#endif
