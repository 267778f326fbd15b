/* bpe.c - text to token ids.
 *
 * Text is cut at special tokens (where the caller allows them), then into
 * pieces, and each piece is merged on its own: the adjacent pair with the
 * lowest rank first, the leftmost of equals. Short pieces rescan their few
 * pairs; long ones (a line of 100 KB is one piece) keep them in a heap. */
#include "bpe.h"
#include <stdlib.h>
#include <xxhash.h>

#define SHORT_PIECE  32 /* words; 8 to 64 measure the same on prose and code */
#define CACHED_PIECE 32
#define CACHE_SLOTS  8192u
#define NO_RANK      INT32_MAX

/* A piece met before in this text: where it was and the ids it became. */
typedef struct {
    const char *p;
    uint32_t n, n_ids;
    size_t ids;
} Seen;

typedef struct {
    uint64_t order; /* rank, then place */
    int32_t left, right;
} Pair;

typedef struct {
    const ds4_vocab *v;
    Tokens *out;
    Seen *seen;      /* [CACHE_SLOTS], NULL for short texts */
    int32_t *symbol; /* scratch of long pieces, [cap] each */
    uint32_t *before, *after;
    Pair *heap; /* [2 * cap] */
    size_t n_heap, cap;
    ds4_err *err;
} Encoder;

static bool encode_span(Encoder *e, Str text);
static bool encode_piece(void *user, Str s);
static bool merge_short(Encoder *e, Str s);
static bool merge_long(Encoder *e, Str s);

bool bpe_encode(const ds4_vocab *v, Str text, bool special, Tokens *out, ds4_err *err)
{
    Encoder e = { .v = v, .out = out, .err = err };
    if (text.n > INT32_MAX)
        return fail(err, DS4_EINVAL, "text of %zu bytes, at most %d", text.n, INT32_MAX);
    if (text.n == 0)
        return true;
    /* The cache only pays when words come back; without it nothing is lost. */
    if (text.n > 2048)
        e.seen = calloc(CACHE_SLOTS, sizeof *e.seen);
    bool ok = true;
    size_t from = 0;
    for (size_t i = 0; special && i < text.n && ok;) {
        int32_t id = vocab_special_at(v, text, i);
        if (id < 0) {
            i++;
            continue;
        }
        ok = encode_span(&e, (Str){ text.p + from, i - from });
        tokens_put(out, id);
        from = i += vocab_bytes(v, id).n;
    }
    ok = ok && encode_span(&e, (Str){ text.p + from, text.n - from });
    free(e.seen);
    free(e.symbol);
    free(e.before);
    free(e.after);
    free(e.heap);
    if (ok && out->failed)
        return fail(err, DS4_ENOMEM, "no memory for %zu tokens", out->n);
    return ok;
}

void tokens_put(Tokens *t, int32_t id)
{
    if (t->n == t->cap && !t->failed) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        int32_t *grown =
            cap < SIZE_MAX / sizeof *grown ? realloc(t->id, cap * sizeof *grown) : NULL;
        if (grown) {
            t->id = grown;
            t->cap = cap;
        } else {
            t->failed = true;
        }
    }
    if (!t->failed)
        t->id[t->n++] = id;
}

void tokens_release(Tokens *t)
{
    free(t->id);
    *t = (Tokens){ 0 };
}

static bool encode_span(Encoder *e, Str text)
{
    return split_text(vocab_splitter(e->v), text, encode_piece, e, e->err);
}

static bool merge_piece(Encoder *e, Str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (vocab_byte(e->v, (unsigned char)s.p[i]) < 0)
            return fail(e->err, DS4_EINVAL, "the vocabulary has no token for byte 0x%02x",
                        (unsigned char)s.p[i]);
    return s.n <= SHORT_PIECE ? merge_short(e, s) : merge_long(e, s);
}

static bool encode_piece(void *user, Str s)
{
    Encoder *e = user;
    if (!e->seen || s.n > CACHED_PIECE)
        return merge_piece(e, s);
    Seen *seen = &e->seen[XXH3_64bits(s.p, s.n) % CACHE_SLOTS];
    if (seen->n == s.n && memcmp(seen->p, s.p, s.n) == 0) {
        for (uint32_t i = 0; i < seen->n_ids; i++)
            tokens_put(e->out, e->out->id[seen->ids + i]);
        return true;
    }
    size_t ids = e->out->n;
    bool ok = merge_piece(e, s);
    if (ok && !e->out->failed)
        *seen = (Seen){ s.p, (uint32_t)s.n, (uint32_t)(e->out->n - ids), ids };
    return ok;
}

/* ---- short pieces ------------------------------------------------------------- */

/* *result -1: the pair does not merge. */
static int32_t pair_rank(const Merges *m, int32_t left, int32_t right, int32_t *result)
{
    const Merge *found = merges_find(m, left, right);
    *result = found ? found->result : -1;
    return found ? found->rank : NO_RANK;
}

static bool merge_short(Encoder *e, Str s)
{
    const Merges *m = vocab_merges(e->v);
    int32_t id[SHORT_PIECE], rank[SHORT_PIECE], result[SHORT_PIECE];
    int n = (int)s.n;
    for (int i = 0; i < n; i++)
        id[i] = vocab_byte(e->v, (unsigned char)s.p[i]);
    for (int i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(m, id[i], id[i + 1], &result[i]);
    rank[n - 1] = NO_RANK; /* the last has no neighbour */
    result[n - 1] = -1;
    while (n > 1) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        id[best] = result[best];
        for (int i = best + 1; i + 1 < n; i++) {
            id[i] = id[i + 1];
            rank[i] = rank[i + 1];
            result[i] = result[i + 1];
        }
        n--;
        if (best > 0)
            rank[best - 1] = pair_rank(m, id[best - 1], id[best], &result[best - 1]);
        if (best + 1 < n)
            rank[best] = pair_rank(m, id[best], id[best + 1], &result[best]);
    }
    for (int i = 0; i < n; i++)
        tokens_put(e->out, id[i]);
    return true;
}

/* ---- long pieces ------------------------------------------------------------
 *
 * Symbols are a linked list over their first bytes. The heap holds every pair
 * that may merge; one whose symbols have changed since is found out when it
 * comes up. Each merge removes a symbol and adds at most two pairs, so the heap
 * never holds more than 2 n. */

static void heap_down(Pair *heap, size_t n, size_t i)
{
    Pair x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1].order < heap[child].order)
            child++;
        if (heap[child].order >= x.order)
            break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void heap_push(Encoder *e, Pair x)
{
    size_t i = e->n_heap++;
    for (; i > 0 && x.order < e->heap[(i - 1) / 2].order; i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = x;
}

static Pair heap_pop(Encoder *e)
{
    Pair top = e->heap[0];
    e->heap[0] = e->heap[--e->n_heap];
    if (e->n_heap)
        heap_down(e->heap, e->n_heap, 0);
    return top;
}

static bool grow_scratch(Encoder *e, size_t n)
{
    if (n <= e->cap)
        return true;
    free(e->symbol);
    free(e->before);
    free(e->after);
    free(e->heap);
    e->symbol = malloc(n * sizeof *e->symbol);
    e->before = malloc(n * sizeof *e->before);
    e->after = malloc(n * sizeof *e->after);
    e->heap = malloc(2 * n * sizeof *e->heap);
    e->cap = n;
    if (!e->symbol || !e->before || !e->after || !e->heap) {
        e->cap = 0;
        return fail(e->err, DS4_ENOMEM, "no memory to tokenize a word of %zu bytes", n);
    }
    return true;
}

/* The pair that begins at symbol i, if it merges. */
static bool pair_at(const Encoder *e, uint32_t i, size_t n, Pair *out)
{
    if (e->after[i] >= n)
        return false;
    int32_t left = e->symbol[i], right = e->symbol[e->after[i]];
    const Merge *m = merges_find(vocab_merges(e->v), left, right);
    if (m)
        *out = (Pair){ (uint64_t)m->rank << 32 | i, left, right };
    return m != NULL;
}

static void start_long(Encoder *e, Str s)
{
    for (uint32_t i = 0; i < s.n; i++) {
        e->symbol[i] = vocab_byte(e->v, (unsigned char)s.p[i]);
        e->before[i] = i - 1;
        e->after[i] = i + 1;
    }
    e->n_heap = 0;
    for (uint32_t i = 0; i < s.n; i++)
        if (pair_at(e, i, s.n, &e->heap[e->n_heap]))
            e->n_heap++;
    for (size_t i = e->n_heap / 2; i-- > 0;)
        heap_down(e->heap, e->n_heap, i);
}

static bool merge_long(Encoder *e, Str s)
{
    if (!grow_scratch(e, s.n))
        return false;
    start_long(e, s);
    while (e->n_heap) {
        Pair p = heap_pop(e), next;
        uint32_t i = (uint32_t)p.order, j = e->after[i];
        if (e->symbol[i] != p.left || j >= s.n || e->symbol[j] != p.right)
            continue;
        e->symbol[i] = merges_find(vocab_merges(e->v), p.left, p.right)->result;
        e->symbol[j] = -1;
        e->after[i] = e->after[j];
        if (e->after[j] < s.n)
            e->before[e->after[j]] = i;
        if (i > 0 && pair_at(e, e->before[i], s.n, &next))
            heap_push(e, next);
        if (pair_at(e, i, s.n, &next))
            heap_push(e, next);
    }
    for (uint32_t i = 0; i < s.n; i = e->after[i])
        tokens_put(e->out, e->symbol[i]);
    return true;
}
