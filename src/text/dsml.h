/* dsml.h - tool calls in the markup that the model writes.
 *
 *   <｜DSML｜tool_calls>
 *   <｜DSML｜invoke name="weather">
 *   <｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>
 *   <｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
 *   </｜DSML｜invoke>
 *   </｜DSML｜tool_calls>
 *
 * Nothing in it is escaped: ｜DSML｜ is one token, which no text can spell. */
#ifndef DSML_H
#define DSML_H
#include "chat.h"

/* Append the block of n calls, and the blank line before it. */
bool dsml_render(ChatPrompt *p, const ds4_vocab *v, const ChatCall *calls, size_t n, ds4_err *err);

/* One whole answer, taken apart. Texts lie in the arena or in the answer. */
typedef struct {
    Str content, reasoning;
    ChatCall *calls; /* without ids */
    size_t n_calls;
    Arena arena;
} DsmlAnswer;

/* By the official parser's rules, which repair nothing: any deviation is an
 * error. Arguments of string="false" are copied unseen, as it does. On failure
 * *out is empty. What streams is for stream.h. */
bool dsml_parse(DsmlAnswer *out, Str text, bool thinking, ds4_err *err);
void dsml_release(DsmlAnswer *a);

#endif
