/* keys.c - a file of keys, line by line. */
#include "keys.h"
#include "../base/file.h"
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MOST_BYTES ((size_t)1 << 20)

/* # within a key is one of its characters. */
static char *trim(char *line)
{
    line[strcspn(line, "\r")] = 0;
    for (char *at = line; (at = strchr(at, '#')); at++)
        if (at == line || at[-1] == ' ' || at[-1] == '\t') {
            *at = 0;
            break;
        }
    line += strspn(line, " \t");
    size_t n = strlen(line);
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        line[--n] = 0;
    return line;
}

static size_t count_lines(const Bytes *b)
{
    size_t n = 1;
    for (size_t i = 0; i < b->n; i++)
        n += b->p[i] == '\n';
    return n;
}

/* What lies between line ends, which become terminators. */
static void split(Keys *k)
{
    for (char *at = k->text.p, *end = at + k->text.n; at < end;) {
        char *next = memchr(at, '\n', (size_t)(end - at));
        if (next)
            *next = 0;
        char *key = trim(at);
        if (*key)
            k->key[k->n++] = key;
        at = next ? next + 1 : end;
    }
}

bool keys_read(Keys *k, const char *path, const char *const *given, size_t n, ds4_err *err)
{
    struct stat file;
    *k = (Keys){ 0 };
    if (path && !file_read(&k->text, path, MOST_BYTES, err))
        return false;
    k->shared = path && stat(path, &file) == 0 && (file.st_mode & (S_IRGRP | S_IROTH));
    bytes_byte(&k->text, 0);
    k->key = calloc(n + count_lines(&k->text) + 1, sizeof *k->key);
    if (!k->key || k->text.failed) {
        keys_release(k);
        return fail(err, DS4_ENOMEM, "no memory for API keys");
    }
    for (size_t i = 0; i < n; i++)
        k->key[k->n++] = given[i];
    split(k);
    if (!path || k->n > n)
        return true;
    keys_release(k);
    return fail(err, DS4_EFORMAT, "%s holds no key", path);
}

void keys_release(Keys *k)
{
    free(k->key);
    if (k->text.p)
        OPENSSL_cleanse(k->text.p, k->text.cap);
    bytes_release(&k->text);
    *k = (Keys){ 0 };
}
