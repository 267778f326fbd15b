/* safetensors.c - one file's header, and directories of files. */
#include "safetensors.h"
#include "../json/json.h"
#include <dirent.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* The largest published header is about 1 MB; JSON in memory takes some
 * twenty times its text. */
#define MAX_HEADER ((uint64_t)64 << 20)

enum { MAX_SHARDS = 4096 };

static const struct {
    const char *name;
    int size;
} types[ST_END] = {
    [ST_BOOL] = { "BOOL", 1 },       [ST_U8] = { "U8", 1 },
    [ST_I8] = { "I8", 1 },           [ST_F8_E5M2] = { "F8_E5M2", 1 },
    [ST_F8_E4M3] = { "F8_E4M3", 1 }, [ST_F8_E8M0] = { "F8_E8M0", 1 },
    [ST_U16] = { "U16", 2 },         [ST_I16] = { "I16", 2 },
    [ST_F16] = { "F16", 2 },         [ST_BF16] = { "BF16", 2 },
    [ST_U32] = { "U32", 4 },         [ST_I32] = { "I32", 4 },
    [ST_F32] = { "F32", 4 },         [ST_U64] = { "U64", 8 },
    [ST_I64] = { "I64", 8 },         [ST_F64] = { "F64", 8 },
};

const char *st_type_name(int type) { return type >= 0 && type < ST_END ? types[type].name : "?"; }

int st_type_size(int type) { return type >= 0 && type < ST_END ? types[type].size : 0; }

static int str_order(Str a, Str b)
{
    int c = memcmp(a.p, b.p, MIN(a.n, b.n));
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* ---- names that are there twice ------------------------------------------ */

/* Of all objects in it. */
static size_t n_members(struct json_object *o)
{
    size_t n = 0;
    for (size_t i = 0; i < json_length(o); i++)
        n += n_members(json_at(o, i));
    if (!json_object_is_type(o, json_type_object))
        return n;
    struct json_object_iterator it = json_object_iter_begin(o), end = json_object_iter_end(o);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
        n += 1 + n_members(json_object_iter_peek_value(&it));
    return n;
}

/* Colons of a JSON text that are not in strings. */
static size_t n_colons(Str text)
{
    size_t n = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"')
            quoted = !quoted;
        else if (quoted && text.p[i] == '\\')
            i++;
        else
            n += !quoted && text.p[i] == ':';
    }
    return n;
}

/* Of members with one name only the last is left, and nobody knows which one was meant. */
static bool each_once(Str text, struct json_object *o, const char *what, ds4_err *err)
{
    const size_t written = n_colons(text), left = n_members(o);
    return written == left ||
           fail(err, DS4_EFORMAT, "%s: a name is there twice in one object: %zu of %zu are lost",
                what, written - left, written);
}

/* ---- one file ---------------------------------------------------------- */

static bool read_type(StTensor *t, struct json_object *o, ds4_err *err)
{
    Str name = json_text(json_member(o, "dtype"));
    if (!name.p)
        return fail(err, DS4_EFORMAT, "tensor %.*s has no dtype", STR_ARG(t->name));
    for (int i = 0; i < ST_END; i++) {
        if (str_eq(name, str_of(types[i].name))) {
            t->type = i;
            return true;
        }
    }
    return fail(err, DS4_EFORMAT, "tensor %.*s has the unknown dtype %.*s", STR_ARG(t->name),
                (int)MIN(name.n, 20), name.p);
}

static bool read_shape(StTensor *t, struct json_object *o, ds4_err *err)
{
    struct json_object *shape = json_member(o, "shape");
    if (!json_object_is_type(shape, json_type_array))
        return fail(err, DS4_EFORMAT, "tensor %.*s has no shape", STR_ARG(t->name));
    size_t n = json_object_array_length(shape);
    if (n > ST_MAX_DIMS)
        return fail(err, DS4_EFORMAT, "tensor %.*s has %zu dimensions, more than %d",
                    STR_ARG(t->name), n, ST_MAX_DIMS);
    t->n_dims = (int)n;
    t->count = 1;
    for (size_t i = 0; i < ST_MAX_DIMS; i++) {
        t->dims[i] = 1;
        if (i < n && !json_whole(json_object_array_get_idx(shape, i), INT64_MAX - 1, &t->dims[i]))
            return fail(err, DS4_EFORMAT, "tensor %.*s: dimension %zu is no count",
                        STR_ARG(t->name), i);
        if (!mul_u64(t->count, t->dims[i], &t->count))
            return fail(err, DS4_EFORMAT, "tensor %.*s: its shape has more than 2^64 values",
                        STR_ARG(t->name));
    }
    return true;
}

static bool read_place(StTensor *t, struct json_object *o, uint64_t data_bytes, ds4_err *err)
{
    struct json_object *at = json_member(o, "data_offsets");
    uint64_t end, want;
    if (!json_object_is_type(at, json_type_array) || json_object_array_length(at) != 2 ||
        !json_whole(json_object_array_get_idx(at, 0), INT64_MAX - 1, &t->begin) ||
        !json_whole(json_object_array_get_idx(at, 1), INT64_MAX - 1, &end))
        return fail(err, DS4_EFORMAT, "tensor %.*s has no pair of data_offsets", STR_ARG(t->name));
    if (t->begin > end || end > data_bytes)
        return fail(err, DS4_EFORMAT, "tensor %.*s: data at %llu..%llu, the file has %llu bytes",
                    STR_ARG(t->name), (unsigned long long)t->begin, (unsigned long long)end,
                    (unsigned long long)data_bytes);
    t->bytes = end - t->begin;
    if (!mul_u64(t->count, (uint64_t)types[t->type].size, &want) || want != t->bytes)
        return fail(err, DS4_EFORMAT, "tensor %.*s: %llu values of %s in %llu bytes",
                    STR_ARG(t->name), (unsigned long long)t->count, types[t->type].name,
                    (unsigned long long)t->bytes);
    return true;
}

static bool read_tensor(StFile *f, const char *name, struct json_object *o,
                        const unsigned char *data, uint64_t data_bytes, ds4_err *err)
{
    StTensor *t = &f->tensor[f->n];
    t->name = str_of(name);
    if (t->name.n == 0 || t->name.n > 255)
        return fail(err, DS4_EFORMAT, "a tensor's name has %zu bytes, not 1 to 255", t->name.n);
    t->name.p = arena_str(&f->arena, t->name);
    if (!t->name.p)
        return fail(err, DS4_ENOMEM, "no memory for tensor names");
    if (!read_type(t, o, err) || !read_shape(t, o, err) || !read_place(t, o, data_bytes, err))
        return false;
    t->data = data + t->begin;
    f->n++;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const StTensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return str_order(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

static bool check_overlap(StFile *f, ds4_err *err)
{
    qsort(f->tensor, f->n, sizeof *f->tensor, by_place);
    for (size_t i = 1; i < f->n; i++) {
        const StTensor *a = &f->tensor[i - 1], *b = &f->tensor[i];
        if (a->begin + a->bytes > b->begin)
            return fail(err, DS4_EFORMAT, "tensors %.*s and %.*s overlap at byte %llu",
                        STR_ARG(a->name), STR_ARG(b->name), (unsigned long long)b->begin);
    }
    return true;
}

static bool read_header(StFile *f, struct json_object *root, const unsigned char *data,
                        uint64_t data_bytes, ds4_err *err)
{
    if (!json_object_is_type(root, json_type_object))
        return fail(err, DS4_EFORMAT, "the header is no JSON object");
    f->tensor = arena_array(&f->arena, (size_t)json_object_object_length(root), sizeof *f->tensor);
    if (!f->tensor)
        return fail(err, DS4_ENOMEM, "no memory for %d tensors", json_object_object_length(root));

    struct json_object_iterator it = json_object_iter_begin(root), end = json_object_iter_end(root);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *name = json_object_iter_peek_name(&it);
        if (strcmp(name, "__metadata__") != 0 &&
            !read_tensor(f, name, json_object_iter_peek_value(&it), data, data_bytes, err))
            return false;
    }
    if (!check_overlap(f, err))
        return false;
    qsort(f->tensor, f->n, sizeof *f->tensor, by_name);
    return true;
}

bool st_parse(StFile *f, const void *p, size_t n, ds4_err *err)
{
    const unsigned char *b = p;
    uint64_t len = 0;

    *f = (StFile){ 0 };
    if (n < 8)
        return fail(err, DS4_EFORMAT, "%zu bytes are no safetensors file", n);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | b[i];
    if (len > n - 8)
        return fail(err, DS4_EFORMAT, "a header of %llu bytes in a file of %zu",
                    (unsigned long long)len, n);
    if (len > MAX_HEADER)
        return fail(err, DS4_EFORMAT, "a header of %llu bytes, more than %llu",
                    (unsigned long long)len, (unsigned long long)MAX_HEADER);
    f->data_offset = 8 + len;

    const Str header = { (const char *)b + 8, (size_t)len };
    struct json_object *root = json_parse(header, 8, "header", err);
    bool ok = root && each_once(header, root, "header", err) &&
              read_header(f, root, b + 8 + len, n - 8 - len, err);
    json_free(root);
    if (!ok)
        st_release(f);
    return ok;
}

void st_release(StFile *f)
{
    arena_release(&f->arena);
    *f = (StFile){ 0 };
}

/* ---- a directory ------------------------------------------------------- */

static char *join(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *s = malloc(n);
    if (s)
        snprintf(s, n, "%s/%s", dir, name);
    return s;
}

static bool add_shard(Checkpoint *c, const char *name, ds4_err *err)
{
    for (size_t i = 0; i < c->n_shards; i++)
        if (strcmp(c->shard[i].name, name) == 0)
            return true;
    if (c->n_shards == MAX_SHARDS)
        return fail(err, DS4_EFORMAT, "more than %d files of tensors", MAX_SHARDS);
    StShard *grown = realloc(c->shard, (c->n_shards + 1) * sizeof *grown);
    if (grown)
        c->shard = grown;
    char *copy = grown ? strdup(name) : NULL;
    if (!copy)
        return fail(err, DS4_ENOMEM, "no memory for %zu shards", c->n_shards + 1);
    c->shard[c->n_shards++] = (StShard){ .name = copy };
    return true;
}

static bool is_file(const char *dir, const char *name)
{
    struct stat st;
    char *path = join(dir, name);
    bool ok = path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return ok;
}

#define INDEX_NAME "model.safetensors.index.json"

/* NULL after a message. */
static struct json_object *read_index(const char *dir, ds4_err *err)
{
    Bytes text = { 0 };
    char *path = join(dir, INDEX_NAME);
    struct json_object *root = NULL;
    bool ok = path ? file_read(&text, path, (size_t)MAX_HEADER, err)
                   : fail(err, DS4_ENOMEM, "no memory for the name of %s", INDEX_NAME);
    if (ok)
        ok = (root = json_parse(bytes_view(&text), 8, INDEX_NAME, err)) != NULL &&
             each_once(bytes_view(&text), root, INDEX_NAME, err);
    if (ok && !json_is_object(json_member(root, "weight_map")))
        ok = fail(err, DS4_EFORMAT, "%s has no weight_map", INDEX_NAME);
    bytes_release(&text);
    free(path);
    if (ok)
        return root;
    json_free(root);
    return NULL;
}

/* The file of a tensor, for each. */
typedef bool (*Entry)(Checkpoint *c, const char *tensor, Str file, ds4_err *err);

static bool for_index(Checkpoint *c, struct json_object *index, Entry entry, ds4_err *err)
{
    struct json_object *map = json_member(index, "weight_map");
    struct json_object_iterator it = json_object_iter_begin(map), end = json_object_iter_end(map);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
        if (!entry(c, json_object_iter_peek_name(&it), json_text(json_object_iter_peek_value(&it)),
                   err))
            return false;
    return true;
}

/* A name and not a path: the index must not lead elsewhere. */
static bool add_named(Checkpoint *c, const char *tensor, Str file, ds4_err *err)
{
    if (!file.n || memchr(file.p, '/', file.n) || memchr(file.p, '\0', file.n))
        return fail(err, DS4_EFORMAT, "%s: the file of %.100s is no file name", INDEX_NAME, tensor);
    return add_shard(c, file.p, err);
}

static const char *file_of(const Checkpoint *c, const StTensor *t)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        const StFile *f = &c->shard[i].file;
        if (t >= f->tensor && t < f->tensor + f->n)
            return c->shard[i].name;
    }
    return "?";
}

static bool check_named(Checkpoint *c, const char *tensor, Str file, ds4_err *err)
{
    const StTensor *t = checkpoint_find(c, tensor);
    if (!t)
        return fail(err, DS4_EFORMAT, "%s: %.100s is said to be in %.60s, and is nowhere",
                    INDEX_NAME, tensor, file.p);
    return strcmp(file_of(c, t), file.p) == 0 ||
           fail(err, DS4_EFORMAT, "%s: %.100s is said to be in %.60s, and is in %.60s", INDEX_NAME,
                tensor, file.p, file_of(c, t));
}

static bool shards_of_folder(Checkpoint *c, const char *dir, ds4_err *err)
{
    static const char suffix[] = ".safetensors";
    DIR *d = opendir(dir);
    if (!d)
        return fail(err, DS4_EIO, "cannot open the directory %s", dir);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name), k = sizeof suffix - 1;
        if (n > k && strcmp(e->d_name + n - k, suffix) == 0)
            ok = add_shard(c, e->d_name, err);
    }
    closedir(d);
    if (ok && !c->n_shards)
        return fail(err, DS4_EIO, "%s has no *.safetensors file", dir);
    return ok;
}

static int by_shard_name(const void *a, const void *b)
{
    return strcmp(((const StShard *)a)->name, ((const StShard *)b)->name);
}

static bool open_shard(StShard *s, const char *dir, ds4_err *err)
{
    ds4_err why = { 0 };
    char *path = join(dir, s->name);
    if (!path)
        return fail(err, DS4_ENOMEM, "no memory for the path of %.100s", s->name);
    bool ok = map_open(&s->map, path, err);
    free(path);
    if (ok && !st_parse(&s->file, s->map.p, s->map.n, &why))
        ok = fail(err, why.code, "%.60s: %s", s->name, why.msg);
    return ok;
}

static int by_pointed_name(const void *a, const void *b)
{
    return str_order((*(const StTensor *const *)a)->name, (*(const StTensor *const *)b)->name);
}

static bool index_tensors(Checkpoint *c, ds4_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_shards; i++)
        n += c->shard[i].file.n;
    c->tensor = calloc(n + 1, sizeof *c->tensor);
    if (!c->tensor)
        return fail(err, DS4_ENOMEM, "no memory for %zu tensors", n);
    for (size_t i = 0; i < c->n_shards; i++)
        for (size_t k = 0; k < c->shard[i].file.n; k++)
            c->tensor[c->n_tensors++] = &c->shard[i].file.tensor[k];
    qsort(c->tensor, n, sizeof *c->tensor, by_pointed_name);
    for (size_t i = 1; i < n; i++)
        if (str_eq(c->tensor[i - 1]->name, c->tensor[i]->name))
            return fail(err, DS4_EFORMAT, "tensor %.*s is there twice",
                        STR_ARG(c->tensor[i]->name));
    return true;
}

static bool find_shards(Checkpoint *c, const char *dir, struct json_object **index, ds4_err *err)
{
    if (is_file(dir, INDEX_NAME))
        return (*index = read_index(dir, err)) != NULL && for_index(c, *index, add_named, err);
    return is_file(dir, "model.safetensors") ? add_shard(c, "model.safetensors", err)
                                             : shards_of_folder(c, dir, err);
}

bool checkpoint_open(Checkpoint *c, const char *dir, ds4_err *err)
{
    struct json_object *index = NULL;
    *c = (Checkpoint){ 0 };
    bool ok = find_shards(c, dir, &index, err);
    if (ok)
        qsort(c->shard, c->n_shards, sizeof *c->shard, by_shard_name);
    for (size_t i = 0; ok && i < c->n_shards; i++)
        ok = open_shard(&c->shard[i], dir, err);
    ok = ok && index_tensors(c, err) && (!index || for_index(c, index, check_named, err));
    json_free(index);
    if (!ok)
        checkpoint_close(c);
    return ok;
}

void checkpoint_close(Checkpoint *c)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        st_release(&c->shard[i].file);
        map_close(&c->shard[i].map);
        free(c->shard[i].name);
    }
    free(c->shard);
    free(c->tensor);
    *c = (Checkpoint){ 0 };
}

const StTensor *checkpoint_find(const Checkpoint *c, const char *name)
{
    StTensor key = { .name = str_of(name) };
    const StTensor *p = &key, **hit;
    hit = c->n_tensors ? bsearch(&p, c->tensor, c->n_tensors, sizeof *c->tensor, by_pointed_name)
                       : NULL;
    return hit ? *hit : NULL;
}
