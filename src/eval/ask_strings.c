/* ask_strings.c - words taken apart and put together. */
#include "questions_parts.h"
#include <stdio.h>

enum { LONGEST = 128 };

#define WORDS(m, kind, want, ...) maker_add(m, SUITE_STRINGS, kind, want, __VA_ARGS__)

static int by_text(const char *a, const char *b) { return strcmp(a, b); }

static void sort3(const char **w)
{
    for (int i = 0; i < 3; i++) {
        for (int k = i + 1; k < 3; k++) {
            if (by_text(w[k], w[i]) < 0) {
                const char *other = w[i];
                w[i] = w[k];
                w[k] = other;
            }
        }
    }
}

static void letters(Maker *m)
{
    char want[LONGEST] = "";
    const char *w = maker_word(m);
    size_t n = strlen(w);
    snprintf(want, sizeof want, "%zu", n);
    WORDS(m, GRADE_NUMBER, want, "How many letters are in the word %s?", w);
    w = maker_word(m);
    snprintf(want, sizeof want, "%c", w[0]);
    WORDS(m, GRADE_TEXT, want, "What is the first letter of the word %s?", w);
    w = maker_word(m);
    snprintf(want, sizeof want, "%c", w[3]);
    WORDS(m, GRADE_TEXT, want, "What is the fourth letter of the word %s? Answer with the letter.",
          w);
    w = maker_word(m);
    n = strlen(w);
    for (size_t i = 0; i < n; i++)
        want[i] = w[n - 1 - i];
    want[n] = '\0';
    WORDS(m, GRADE_TEXT, want, "Write the word %s backwards. Answer with the reversed word only.",
          w);
    w = maker_word(m);
    n = strlen(w);
    for (size_t i = 0; i <= n; i++)
        want[i] = (char)(w[i] ? w[i] & ~0x20 : 0);
    WORDS(m, GRADE_EXACT, want, "Write the word %s in capital letters.", w);
    w = maker_word(m);
    n = 0;
    for (const char *at = w; *at; at++) {
        if (!strchr("aeiou", *at))
            want[n++] = *at;
    }
    want[n] = '\0';
    WORDS(m, GRADE_TEXT, want,
          "Remove the letters a, e, i, o and u from the word %s. Answer with what is left.", w);
}

static void lists(Maker *m)
{
    char want[LONGEST];
    const char *w[4];
    maker_words(m, w, 4);
    WORDS(m, GRADE_TEXT, w[3], "What is the last word of this list: %s, %s, %s, %s", w[0], w[1],
          w[2], w[3]);
    maker_words(m, w, 4);
    WORDS(m, GRADE_TEXT, w[1], "What is the second word of this list: %s, %s, %s, %s", w[0], w[1],
          w[2], w[3]);
    maker_words(m, w, 3);
    snprintf(want, sizeof want, "%s-%s-%s", w[0], w[1], w[2]);
    WORDS(m, GRADE_TEXT, want, "Join the words %s, %s and %s with hyphens.", w[0], w[1], w[2]);
    maker_words(m, w, 4);
    snprintf(want, sizeof want, "%c%c%c%c", w[0][0], w[1][0], w[2][0], w[3][0]);
    WORDS(m, GRADE_TEXT, want,
          "Put the first letters of the words %s, %s, %s and %s together. Answer with the four "
          "letters, without spaces.",
          w[0], w[1], w[2], w[3]);
    maker_words(m, w, 3);
    const char *sorted[3] = { w[0], w[1], w[2] };
    sort3(sorted);
    snprintf(want, sizeof want, "%s, %s, %s", sorted[0], sorted[1], sorted[2]);
    WORDS(m, GRADE_TEXT, want,
          "Sort these words by the alphabet: %s, %s, %s. Answer with the words, separated by a "
          "comma and a space.",
          w[0], w[1], w[2]);
    const char *word = maker_word(m);
    snprintf(want, sizeof want, "%s %s %s", word, word, word);
    WORDS(m, GRADE_TEXT, want, "Repeat the word %s three times, separated by spaces.", word);
}

void make_strings(Maker *m)
{
    letters(m);
    lists(m);
}
