/* chat_runs.h - putting a prompt together, run by run.
 *
 * Failure to grow sticks, like that of Bytes: chat_render asks once, at the end. */
#ifndef CHAT_RUNS_H
#define CHAT_RUNS_H
#include "chat.h"

void runs_text(ChatPrompt *p, Str s); /* stays borrowed */
void runs_ids(ChatPrompt *p, const int32_t *ids, size_t n);
/* name is for the error when the vocabulary has no such token (id < 0). */
bool runs_control(ChatPrompt *p, int32_t id, const char *name, ds4_err *err);
/* A fixed text of ours, in which ｜DSML｜, <think> and </think> are controls. */
bool runs_literal(ChatPrompt *p, const ds4_vocab *v, Str s, ds4_err *err);
/* A copy that lives as long as the prompt. */
Str runs_keep(ChatPrompt *p, Str s);

#endif
