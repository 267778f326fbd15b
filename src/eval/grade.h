/* grade.h - is an answer right? Pure functions of the question's key and of what was said.
 *
 * Lenient in form where form was not asked for (quotes, emphasis, a sentence around the
 * answer), strict in what was. */
#ifndef GRADE_H
#define GRADE_H
#include "../base/base.h"
#include "../json/json.h"

enum GradeKind {
    GRADE_NUMBER, /* the last number of the text is this one */
    GRADE_TEXT,   /* the text ends with this, as whole words; letters' case does not matter */
    GRADE_EXACT,  /* the same, and case does */
    GRADE_CALLS,  /* these calls, in any order, and no other; none: a text and no call */
    GRADE_RULES   /* the text has a form */
};

enum RuleKind {
    RULE_END, /* of a list */
    RULE_WORDS,
    RULE_MOST_WORDS,
    RULE_LINES,     /* that are not empty */
    RULE_EACH_LINE, /* begins with text */
    RULE_BEGINS,
    RULE_ENDS,
    RULE_HAS, /* case does not matter */
    RULE_HAS_NOT,
    RULE_LOWER, /* no capital letter, and some letter */
    RULE_UPPER,
    RULE_JSON /* is a JSON object with exactly the members of text: "a,b" */
};
typedef struct {
    enum RuleKind kind;
    int n;
    const char *text;
} Rule;

enum { MOST_CALLS = 4 };
typedef struct {
    Str name, arguments; /* JSON */
} GradeCall;

typedef struct {
    enum GradeKind kind;
    Str want; /* number, text, exact */
    const Rule *rules;
    GradeCall calls[MOST_CALLS];
    size_t n_calls;
    const Str *tools; /* function objects that were offered, a JSON each */
    size_t n_tools;
} Key;

typedef struct {
    Str text;
    const GradeCall *calls;
    size_t n_calls;
} Given;

/* why: what is wrong, "" where nothing is. */
enum { GRADE_WHY = 96 };
bool grade(const Key *key, const Given *given, char why[GRADE_WHY]);

/* Arguments within a function's schema: an object with all that is required, nothing that is not
 * declared, and values of their types, of their enum and within their bounds. */
bool grade_schema(const Json *function, const Json *arguments, char why[GRADE_WHY]);

#endif
