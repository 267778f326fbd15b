/* prepare.h - from a request's bytes to what the engine needs: a prompt in
 * tokens, and what may come after it. On a worker's thread; no I/O. */
#ifndef PREPARE_H
#define PREPARE_H
#include "job.h"
#include "tool_memory.h"

/* What preparing needs of a loaded model; all borrowed. */
typedef struct {
    const ServerInfo *info;
    const ds4_vocab *vocab;
    const TokenTrie *trie;
    Recall *recall;
    ToolMemory *tools; /* NULL: none are put back */
    bool preview;      /* the model is of the preview release, by its name */
} Prepare;

/* Fills j->turn, prompt, grammar and thinking; or j->error. */
void job_prepare(Job *j, const Prepare *p);
/* Only the dialect's part: for tests and `render`. */
bool prepare_read(Turn *t, const Dialect *d, Str body, const Headers *h, const ServerInfo *s,
                  ApiError *e);
/* The prompt of a turn that was read. */
bool prepare_prompt(const Turn *t, const ds4_vocab *v, bool preview, ChatPrompt *out, ds4_err *err);

#endif
