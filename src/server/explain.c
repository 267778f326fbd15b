/* explain.c - the first difference between what a conversation had and what it says now. */
#include "explain.h"
#include "wire.h"
#include <stdio.h>
#include <stdlib.h>

/* Of what differs so many tokens are shown, and bytes at most. */
enum { SHOWN_TOKENS = 12, SHOWN_BYTES = 96 };

/* Fewer tokens than this are always read again where a state is taken back. */
enum { NEAR = 128 };

/* ---- conversations without a slot ---------------------------------------------------- */

enum { PAST_MOST = 64, PAST_TOKENS = 4 << 20 };

struct Past {
    struct {
        uint64_t key;
        int32_t *token;
        int n;
    } was[PAST_MOST]; /* oldest first */
    int n;
    size_t tokens;
};

Past *past_new(ds4_err *err)
{
    Past *p = calloc(1, sizeof *p);
    if (!p)
        fail(err, DS4_ENOMEM, "no memory to remember %d conversations", PAST_MOST);
    return p;
}

static void past_drop(Past *p, int i)
{
    p->tokens -= (size_t)p->was[i].n;
    free(p->was[i].token);
    p->n--;
    memmove(&p->was[i], &p->was[i + 1], (size_t)(p->n - i) * sizeof p->was[0]);
}

void past_free(Past *p)
{
    while (p && p->n)
        past_drop(p, p->n - 1);
    free(p);
}

static int past_of(const Past *p, uint64_t key)
{
    int i = p->n - 1;
    while (i >= 0 && p->was[i].key != key)
        i--;
    return i;
}

void past_keep(Past *p, const Slot *slot)
{
    int n = ds4_session_length(slot->session), i = past_of(p, slot->key.own);
    if (!slot->key.own || slot->scratch || !n || n > PAST_TOKENS)
        return;
    if (i >= 0)
        past_drop(p, i);
    while (p->n && (p->n == PAST_MOST || p->tokens + (size_t)n > PAST_TOKENS))
        past_drop(p, 0);
    int32_t *copy = malloc((size_t)n * sizeof *copy);
    if (!copy)
        return; /* it only explains */
    memcpy(copy, ds4_session_tokens(slot->session), (size_t)n * sizeof *copy);
    p->was[p->n].key = slot->key.own;
    p->was[p->n].token = copy;
    p->was[p->n++].n = n;
    p->tokens += (size_t)n;
}

/* ---- what it had ------------------------------------------------------------------------ */

typedef struct {
    const int32_t *token;
    int n, common;
} Before;

static void compare(Before *best, const int32_t *token, int n, const Tokens *prompt)
{
    int common = 0;
    while (common < n && common < (int)prompt->n && token[common] == prompt->id[common])
        common++;
    if (!best->n || common > best->common)
        *best = (Before){ token, n, common };
}

/* Of several under one name the one that is nearest. */
static Before before_of(const Slots *s, const Past *p, uint64_t key, const Tokens *prompt)
{
    Before best = { 0 };
    for (int i = 0; key && i < s->n; i++) {
        const Slot *slot = &s->slot[i];
        int n = ds4_session_length(slot->session);
        if (slot->key.own == key && !slot->scratch && n)
            compare(&best, ds4_session_tokens(slot->session), n, prompt);
    }
    int i = key && !best.n ? past_of(p, key) : -1;
    if (i >= 0)
        compare(&best, p->was[i].token, p->was[i].n, prompt);
    return best;
}

/* A place in a prompt, in the client's words. */
static void place_of(const Tokens *prompt, const Controls *k, int at, char out[64])
{
    const char *role = "system";
    int turn = 0;
    for (int i = 0; i < at; i++) {
        bool user = prompt->id[i] == k->user, assistant = prompt->id[i] == k->assistant;
        turn += user || assistant;
        role = user ? "user" : assistant ? "assistant" : role;
    }
    snprintf(out, 64, "turn %d (%s)", turn, role);
}

static enum CacheMiss break_of(const Tokens *prompt, const Controls *k, int at)
{
    bool tools = false;
    for (int i = 0; i < at; i++) {
        if (prompt->id[i] == k->user)
            return MISS_HISTORY_EDITED;
        tools |= prompt->id[i] == k->dsml;
    }
    /* The text before the tools' lines shows the markup, the lines do not. */
    return tools ? MISS_TOOLS_CHANGED : MISS_SYSTEM_CHANGED;
}

static void put_tokens(Bytes *out, const ds4_vocab *v, const int32_t *token, int n)
{
    for (int i = 0; i < MIN(n, SHOWN_TOKENS) && out->n < SHOWN_BYTES; i++) {
        Str s = vocab_bytes(v, token[i]);
        bytes_put(out, s.p, MIN(s.n, (size_t)SHOWN_BYTES - out->n));
    }
}

void explain_break(Explanation *e, const Slots *s, const Past *p, const Slot *slot, const Job *j,
                   const ds4_vocab *v, bool side)
{
    const Controls *k = vocab_controls(v);
    const Tokens *prompt = &j->prompt;
    uint64_t key = side ? 0 : key_of(&j->turn).own;
    Before b = before_of(s, p, key, prompt);
    /* A client without a name goes on with what its slot has, or with nothing. */
    if (!key && !side && slot_common(slot, prompt) > 0)
        compare(&b, ds4_session_tokens(slot->session), ds4_session_length(slot->session), prompt);
    *e = (Explanation){ .source = N_CACHE_SOURCES,
                        .miss = b.n ? N_CACHE_MISSES : MISS_NEW,
                        .before = b.n,
                        .common = b.common };
    if (b.common == b.n || b.common == (int)prompt->n || !key)
        return;
    e->miss = break_of(prompt, k, b.common);
    place_of(prompt, k, b.common, e->place);
    put_tokens(&e->had, v, b.token + b.common, b.n - b.common);
    put_tokens(&e->now, v, prompt->id + b.common, (int)prompt->n - b.common);
}

void explain_reuse(Explanation *e, const Job *j, int reused, enum CacheSource source)
{
    int could = MIN(e->common, (int)j->prompt.n - 1);
    e->reused = reused;
    e->source = reused ? source : N_CACHE_SOURCES;
    if (e->store_failed)
        e->miss = MISS_STORE_FAILED;
    else if (e->before && reused <= could - NEAR && e->miss == N_CACHE_MISSES)
        e->miss = reused ? MISS_NO_MARK : MISS_EVICTED;
    else if (e->miss == MISS_NEW && reused)
        e->miss = N_CACHE_MISSES;
}

void explanation_release(Explanation *e)
{
    bytes_release(&e->had);
    bytes_release(&e->now);
    *e = (Explanation){ 0 };
}

/* ---- saying it ----------------------------------------------------------------------------- */

static const char *source_said(enum CacheSource s)
{
    static const char *const names[] = {
        [CACHE_LIVE] = "as it was",      [CACHE_HANDLE] = "as it was, by its handle",
        [CACHE_REWIND] = "taken back",   [CACHE_FORK] = "copied from another slot",
        [CACHE_RAM] = "from the store",  [CACHE_DISK] = "from the store's disk",
        [N_CACHE_SOURCES] = "all is new"
    };
    return names[s];
}

/* What is wrong beside a text that changed. */
static const char *miss_said(enum CacheMiss m)
{
    switch (m) {
    case MISS_EVICTED: return "the rest had to make room for others";
    case MISS_NO_MARK: return "between there and its end is no place to go on from";
    case MISS_STORE_FAILED: return "the store could not give all that it had";
    default: return NULL;
    }
}

void explain_line(const Explanation *e, const Job *j, int slot, Bytes *out)
{
    const char *why = miss_said(e->miss);
    bytes_printf(out, "%d of %zu prompt tokens reused in slot %d, %s", e->reused, j->prompt.n, slot,
                 source_said(e->source));
    if (e->source >= CACHE_FORK && e->source < N_CACHE_SOURCES)
        bytes_printf(out, " in %.1f ms", e->ms);
    if (*e->place) {
        bytes_printf(out, "; of %d that it had the first %d agree, up to %s, where it had ",
                     e->before, e->common, e->place);
        wire_str(out, bytes_view(&e->had));
        bytes_str(out, " and now has ");
        wire_str(out, bytes_view(&e->now));
    } else if (why) {
        bytes_printf(out, "; it had %d: %s", e->before, why);
    }
    if (e->given_up)
        bytes_printf(out, "; %d of another conversation left the slot", e->given_up);
}

static void put_offers(const Explanation *e, Bytes *out)
{
    bytes_str(out, ",\"offered\":{");
    for (int i = 0; i < N_CACHE_SOURCES; i++)
        bytes_printf(out, "%s\"%s\":%d", i ? "," : "", cache_source_name((enum CacheSource)i),
                     e->offered[i]);
    bytes_byte(out, '}');
}

void explain_json(const Explanation *e, const Job *j, Bytes *out)
{
    bytes_printf(out, "{\"request\":\"%s\",\"prompt_tokens\":%zu,\"reused\":%d,\"source\":\"%s\"",
                 j->turn.request_id, j->prompt.n, e->reused, cache_source_name(e->source));
    put_offers(e, out);
    bytes_str(out, ",\"ms\":");
    wire_real(out, e->ms, 1);
    if (e->before)
        bytes_printf(out, ",\"had\":%d,\"agree\":%d", e->before, e->common);
    if (e->miss < N_CACHE_MISSES)
        bytes_printf(out, ",\"miss\":\"%s\"", cache_miss_name(e->miss));
    if (*e->place) {
        bytes_printf(out, ",\"differs_at\":\"%s\",\"had_text\":", e->place);
        wire_str(out, bytes_view(&e->had));
        bytes_str(out, ",\"now_text\":");
        wire_str(out, bytes_view(&e->now));
    }
    bytes_byte(out, '}');
}
