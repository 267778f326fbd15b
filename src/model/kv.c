/* kv.c - the KV state of all sessions.
 *
 * What a query at position n needs of the tokens before it, layer by layer:
 *
 *      window rows     positions n - (window - 1) .. n - 1
 *      pooled rows     0 .. n / ratio - 1
 *      pooling inputs  from the first token of the open group on, and of the
 *                      group before it where groups overlap
 *
 * Everything else in the buffers is left over and never read. The byte order
 * is the machine's, which is little endian wherever this runs. */
#include "kv.h"
#include <inttypes.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "state is saved as it lies in memory");

/* The buffers of one layer, for one slot: what there is to allocate. */
enum { RING, COMP, COMP_KV, COMP_SCORE, IDX, IDX_KV, IDX_SCORE, N_PARTS };

typedef struct {
    size_t at;
    bool undo;
} Part;

static const Part parts[N_PARTS] = {
    [RING] = { offsetof(KvLayer, ring), false },
    [COMP] = { offsetof(KvLayer, comp), false },
    [COMP_KV] = { offsetof(KvLayer, comp_kv), true },
    [COMP_SCORE] = { offsetof(KvLayer, comp_score), true },
    [IDX] = { offsetof(KvLayer, idx), false },
    [IDX_KV] = { offsetof(KvLayer, idx_kv), true },
    [IDX_SCORE] = { offsetof(KvLayer, idx_score), true },
};

static Buf *part_of(KvLayer *l, int part) { return (Buf *)(void *)((char *)l + parts[part].at); }

static Buf part_at(const KvLayer *l, int part)
{
    Buf b;
    memcpy(&b, (const char *)l + parts[part].at, sizeof b);
    return b;
}

static void layer_format(KvLayer *l, const Shape *s, int index, int context, int max_rows)
{
    const int ratio = s->ratio[index];

    *l = (KvLayer){
        .ratio = ratio,
        .ring_rows = s->window - 1 + max_rows,
        .comp_rows = ratio ? MAX(1, context / ratio) : 0,
        .row = kvrow_format(s->head_dim, s->rope_dim, s->rounding),
    };
    if (shape_overlaps(ratio))
        l->idx_row = idxrow_format(s->idx_dim, s->rounding);
}

/* Bytes of one row of a part, and how many rows a slot has; none: 0. */
static uint64_t row_bytes(const KvLayer *l, int part)
{
    const bool has_idx = shape_overlaps(l->ratio);

    switch (part) {
    case RING: return (uint64_t)l->row.bytes;
    case COMP: return l->ratio ? (uint64_t)l->row.bytes : 0;
    case COMP_KV:
    case COMP_SCORE:
        return l->ratio ? (uint64_t)shape_comp_width(l->ratio, l->row.dim) * sizeof(float) : 0;
    case IDX: return has_idx ? (uint64_t)l->idx_row.bytes : 0;
    default:
        return has_idx ? (uint64_t)shape_comp_width(l->ratio, l->idx_row.dim) * sizeof(float) : 0;
    }
}

static uint64_t n_rows(const KvLayer *l, int part)
{
    if (part == RING)
        return (uint64_t)l->ring_rows;
    return (uint64_t)(part == COMP || part == IDX ? l->comp_rows : shape_state_rows(l->ratio));
}

static uint64_t slot_bytes(const KvLayer *l, int part)
{
    return row_bytes(l, part) * n_rows(l, part);
}

/* ---- allocation ----------------------------------------------------------- */

uint64_t kv_slot_bytes(const Shape *s, int context, int max_rows)
{
    uint64_t sum = 0;

    for (int i = 0; i < s->n_layers; i++) {
        KvLayer l;
        layer_format(&l, s, i, context, max_rows);
        for (int p = 0; p < N_PARTS; p++)
            sum += slot_bytes(&l, p) * (parts[p].undo ? 2 : 1);
    }
    return sum;
}

static bool part_init(Buf *b, uint64_t bytes, int n_slots, Backend *be, ds4_err *err)
{
    if (!bytes)
        return true;
    *b = be->op->alloc(be, bytes * (uint64_t)n_slots);
    return b->base || fail(err, DS4_ENOMEM,
                           "no room for %d sessions' KV state: %" PRIu64 " bytes of one layer",
                           n_slots, bytes * (uint64_t)n_slots);
}

static bool layer_init(Kv *kv, int index, Backend *be, ds4_err *err)
{
    KvLayer *l = &kv->layer[index];
    bool ok = true;

    l->n_slots = kv->n_slots;
    for (int p = 0, u = 0; p < N_PARTS && ok; p++) {
        const uint64_t bytes = slot_bytes(l, p);
        ok = part_init(part_of(l, p), bytes, kv->n_slots, be, err);
        if (ok && parts[p].undo)
            ok = part_init(&kv->undo[index][u++], bytes, kv->n_slots, be, err);
    }
    return ok;
}

bool kv_init(Kv *kv, const Shape *s, Backend *be, int n_slots, int context, int max_rows,
             ds4_err *err)
{
    memset(kv, 0, sizeof *kv);
    kv->shape = s;
    kv->n_slots = n_slots;
    kv->context = context;
    kv->ring_rows = s->window - 1 + max_rows;
    for (int i = 0; i < s->n_layers; i++) {
        layer_format(&kv->layer[i], s, i, context, max_rows);
        if (!layer_init(kv, i, be, err)) {
            kv_release(kv, be);
            return false;
        }
    }
    return true;
}

static void drop(Buf *b, Backend *be)
{
    if (b->base)
        be->op->free(be, *b);
    *b = (Buf){ 0 };
}

void kv_release(Kv *kv, Backend *be)
{
    for (int i = 0; i < MAX_LAYERS; i++) {
        for (int p = 0; p < N_PARTS; p++)
            drop(part_of(&kv->layer[i], p), be);
        for (int u = 0; u < 4; u++)
            drop(&kv->undo[i][u], be);
    }
}

/* ---- undoing -------------------------------------------------------------- */

/* A step that stays inside the open group writes only rows that nothing needs
 * yet: decoding never has to be protected. */
static bool overwrites(const KvLayer *l, int pos, int n)
{
    return l->ratio && pos % l->ratio + n > l->ratio;
}

static void swap_state(Kv *kv, Backend *be, int slot, int pos, int n, bool back)
{
    for (int i = 0; i < kv->shape->n_layers; i++) {
        KvLayer *l = &kv->layer[i];
        if (!overwrites(l, pos, n))
            continue;
        for (int p = 0, u = 0; p < N_PARTS; p++) {
            const uint64_t bytes = slot_bytes(l, p);
            if (!parts[p].undo || !bytes)
                continue;
            Buf live = buf_at(*part_of(l, p), bytes * (uint64_t)slot);
            Buf copy = buf_at(kv->undo[i][u++], bytes * (uint64_t)slot);
            be->op->copy(be, back ? live : copy, back ? copy : live, bytes);
        }
    }
}

void kv_protect(Kv *kv, Backend *be, int slot, int pos, int n)
{
    swap_state(kv, be, slot, pos, n, false);
}

void kv_undo(Kv *kv, Backend *be, int slot, int pos, int n)
{
    swap_state(kv, be, slot, pos, n, true);
}

/* ---- what a state consists of ------------------------------------------------ */

/* Rows [first, last) of a part of a layer, which is a ring of n_rows. */
typedef bool (*RowsFn)(void *user, const KvLayer *l, int part, int first, int last);

static bool each_of_mark(const Kv *kv, int n, RowsFn fn, void *user)
{
    for (int i = 0; i < kv->shape->n_layers; i++) {
        const KvLayer *l = &kv->layer[i];
        if (!fn(user, l, RING, MAX(0, n - (kv->shape->window - 1)), n))
            return false;
        if (!l->ratio)
            continue;
        int first = n / l->ratio * l->ratio;
        if (shape_overlaps(l->ratio))
            first = MAX(0, first - l->ratio);
        for (int p = 0; p < N_PARTS; p++)
            if (parts[p].undo && !fn(user, l, p, first, n))
                return false;
    }
    return true;
}

static bool each_of_rows(const Kv *kv, int first, int last, RowsFn fn, void *user)
{
    for (int i = 0; i < kv->shape->n_layers; i++) {
        const KvLayer *l = &kv->layer[i];
        const int a = shape_visible(l->ratio, first - 1), b = shape_visible(l->ratio, last - 1);
        if (!fn(user, l, COMP, a, b) || !fn(user, l, IDX, a, b))
            return false;
    }
    return true;
}

/* ---- walking -------------------------------------------------------------- */

typedef struct {
    int slot;
    KvPiece fn;
    void *user;
} Walk;

static bool walk_rows(void *user, const KvLayer *l, int part, int first, int last)
{
    const Walk *w = user;
    const uint64_t bytes = row_bytes(l, part);
    const int rows = (int)n_rows(l, part);
    const Buf b = buf_at(part_at(l, part), (uint64_t)w->slot * bytes * (uint64_t)rows);

    while (bytes && first < last) {
        const int at = first % rows, n = MIN(last - first, rows - at);
        if (!w->fn(w->user, buf_at(b, (uint64_t)at * bytes), (size_t)n * bytes))
            return false;
        first += n;
    }
    return true;
}

bool kv_mark_walk(const Kv *kv, int slot, int n, KvPiece fn, void *user)
{
    return each_of_mark(kv, n, walk_rows, &(Walk){ slot, fn, user });
}

bool kv_rows_walk(const Kv *kv, int slot, int first, int last, KvPiece fn, void *user)
{
    return each_of_rows(kv, first, last, walk_rows, &(Walk){ slot, fn, user });
}

/* ---- sizes ------------------------------------------------------------------ */

static bool add_bytes(void *user, const KvLayer *l, int part, int first, int last)
{
    *(uint64_t *)user += row_bytes(l, part) * (uint64_t)MAX(0, last - first);
    return true;
}

uint64_t kv_mark_bytes(const Kv *kv, int n)
{
    uint64_t sum = 0;

    each_of_mark(kv, n, add_bytes, &sum);
    return sum;
}

uint64_t kv_rows_bytes(const Kv *kv, int first, int last)
{
    uint64_t sum = 0;

    each_of_rows(kv, first, last, add_bytes, &sum);
    return sum;
}

uint64_t kv_mark_plan(const Shape *s, int n)
{
    Kv kv = { .shape = s, .n_slots = 1, .context = n };

    for (int i = 0; i < s->n_layers; i++)
        layer_format(&kv.layer[i], s, i, n, 1);
    return kv_mark_bytes(&kv, n);
}

uint64_t kv_mark_most(const Shape *s)
{
    uint64_t sum = 0;

    for (int i = 0; i < s->n_layers; i++) {
        KvLayer l;
        layer_format(&l, s, i, 1, 0); /* a ring of window - 1 rows */
        for (int p = 0; p < N_PARTS; p++)
            if (p == RING || parts[p].undo)
                sum += slot_bytes(&l, p);
    }
    return sum;
}

/* ---- to host memory and back --------------------------------------------------- */

typedef struct {
    Backend *be;
    char *to;
    const char *from;
} Copy;

static bool read_piece(void *user, Buf piece, size_t bytes)
{
    Copy *c = user;

    c->be->op->read(c->be, c->to, piece, bytes);
    c->to += bytes;
    return true;
}

static bool write_piece(void *user, Buf piece, size_t bytes)
{
    Copy *c = user;

    c->be->op->write(c->be, piece, c->from, bytes);
    c->from += bytes;
    return true;
}

void kv_mark_save(const Kv *kv, Backend *be, int slot, int n, void *out)
{
    kv_mark_walk(kv, slot, n, read_piece, &(Copy){ .be = be, .to = out });
}

void kv_mark_load(const Kv *kv, Backend *be, int slot, int n, const void *in)
{
    kv_mark_walk(kv, slot, n, write_piece, &(Copy){ .be = be, .from = in });
}

void kv_rows_save(const Kv *kv, Backend *be, int slot, int first, int last, void *out)
{
    kv_rows_walk(kv, slot, first, last, read_piece, &(Copy){ .be = be, .to = out });
}

void kv_rows_load(const Kv *kv, Backend *be, int slot, int first, int last, const void *in)
{
    kv_rows_walk(kv, slot, first, last, write_piece, &(Copy){ .be = be, .from = in });
}

/* ---- from slot to slot --------------------------------------------------------- */

typedef struct {
    Backend *be;
    int to, from;
} Slots;

/* A row is at the same place of either slot's ring. */
static bool copy_rows(void *user, const KvLayer *l, int part, int first, int last)
{
    const Slots *s = user;
    const uint64_t bytes = row_bytes(l, part), slot = slot_bytes(l, part);
    const int rows = (int)n_rows(l, part);
    const Buf b = part_at(l, part);

    while (bytes && first < last) {
        const int at = first % rows, n = MIN(last - first, rows - at);
        const uint64_t off = (uint64_t)at * bytes;
        s->be->op->copy(s->be, buf_at(b, (uint64_t)s->to * slot + off),
                        buf_at(b, (uint64_t)s->from * slot + off), (size_t)n * bytes);
        first += n;
    }
    return true;
}

void kv_mark_copy(const Kv *kv, Backend *be, int to, int from, int n)
{
    each_of_mark(kv, n, copy_rows, &(Slots){ be, to, from });
}

void kv_rows_copy(const Kv *kv, Backend *be, int to, int from, int first, int last)
{
    each_of_rows(kv, first, last, copy_rows, &(Slots){ be, to, from });
}
