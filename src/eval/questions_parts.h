/* questions_parts.h - what the files of the questions share. */
#ifndef QUESTIONS_PARTS_H
#define QUESTIONS_PARTS_H
#include "../base/rng.h"
#include "questions.h"

enum { MOST_QUESTIONS = 128 };

typedef struct {
    Exam *q;
    uint64_t rng;
    bool failed; /* memory */
} Maker;

/* One more question with this text; its number in the suite follows. */
ExamQuestion *maker_add(Maker *m, enum Suite suite, enum GradeKind kind, const char *want,
                        const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int maker_number(Maker *m, int low, int high);          /* both can be */
const char *maker_word(Maker *m);                       /* an English word of 5 to 9 letters */
void maker_words(Maker *m, const char **out, size_t n); /* that differ */

void make_arithmetic(Maker *m);
void make_strings(Maker *m);
void make_tools(Maker *m);
void make_instructions(Maker *m);
void make_recall(Maker *m, int most_tokens);
extern const char recall_fact[]; /* "The number of ... %s is %d." */

#endif
