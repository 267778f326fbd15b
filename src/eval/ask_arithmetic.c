/* ask_arithmetic.c - sums, products, remainders, and sums in words. */
#include "questions_parts.h"
#include <stdio.h>

static const char *text_of(char buf[24], long v)
{
    snprintf(buf, 24, "%ld", v);
    return buf;
}

#define NUMBER(m, value, ...) \
    maker_add(m, SUITE_ARITHMETIC, GRADE_NUMBER, text_of((char[24]){ 0 }, value), __VA_ARGS__)

static void easy(Maker *m)
{
    int a = maker_number(m, 2, 9), b = maker_number(m, 2, 9);
    NUMBER(m, a + b, "What is %d + %d?", a, b);
    a = maker_number(m, 11, 40), b = maker_number(m, 3, 30);
    NUMBER(m, a + b, "What is %d + %d?", a, b);
    a = maker_number(m, 20, 60), b = maker_number(m, 2, 19);
    NUMBER(m, a - b, "What is %d - %d?", a, b);
    a = maker_number(m, 3, 9), b = maker_number(m, 3, 9);
    NUMBER(m, a * b, "What is %d times %d?", a, b);
}

static void large(Maker *m)
{
    int a = maker_number(m, 1200, 9800), b = maker_number(m, 1200, 9800);
    NUMBER(m, a + b, "What is %d + %d?", a, b);
    a = maker_number(m, 13, 49), b = maker_number(m, 13, 49);
    NUMBER(m, a * b, "Compute %d * %d.", a, b);
    b = maker_number(m, 7, 12), a = b * maker_number(m, 20, 90) + maker_number(m, 1, b - 1);
    NUMBER(m, a % b, "What is the remainder when %d is divided by %d?", a, b);
    a = 20 * maker_number(m, 3, 30), b = 5 * maker_number(m, 2, 18);
    NUMBER(m, (long)a * b / 100, "What is %d percent of %d?", b, a);
}

static void in_words(Maker *m)
{
    int a = maker_number(m, 4, 9), b = maker_number(m, 6, 12), c = maker_number(m, 2, 20);
    NUMBER(m, a * b - c,
           "A shelf has %d rows of %d jars. %d jars are taken away. How many jars are left?", a, b,
           c);
    a = maker_number(m, 2, 5), b = maker_number(m, 30, 90), c = maker_number(m, 5, 25);
    NUMBER(m, a * b + c,
           "A train runs for %d hours at %d kilometers an hour, and then %d kilometers more. How "
           "many kilometers does it run in all?",
           a, b, c);
    a = maker_number(m, 3, 8), b = maker_number(m, 4, 15);
    NUMBER(m, a * b + b,
           "Mira has %d coins, and Tom has %d times as many. How many coins do both have "
           "together?",
           b, a);
    a = maker_number(m, 2, 9), b = maker_number(m, 2, 9), c = maker_number(m, 2, 9);
    NUMBER(m, a + b * c, "What is %d + %d * %d?", a, b, c);
}

void make_arithmetic(Maker *m)
{
    easy(m);
    large(m);
    in_words(m);
}
