/* budget.c - a soft end and a hard one. */
#include "budget.h"

/* The hard end comes an eighth of the budget after it, and not at once when it is small. */
enum { GRACE_PART = 8, LEAST_GRACE = 32 };

bool budget_spent(int budget, int tokens, Str last)
{
    if (budget <= 0 || tokens < budget)
        return false;
    int grace = MAX(budget / GRACE_PART, LEAST_GRACE);
    return tokens - budget >= grace || (last.n && last.p[last.n - 1] == '\n');
}
