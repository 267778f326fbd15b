/* input.c - one face for both kinds of input. */
#include "input.h"
#include "../model/shape.h"
#include "tokenizer.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- opening ------------------------------------------------------------------ */

static bool open_gguf(Input *in, ds4_err *err)
{
    ds4_err why = { 0 };
    Str name = { 0 };
    in->is_gguf = true;
    if (!map_open(&in->map, in->path, err))
        return false;
    if (!gguf_parse(&in->gguf, in->map.p, in->map.n, &why) ||
        !shape_read(&in->config.shape, &in->gguf, &why))
        return fail(err, why.code, "%s: %s", in->path, why.msg);
    if (gguf_str(gguf_kv(&in->gguf, "general.name"), &name))
        snprintf(in->config.name, sizeof in->config.name, "%.*s", STR_ARG(name));
    return true;
}

bool input_open(Input *in, const char *path, ds4_err *err)
{
    struct stat st;
    *in = (Input){ .path = path };
    bool dir = stat(path, &st) != 0 || S_ISDIR(st.st_mode);
    bool ok =
        dir ? config_read(&in->config, path, err) && checkpoint_open(&in->checkpoint, path, err)
            : open_gguf(in, err);
    if (!ok)
        input_close(in);
    return ok;
}

void input_close(Input *in)
{
    checkpoint_close(&in->checkpoint);
    gguf_release(&in->gguf);
    map_close(&in->map);
    *in = (Input){ 0 };
}

/* ---- tensors ------------------------------------------------------------------ */

void input_name(char out[96], const Input *in, const TensorSpec *t, int part)
{
    const char *mark = strstr(t->official, "%d");
    if (in->is_gguf)
        snprintf(out, 96, "%s", t->name);
    else if (mark)
        snprintf(out, 96, "%.*s%d%s", (int)(mark - t->official), t->official, part, mark + 2);
    else
        snprintf(out, 96, "%s", t->official);
}

enum SourceFound input_find(Source *s, const Input *in, const TensorSpec *t, int part, ds4_err *err)
{
    char name[96];
    const bool ids = t->kind == KIND_ROUTE_HASH;
    input_name(name, in, t, part);
    if (in->is_gguf)
        return source_find_gguf(s, &in->gguf, name, part, t->dims, ids, err);
    if (ids)
        return source_find_ids(s, &in->checkpoint, name, t->dims, err);
    return source_find(s, &in->checkpoint, name, MIN(t->n_dims, 2), t->dims, err);
}

size_t input_count(const Input *in)
{
    return in->is_gguf ? in->gguf.n_tensors : in->checkpoint.n_tensors;
}

Str input_tensor(const Input *in, size_t i)
{
    return in->is_gguf ? in->gguf.tensor[i].name : in->checkpoint.tensor[i]->name;
}

bool input_is(const Input *in, size_t i, const Source *s)
{
    if (in->is_gguf)
        return s->gguf == &in->gguf.tensor[i];
    return s->weight == in->checkpoint.tensor[i] || s->scale == in->checkpoint.tensor[i];
}

/* Around a page that is touched the system gives us others that it has in memory: up to a huge
 * page to each side. */
#define AROUND ((uintptr_t)2 << 20)

static const Map *map_with(const Input *in, const char *p)
{
    if (in->is_gguf)
        return &in->map;
    for (size_t i = 0; i < in->checkpoint.n_shards; i++) {
        const Map *m = &in->checkpoint.shard[i].map;
        if ((const unsigned char *)p >= m->p && (const unsigned char *)p < m->p + m->n)
            return m;
    }
    return NULL;
}

/* Never beyond the map: what lies beside it is others' memory. */
void input_forget(const Input *in, Str bytes)
{
    const Map *m = bytes.n ? map_with(in, bytes.p) : NULL;
    if (!m)
        return;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)m->p;
    const uintptr_t at = ((uintptr_t)bytes.p - begin) / page * page;
    const uintptr_t from = at - MIN(at, AROUND);
    const uintptr_t to = MIN(at + bytes.n + page + AROUND, m->n);
    madvise((void *)(begin + from), to - from, MADV_DONTNEED);
}

/* mtp.N.*, and the layers after the model's own in llama.cpp's files. */
bool input_is_draft(const Input *in, Str name)
{
    char text[64];
    int layer;
    snprintf(text, sizeof text, "%.*s", (int)MIN(name.n, sizeof text - 1), name.p);
    if (strncmp(text, "mtp.", 4) == 0)
        return true;
    return in->is_gguf && sscanf(text, "blk.%d.", &layer) == 1 &&
           layer >= in->config.shape.n_layers;
}

/* ---- metadata ------------------------------------------------------------------- */

static void tokenizer_path(char *out, size_t n, const Input *in)
{
    snprintf(out, n, "%s/tokenizer.json", in->path);
}

bool input_has_tokenizer(const Input *in)
{
    char path[4096];
    tokenizer_path(path, sizeof path, in);
    return in->is_gguf || access(path, F_OK) == 0;
}

/* Behind the last slash but those at the end. */
static Str last_part(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t at = n;
    while (at > 0 && path[at - 1] != '/')
        at--;
    return (Str){ path + at, n - at };
}

/* config.json's name, else the directory's; room: where that may lie. */
static Str model_name(const Input *in, const char *name, char room[PATH_MAX])
{
    if (name || in->config.name[0])
        return str_of(name ? name : in->config.name);
    const Str last = last_part(in->path);
    const bool dots = str_eq(last, STR(".")) || str_eq(last, STR(".."));
    return dots && realpath(in->path, room) ? last_part(room) : last;
}

static bool put_checkpoint(const Input *in, GgufWriter *w, const char *name, int file_type,
                           ds4_err *err)
{
    const int vocab = in->config.shape.vocab;
    char path[4096], room[PATH_MAX];
    tokenizer_path(path, sizeof path, in);
    config_put(w, &in->config.shape, model_name(in, name, room), file_type);
    bool ok = input_has_tokenizer(in) ? tokenizer_put_file(w, path, vocab, err)
                                      : tokenizer_put_default(w, vocab, err);
    tokenizer_put_ids(w, in->config.bos, in->config.eos, in->config.pad);
    return ok;
}

/* What another conversion has said, and this one says otherwise. */
static bool is_replaced(Str key, bool named, bool imatrix)
{
    static const Str about = { "quantize.imatrix.", 17 };
    return (named && str_eq(key, STR("general.name"))) ||
           (imatrix && key.n >= about.n && memcmp(key.p, about.p, about.n) == 0);
}

/* In the same order. Draft layers are not copied, so they must not be counted. */
static void put_gguf(const Input *in, GgufWriter *w, const char *name, int file_type, bool imatrix)
{
    bool typed = false;
    for (size_t i = 0; i < in->gguf.n_kv; i++) {
        const GgufKv *kv = &in->gguf.kv[i];
        if (str_eq(kv->key, STR("general.file_type"))) {
            gguf_put_int(w, "general.file_type", GGUF_U32, file_type);
            typed = true;
        } else if (str_eq(kv->key, STR("deepseek4.block_count"))) {
            gguf_put_int(w, "deepseek4.block_count", GGUF_U32, in->config.shape.n_layers);
        } else if (!is_replaced(kv->key, name, imatrix)) {
            gguf_put_kv(w, kv);
        }
    }
    if (name)
        gguf_put_str(w, "general.name", str_of(name));
    if (!typed)
        gguf_put_int(w, "general.file_type", GGUF_U32, file_type);
}

bool input_put(const Input *in, GgufWriter *w, const char *name, int file_type, bool imatrix,
               ds4_err *err)
{
    if (!in->is_gguf)
        return put_checkpoint(in, w, name, file_type, err);
    put_gguf(in, w, name, file_type, imatrix);
    return true;
}

/* ---- files ------------------------------------------------------------------------ */

static void shard_path(char *out, size_t n, const Input *in, size_t i)
{
    snprintf(out, n, "%s/%s", in->path, in->checkpoint.shard[i].name);
}

bool input_has_file(const Input *in, const char *path)
{
    char name[4096];
    bool has = in->is_gguf && file_same(in->path, path);
    for (size_t i = 0; i < in->checkpoint.n_shards && !has; i++) {
        shard_path(name, sizeof name, in, i);
        has = file_same(name, path);
    }
    return has;
}

/* ---- identity --------------------------------------------------------------------- */

/* A file's length and date, and the hash of what describes its tensors. */
static bool put_file(Bytes *out, const char *path, const void *head, size_t n, ds4_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return fail(err, DS4_EIO, "cannot stat %s", path);
#ifdef __APPLE__
    const struct timespec t = st.st_mtimespec;
#else
    const struct timespec t = st.st_mtim;
#endif
    bytes_u64(out, (uint64_t)st.st_size);
    bytes_u64(out, (uint64_t)t.tv_sec);
    bytes_u64(out, (uint64_t)t.tv_nsec);
    bytes_u64(out, XXH3_64bits(head, n));
    return !out->failed || fail(err, DS4_ENOMEM, "no memory for the identity of %s", path);
}

bool input_identity(const Input *in, Bytes *out, ds4_err *err)
{
    if (in->is_gguf)
        return put_file(out, in->path, in->map.p, (size_t)in->gguf.data_offset, err);
    for (size_t i = 0; i < in->checkpoint.n_shards; i++) {
        const StShard *s = &in->checkpoint.shard[i];
        char path[4096];
        shard_path(path, sizeof path, in, i);
        if (!put_file(out, path, s->map.p, (size_t)s->file.data_offset, err))
            return false;
    }
    return true;
}
