/* wire.h - pieces of JSON that more than one dialect writes. On the wire JSON
 * is compact, unlike in the prompt. */
#ifndef WIRE_H
#define WIRE_H
#include "dialect.h"

/* A string; bytes that are not UTF-8 become U+FFFD. */
void wire_str(Bytes *out, Str s);
/* The inside of a string: a piece of a text that is quoted by others. */
void wire_chars(Bytes *out, Str s);
/* A number with at most so many decimals, whatever the locale. */
void wire_real(Bytes *out, double x, int decimals);

/* {"error":{...}} of the OpenAI APIs. prompt_param: what holds the prompt there. */
void wire_error(const ApiError *e, const char *prompt_param, Bytes *out);
/* The error's sentence, as a string: clients know the one about a prompt that is too long. */
void wire_message(const ApiError *e, Bytes *out);
/* Is it worth trying again? */
bool wire_retryable(const ApiError *e);
bool wire_too_long(const ApiError *e);
int wire_status(const ApiError *e); /* as it is */

/* "usage":{...} of chat and completions, and llama.cpp's "timings":{...}. */
void wire_usage(Bytes *out, const Usage *u);
void wire_timings(Bytes *out, const Usage *u);
/* stop, length or tool_calls. */
const char *wire_finish(enum Finish f);
/* ,"stop_reason":"..." for what finish_reason does not tell apart; else nothing. */
void wire_stop_reason(Bytes *out, const Event *e);

/* What a terminal would act on, or show in another order, and what is no UTF-8
 * becomes "?", in place. */
void wire_printable(char *text);

/* Characters of s. */
int wire_count(Str s);

#endif
