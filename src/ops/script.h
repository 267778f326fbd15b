/* script.h - the answers that the play backend gives: rules from a file.
 *
 *      { "prefill_tps": 2000, "decode_tps": 50, "cut": 0,
 *        "rules": [ { "when": ["weather"], "last": ["Paris"], "not": ["tool_result"],
 *                     "times": 1, "say": "I look it up.</think>It rains." } ] }
 *
 * The first rule that matches a prompt answers it. `when`: texts that all occur
 * in the prompt; `last`: all after its last <｜User｜> token (in all of it where
 * there is none); `not`: none occurs there; `times`: so often at most, 0 or
 * absent: any. `say` may spell control tokens. The speeds are tokens a second of
 * prompts and of answers; 0 or absent: as fast as it goes. `cut`, of a rule or of
 * all of them: what is said between control tokens becomes tokens in pieces of so
 * many bytes, wherever they end; 0 or absent: in one. Only `say` must be there. */
#ifndef SCRIPT_H
#define SCRIPT_H
#include "../json/json.h"
#include "../text/bpe.h"

typedef struct {
    const Json *when, *last, *none; /* of the document */
    uint64_t times, used;
    Tokens say; /* ends with the end-of-sentence token */
} Rule;

typedef struct {
    double prefill_tps, decode_tps; /* 0: as fast as it goes */
    Rule *rule;                     /* [n]; the last one matches all and says that none did */
    size_t n;
    Json *document;
} Script;

/* Every error names the file, and the member that is wrong. */
bool script_init(Script *s, const char *file, const ds4_vocab *v, ds4_err *err);
void script_release(Script *s);

/* Counts the use. last: what of the prompt follows its last <｜User｜>. */
const Tokens *script_answer(Script *s, Str prompt, Str last);

#endif
