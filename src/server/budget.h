/* budget.h - when thinking has gone on for long enough.
 *
 * From the budget on it ends with the line that is being written; a while later
 * it ends at once. 0: there is no budget. */
#ifndef BUDGET_H
#define BUDGET_H
#include "../base/base.h"

/* After so many tokens of thinking, of which the last has these bytes. */
bool budget_spent(int budget, int tokens, Str last);

#endif
