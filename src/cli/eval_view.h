/* eval_view.h - an examination as it goes, on a terminal. */
#ifndef EVAL_VIEW_H
#define EVAL_VIEW_H
#include "eval_result.h"

/* Zero: nothing is drawn yet. */
typedef struct {
    int lines; /* drawn */
    int64_t drawn;
    double spent, done; /* of this run: cost of the questions that were answered */
} EvalView;

bool eval_view_wanted(void); /* stderr is a terminal */
/* now: the question that is being answered, of which there are so many tokens. */
void eval_view_draw(EvalView *v, const Sheet *s, size_t now, int tokens, bool always);
void eval_view_answered(EvalView *v, const Sheet *s, size_t i);
void eval_view_end(EvalView *v); /* wipes it */

#endif
