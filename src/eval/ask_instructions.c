/* ask_instructions.c - answers in a form that is asked for and can be checked. */
#include "questions_parts.h"

enum { MOST_RULES = 4 };

typedef struct {
    const char *prompt;
    Rule rules[MOST_RULES];
} Request;

static const Request requests[] = {
    { "Answer with the single word ready and nothing else.",
      { { RULE_WORDS, 1, NULL }, { RULE_HAS, 0, "ready" } } },
    { "Write a sentence of exactly five words about rain.", { { RULE_WORDS, 5, NULL } } },
    { "Name three colors, one on each line, and write nothing else.",
      { { RULE_LINES, 3, NULL }, { RULE_MOST_WORDS, 6, NULL } } },
    { "List four animals. Begin each line with a hyphen and a space, and write no other lines.",
      { { RULE_LINES, 4, NULL }, { RULE_EACH_LINE, 0, "- " } } },
    { "Describe the sea in one sentence, in small letters only: no capital letter at all.",
      { { RULE_LOWER, 0, NULL }, { RULE_LINES, 1, NULL } } },
    { "Write a short greeting IN CAPITAL LETTERS ONLY.",
      { { RULE_UPPER, 0, NULL }, { RULE_MOST_WORDS, 30, NULL } } },
    { "Explain in at most 20 words why bread rises. End your answer with \"Done.\"",
      { { RULE_MOST_WORDS, 20, NULL }, { RULE_ENDS, 0, "Done." } } },
    { "Write two sentences about a cat without using the word \"cat\".",
      { { RULE_HAS_NOT, 0, "cat" }, { RULE_MOST_WORDS, 80, NULL } } },
    { "Give a JSON object with the members \"city\" and \"country\" for Madrid. Write only the "
      "JSON, "
      "without a code block.",
      { { RULE_JSON, 0, "city,country" }, { RULE_HAS, 0, "spain" } } },
    { "Begin your answer with the words \"In short\" and say what a library is, in one sentence.",
      { { RULE_BEGINS, 0, "In short" }, { RULE_LINES, 1, NULL } } },
};

void make_instructions(Maker *m)
{
    for (size_t i = 0; i < COUNT(requests); i++) {
        ExamQuestion *q =
            maker_add(m, SUITE_INSTRUCTIONS, GRADE_RULES, NULL, "%s", requests[i].prompt);
        q->key.rules = requests[i].rules;
    }
}
