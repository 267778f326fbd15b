/* walk.h - tokens through a session from its beginning, and the logits that tell the next. */
#ifndef WALK_H
#define WALK_H
#include "../base/base.h"

/* logits: of the token before tokens[at], which tell tokens[at]. False ends the walk. */
typedef bool (*WalkRow)(void *user, int at, const float *logits, ds4_err *err);

/* Feeds tokens[0, n - 1) to the emptied session, in steps of what the engine takes, and calls row
 * for each at in [first, n), in order; first is at least 1. Prompts give no logits that nobody
 * reads. The engine gives as many rows of logits a step as it takes tokens, or the steps are
 * shorter. */
bool walk(ds4_engine *e, ds4_session *s, const int32_t *tokens, int n, int first, WalkRow row,
          void *user, ds4_err *err);

#endif
