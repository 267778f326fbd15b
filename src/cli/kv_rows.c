/* kv_rows.c - the rows of ds4 kv. */
#include "kv_rows.h"
#include <stdlib.h>

/* ---- reading ------------------------------------------------------------------------- */

static void see_chunk(KvRows *r, const FolderFile *f)
{
    Entry *e = table_add(&r->table, &f->head);

    if (!e) {
        r->failed = true;
        return;
    }
    e->use = f->use;
    e->file_bytes = f->bytes;
    r->bytes += f->bytes;
    r->n++;
}

static void see_bad(KvRows *r, const FolderFile *f)
{
    if (f->fault == CHUNK_GONE)
        return; /* a server evicts meanwhile */
    bytes_printf(&r->bad, "%s: %s\n", f->file, f->why);
    bytes_str(&r->bad_json, r->n_bad ? ",{\"file\":" : "{\"file\":");
    cli_json_str(&r->bad_json, str_of(f->file));
    bytes_str(&r->bad_json, ",\"why\":");
    cli_json_str(&r->bad_json, str_of(f->why));
    bytes_byte(&r->bad_json, '}');
    r->n_bad++;
    r->bad_bytes += f->bytes;
}

static void see(void *user, const FolderFile *f)
{
    KvRows *r = user;

    switch (f->kind) {
    case FOLDER_CHUNK: see_chunk(r, f); break;
    case FOLDER_BAD: see_bad(r, f); break;
    case FOLDER_JOURNAL:
        bytes_printf(&r->journals, "%s\n", f->file);
        r->n_journals++;
        r->journal_bytes += f->bytes;
        break;
    case FOLDER_LEFTOVER:
        r->n_left++;
        r->left_bytes += f->bytes;
        break;
    case FOLDER_OURS: break;
    case FOLDER_FOREIGN:
        r->n_foreign++;
        r->foreign_bytes += f->bytes;
        break;
    }
}

/* ---- the order ----------------------------------------------------------------------- */

/* A branch is as young as the youngest in it. */
static int64_t youngest(const Entry *e)
{
    int64_t used = 0;
    for (const Entry *x = e; x; x = table_next(e, x))
        used = x->known ? MAX(used, x->use.used_s) : used;
    return used;
}

typedef struct {
    Entry *e;
    int64_t used_s;
} Branch;

static int by_use(const void *a, const void *b)
{
    const Branch *x = a, *y = b;
    const int model = memcmp(&x->e->head.model, &y->e->head.model, sizeof x->e->head.model);
    if (model) /* of first chunks only */
        return model;
    if (x->used_s != y->used_s)
        return x->used_s < y->used_s ? 1 : -1;
    return memcmp(x->e->head.name.sha, y->e->head.name.sha, sizeof x->e->head.name.sha);
}

static size_t branches(Entry *e, Branch **out)
{
    size_t n = 0;
    for (Entry *c = e->child; c; c = c->sibling)
        n++;
    *out = malloc(MAX(n, (size_t)1) * sizeof **out);
    n = 0;
    for (Entry *c = e->child; *out && c; c = c->sibling)
        (*out)[n++] = (Branch){ c, youngest(c) };
    if (*out)
        qsort(*out, n, sizeof **out, by_use);
    return n;
}

/* As deep as a timeline has chunks. */
static void put_rows(KvRows *r, Entry *e, int depth, size_t *at)
{
    Branch *b;

    if (e->known) {
        r->row[*at] = e;
        r->depth[(*at)++] = depth;
    }
    const size_t n = branches(e, &b);
    if (!b)
        r->failed = true;
    const int below = depth + (e->known && n > 1 ? 1 : 0);
    for (size_t i = 0; b && i < n; i++)
        put_rows(r, b[i].e, below, at);
    free(b);
}

bool kv_rows_read(KvRows *r, const Folder *f, ds4_err *err)
{
    size_t at = 0;

    *r = (KvRows){ 0 };
    if (!table_init(&r->table))
        return fail(err, DS4_ENOMEM, "no memory for a list");
    if (!folder_scan(f, see, r, err))
        return false;
    r->row = malloc((r->n + 1) * sizeof(Entry *));
    r->depth = malloc((r->n + 1) * sizeof *r->depth);
    if (r->row && r->depth)
        put_rows(r, &r->table.root, 0, &at);
    if (at != r->n || r->failed || r->bad.failed || r->bad_json.failed || r->journals.failed)
        return fail(err, DS4_ENOMEM, "no memory for a list of %zu chunks", r->n);
    for (size_t i = 0; i < r->n; i++)
        r->orphans += r->row[i]->head.first > 0 && !r->row[i]->parent->known;
    return true;
}

void kv_rows_release(KvRows *r)
{
    free(r->row);
    free(r->depth);
    bytes_release(&r->bad);
    bytes_release(&r->bad_json);
    bytes_release(&r->journals);
    table_release(&r->table);
}

/* ---- finding ------------------------------------------------------------------------- */

size_t kv_rows_find(const KvRows *r, const char *id, ds4_err *err)
{
    size_t found = SIZE_MAX;
    char hex[41];

    for (size_t i = 0; i < r->n; i++) {
        name_hex(&r->row[i]->head.name, hex);
        if (strncmp(hex, id, strlen(id)) != 0)
            continue;
        if (found != SIZE_MAX) {
            fail(err, DS4_EINVAL, "several chunks begin with %.40s", id);
            return SIZE_MAX;
        }
        found = i;
    }
    if (found == SIZE_MAX)
        fail(err, DS4_EINVAL, "there is no chunk %.40s", id);
    return found;
}

size_t kv_rows_end(const KvRows *r, size_t at)
{
    const Entry *top = r->row[at];
    size_t n = 0;
    for (const Entry *e = top; e; e = table_next(top, e))
        n += e->known;
    return at + n;
}
