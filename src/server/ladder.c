/* ladder.c - looking at all rungs. */
#include "ladder.h"

/* How far a session can be used of which `common` tokens and no more are wanted. */
static int reach_of(const ds4_session *s, int common)
{
    int at[DS4_MOST_MARKS], reach = 0;
    if (common >= ds4_session_length(s))
        return ds4_session_length(s);
    int n = ds4_session_marks(s, at, DS4_MOST_MARKS);
    for (int i = 0; i < n; i++)
        if (at[i] <= common)
            reach = at[i];
    return reach;
}

int slot_reach(const Slot *s, const Tokens *prompt)
{
    return reach_of(s->session, MIN(slot_common(s, prompt), (int)prompt->n - 1));
}

static void look_at_own(Ladder *l, const Slot *slot, const Tokens *prompt, bool handle)
{
    int reach = slot_reach(slot, prompt);
    bool whole = reach == ds4_session_length(slot->session);
    l->tokens[!whole ? CACHE_REWIND : handle ? CACHE_HANDLE : CACHE_LIVE] = reach;
}

static void look_at_others(Ladder *l, const Slots *s, const Slot *slot, const Tokens *prompt)
{
    for (int i = 0; i < s->n; i++) {
        const Slot *other = &s->slot[i];
        if (other == slot || other->entering)
            continue;
        int reach = slot_reach(other, prompt);
        if (reach > l->tokens[CACHE_FORK]) {
            l->tokens[CACHE_FORK] = reach;
            l->from = i;
        }
    }
}

void ladder_find(Ladder *l, const Slots *s, const Slot *slot, const Tokens *prompt, bool handle,
                 Store *store)
{
    int most = (int)prompt->n - 1;
    *l = (Ladder){ 0 };
    look_at_own(l, slot, prompt, handle);
    look_at_others(l, s, slot, prompt);
    if (store && store_find(store, prompt->id, most, &l->found) > 0)
        l->tokens[l->found.in_ram >= l->found.n ? CACHE_RAM : CACHE_DISK] = l->found.n;
}

enum CacheSource ladder_best(const Ladder *l)
{
    enum CacheSource best = N_CACHE_SOURCES;
    for (int i = 0; i < N_CACHE_SOURCES; i++)
        if (l->tokens[i] > (best < N_CACHE_SOURCES ? l->tokens[best] : 0))
            best = (enum CacheSource)i;
    return best;
}

void ladder_leave(Ladder *l, Store *store)
{
    if (store)
        store_unpin(store, &l->found);
    *l = (Ladder){ 0 };
}
