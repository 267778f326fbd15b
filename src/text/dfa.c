/* dfa.c - deterministic automata over bytes.
 *
 * Each construction writes states as it finds them and ends in dfa_finish,
 * which removes what leads nowhere. */
#include "dfa.h"
#include <stdlib.h>
#include "tier.h"

/* ---- memory ---------------------------------------------------------------------- */

bool dfa_alloc(Dfa *d, uint32_t n_states, ds4_err *err)
{
    d->n_states = n_states;
    d->next = calloc((size_t)n_states * d->n_classes, sizeof *d->next);
    d->accept = calloc(n_states, sizeof *d->accept);
    d->goes_on = calloc(n_states, sizeof *d->goes_on);
    if (d->next && d->accept && d->goes_on)
        return true;
    dfa_release(d);
    fail(err, DS4_ENOMEM, "no memory for an automaton of %u states", n_states);
    return false;
}

void dfa_release(Dfa *d)
{
    free(d->next);
    free(d->accept);
    free(d->goes_on);
    for (int t = 0; t < N_TIERS; t++)
        free(d->sure[t]);
    *d = (Dfa){ 0 };
}

bool dfa_accepts(const Dfa *d, Str s)
{
    uint32_t state = dfa_empty(d) ? DFA_DEAD : DFA_START;
    for (size_t i = 0; i < s.n && state != DFA_DEAD; i++)
        state = dfa_next(d, state, (unsigned char)s.p[i]);
    return state != DFA_DEAD && d->accept[state];
}

/* ---- what leads nowhere ------------------------------------------------------------ */

/* lives[s]: an accepting state can be reached. The states are gone through from
 * the last, since most transitions lead upwards, until nothing changes. */
static bool find_living(const Dfa *d, bool *lives, Effort *effort, ds4_err *err)
{
    for (bool changed = true; changed;) {
        uint64_t steps = 0;
        changed = false;
        for (uint32_t s = d->n_states; s-- > 1;) {
            bool alive = lives[s] || d->accept[s];
            uint32_t c = 0;
            for (; c < d->n_classes && !alive; c++)
                alive = lives[d->next[(size_t)s * d->n_classes + c]];
            changed |= alive != lives[s];
            lives[s] = alive;
            steps += 1 + c;
        }
        if (!effort_spend(effort, steps / 2, err))
            return false;
    }
    lives[DFA_DEAD] = false;
    return true;
}

/* Give the living states of d new numbers, in the old order. */
static void keep_living(Dfa *d, const bool *lives, uint32_t *number)
{
    uint32_t n = 1, k = d->n_classes;
    for (uint32_t s = 1; s < d->n_states; s++)
        number[s] = lives[s] && lives[DFA_START] ? n++ : DFA_DEAD;
    for (uint32_t s = 1; s < d->n_states; s++) {
        uint32_t to = number[s];
        if (to == DFA_DEAD)
            continue;
        d->accept[to] = d->accept[s];
        d->goes_on[to] = false;
        for (uint32_t c = 0; c < k; c++) {
            uint32_t t = number[d->next[(size_t)s * k + c]];
            d->next[(size_t)to * k + c] = t;
            d->goes_on[to] |= t != DFA_DEAD;
        }
    }
    d->n_states = n;
}

/* ---- how much of a tier a state takes for sure --------------------------------------- */

/* The bytes that lead on within a tier, one for each class and way on. */
typedef struct {
    uint8_t byte[256], to[256];
    int n;
} Ways;

typedef struct {
    const Dfa *d;
    Ways way[TIER_STATES];
    const uint8_t *good; /* [n_states] took every text of the last length */
    uint8_t *known;      /* [n_states][TIER_STATES] 0: not looked at, 1: fails, 2: holds */
    uint64_t steps;
} Sureness;

/* Whether every way to the end of the character that `u` is within leads from s
 * to a state that is good. */
static bool holds(Sureness *x, uint32_t s, int u)
{
    uint8_t *known = &x->known[(size_t)s * TIER_STATES + (size_t)u];
    if (*known)
        return *known == 2;
    bool ok = true;
    for (int i = 0; i < x->way[u].n && ok; i++) {
        int v = x->way[u].to[i];
        uint32_t t = dfa_next(x->d, s, x->way[u].byte[i]);
        ok = t != DFA_DEAD && (v == 0 ? x->good[t] != 0 : holds(x, t, v));
        x->steps++;
    }
    *known = ok ? 2 : 1;
    return ok;
}

static void find_ways(const Dfa *d, enum Tier tier, int u, Ways *w)
{
    bool seen[256][TIER_STATES] = { { false } };
    w->n = 0;
    for (int b = 0; b < 256; b++) {
        int v = tier_next(tier, u, (unsigned char)b);
        if (v < 0 || seen[d->class_of[b]][v])
            continue;
        seen[d->class_of[b]][v] = true;
        w->byte[w->n] = (uint8_t)b;
        w->to[w->n++] = (uint8_t)v;
    }
}

static bool find_sure(Dfa *d, enum Tier tier, Effort *effort, ds4_err *err)
{
    uint32_t n = d->n_states;
    uint8_t *sure = d->sure[tier] = calloc(n, 1);
    uint8_t *good = malloc(n), *known = malloc((size_t)n * TIER_STATES);
    bool ok = (sure && good && known) ||
              fail(err, DS4_ENOMEM, "no memory for an automaton of %u states", n);
    bool changed = ok;
    Sureness x = { .d = d, .good = good, .known = known };
    for (int u = 0; u < TIER_STATES; u++)
        find_ways(d, tier, u, &x.way[u]);
    if (ok)
        memset(good, 1, n);
    for (int k = 1; k <= TIER_CHARS && changed; k++) {
        memset(known, 0, (size_t)n * TIER_STATES);
        changed = false;
        for (uint32_t s = 1; s < n; s++) {
            if (sure[s] == k - 1 && holds(&x, s, 0))
                sure[s] = (uint8_t)k;
        }
        for (uint32_t s = 1; s < n; s++) {
            changed |= (good[s] != 0) != (sure[s] == k);
            good[s] = sure[s] == k;
        }
        /* Nothing fell out: the same would happen at every greater length. */
        for (uint32_t s = 1; s < n && !changed; s++)
            sure[s] = good[s] ? TIER_CHARS : sure[s];
        changed = changed && (ok = effort_spend(effort, (x.steps + n) / 2, err));
        x.steps = 0;
    }
    free(good);
    free(known);
    return ok;
}

bool dfa_finish(Dfa *d, Effort *effort, ds4_err *err)
{
    bool *lives = calloc(d->n_states, sizeof *lives);
    uint32_t *number = calloc(d->n_states, sizeof *number);
    bool ok = (lives && number) ||
              fail(err, DS4_ENOMEM, "no memory for an automaton of %u states", d->n_states);
    ok = ok && effort_spend(effort, (uint64_t)d->n_states * d->n_classes / 4, err) &&
         find_living(d, lives, effort, err);
    if (ok)
        keep_living(d, lives, number);
    free(lives);
    free(number);
    for (int t = 0; t < N_TIERS && ok; t++)
        ok = find_sure(d, (enum Tier)t, effort, err);
    return ok;
}

/* ---- two at once ----------------------------------------------------------------------- */

/* The pairs of states found so far; pair 0 is dead, pair 1 the start. */
typedef struct {
    uint64_t *pair;
    uint32_t n, cap;
    uint32_t *slot; /* open addressing over pair, 0: empty */
    uint32_t mask;
    bool failed, no_memory;
} Pairs;

static void pairs_release(Pairs *p)
{
    free(p->pair);
    free(p->slot);
}

static uint32_t *pair_slot(const Pairs *p, uint64_t key)
{
    uint32_t i = (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & p->mask;
    while (p->slot[i] && p->pair[p->slot[i]] != key)
        i = (i + 1) & p->mask;
    return &p->slot[i];
}

static bool pairs_grow(Pairs *p)
{
    uint32_t cap = p->cap ? p->cap * 2 : 256;
    uint64_t *pair = realloc(p->pair, cap * sizeof *pair);
    uint32_t *slot = calloc((size_t)cap * 2, sizeof *slot);
    if (pair)
        p->pair = pair;
    if (!pair || !slot) {
        free(slot);
        p->no_memory = true;
        return false;
    }
    free(p->slot);
    p->slot = slot;
    p->mask = cap * 2 - 1;
    p->cap = cap;
    for (uint32_t i = 1; i < p->n; i++)
        *pair_slot(p, p->pair[i]) = i;
    return true;
}

/* The number of a pair, a new one if need be; 0 when there are too many. */
static uint32_t pair_number(Pairs *p, uint32_t a, uint32_t b)
{
    uint64_t key = (uint64_t)a << 32 | b;
    if (p->n >= p->cap && !pairs_grow(p)) {
        p->failed = true;
        return 0;
    }
    uint32_t *slot = pair_slot(p, key);
    if (*slot)
        return *slot;
    if (p->n >= DFA_MAX_STATES) {
        p->failed = true;
        return 0;
    }
    p->pair[p->n] = key;
    return *slot = p->n++;
}

/* The classes of bytes that neither automaton tells apart. */
static void join_classes(Dfa *out, const Dfa *a, const Dfa *b)
{
    int16_t number[256];
    int first[256];
    out->n_classes = 0;
    for (int c = 0; c < 256; c++) {
        uint32_t k = 0;
        while (k < out->n_classes &&
               (a->class_of[first[k]] != a->class_of[c] || b->class_of[first[k]] != b->class_of[c]))
            k++;
        if (k == out->n_classes)
            first[out->n_classes++] = c;
        number[c] = (int16_t)k;
    }
    for (int c = 0; c < 256; c++)
        out->class_of[c] = (uint8_t)number[c];
}

/* except: b's dead state is a state like others, in which all is accepted. */
static bool combine(Dfa *out, const Dfa *a, const Dfa *b, bool except, Effort *effort, ds4_err *err)
{
    Pairs p = { .n = 1 };
    Bytes rows = { 0 };
    int sample[256];
    *out = (Dfa){ 0 };
    join_classes(out, a, b);
    for (int c = 255; c >= 0; c--)
        sample[out->class_of[c]] = c;
    bool empty = dfa_empty(a) || (!except && dfa_empty(b));
    if (!empty)
        pair_number(&p, DFA_START, dfa_empty(b) ? DFA_DEAD : DFA_START);
    bool afford = true;
    for (uint32_t i = 1; i < p.n && !p.failed && !rows.failed && afford; i++) {
        uint32_t s = (uint32_t)(p.pair[i] >> 32), t = (uint32_t)p.pair[i];
        afford = effort_spend(effort, 2 * (uint64_t)out->n_classes, err);
        for (uint32_t c = 0; c < out->n_classes; c++) {
            uint32_t s2 = dfa_next(a, s, (unsigned char)sample[c]);
            uint32_t t2 = t == DFA_DEAD ? t : dfa_next(b, t, (unsigned char)sample[c]);
            bool dead = s2 == DFA_DEAD || (!except && t2 == DFA_DEAD);
            uint32_t to = dead ? DFA_DEAD : pair_number(&p, s2, t2);
            bytes_put(&rows, &to, sizeof to);
        }
    }
    bool ok = afford && !p.failed && !rows.failed;
    if (afford && !ok && (p.no_memory || rows.failed))
        fail(err, DS4_ENOMEM, "no memory for an automaton of more than %u states", p.n);
    else if (afford && !ok)
        fail(err, DS4_EINVAL, "a pattern needs more than %d states together with its limits",
             DFA_MAX_STATES);
    ok = ok && dfa_alloc(out, p.n, err);
    for (uint32_t i = 1; ok && i < p.n; i++) {
        uint32_t s = (uint32_t)(p.pair[i] >> 32), t = (uint32_t)p.pair[i];
        out->accept[i] = a->accept[s] && (t != DFA_DEAD && b->accept[t]) != except;
    }
    if (ok && rows.n)
        memcpy(out->next + out->n_classes, rows.p, rows.n);
    pairs_release(&p);
    bytes_release(&rows);
    ok = ok && dfa_finish(out, effort, err);
    if (!ok)
        dfa_release(out);
    return ok;
}

bool dfa_and(Dfa *out, const Dfa *a, const Dfa *b, Effort *effort, ds4_err *err)
{
    return combine(out, a, b, false, effort, err);
}

bool dfa_except(Dfa *out, const Dfa *a, const Dfa *b, Effort *effort, ds4_err *err)
{
    return combine(out, a, b, true, effort, err);
}

/* ---- words ----------------------------------------------------------------------------- */

/* Each byte of the words is a class, and all the others are one. */
static void classes_of_words(Dfa *d, const Str *words, size_t n)
{
    bool seen[256] = { false }, others = false;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < words[i].n; k++)
            seen[(unsigned char)words[i].p[k]] = true;
    for (int c = 0; c < 256; c++)
        others |= !seen[c];
    d->n_classes = others;
    for (int c = 0; c < 256; c++)
        d->class_of[c] = seen[c] ? (uint8_t)d->n_classes++ : 0;
}

bool dfa_words(Dfa *out, const Str *words, size_t n, Effort *effort, ds4_err *err)
{
    size_t total = 2;
    *out = (Dfa){ 0 };
    for (size_t i = 0; i < n; i++)
        total += words[i].n;
    if (total > DFA_MAX_STATES)
        return fail(err, DS4_EINVAL, "names of %zu bytes together, at most %d", total,
                    DFA_MAX_STATES);
    classes_of_words(out, words, n);
    if (!dfa_alloc(out, (uint32_t)total, err))
        return false;
    uint32_t used = 2;
    for (size_t i = 0; i < n; i++) {
        uint32_t s = DFA_START;
        for (size_t k = 0; k < words[i].n; k++) {
            uint32_t class = out->class_of[(unsigned char)words[i].p[k]];
            uint32_t *next = &out->next[(size_t)s * out->n_classes + class];
            s = *next ? *next : (*next = used++);
        }
        out->accept[s] = true;
    }
    out->n_states = used;
    if (dfa_finish(out, effort, err))
        return true;
    dfa_release(out);
    return false;
}

/* Knuth, Morris and Pratt: state 1 + k has seen the first k bytes of the word. */
bool dfa_without(Dfa *out, Str word, Effort *effort, ds4_err *err)
{
    *out = (Dfa){ 0 };
    classes_of_words(out, &word, 1);
    if (!dfa_alloc(out, (uint32_t)word.n + 1, err))
        return false;
    uint32_t fallback = DFA_START, k = out->n_classes;
    for (uint32_t s = DFA_START; s <= word.n; s++) {
        uint32_t hit = out->class_of[(unsigned char)word.p[s - 1]];
        out->accept[s] = true;
        for (uint32_t c = 0; c < k; c++)
            out->next[s * k + c] = s == DFA_START ? DFA_START : out->next[fallback * k + c];
        uint32_t behind = s == DFA_START ? DFA_START : out->next[fallback * k + hit];
        out->next[s * k + hit] = s < word.n ? s + 1 : DFA_DEAD;
        fallback = behind;
    }
    if (dfa_finish(out, effort, err))
        return true;
    dfa_release(out);
    return false;
}

/* ---- multiples --------------------------------------------------------------------------- */

/* Classes: 0 no digit, 1 + d the digits, 11 the sign. States: the start, after
 * the sign, zero (which no digit follows), and the remainders. */
bool dfa_multiples(Dfa *out, uint32_t k, Effort *effort, ds4_err *err)
{
    enum { SIGN = 11, SIGNED = 2, ZERO, REST };
    *out = (Dfa){ .n_classes = 12 };
    for (int d = 0; d < 10; d++)
        out->class_of['0' + d] = (uint8_t)(1 + d);
    out->class_of['-'] = SIGN;
    if (!dfa_alloc(out, REST + k, err))
        return false;
    out->next[DFA_START * 12 + SIGN] = SIGNED;
    out->accept[ZERO] = out->accept[REST] = true;
    for (uint32_t d = 0; d < 10; d++) {
        out->next[DFA_START * 12 + 1 + d] = d ? REST + d % k : ZERO;
        out->next[SIGNED * 12 + 1 + d] = d ? REST + d % k : DFA_DEAD;
        for (uint32_t r = 0; r < k; r++)
            out->next[(REST + r) * 12 + 1 + d] = REST + (10 * r + d) % k;
    }
    if (dfa_finish(out, effort, err))
        return true;
    dfa_release(out);
    return false;
}

/* ---- inside a JSON string -------------------------------------------------------------------- */

/* Of each state of a: itself, and five within an escape:
 * after \, \u, \u0, \u00, \u000, \u001. */
enum { PLAIN, ESCAPE, U, U0, U00, U000, U001, WAYS };

static uint32_t way(uint32_t state, uint32_t kind) { return 1 + (state - 1) * WAYS + kind; }

static void put_edge(Dfa *d, uint32_t from, int byte, uint32_t to)
{
    d->next[(size_t)from * d->n_classes + d->class_of[byte]] = to;
}

/* Class 0: what no string has. Each byte that escapes are made of has a class
 * of its own, the others those of a. */
static void json_classes(Dfa *out, const Dfa *a)
{
    int number[256];
    memset(number, 0, sizeof number);
    out->n_classes = 1;
    for (int c = 32; c < 256; c++) {
        if (c < 128 && strchr("\"\\/bfnrtu0123456789abcdef", c))
            out->class_of[c] = (uint8_t)out->n_classes++;
        else if (number[a->class_of[c]])
            out->class_of[c] = (uint8_t)number[a->class_of[c]];
        else
            out->class_of[c] = (uint8_t)(number[a->class_of[c]] = (int)out->n_classes++);
    }
}

static void json_escapes(Dfa *out, const Dfa *a, uint32_t s)
{
    static const char letters[] = "\"\\bfnrt", meant[] = "\"\\\b\f\n\r\t";
    put_edge(out, way(s, PLAIN), '\\', way(s, ESCAPE));
    for (int i = 0; letters[i]; i++) {
        uint32_t t = dfa_next(a, s, (unsigned char)meant[i]);
        put_edge(out, way(s, ESCAPE), letters[i], t ? way(t, PLAIN) : DFA_DEAD);
    }
    put_edge(out, way(s, ESCAPE), 'u', way(s, U));
    put_edge(out, way(s, U), '0', way(s, U0));
    put_edge(out, way(s, U0), '0', way(s, U00));
    put_edge(out, way(s, U00), '0', way(s, U000));
    put_edge(out, way(s, U00), '1', way(s, U001));
    for (int c = 0; c < 32; c++) {
        uint32_t t = dfa_next(a, s, (unsigned char)c);
        if (t && !(c && strchr(meant, c)))
            put_edge(out, way(s, c < 16 ? U000 : U001), "0123456789abcdef"[c % 16], way(t, PLAIN));
    }
}

bool dfa_json(Dfa *out, const Dfa *a, Effort *effort, ds4_err *err)
{
    *out = (Dfa){ 0 };
    json_classes(out, a);
    if (!dfa_alloc(out, 1 + (a->n_states - 1) * WAYS, err))
        return false;
    for (uint32_t s = 1; s < a->n_states; s++) {
        out->accept[way(s, PLAIN)] = a->accept[s];
        for (int c = 32; c < 256; c++) {
            uint32_t t = dfa_next(a, s, (unsigned char)c);
            if (t && c != '"' && c != '\\')
                put_edge(out, way(s, PLAIN), c, way(t, PLAIN));
        }
        json_escapes(out, a, s);
    }
    if (dfa_finish(out, effort, err))
        return true;
    dfa_release(out);
    return false;
}
