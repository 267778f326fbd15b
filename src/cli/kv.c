/* kv.c - ds4 kv: what a server's KV folder holds. */
#include "kv_rows.h"
#include "tokens.h"
#include "../base/file.h"
#include "../store/record.h"
#include "../store/store.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char about[] =
    "Looks into the folder in which a server keeps KV state (serve --kv-disk-dir).\n"
    "\n"
    "  ls       its chunks: a chunk holds up to 2,048 tokens and goes on from the one\n"
    "           above it; where conversations part, the lines are moved in\n"
    "  show ID  one chunk, and its text where -m names the model\n"
    "  rm ID    removes a chunk and all that go on from it; not while a server runs\n"
    "  verify   reads every byte and checks it; exit status 1 on damage\n"
    "\n"
    "An ID is a chunk's name, or as much of its beginning as no other has.";

typedef struct {
    const char *dir, *model;
    bool json;
    Folder folder;
    KvRows rows;
    ds4_err *err;
} Kv;

static bool print(Bytes *b, ds4_err *err)
{
    bool ok = b->failed ? fail(err, DS4_ENOMEM, "no memory for a text") : cli_out(b->p, b->n, err);
    bytes_release(b);
    return ok;
}

/* ---- ls ------------------------------------------------------------------------------ */

static const char *age(char buf[16], int64_t s)
{
    static const struct {
        int64_t s;
        const char *unit;
    } units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
    s = MAX(s, 0);
    size_t i = 0;
    while (i + 1 < COUNT(units) && s < units[i].s)
        i++;
    snprintf(buf, 16, "%d %s", (int)MIN(s / units[i].s, (int64_t)99999), units[i].unit);
    return buf;
}

static void put_model(Bytes *b, const ChunkModel *m)
{
    for (size_t i = 0; i < 6; i++)
        bytes_printf(b, "%02x", m->fingerprint[i]);
    bytes_printf(b, ", %srounded", m->numerics >> 31 ? "" : "un");
}

static bool same_model(const ChunkModel *a, const ChunkModel *b)
{
    return a->numerics == b->numerics &&
           memcmp(a->fingerprint, b->fingerprint, sizeof a->fingerprint) == 0;
}

static void put_row(Bytes *b, const Entry *e, int depth, int64_t now)
{
    char hex[41], size[16], used[16];
    Bytes name = { 0 };
    name_hex(&e->head.name, hex);
    bytes_printf(&name, "%*s%.12s", 2 * MIN(depth, 12), "", hex);
    bytes_printf(b, "%-28.*s %9d %9d %9s %9s %6u%s\n", (int)name.n, name.failed ? "" : name.p,
                 e->head.first, e->head.first + e->head.n, cli_size(size, e->file_bytes),
                 age(used, now - e->use.used_s), e->use.hits,
                 e->head.first > 0 && !e->parent->known ? "  its beginning is missing" : "");
    bytes_release(&name);
}

static void put_others(Bytes *b, const KvRows *r)
{
    char size[16];
    if (r->n_journals)
        bytes_printf(b, "%zu journal%s, %s\n", r->n_journals, r->n_journals == 1 ? "" : "s",
                     cli_size(size, r->journal_bytes));
    if (r->n_left)
        bytes_printf(b, "%zu half-written, %s: the next server removes them\n", r->n_left,
                     cli_size(size, r->left_bytes));
    if (r->n_foreign)
        bytes_printf(b, "%zu foreign, %s: they count in the budget and are left alone\n",
                     r->n_foreign, cli_size(size, r->foreign_bytes));
    if (r->n_bad)
        bytes_printf(b, "%zu damaged, %s: the next server removes them\n%.*s", r->n_bad,
                     cli_size(size, r->bad_bytes), (int)r->bad.n, r->bad.p);
}

static bool list_text(Kv *k)
{
    const KvRows *r = &k->rows;
    const int64_t now = (int64_t)time(NULL);
    char size[16];
    Bytes b = { 0 };

    for (size_t i = 0; i < r->n; i++) {
        const Entry *e = r->row[i];
        if (i == 0 || !same_model(&e->head.model, &r->row[i - 1]->head.model)) {
            bytes_str(&b, i ? "\nmodel " : "model ");
            put_model(&b, &e->head.model);
            bytes_printf(&b, "\n%-28s %9s %9s %9s %9s %6s\n", "chunk", "from", "to", "size", "used",
                         "hits");
        }
        put_row(&b, e, r->depth[i], now);
    }
    bytes_printf(&b, "%s%zu chunk%s, %s\n", r->n ? "\n" : "", r->n, r->n == 1 ? "" : "s",
                 cli_size(size, r->bytes));
    put_others(&b, r);
    return print(&b, k->err);
}

static void put_json_row(Bytes *b, const Entry *e)
{
    char hex[41];
    name_hex(&e->head.name, hex);
    bytes_printf(b, "{\"id\":\"%s\",\"parent\":", hex);
    name_hex(&e->head.parent, hex);
    if (e->head.first)
        bytes_printf(b, "\"%s\"", hex);
    else
        bytes_str(b, "null");
    bytes_printf(b,
                 ",\"first\":%d,\"last\":%d,\"bytes\":%" PRIu64 ",\"rows_bytes\":%" PRIu64
                 ",\"mark_bytes\":%" PRIu64 ",\"created\":%" PRId64 ",\"used\":%" PRId64
                 ",\"hits\":%u,\"orphan\":%s,\"model\":\"",
                 e->head.first, e->head.first + e->head.n, e->file_bytes, e->head.rows_bytes,
                 e->head.mark_bytes, e->head.created_s, e->use.used_s, e->use.hits,
                 e->head.first && !e->parent->known ? "true" : "false");
    for (size_t i = 0; i < sizeof e->head.model.fingerprint; i++)
        bytes_printf(b, "%02x", e->head.model.fingerprint[i]);
    bytes_printf(b, "\",\"numerics\":%u,\"rounded\":%s", e->head.model.numerics & INT32_MAX,
                 e->head.model.numerics >> 31 ? "true" : "false");
}

static bool list_json(Kv *k)
{
    const KvRows *r = &k->rows;
    Bytes b = { 0 };

    bytes_str(&b, "{\"dir\":");
    cli_json_str(&b, str_of(k->folder.dir));
    bytes_printf(&b, ",\"bytes\":%" PRIu64 ",\"chunks\":[", r->bytes);
    for (size_t i = 0; i < r->n; i++) {
        bytes_str(&b, i ? "},\n" : "\n");
        put_json_row(&b, r->row[i]);
    }
    bytes_printf(&b, "%s],\"journals\":{\"files\":%zu,\"bytes\":%" PRIu64 "}", r->n ? "}" : "",
                 r->n_journals, r->journal_bytes);
    bytes_printf(&b, ",\"half_written\":{\"files\":%zu,\"bytes\":%" PRIu64 "}", r->n_left,
                 r->left_bytes);
    bytes_printf(&b, ",\"foreign\":{\"files\":%zu,\"bytes\":%" PRIu64 "},\"damaged\":[",
                 r->n_foreign, r->foreign_bytes);
    bytes_put(&b, r->bad_json.p, r->bad_json.n);
    bytes_str(&b, "]}\n");
    return print(&b, k->err);
}

/* ---- show ---------------------------------------------------------------------------- */

static bool put_words(Bytes *b, const ds4_vocab *v, const int32_t *tokens, int n, ds4_err *err)
{
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab_size(v))
            return fail(err, DS4_EINVAL, "token %d is not in this model's vocabulary of %d",
                        tokens[i], vocab_size(v));
        const Str s = vocab_bytes(v, tokens[i]);
        bytes_put(b, s.p, s.n);
    }
    return true;
}

static void put_time(Bytes *b, const char *what, int64_t s)
{
    struct tm tm;
    char text[64];
    const time_t t = (time_t)s;
    if (localtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm))
        bytes_printf(b, "%-10s %s\n", what, text);
}

static void put_facts(Bytes *b, const Entry *e)
{
    char hex[41], size[16], rows[16], mark[16];
    name_hex(&e->head.name, hex);
    bytes_printf(b, "%-10s %s\n", "chunk", hex);
    name_hex(&e->head.parent, hex);
    if (e->head.first)
        bytes_printf(b, "%-10s %s%s\n", "parent", hex,
                     e->parent->known ? "" : ", which is missing");
    bytes_printf(b, "%-10s %d to %d\n", "tokens", e->head.first, e->head.first + e->head.n);
    bytes_printf(b, "%-10s %s: %s of rows, %s of the mark at its end\n", "size",
                 cli_size(size, e->file_bytes), cli_size(rows, e->head.rows_bytes),
                 cli_size(mark, e->head.mark_bytes));
    bytes_printf(b, "%-10s ", "model");
    put_model(b, &e->head.model);
    bytes_byte(b, '\n');
    put_time(b, "written", e->head.created_s);
    put_time(b, "used", e->use.used_s);
    bytes_printf(b, "%-10s %u\n", "hits", e->use.hits);
}

static bool show(Kv *k, const char *id)
{
    int32_t tokens[STORE_CHUNK];
    Bytes b = { 0 }, words = { 0 };
    ChunkHead h;
    ChunkUse u;
    ds4_err why = { 0 };
    ds4_vocab *v = NULL;
    ModelOptions m = { .engine.model = k->model };
    const size_t at = kv_rows_find(&k->rows, id, k->err);

    if (at == SIZE_MAX)
        return false;
    const Entry *e = k->rows.row[at];
    if (folder_read_tokens(&k->folder, &e->head.name, &h, &u, tokens, &why) != CHUNK_OK)
        return fail(k->err, why.code, "chunk %.40s: %s", id, why.msg);
    bool ok = !k->model || ((v = tokens_open_vocab(&m, NULL, k->err)) &&
                            put_words(&words, v, tokens, h.n, k->err));
    if (ok && k->json) {
        put_json_row(&b, e);
        bytes_str(&b, ",\"tokens\":[");
        for (int i = 0; i < h.n; i++)
            bytes_printf(&b, i ? ",%d" : "%d", tokens[i]);
        bytes_byte(&b, ']');
        if (v) {
            bytes_str(&b, ",\"text\":");
            cli_json_str(&b, bytes_view(&words));
        }
        bytes_str(&b, "}\n");
    } else if (ok) {
        put_facts(&b, e);
        if (v) {
            bytes_byte(&b, '\n');
            bytes_put(&b, words.p, words.n);
            bytes_byte(&b, '\n');
        }
    }
    b.failed |= words.failed;
    vocab_free(v);
    bytes_release(&words);
    ok = ok && print(&b, k->err);
    bytes_release(&b);
    return ok;
}

/* ---- rm ------------------------------------------------------------------------------ */

static bool remove_rows(Kv *k, size_t at, size_t end, uint64_t *bytes)
{
    for (size_t i = end; i-- > at;) { /* what goes on from a chunk before it */
        char hex[41];
        const Entry *e = k->rows.row[i];
        name_hex(&e->head.name, hex);
        if (!folder_remove_chunk(&k->folder, &e->head.name))
            return fail(k->err, DS4_EIO, "cannot remove %s.kv, and %zu chunks are left", hex,
                        i + 1 - at);
        *bytes += e->file_bytes;
    }
    return true;
}

static bool rm(Kv *k, const char *id)
{
    char size[16];
    uint64_t bytes = 0;
    Bytes b = { 0 };
    const size_t at = kv_rows_find(&k->rows, id, k->err);

    if (at == SIZE_MAX)
        return false;
    if (!k->folder.writable)
        return fail(k->err, DS4_EIO, "the folder %s cannot be written", k->folder.dir);
    const size_t end = kv_rows_end(&k->rows, at);
    if (!remove_rows(k, at, end, &bytes))
        return false;
    if (k->json)
        bytes_printf(&b, "{\"removed\":%zu,\"bytes\":%" PRIu64 "}\n", end - at, bytes);
    else if (end - at == 1)
        bytes_printf(&b, "removed 1 chunk, %s\n", cli_size(size, bytes));
    else
        bytes_printf(&b, "removed %zu chunks, %s: this one and %zu that went on from it\n",
                     end - at, cli_size(size, bytes), end - at - 1);
    return print(&b, k->err);
}

/* ---- verify -------------------------------------------------------------------------- */

static void count_record(void *user, const Record *r)
{
    (void)r;
    ++*(size_t *)user;
}

typedef struct {
    Bytes lines, json;
    size_t damaged;
} Damage;

static void add_damage(Damage *d, const char *file, const char *why)
{
    bytes_printf(&d->lines, "%s: %s\n", file, why);
    bytes_str(&d->json, d->damaged ? ",{\"file\":" : "{\"file\":");
    cli_json_str(&d->json, str_of(file));
    bytes_str(&d->json, ",\"why\":");
    cli_json_str(&d->json, str_of(why));
    bytes_byte(&d->json, '}');
    d->damaged++;
}

static void verify_chunks(Kv *k, Damage *d)
{
    uint64_t done = 0;
    for (size_t i = 0; i < k->rows.n && !cli_interrupted(); i++) {
        const Entry *e = k->rows.row[i];
        char file[48];
        ds4_err why = { 0 };
        name_hex(&e->head.name, file);
        memcpy(file + 40, ".kv", 4);
        const ChunkFault f = folder_verify_chunk(&k->folder, &e->head.name, &why);
        if (f != CHUNK_OK && f != CHUNK_GONE) /* a server evicts meanwhile */
            add_damage(d, file, why.msg);
        cli_progress(NULL, "reading", done += e->file_bytes, k->rows.bytes);
    }
    cli_progress_end();
}

/* A torn end is what a crash leaves, and no damage. */
static void verify_journal(Kv *k, Damage *d, const char *name)
{
    char path[FOLDER_PATH];
    Map m = { 0 };
    ds4_err why = { 0 };
    size_t records = 0;

    if (!folder_path(&k->folder, name, path) || !map_open(&m, path, &why)) {
        if (why.code == DS4_EIO)
            add_damage(d, name, why.msg);
        return;
    }
    const RecordScan scan = record_scan((const char *)m.p, m.n, count_record, &records);
    if (scan.damaged) {
        Bytes b = { 0 };
        bytes_printf(&b, "damaged at %zu places, %zu records are whole", scan.damaged, records);
        add_damage(d, name, b.failed ? "damaged" : b.p);
        bytes_release(&b);
    }
    map_close(&m);
}

static void verify_journals(Kv *k, Damage *d)
{
    const Bytes *names = &k->rows.journals;
    for (size_t at = 0; at < names->n;) {
        char *name = names->p + at, *end = memchr(name, '\n', names->n - at);
        *end = '\0';
        verify_journal(k, d, name);
        at += (size_t)(end - name) + 1;
    }
}

static bool verify(Kv *k, bool *whole)
{
    const KvRows *r = &k->rows;
    char size[16];
    Bytes b = { 0 };
    Damage d = { 0 };

    bytes_put(&d.lines, r->bad.p, r->bad.n);
    bytes_put(&d.json, r->bad_json.p, r->bad_json.n);
    d.damaged = r->n_bad;
    verify_chunks(k, &d);
    verify_journals(k, &d);
    if (k->json) {
        bytes_printf(&b, "{\"chunks\":%zu,\"bytes\":%" PRIu64 ",\"journals\":%zu,\"damaged\":[",
                     r->n, r->bytes, r->n_journals);
        bytes_put(&b, d.json.p, d.json.n);
        bytes_str(&b, "]}\n");
    } else {
        bytes_put(&b, d.lines.p, d.lines.n);
        bytes_printf(&b, "%zu chunk%s, %s, and %zu journal%s: ", r->n, r->n == 1 ? "" : "s",
                     cli_size(size, r->bytes), r->n_journals, r->n_journals == 1 ? "" : "s");
        bytes_printf(&b, d.damaged ? "%zu are damaged\n" : "all are whole\n", d.damaged);
    }
    *whole = d.damaged == 0;
    b.failed |= d.lines.failed || d.json.failed;
    bytes_release(&d.lines);
    bytes_release(&d.json);
    if (cli_interrupted()) {
        bytes_release(&b);
        return fail(k->err, DS4_ECANCELED, "interrupted");
    }
    return print(&b, k->err);
}

/* ---- the command ----------------------------------------------------------------------- */

/* Whoever removes must own the folder, which must be there. */
static bool open_folder(Kv *k, bool to_own)
{
    if (!folder_open(&k->folder, k->dir, false, k->err))
        return false;
    if (!to_own)
        return true;
    ds4_err why = { 0 };
    folder_close(&k->folder);
    if (folder_open(&k->folder, k->dir, true, &why))
        return true;
    return fail(k->err, why.code, "%s; while a server runs, ask it: DELETE /kv/ID", why.msg);
}

static bool work(Kv *k, const char *verb, const char *id, bool *whole)
{
    bool ok = open_folder(k, !strcmp(verb, "rm")) && kv_rows_read(&k->rows, &k->folder, k->err);

    if (ok && !strcmp(verb, "ls"))
        ok = k->json ? list_json(k) : list_text(k);
    else if (ok && !strcmp(verb, "show"))
        ok = show(k, id);
    else if (ok && !strcmp(verb, "rm"))
        ok = rm(k, id);
    else if (ok)
        ok = verify(k, whole);
    kv_rows_release(&k->rows);
    folder_close(&k->folder);
    return ok;
}

/* The verb, and whether an ID belongs to it; -1: it is none. */
static int wants_id(const char *verb)
{
    static const char *const without[] = { "ls", "verify" }, *const with[] = { "show", "rm" };
    for (size_t i = 0; i < COUNT(without); i++) {
        if (!strcmp(verb, without[i]))
            return 0;
        if (!strcmp(verb, with[i]))
            return 1;
    }
    return -1;
}

int cmd_kv(int argc, char **argv)
{
    ds4_err err = { 0 };
    Kv k = { .folder.lock = -1, .err = &err };
    const char *args[2] = { 0 };
    bool whole = true;
    const Option options[] = {
        { OPT_STR, "--kv-disk-dir", "DIR", &k.dir, "the folder that the server was given", 0, 0 },
        { OPT_STR, "-m, --model", "FILE", &k.model,
          "show: the model, whose vocabulary has the text", 0, 0 },
        { OPT_FLAG, "--json", NULL, &k.json, "one JSON object", 0, 0 },
        { 0 },
    };
    const Usage usage = { .usage = "ds4 kv [options] ls|show ID|rm ID|verify",
                          .about = about,
                          .tables = { options },
                          .min_args = 1,
                          .max_args = 2 };
    int status = cli_parse(&usage, argc, argv, args, NULL);
    if (status >= 0)
        return status;
    const int id = wants_id(args[0]);
    if (id < 0)
        return cli_usage_error("ds4 kv %.40s: there is ls, show ID, rm ID and verify", args[0]);
    if (!id != !args[1] || (id && !*args[1]))
        return cli_usage_error(
            id ? "ds4 kv %s: which chunk? ds4 kv ls lists them" : "ds4 kv %s takes no ID", args[0]);
    if (!k.dir)
        return cli_usage_error("no folder: give the server's with --kv-disk-dir");
    if (k.model && strcmp(args[0], "show") != 0)
        return cli_usage_error("-m is for show");
    cli_catch_interrupt(NULL);
    if (!work(&k, args[0], args[1], &whole))
        return cli_fail(&err);
    return whole ? 0 : 1;
}
