/* walk.c - tokens through a session from its beginning. */
#include "walk.h"

bool walk(ds4_engine *e, ds4_session *s, const int32_t *tokens, int n, int first, WalkRow row,
          void *user, ds4_err *err)
{
    const ds4_info info = ds4_engine_info(e);
    ds4_session_rewind(s, 0);
    for (int at = 0; at < n - 1;) {
        /* Up to the first row that is read, then as many as there may be logits. */
        int left = n - 1 - at, silent = first - 1 - at;
        int rows = MIN(silent > 0 ? silent : MIN(left, info.max_logits), info.max_rows);
        const ds4_work work = { s, tokens + at, rows, silent > 0 ? 0 : rows };
        if (!ds4_step(e, &work, 1, err))
            return false;
        for (int i = 0; i < work.n_logits; i++) {
            if (!row(user, at + i + 1, ds4_step_logits(e, 0, i), err))
                return false;
        }
        at += rows;
    }
    return true;
}
